from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.special import erf

from attnpool.data import Dataset, Person, Preprocessing, Sample, load
from attnpool.keypoints import MPII_FLIP, Joint
from attnpool.keypoints.heatmaps import heatmaps
from attnpool.training.losses import pose_loss


def person(**joints: tuple[float, float]) -> list[Joint]:
    """A person with joints `j0=(x, y)`, ... and no others."""
    return [joints.get(f"j{j}") for j in range(16)]


def straightforward(points: list[tuple[float, float]], height: int, width: int, h: int, w: int) -> np.ndarray:
    """Discs of radius 10 on a canvas 200 wide, pixel by pixel; averaged with every pixel cut in h x w equal parts."""
    tall = round(200 * height / width)
    canvas = np.zeros((tall, 200))
    for row in range(tall):
        for column in range(200):
            for x, y in points:
                if math.hypot(column + 0.5 - x * 200 / width, row + 0.5 - y * tall / height) <= 10:
                    canvas[row, column] = 1.0
    fine = np.repeat(np.repeat(canvas, h, axis=0), w, axis=1)  # (tall * h, 200 * w)
    return fine.reshape(h, tall, w, 200).mean(axis=(1, 3))


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_against_a_straightforward_drawing(data: st.DataObject) -> None:
    height, width = data.draw(st.sampled_from([(448, 448), (300, 448), (224, 160)]))
    h, w = data.draw(st.tuples(st.integers(1, 16), st.integers(1, 16)))
    # Thirds of a pixel: no canvas pixel lies on a disc's border exactly, where rounding would decide.
    place = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1)).map(lambda p: (p[0] + 1 / 3, p[1] + 0.217))
    points = data.draw(st.lists(place, min_size=1, max_size=2))
    maps, labelled = heatmaps([[person(j3=p) for p in points]], (height, width), (h, w))
    assert maps.shape == (1, 16, h, w)
    assert maps.dtype == torch.float32
    np.testing.assert_allclose(maps[0, 3].numpy(), straightforward(points, height, width, h, w), atol=1e-6)
    assert labelled[0].tolist() == [j == 3 for j in range(16)]
    assert maps[0, [j for j in range(16) if j != 3]].abs().max() == 0


def test_a_disc_inside_has_its_area_and_its_centre() -> None:
    maps, _ = heatmaps([[person(j0=(150.0, 300.0))]], (400, 400), (100, 100))
    cells = maps[0, 0].double()
    assert float(cells.sum()) / 100**2 == pytest.approx(math.pi * 0.05**2, rel=0.02)
    centres = (torch.arange(100) + 0.5) * 4
    assert float((cells.sum(0) * centres).sum() / cells.sum()) == pytest.approx(150, abs=0.5)
    assert float((cells.sum(1) * centres).sum() / cells.sum()) == pytest.approx(300, abs=0.5)


def test_people_share_channels_and_overlap_counts_once() -> None:
    one, two = person(j5=(100.0, 100.0)), person(j5=(104.0, 100.0))
    both, _ = heatmaps([[one, two]], (448, 448), (14, 14))
    alone, _ = heatmaps([[one], [two]], (448, 448), (14, 14))
    assert bool((both[0] >= alone.amax(0) - 1e-6).all())
    assert bool((both[0] <= alone.sum(0) + 1e-6).all())
    assert float(both[0].sum()) < float(alone.sum())


@settings(max_examples=20)
@given(st.data())
def test_a_gaussian_against_its_integral(data: st.DataObject) -> None:
    """Over each cell of the map, by the error function: what the drawing on the canvas approximates."""
    height, width = data.draw(st.sampled_from([(448, 448), (300, 448), (224, 160)]))
    h, w = data.draw(st.tuples(st.integers(1, 16), st.integers(1, 16)))
    x, y = data.draw(st.floats(0, width - 0.001)), data.draw(st.floats(0, height - 0.001))
    sigma = data.draw(st.sampled_from([0.025, 0.05]))
    maps, labelled = heatmaps([[person(j3=(x, y))]], (height, width), (h, w), kind="gaussian", sigma=sigma)
    assert labelled[0].tolist() == [j == 3 for j in range(16)]
    tall = round(200 * height / width)

    def along(place: float, spread: float, pixels: int, cells: int) -> np.ndarray:
        edges = np.linspace(0, pixels, cells + 1)
        area = np.diff(erf((edges - place) / (math.sqrt(2) * spread))) * spread * math.sqrt(math.pi / 2)
        return area * cells / pixels

    s = 200 * sigma
    exact = np.outer(along(y * tall / height, s, tall, h), along(x * 200 / width, s, 200, w))
    np.testing.assert_allclose(maps[0, 3].numpy(), exact, atol=3e-3)  # canvas pixels on a border are cut in parts


def test_gaussians_of_several_people_are_united() -> None:
    """Against the formula pixel by pixel, for two people who are close."""
    points = np.array([(100.3, 90.1), (118.7, 95.2)])
    people = [[person(j5=tuple(point)) for point in points]]
    maps, _ = heatmaps(people, (200, 200), (8, 8), kind="gaussian", sigma=0.04)
    rows, columns = np.mgrid[0:200, 0:200] + 0.5
    squares = np.stack([(columns - x) ** 2 + (rows - y) ** 2 for x, y in points])
    values = np.exp(-squares / (2 * 8.0**2)) * (squares <= 40.0**2)
    expected = values.max(axis=0).reshape(8, 25, 8, 25).mean(axis=(1, 3))
    np.testing.assert_allclose(maps[0, 5].numpy(), expected, atol=1e-7)


def test_both_targets_spread_alike() -> None:
    """The same variance along an axis, (r / 2)^2, with the defaults."""
    centres = (torch.arange(200) + 0.5).double()
    for kind in ("disc", "gaussian"):
        maps, _ = heatmaps([[person(j0=(100.0, 100.0))]], (200, 200), (200, 200), kind=kind)
        row = maps[0, 0].double().sum(0)
        assert float((row * (centres - 100) ** 2).sum() / row.sum()) == pytest.approx(25, rel=0.02)


@pytest.mark.parametrize("kind", ["disc", "gaussian"])
def test_a_flip_through_the_loader_mirrors_the_maps_and_swaps_sides(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (96, 96)).save(tmp_path / "a.png")
    joints = [(6.0 * j + 2.3, 90.2 - 5 * j) if j not in (4, 7) else None for j in range(16)]
    index = Dataset("x", tmp_path, ("a", "b"), (Sample("a.png", (0,), (Person(tuple(joints)),)),))
    maps = {}
    for flip in (0.0, 1.0):
        (batch,) = load(index, Preprocessing(image_size=96, flip=flip), [[0]], seed=0, epoch=0, train=True)
        maps[flip] = heatmaps(batch.people, (96, 96), (12, 12), kind=kind)
    swapped = list(MPII_FLIP)
    torch.testing.assert_close(maps[1.0][0], maps[0.0][0][:, swapped].flip(-1), atol=1e-6, rtol=0)
    assert maps[1.0][1].tolist() == maps[0.0][1][:, swapped].tolist()
    assert not maps[1.0][1][0, MPII_FLIP[4]]
    # what is not labelled teaches nothing, wherever the network sees it
    predicted = torch.rand(1, 16, 12, 12, generator=torch.Generator().manual_seed(1)).requires_grad_()
    pose_loss(predicted, *maps[1.0]).backward()
    assert predicted.grad is not None
    moved = predicted.grad[0].flatten(1).abs().amax(1) > 0
    assert moved.tolist() == maps[1.0][1][0].tolist()


@pytest.mark.parametrize("outside", [(-0.01, 5.0), (448.0, 5.0), (5.0, 448.0), (5.0, -3.0), (math.nan, 5.0)])
def test_a_joint_outside_draws_nothing_and_is_not_labelled(outside: tuple[float, float]) -> None:
    maps, labelled = heatmaps([[person(j2=outside)]], (448, 448), (14, 14))
    assert not labelled.any()
    assert float(maps.sum()) == 0
    _, labelled = heatmaps([[person(j2=outside), person(j2=(3.0, 3.0))]], (448, 448), (14, 14))
    assert labelled[0, 2]


def test_nobody_and_no_images() -> None:
    maps, labelled = heatmaps([[], []], (448, 448), (14, 14))
    assert maps.shape == (2, 16, 14, 14)
    assert not labelled.any()
    maps, labelled = heatmaps([], (448, 448), (7, 7))
    assert maps.shape == (0, 16, 7, 7)
    assert labelled.shape == (0, 16)


def test_maps_finer_than_the_canvas() -> None:
    maps, _ = heatmaps([[person(j0=(50.0, 50.0))]], (100, 100), (400, 400))
    assert float(maps.max()) == pytest.approx(1.0)
    assert float(maps[0, 0].mean()) == pytest.approx(math.pi * 0.05**2, rel=0.02)


@pytest.mark.parametrize(
    "call",
    [
        lambda: heatmaps([[[None] * 15]], (448, 448), (14, 14)),
        lambda: heatmaps([], (0, 448), (14, 14)),
        lambda: heatmaps([], (448, 448), (14, 0)),
        lambda: heatmaps([], (448, 448), (14, 14), radius=0.0),
        lambda: heatmaps([], (448, 448), (14, 14), kind="gaussian", sigma=0.0),
        lambda: heatmaps([], (448, 448), (14, 14), kind="gaussian", sigma=math.nan),
        lambda: heatmaps([], (448, 448), (14, 14), kind="square"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments(call: object) -> None:
    assert callable(call)
    with pytest.raises(ValueError):
        call()
