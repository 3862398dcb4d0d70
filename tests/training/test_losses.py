from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from attnpool.training.class_weights import class_weights
from attnpool.training.losses import LOSSES, classification_loss, pose_loss, resolve_loss

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


@pytest.mark.parametrize("loss", LOSSES)
def test_empty_batch_costs_nothing(loss: str) -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    value = classification_loss(logits, torch.zeros(0, 5), "multi", loss=loss)
    value.backward()
    assert value.item() == 0
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
        ({"loss": "hinge"}, "choose one of auto, cross_entropy, random_positive, bce"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"class_weights": torch.ones(4)}, "one weight per class"),
        ({"targets": torch.zeros(2)}, "multi-hot"),
        ({"task": "both"}, "choose one of single, multi"),
        ({"label_mask": torch.ones(2, 4, dtype=torch.bool)}, "the shape of the logits"),
        ({"positive_weight": 10.0}, "which cross_entropy does not have: use loss bce, focal, asymmetric"),
        ({"positive_weight": 0.0, "loss": "bce"}, "give a positive number"),
    ],
)
def test_mistakes_are_named(change: dict, message: str) -> None:
    given_ = {"logits": torch.zeros(2, 3), "targets": torch.zeros(2, 3), "task": "single"} | change
    with pytest.raises(ValueError, match=message):
        classification_loss(given_.pop("logits"), given_.pop("targets"), given_.pop("task"), **given_)


def by_hand(loss: str, s: np.ndarray, y: np.ndarray, weight: float) -> np.ndarray:
    """The published formulas with p in float64, entry by entry."""
    p = 1 / (1 + np.exp(-s))
    if loss == "bce":
        positive, negative = -np.log(p), -np.log(1 - p)
    elif loss == "focal":  # Lin et al., Eq. 5
        p_t = np.where(y == 1, p, 1 - p)
        alpha_t = np.where(y == 1, 0.25, 0.75)
        positive = negative = -alpha_t * (1 - p_t) ** 2 * np.log(p_t)
    else:  # Ridnik et al., Eq. 4, 5 and 7
        shifted = np.maximum(p - 0.05, 0)
        positive, negative = -((1 - p) ** 1) * np.log(p), -(shifted**4) * np.log(1 - shifted)
    return np.where(y == 1, weight * positive, negative)


@given(SEEDS, st.sampled_from(["bce", "focal", "asymmetric"]), st.sampled_from([1.0, 10.0]))
def test_sigmoid_losses_are_the_published_formulas_over_the_known_entries(seed: int, loss: str, weight: float) -> None:
    logits, _ = scores(seed)
    random = np.random.default_rng(seed)
    targets, known = random.random((6, 5)) > 0.6, random.random((6, 5)) > 0.3
    ours = classification_loss(
        logits, torch.tensor(targets), "multi", loss=loss, label_mask=torch.tensor(known), positive_weight=weight
    )
    theirs = by_hand(loss, logits.numpy(), targets.astype(int), weight)[known].mean()
    assert ours.item() == pytest.approx(theirs, rel=1e-9)


@given(SEEDS)
def test_focal_loss_is_torchvisions(seed: int) -> None:
    logits, _ = scores(seed)
    targets = (scores(seed + 1)[0] > 0).double()
    ours = classification_loss(logits, targets, "multi", loss="focal")
    torch.testing.assert_close(ours, sigmoid_focal_loss(logits, targets, reduction="mean"))


def test_asymmetric_loss_forgets_easy_negatives() -> None:
    logits = torch.tensor([[-3.0, 0.0, 3.0]], requires_grad=True)
    classification_loss(logits, torch.zeros(1, 3), "multi", loss="asymmetric").backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] == 0
    assert 0 < logits.grad[0, 1] < logits.grad[0, 2]


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_and_extreme_scores(loss: str) -> None:
    logits, _ = scores(0, b=4)
    targets = (scores(1, b=4)[0] > 0).double()
    known = scores(2, b=4)[0] > -2

    def value(x: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(7)
        return classification_loss(x, targets, "multi", loss=loss, label_mask=known, generator=generator)

    assert torch.autograd.gradcheck(value, logits.requires_grad_())
    for dtype in (torch.float32, torch.bfloat16):
        extreme = (torch.tensor([-1e4, 1e4, 0.0, 1e4, -1e4]).repeat(4, 1)).to(dtype).requires_grad_()
        cost = value(extreme)
        cost.backward()
        assert extreme.grad is not None
        assert torch.isfinite(cost)
        assert torch.isfinite(extreme.grad).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_ambiguous_entries_add_nothing(loss: str) -> None:
    logits = scores(3, b=3)[0].requires_grad_()
    targets = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 1]])
    known = torch.tensor([[1, 1, 0, 1, 1], [1, 1, 1, 1, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    options = {"loss": loss, "label_mask": known, "label_smoothing": 0.1}
    cost = classification_loss(logits, targets, "multi", **options)
    cost.backward()
    assert logits.grad is not None
    assert (logits.grad[~known] == 0).all()
    assert (logits.grad[known] != 0).any()
    other = torch.where(known, logits.detach(), -5.0)
    assert classification_loss(other, targets, "multi", **options).item() == cost.item()
    nothing = torch.zeros_like(known)
    assert classification_loss(logits, targets, "multi", loss=loss, label_mask=nothing).item() == 0


def test_cross_entropy_without_the_ambiguous_class_is_that_over_the_others() -> None:
    logits, _ = scores(4, b=1)
    known = torch.tensor([[True, True, False, True, True]])
    ours = classification_loss(logits, torch.tensor([[0, 1, 0, 0, 0]]), "multi", loss="cross_entropy", label_mask=known)
    torch.testing.assert_close(ours, F.cross_entropy(logits[known][None], torch.tensor([1])))


def test_random_positive_draws_every_positive_equally_and_nothing_else() -> None:
    logits, _ = scores(5, b=1)
    targets = torch.tensor([[0, 1, 0, 1, 1.0]])
    each = {k: F.cross_entropy(logits, torch.tensor([k])).item() for k in (1, 3, 4)}
    generator = torch.Generator().manual_seed(0)
    n = 3000
    drawn = [
        classification_loss(logits, targets, "multi", loss="random_positive", generator=generator).item()
        for _ in range(n)
    ]
    counts = [sum(value == pytest.approx(cost, rel=1e-9) for value in drawn) for cost in each.values()]
    assert sum(counts) == n
    assert min(counts) > n / 3 - 4 * (n * 2 / 9) ** 0.5, "more than four standard deviations from even"
    empty = classification_loss(logits, torch.zeros(1, 5), "multi", loss="random_positive")
    assert empty.item() == 0


def test_random_positive_follows_torchs_seed() -> None:
    logits, _ = scores(6, b=50)
    targets = torch.ones(50, 5)
    with torch.random.fork_rng():
        values = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            values.append(classification_loss(logits, targets, "multi", loss="random_positive").item())
    assert values[0] == values[1] != values[2]
    single = classification_loss(logits, F.one_hot(scores(6, b=50)[1], 5), "single", loss="random_positive")
    torch.testing.assert_close(single, F.cross_entropy(logits, scores(6, b=50)[1]))


def test_auto_is_resolved() -> None:
    assert resolve_loss("auto", "single") == "cross_entropy"
    assert resolve_loss("auto", "multi", 10) == "bce"


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
    with pytest.raises(ValueError, match="count an image once"):
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
