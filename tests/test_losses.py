from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from attnpool.losses import class_weights, classification_loss, pose_loss

SEEDS = st.integers(0, 10_000)


def scores(seed: int, b: int = 6, k: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return (
        3 * torch.randn(b, k, generator=random, dtype=torch.float64),
        torch.randint(k, (b,), generator=random),
    )


@given(SEEDS, st.sampled_from([0.0, 0.1, 0.6]))
def test_single_is_torchs_cross_entropy(seed: int, smoothing: float) -> None:
    logits, labels = scores(seed)
    ours = classification_loss(logits, F.one_hot(labels, 5), "single", label_smoothing=smoothing)
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, label_smoothing=smoothing))


@given(SEEDS)
def test_weights_weigh_the_image_by_its_class(seed: int) -> None:
    logits, labels = scores(seed)
    weights = torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0], dtype=torch.float64)
    ours = classification_loss(logits, F.one_hot(labels, 5), "single", class_weights=weights)
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, weight=weights))


@given(SEEDS)
def test_multi_is_torchs_bce(seed: int) -> None:
    logits, _ = scores(seed)
    targets = (scores(seed + 1)[0] > 0).double()
    weights = torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0], dtype=torch.float64)
    ours = classification_loss(logits, targets, "multi", class_weights=weights)
    torch.testing.assert_close(ours, F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights))
    smooth = classification_loss(logits, targets, "multi", label_smoothing=0.2)
    torch.testing.assert_close(smooth, F.binary_cross_entropy_with_logits(logits, targets * 0.8 + 0.1))


def test_cross_entropy_of_several_positives_is_the_mean_over_them() -> None:
    logits, _ = scores(0, b=1)
    targets = torch.tensor([[0.0, 1, 0, 1, 0]])
    one_by_one = [F.cross_entropy(logits, torch.tensor([k])) for k in (1, 3)]
    ours = classification_loss(logits, targets, "multi", loss="cross_entropy")
    torch.testing.assert_close(ours, torch.stack(one_by_one).mean())
    empty = torch.cat([targets, torch.zeros(1, 5)])
    both = classification_loss(logits.expand(2, 5), empty, "multi", loss="cross_entropy")
    torch.testing.assert_close(both, ours, msg="an image without positives weighs nothing")


@pytest.mark.parametrize("task", ["single", "multi"])
def test_empty_batch_costs_nothing(task: str) -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = classification_loss(logits, torch.zeros(0, 5), task)
    loss.backward()
    assert loss.item() == 0
    maps = torch.zeros(0, 16, 3, 3, requires_grad=True)
    assert pose_loss(maps, maps.detach(), torch.zeros(0, 16, dtype=torch.bool)).item() == 0


def test_a_batch_of_classes_that_weigh_nothing_costs_nothing() -> None:
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = classification_loss(logits, torch.tensor([[1, 0, 0], [1, 0, 0]]), "single", class_weights=torch.zeros(3))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("task", ["single", "multi"])
def test_half_precision_scores_are_summed_in_float32(task: str) -> None:
    logits = torch.tensor([[30.0, 0, -30]], dtype=torch.bfloat16)
    loss = classification_loss(logits, torch.tensor([[0, 1, 0]]), task)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "hinge"}, "choose one of auto, cross_entropy, bce"),
        ({"label_smoothing": 1.0}, "label smoothing is 1.0"),
        ({"class_weights": torch.ones(4)}, "one weight for each class"),
        ({"targets": torch.zeros(2)}, "multi-hot"),
        ({"task": "both"}, "choose one of single, multi"),
    ],
)
def test_mistakes_are_named(change: dict, message: str) -> None:
    given_ = {"logits": torch.zeros(2, 3), "targets": torch.zeros(2, 3), "task": "single"} | change
    with pytest.raises(ValueError, match=message):
        classification_loss(given_.pop("logits"), given_.pop("targets"), given_.pop("task"), **given_)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=6))
def test_balanced_is_scikit_learns(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    theirs = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    ours = class_weights(torch.tensor(counts), "balanced", "single", images=len(labels))
    assert ours is not None
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    root = class_weights(torch.tensor(counts), "sqrt", "single", images=len(labels))
    np.testing.assert_allclose(root, np.sqrt(theirs), rtol=1e-6)


def test_weights_of_classes_without_examples() -> None:
    counts = torch.tensor([6, 0, 2])
    assert class_weights(counts, "none", "single", images=8) is None
    single = class_weights(counts, "balanced", "single", images=8)
    torch.testing.assert_close(single, torch.tensor([8 / 12, 0, 2.0]))
    multi = class_weights(counts, "balanced", "multi", images=8)
    torch.testing.assert_close(multi, torch.tensor([2 / 6, 1.0, 3.0]))


def test_wrong_weights_are_named() -> None:
    with pytest.raises(ValueError, match="none, balanced, sqrt"):
        class_weights(torch.ones(2), "inverse", "single", images=2)
    with pytest.raises(ValueError, match="count each image once"):
        class_weights(torch.tensor([3, 1]), "balanced", "multi", images=2)


@given(SEEDS)
def test_pose_loss_is_the_released_formula(seed: int) -> None:
    """With the authors' 16 images a GPU: sum over joints of 0.5 * sum of squares / (B h w), divided by B once more."""
    random = torch.Generator().manual_seed(seed)
    predicted, target = torch.rand(2, 16, 16, 4, 5, generator=random, dtype=torch.float64)
    labelled = torch.rand(16, 16, generator=random) > 0.3
    masked = (predicted - target)[labelled]
    released = 0.5 * masked.square().sum() / (16 * 4 * 5) / 16
    torch.testing.assert_close(pose_loss(predicted, target, labelled), released)
    twice = pose_loss(torch.cat([predicted] * 2), torch.cat([target] * 2), torch.cat([labelled] * 2))
    torch.testing.assert_close(twice, released, msg="it must not depend on the batch size")


def test_pose_loss_ignores_joints_without_a_label() -> None:
    predicted = torch.zeros(1, 16, 2, 2, requires_grad=True)
    target = torch.ones(1, 16, 2, 2)
    labelled = torch.zeros(1, 16, dtype=torch.bool)
    labelled[0, 3] = True
    pose_loss(predicted, target, labelled).backward()
    assert predicted.grad is not None
    assert (predicted.grad.abs().sum((0, 2, 3)) > 0).nonzero().flatten().tolist() == [3]
    with pytest.raises(ValueError, match="size of the predicted maps"):
        pose_loss(predicted, torch.ones(1, 16, 3, 3), labelled)
