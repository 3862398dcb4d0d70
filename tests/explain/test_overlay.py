from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image

from attnpool.explain.image_figure import figure_columns
from attnpool.explain.lettering import font, number, wrap
from attnpool.explain.overlay import PAPER, Column, colour_range, grid, overlay, panel
from attnpool.keypoints.joints import Box


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(load_sample_image("china.jpg"))


def spot(row: int, column: int, height: float = 1.0) -> np.ndarray:
    map_ = np.zeros((8, 8))
    map_[row, column] = height
    return map_


def test_red_speaks_for_and_blue_against() -> None:
    grey = Image.new("RGB", (160, 160), (128, 128, 128))
    drawn = np.asarray(overlay(grey, spot(1, 1) - spot(6, 6), signed=True, mark=False, size=160)).astype(int)
    assert drawn.shape == (160, 160, 3)
    red, blue, neutral = drawn[30, 30], drawn[130, 130], drawn[30, 130]
    assert red[0] > red[2] + 60
    assert blue[2] > blue[0] + 60
    assert np.ptp(neutral) == 0, "where the map is 0 the image shows through, greyed"


def test_a_given_scale_makes_maps_comparable() -> None:
    grey = Image.new("RGB", (80, 80), (128, 128, 128))
    faint = np.asarray(overlay(grey, spot(4, 4, 0.1), signed=True, scale=1.0, mark=False, size=80)).astype(int)
    strong = np.asarray(overlay(grey, spot(4, 4, 1.0), signed=True, scale=1.0, mark=False, size=80)).astype(int)
    assert np.ptp(faint[45, 45]) < np.ptp(strong[45, 45]) / 2
    assert colour_range(np.full((2, 2), 3.0), signed=False) == (0, 3)
    assert colour_range(np.zeros((2, 2)), signed=True) == (0, 1)
    assert colour_range(np.array([[-2.0, 1]]), signed=True) == (-2, 2)
    assert colour_range(np.array([[-2.0, 1]]), signed=False) == (-2, 1)


def test_the_part_of_the_image_that_the_map_does_not_cover_is_dimmed(photo: Image.Image) -> None:
    w, h = photo.size
    left = (w - h) / 2
    drawn = np.asarray(overlay(photo, np.full((7, 7), 5.0), signed=False, box=(left, 0, left + h, h), size=320))
    outside = drawn[:, : int(left * 320 / w) - 1].astype(int)
    assert np.ptp(outside, axis=-1).max() == 0
    assert outside.min() > 150
    inside = drawn[:, int(left * 320 / w) + 2 : -int(left * 320 / w) - 2].astype(int)
    assert np.median(np.ptp(inside, axis=-1)) > 20


def test_the_ring_lies_on_the_peak() -> None:
    black = Image.new("RGB", (200, 200))
    map_ = spot(2, 5)
    plain = np.asarray(overlay(black, map_, signed=True, mark=False, size=200)).astype(int)
    marked = np.asarray(overlay(black, map_, signed=True, size=200)).astype(int)
    y, x = np.nonzero(np.abs(marked - plain).sum(-1))
    assert (x.mean(), y.mean()) == pytest.approx((5.5 * 25, 2.5 * 25), abs=1)


@pytest.mark.parametrize("box", [None, (80, 40, 240, 160)], ids=["all of the image", "a part"])
@pytest.mark.parametrize("axis", [0, 1], ids=["down", "to the right"])
def test_where_a_map_changes_its_sign_lies_between_the_cells(axis: int, box: Box | None) -> None:
    """Cells -1.5, -0.5, 0.5, 1.5, ... on a line: it passes 0 half-way between two centres, on the border of the cells.

    The outer cells are left out, beyond which there is nothing to draw the line through.
    """
    grey, shape = Image.new("RGB", (320, 240), (128, 128, 128)), (6, 8)
    x1, y1, x2, y2 = box or (0, 0, 320, 240)
    start, cell = (y1, (y2 - y1) / shape[0]) if axis == 0 else (x1, (x2 - x1) / shape[1])
    for border in range(2, shape[axis] - 1):
        map_ = np.indices(shape)[axis] + 0.5 - border
        drawn = np.asarray(overlay(grey, map_, signed=True, scale=0.25, mark=False, size=320, box=box)).astype(int)
        line = drawn[:, (x1 + x2) // 2] if axis == 0 else drawn[(y1 + y2) // 2]
        blue, red = np.flatnonzero(line[:, 2] > line[:, 0]), np.flatnonzero(line[:, 0] > line[:, 2])
        # pixel i reaches from i to i + 1
        assert (blue.min(), red.max() + 1) == (start, start + cell * shape[axis])
        assert (blue.max() + 1 + red.min()) / 2 == pytest.approx(start + border * cell, abs=0.5)
        assert red.min() - blue.max() <= 3


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (2000, 3), (31, 47)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_any_image(shape: tuple[int, int], mode: str) -> None:
    map_ = torch.linspace(-1, 1, 12, dtype=torch.bfloat16, requires_grad=True).view(3, 4)
    drawn = overlay(Image.new(mode, shape), map_, signed=True, size=100)
    assert max(drawn.size) == 100
    assert drawn.mode == "RGB"


def test_mistakes_are_named(photo: Image.Image) -> None:
    with pytest.raises(ValueError, match="choose one map"):
        overlay(photo, np.zeros((3, 4, 4)), signed=True)
    with pytest.raises(ValueError, match="NaN"):
        overlay(photo, np.full((2, 2), np.nan), signed=True)
    with pytest.raises(ValueError, match="no area"):
        overlay(photo, np.zeros((2, 2)), signed=True, box=(5, 5, 5, 9))
    with pytest.raises(ValueError, match="at least one panel"):
        grid([])


def maps(p: int = 1, k: int = 3) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(p)
    top_down, bottom_up = torch.randn(p, k, 5, 5, generator=random), torch.randn(p, 1, 5, 5, generator=random)
    combined = (top_down * bottom_up).sum(0) / 25
    return {"top_down": top_down, "bottom_up": bottom_up, "combined": combined, "logits": combined.sum((-2, -1))}


def test_columns_of_the_papers_figure() -> None:
    out = maps()
    best = int(out["logits"].argmax())
    chosen = (best + 1) % 3
    columns = figure_columns(["a", "b", "c"], **out, chosen=chosen, probabilities=out["logits"].softmax(0))
    headings = ["image", "bottom-up", "top-down", "combined", "top-down", "combined", "difference"]
    assert [column.heading for column in columns] == headings
    pair = f"{'abc'[best]} rather than {'abc'[chosen]}"
    assert [column.label for column in columns] == ["", "", *["abc"[best]] * 2, *["abc"[chosen]] * 2, pair]
    assert columns[2].scale == columns[4].scale, "both classes share a scale"
    assert columns[3].note == f"adds up to its score, {number(float(out['logits'][best]))}"
    assert columns[2].note.startswith("probability ")
    assert [column.signed for column in columns[1:]] == [False, True, True, True, True, True]
    apart = out["combined"][best] - out["combined"][chosen]
    assert columns[6].map == pytest.approx(apart.numpy())
    scores = out["logits"]
    assert columns[6].note.startswith(f"adds up to {number(float(scores[best] - scores[chosen]))} · ")
    assert columns[6].note.count("%") == 2
    alone = figure_columns(["a", "b", "c"], **out, chosen=chosen, plain=False)
    assert [column.heading for column in alone] == ["image", "bottom-up", "difference"]


def test_columns_of_other_heads() -> None:
    out = maps()
    average = figure_columns(list("abc"), out["logits"], top_down=out["top_down"], combined=out["combined"], best=1)
    assert [column.heading for column in average] == ["image", "top-down", "combined"]
    assert average[1].label == "b"
    assert [c.heading for c in figure_columns(list("abc"), out["logits"])] == ["image"]
    rank = figure_columns(list("abc"), **maps(p=3), best=0, chosen=0)
    assert len(rank) == 4
    assert rank[1].note.endswith(" of 3")
    per_class = figure_columns(list("abc"), **(out | {"bottom_up": out["top_down"]}), best=2)
    assert per_class[1].label == "c"


@pytest.mark.parametrize(
    "name", ["calling", "a very long name of what somebody does with something " * 4, "W" * 90, ""]
)
def test_nothing_is_drawn_over_the_edge_of_a_panel(photo: Image.Image, name: str) -> None:
    columns = figure_columns([name] * 3, **maps(), best=0, chosen=1)
    drawn = panel(photo, columns, name, size=160, evidence=[(10, 20, 300, 400)])
    pixels = np.asarray(drawn)
    margin = 6
    for edge in (pixels[:margin], pixels[-3:], pixels[:, :margin], pixels[:, -margin:]):
        assert (edge == PAPER).all()
    sheet = grid([drawn, drawn])
    assert sheet.size == (drawn.width, 2 * drawn.height)


def test_columns_do_not_run_into_each_other(photo: Image.Image) -> None:
    drawn = np.asarray(panel(photo, [Column("h" * 60, spot(0, 0), label="W" * 99, note="n" * 99)] * 3, "", size=160))
    gap_starts = 13 + 160
    assert (drawn[:, gap_starts + 1 : gap_starts + 9] == PAPER).all()


@given(st.text(max_size=80), st.integers(20, 200), st.integers(1, 3))
def test_wrapped_lines_fit(text: str, width: int, lines: int) -> None:
    face = font(12)
    wrapped = wrap(text, face, width, lines)
    assert len(wrapped) <= lines
    for line in wrapped:
        assert face.getlength(line) <= width or len(line) <= 2, line
    if wrapped and not wrapped[-1].endswith("…"):
        assert "".join(wrapped).replace(" ", "") == "".join(text.split())
    image = Image.new("RGB", (10, 10))
    for line in wrapped:
        ImageDraw.Draw(image).text((0, 0), line, font=face)


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.214, "3.21"), (-0.04583, "−0.0458"), (0, "0"), (99.99, "100"), (123456, "1.23e+05"), (1234.4, "1234")],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text
