"""A clip's figure: what it says adds up, and every map stands below its frame."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from attnpool.explain.clip_figure import Row, figure_rows, storyboard


def number(text: str) -> float:
    return float(text.replace("−", "-"))


@pytest.mark.parametrize(("rank", "per_class"), [(1, False), (3, False), (2, True)])
def test_rows(rank: int, per_class: bool) -> None:
    rng = np.random.default_rng(rank)
    down = rng.normal(size=(4, rank, 3, 5, 6))
    up = rng.normal(size=(4, rank, 3 if per_class else 1, 5, 6))
    combined = (down * up).sum(1) / (4 * 30)
    scores = combined.sum((0, 2, 3))
    rows = figure_rows(
        ("a", "b", "c"),
        scores,
        [0, 1, 2, 3],
        [3, 9, 15, 21],
        24,
        top_down=down,
        bottom_up=up,
        combined=combined,
        chosen=[2, 0],
        probabilities=[0.2, 0.3, 0.5],
    )
    assert [(row.heading, row.label) for row in rows] == [
        ("frames", ""),
        ("bottom-up", "c" if per_class else ""),
        ("combined", "c"),
        ("combined", "a"),
        ("difference", "c rather than a"),
    ]
    assert np.array_equal(rows[4].maps, combined[:, 2] - combined[:, 0])
    apart = [number(caption.removeprefix("adds ")) for caption in rows[4].captions]
    assert sum(apart) == pytest.approx(scores[2] - scores[0], abs=0.01)
    assert rows[0].captions == ("frame 4", "frame 10", "frame 16", "frame 22")
    assert rows[0].note == "the clip has 24"
    for row, k in ((rows[2], 2), (rows[3], 0)):
        assert row.maps is not None
        assert np.array_equal(row.maps, combined[:, k])
        shares = [number(caption.removeprefix("adds ")) for caption in row.captions]
        assert sum(shares) == pytest.approx(scores[k], abs=0.01)
        assert row.scale == rows[2].scale == np.abs(combined[:, [0, 2]]).max()
    shares = [(down[:, p, 2] * up[:, p, 2 if per_class else 0]).sum() for p in range(rank)]
    term = int(np.abs(shares).argmax())
    assert np.array_equal(rows[1].maps, up[:, term, 2 if per_class else 0])
    assert (f"term {term + 1} of {rank}" in rows[1].note) == (rank > 1)


def test_one_class_and_fewer_frames() -> None:
    down, up = np.ones((6, 1, 2, 2, 2)), np.ones((6, 1, 1, 2, 2))
    rows = figure_rows(
        ("a", "b"), [1.0, 1.0], [1, 4], range(6), 6,
        top_down=down, bottom_up=up, combined=down[:, 0] / 24, chosen=[0, 0], probabilities=[0.5, 0.5], remark="so",
    )  # fmt: skip
    assert len(rows) == 3
    assert rows[0].note == "2 of the 6 that were scored; the clip has 6; so"


def test_where_things_are() -> None:
    frames = [Image.new("RGB", (64, 48), colour) for colour in ((0, 0, 255), (0, 255, 0))]
    maps = np.zeros((2, 2, 2))
    maps[1] = 1
    sheet = storyboard(frames, [Row("frames"), Row("combined", maps, scale=1.0, label="a")], "", size=100)
    pixels = np.asarray(sheet).astype(int)
    blue = np.argwhere((pixels == (0, 0, 255)).all(-1))
    green = np.argwhere((pixels == (0, 255, 0)).all(-1))
    assert len(blue) == len(green) == 100 * 75
    assert blue[:, 0].min() == green[:, 0].min()
    assert blue[:, 1].max() < green[:, 1].min()
    # The second frame's map is high everywhere, which is red; the first one's is zero, so the greyed frame shows.
    below = pixels[blue[:, 0].max() + 20 :]
    left, right = (below[:, part[:, 1].min() : part[:, 1].max()].reshape(-1, 3) for part in (blue, green))
    assert (right[:, 0] - right[:, 1] > 30).sum() > 5000
    assert (left[:, 0] - left[:, 1] > 30).sum() == 0
