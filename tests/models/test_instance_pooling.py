from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from command_line import attnpool
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from attnpool.backbones.backbone import Backbone
from attnpool.data import Preprocessing, read
from attnpool.evaluation.evaluate import evaluate
from attnpool.evaluation.inference import score_source
from attnpool.features.batches import CachedFeatures, Images
from attnpool.features.extraction import extract
from attnpool.keypoints import Box
from attnpool.models.instance_pooling import pool_instances, regions
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import Run
from attnpool.pooling import AttentionalPooling, AveragePooling, PoseRegularizedPooling
from attnpool.training.config import TrainOptions
from attnpool.training.losses import Step
from attnpool.training.train import train

SIDE = 32  # of the network's input; the maps are 8 x 8
SIZE = SIDE, SIDE


def head_and_maps(seed: int, batch: int = 3) -> tuple[AttentionalPooling, Tensor]:
    random = torch.Generator().manual_seed(seed)
    head = AttentionalPooling(6, 4, rank=2).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
    return head, torch.randn(batch, 6, 8, 8, generator=random, dtype=torch.float64)


@st.composite
def boxes(draw: st.DrawFn) -> list[list[Box]]:
    """None to three boxes in each of three images."""
    sides = st.lists(st.integers(0, SIDE), min_size=2, max_size=2, unique=True).map(sorted)
    box = st.tuples(sides, sides).map(lambda xy: (float(xy[0][0]), float(xy[1][0]), float(xy[0][1]), float(xy[1][1])))
    return draw(st.lists(st.lists(box, max_size=3), min_size=3, max_size=3))


def test_a_case_by_hand() -> None:
    """One channel whose score is its mean: left half 1, right half 3, so the person on the right wins class 0."""
    head = AveragePooling(1, 2)
    with torch.no_grad():
        for name, value in {"a": [[1.0], [-1.0]], "alpha": [0.0, 0.5]}.items():
            getattr(head, name).copy_(torch.tensor(value))
    x = torch.ones(1, 1, 8, 8)
    x[..., 4:] = 3
    left, right = (2.0, 4.0, 10.0, 28.0), (22.0, 4.0, 30.0, 28.0)
    out = pool_instances(head, x, [[left, right]], SIZE, context=1.0)
    # image: 2 and 0.5 - 2; left: 1 and 0.5 - 1; right: 3 and 0.5 - 3
    torch.testing.assert_close(out.logits, torch.tensor([[3.0, -0.5]]))
    assert out.winners.tolist() == [[2, 1]]


def test_regions_are_where_the_boxes_are() -> None:
    """On a map of its own coordinates, the positions of a region are the middles of a 7 x 7 grid over the box."""
    centres = (torch.arange(8, dtype=torch.float64) + 0.5) * SIDE / 8
    x = torch.stack([centres.expand(8, 8), centres[:, None].expand(8, 8)])[None]
    box = (6.0, 8.0, 18.0, 24.0)
    for context, (x1, y1, x2, y2) in {1.0: box, 1.5: (3.0, 4.0, 21.0, 28.0)}.items():
        (found,) = regions(x, [[box]], SIZE, context)
        steps = (torch.arange(7, dtype=torch.float64) + 0.5) / 7
        torch.testing.assert_close(found[0], (x1 + steps * (x2 - x1)).expand(7, 7))
        torch.testing.assert_close(found[1], (y1 + steps * (y2 - y1))[:, None].expand(7, 7))
    wide = regions(x[..., :4, :], [[box]], (16, 32), 1.0)[0]  # the lower half of the input is not there
    torch.testing.assert_close(wide[0], regions(x, [[box]], SIZE, 1.0)[0][0])
    torch.testing.assert_close(wide[1].amax(), torch.tensor(14.0, dtype=torch.float64))  # the last row of centres
    enlarged = regions(x, [[(0.0, 0.0, 20.0, 20.0)]], SIZE, 4.0)
    torch.testing.assert_close(enlarged, regions(x, [[(0.0, 0.0, 32.0, 32.0)]], SIZE, 1.0), msg="cut at the border")


@given(st.integers(0, 1000), boxes())
def test_the_best_instance_of_every_image_counts(seed: int, found: list[list[Box]]) -> None:
    head, x = head_and_maps(seed)
    out = pool_instances(head, x, found, SIZE)
    for b, own in enumerate(found):
        single = [head(x[b : b + 1]).logits] + [head(regions(x[b : b + 1], [[box]], SIZE)).logits for box in own]
        each = torch.cat(single)
        torch.testing.assert_close(out.logits[b], each.max(0).values)
        # their scores and not their numbers: of two equal boxes either may be ahead by rounding
        torch.testing.assert_close(each.gather(0, out.winners[b][None])[0], each.max(0).values)


@given(st.integers(0, 1000), boxes(), st.randoms(use_true_random=False))
def test_the_order_of_boxes_changes_nothing(seed: int, found: list[list[Box]], random) -> None:
    head, x = head_and_maps(seed)
    shuffled = [random.sample(own, len(own)) for own in found]
    torch.testing.assert_close(
        pool_instances(head, x, shuffled, SIZE).logits, pool_instances(head, x, found, SIZE).logits, rtol=0, atol=1e-10
    )


def test_without_boxes_it_is_the_plain_head() -> None:
    head, x = head_and_maps(0)
    out = pool_instances(head, x, [[], [], []], SIZE)
    torch.testing.assert_close(out.logits, head(x).logits, rtol=0, atol=0)
    assert out.winners.tolist() == [[0] * 4] * 3
    assert pool_instances(head, x[:0], [], SIZE).logits.shape == (0, 4)
    posed = PoseRegularizedPooling(6, 4).double()
    pose = pool_instances(posed, x, [[(0.0, 0.0, 9.0, 9.0)], [], []], SIZE).pose
    assert pose is not None
    torch.testing.assert_close(pose, posed(x).pose)


def test_gradients_reach_the_head_and_the_features_of_the_winner() -> None:
    head, x = head_and_maps(1, batch=2)
    found: list[list[Box]] = [[(1.0, 1.0, 9.0, 9.0), (20.0, 18.0, 30.0, 31.0)], []]
    assert torch.autograd.gradcheck(lambda y: pool_instances(head, y, found, SIZE).logits, x.requires_grad_())
    out = pool_instances(head, x, found, SIZE, context=1.0)
    logits, winners = out.logits[0], out.winners[0].tolist()
    assert len(set(winners)) > 1
    for k, winner in enumerate(winners):
        (grad,) = torch.autograd.grad(logits[k], x, retain_graph=True)
        assert (grad[1] == 0).all()
        touched = grad[0].abs().sum(0) > 0
        if winner == 0:
            assert touched.all()
        else:
            rows, columns = touched.nonzero(as_tuple=True)
            x1, y1, x2, y2 = (value / 4 for value in found[0][winner - 1])
            assert x1 - 1 <= columns.min() <= columns.max() <= x2 + 1
            assert y1 - 1 <= rows.min() <= rows.max() <= y2 + 1


def test_mistakes_are_named() -> None:
    head, x = head_and_maps(0)
    with pytest.raises(ValueError, match="not in clips"):
        pool_instances(head, x[:, None], [[]] * 3, SIZE)
    with pytest.raises(ValueError, match="one list per image"):
        pool_instances(head, x, [[]], SIZE)
    with pytest.raises(ValueError, match="context is 0"):
        regions(x, [[(0.0, 0.0, 1.0, 1.0)], [], []], SIZE, 0)


def test_who_acts_is_learned_from_the_label_of_the_image() -> None:
    """Images of three persons, of whom one does the action: with their boxes a few steps find it among the others.

    Every person wears noise; the actor's box holds the class's own direction, and so do the backgrounds of the other
    class's images, so that the mean over the image is misleading.
    """
    random = torch.Generator().manual_seed(0)
    places: list[Box] = [(0.0, 8.0, 8.0, 24.0), (12.0, 8.0, 20.0, 24.0), (24.0, 8.0, 32.0, 24.0)]

    def images(n: int) -> tuple[Tensor, Tensor, Tensor]:
        labels, actors = torch.randint(2, (n,), generator=random), torch.randint(3, (n,), generator=random)
        x = 0.1 * torch.randn(n, 6, 8, 8, generator=random)
        for b, (label, actor) in enumerate(zip(labels.tolist(), actors.tolist(), strict=True)):
            x[b, 1 - label, [0, 1, 6, 7]] += 1  # above and below the persons: the other class's direction
            x1, y1, x2, y2 = (int(value) // 4 for value in places[actor])
            x[b, label, y1:y2, x1:x2] += 2
        return x, labels, actors

    head = AveragePooling(6, 2)
    head.reset_parameters(torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.05)
    x, labels, _ = images(60)
    losses = []
    for _ in range(60):
        out = pool_instances(head, x, [places] * len(x), SIZE, context=1.0)
        loss = torch.nn.functional.cross_entropy(out.logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(later < earlier for earlier, later in pairwise(losses[::10]))
    x, labels, actors = images(60)
    out = pool_instances(head, x, [places] * len(x), SIZE, context=1.0)
    assert (out.logits.argmax(1) == labels).float().mean() > 0.95
    assert (out.winners[torch.arange(60), labels] == actors + 1).float().mean() > 0.95


# in a recognizer


VIEW = {"image_size": 96, "short_side": None, "max_width": None}


@pytest.fixture(scope="module")
def frozen() -> Backbone:
    return Backbone("lite0", frozen=True)


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("instances") / "run"
    options = ["--image-size", 96, "--epochs", 3, "--instances", "boxes", "--context", 1.25]
    attnpool("train", f"folder:{world}", "--out", out, *options).text()
    return out


def test_a_run_remembers_its_instances(trained: Path, world: Path, frozen: Backbone) -> None:
    model = Run.load(trained).model
    assert (model.instances, model.context) == ("boxes", 1.25)
    plain = Recognizer(frozen, classes=["a", "b"])
    assert not {"instances", "context"} & plain.describe().keys(), "older runs have neither"
    value = attnpool("evaluate", trained, f"folder:{world}", "--json").value()
    assert value["mAP"] == Run.load(trained).about["results"]["history"][-1]["mAP"]
    assert value["pointing"] is None
    predicted = attnpool("predict", trained, min((world / "val").rglob("*.jpg")), "--json").value()
    assert len(predicted[0]["predictions"]) == 5


def test_kept_features_and_images_give_the_same_scores(trained: Path, world: Path) -> None:
    model = Run.load(trained).model
    _, val = read(f"folder:{world}")
    kept = score_source(model, CachedFeatures(extract(model, val, progress=False)))
    fresh = score_source(model, Images(val, Preprocessing(**model.preprocessing)))
    torch.testing.assert_close(torch.tensor(kept.logits), torch.tensor(fresh.logits), rtol=0, atol=0.02)
    plain = score_source(model, CachedFeatures(extract(model, strip_people(val), progress=False)))
    assert (kept.logits >= plain.logits - 1e-4).all(), "the whole image is one of the instances"
    assert (kept.logits > plain.logits + 1e-3).any()


def strip_people(dataset):
    return replace(dataset, samples=tuple(replace(sample, people=(), keypoints="") for sample in dataset))


def test_boxes_are_those_of_the_persons_in_the_view(trained: Path, world: Path) -> None:
    """The scores of one image, from its boxes in the annotations themselves."""
    model = Run.load(trained).model
    _, val = read(f"folder:{world}")
    features = extract(model, val, progress=False)
    (batch,) = CachedFeatures(features).batches([[0, 1]], seed=0, epoch=0, train=False)
    persons = [[person.box for person in sample.people] for sample in val.samples[:2]]
    for own, expected in zip(batch.boxes, persons, strict=True):  # the images have the view's size: 96 px
        torch.testing.assert_close(torch.tensor(own), torch.tensor(expected, dtype=torch.float32))
    with torch.no_grad():
        out = model.pool_instances(batch.inputs, batch.boxes)
        pooled = model.pool(batch.inputs, boxes=batch.boxes, maps=True)
    torch.testing.assert_close(out.logits, pooled.logits)
    assert pooled.combined is None
    assert out.winners.max() <= max(map(len, persons))


@pytest.mark.parametrize("pooling", ["average", "pose"])
@pytest.mark.parametrize("cached", [True, False])
def test_steps_lower_the_loss_with_and_without_the_weighted_loss(
    pooling: str, cached: bool, world: Path, frozen: Backbone
) -> None:
    train_part, _ = read(f"folder:{world}")
    for options in (TrainOptions(), TrainOptions(loss="bce", positive_weight=10)):
        model = Recognizer(frozen, classes=train_part.classes, pooling=pooling, instances="boxes", preprocessing=VIEW)
        source = (
            CachedFeatures(extract(model, train_part, progress=False))
            if cached
            else Images(train_part, Preprocessing(**VIEW))
        )
        (batch,) = source.batches([list(range(8))], seed=0, epoch=0, train=False)
        step = Step(model, options, None)
        optimizer = torch.optim.AdamW(model.head.parameters(), lr=3e-4)
        losses = []
        for _ in range(4):
            loss = step(batch, cached, torch.device("cpu"))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert all(later < earlier for earlier, later in pairwise(losses))


def test_what_cannot_be_trained(world: Path, frozen: Backbone, tmp_path: Path) -> None:
    parts = read(f"folder:{world}")
    model = Recognizer(frozen, classes=parts[0].classes, instances="boxes", preprocessing=VIEW)
    nobody = [strip_people(part) for part in parts]
    clips = [replace(part, media="clips") for part in parts]
    for data, message in ((nobody, "no boxes or keypoints"), (clips, "known in images alone")):
        with pytest.raises(ValueError, match=message):
            train(model, *data, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    for wrong in ({"instances": "people"}, {"instances": "boxes", "context": 0}):
        with pytest.raises(ValueError, match="use none or boxes, and a positive number"):
            Recognizer(frozen, classes=["a", "b"], **wrong)


def test_several_views_are_refused(trained: Path, world: Path) -> None:
    with pytest.raises(ValueError, match="not in clips or several crops"):
        evaluate(trained, f"folder:{world}", flip=True)
