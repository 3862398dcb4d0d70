"""Drawing: one map over its image, a row of such columns, and rows below each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from attnpool.data.decoding.image import full_size
from attnpool.evaluation.pointing import as_array, peak
from attnpool.explain.lettering import draw_lines, font, line_height, number, wrap

if TYPE_CHECKING:
    from attnpool.keypoints.joints import Box

PAPER, INK, SOFT = (255, 255, 255), (28, 30, 36), (104, 110, 122)
SIGNED_COLOURS, SEQUENTIAL_COLOURS = "RdBu_r", "inferno"
EVIDENCE = (255, 196, 0)


@dataclass(frozen=True)
class Column:
    """One column of a panel.

    Attributes:
        heading: what is drawn, such as "bottom-up".
        map: `(h, w)`; `None` shows the image itself.
        signed: the map speaks for and against (top-down, combined): diverging colours around 0. Otherwise
            (bottom-up) sequential colours.
        scale: the value at the end of the colour scale; `None`: the map's largest.
        label: the class that the map is for, "" if it is for none.
        note: a short line below the label, such as "adds up to its score, 3.21".
    """

    heading: str
    map: np.ndarray | None = None
    signed: bool = True
    scale: float | None = None
    label: str = ""
    note: str = ""


def colour_range(map_: np.ndarray, *, signed: bool, scale: float | None = None) -> tuple[float, float]:
    """The values at the two ends of the colour scale: `-s..s` if signed, else `0..s`, from below 0 if values are."""
    low, high = float(map_.min()), float(map_.max())
    end = scale if scale is not None else (max(abs(low), abs(high)) if signed else high)
    start = -end if signed else min(low, 0.0)
    return (start, end) if end > start else (start, start + 1.0)


def overlay(
    image: Image.Image,
    map_: Any,
    *,
    signed: bool,
    scale: float | None = None,
    size: int = 320,
    box: Box | None = None,
    mark: bool = True,
) -> Image.Image:
    """One map over its image.

    The map is enlarged smoothly (bicubic) and tints a paler, greyer image; where a signed map is 0 the image
    shows through. A ring marks the centre of the highest cell, if not all are equal.

    Args:
        image: any size.
        map_: `(h, w)` array or tensor.
        signed: diverging colours around 0 (red for, blue against), otherwise sequential ones (bright is high).
        scale: the value at the end of the colour scale; `None`: the map's largest.
        size: the longer side of the result, in pixels.
        box: `(x1, y1, x2, y2)`, the part of the image (in its pixels) that the map covers; the rest is dimmed.
            `None`: all of it.
        mark: draw the ring.

    Raises:
        ValueError: not a single map, a map with NaN, or a box without area.
    """
    values = as_array(map_)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"cannot draw a map of shape {values.shape}: choose one map (h, w), of one image and class")
    top = peak(values, (1, 1))  # also refuses NaN
    shown = fit(image, size)
    x1, y1, x2, y2 = _on_screen(box, image, shown)
    low, high = colour_range(values, signed=signed, scale=scale)

    large = _enlarge(values, (x1, y1, x2, y2), shown.size)
    position = np.clip((large - low) / (high - low), 0, 1)
    colours = _lookup(position, signed)
    strength = np.abs(2 * position - 1) ** 0.8 * 0.88 if signed else 0.42 + 0.43 * position
    inside = ~np.isnan(large)

    base = np.asarray(ImageEnhance.Color(shown).enhance(0.2), dtype=np.float64)
    base = 0.82 * base + (0.18 * 255 if signed else 0)
    outside = 0.3 * np.asarray(ImageEnhance.Color(shown).enhance(0.0), dtype=np.float64) + 0.7 * 236
    blend = base + (colours - base) * np.where(inside, strength, 0)[..., None]
    drawn = Image.fromarray(np.where(inside[..., None], blend, outside).round().astype(np.uint8))
    if not mark or values.min() == values.max():  # a flat map has no highest cell
        return drawn
    x, y = x1 + top[0] * (x2 - x1), y1 + top[1] * (y2 - y1)
    # The middle of a cell at the margin of a whole view lies outside the image.
    return _ring(drawn, float(np.clip(x, 0, shown.width)), float(np.clip(y, 0, shown.height)))


def panel(
    image: Image.Image,
    columns: Sequence[Column],
    title: str,
    *,
    size: int = 224,
    box: Box | None = None,
    evidence: Sequence[Box] = (),
) -> Image.Image:
    """A row of columns, each with its caption above and its colour scale below: one row of the paper's Figure 2.

    Args:
        image: any size.
        columns: from `attnpool.explain.image_figure.figure_columns`, or your own.
        title: a line above the row; "" for none.
        size: width of a column in pixels.
        box: the part of the image that the maps cover, see `overlay`.
        evidence: boxes in pixels of the image, outlined in the columns without a map.
    """
    shown = fit(image, size)
    head, bold, plain, small = (
        font(size // 13, bold=True),
        font(size // 15, bold=True),
        font(size // 16),
        font(size // 18),
    )
    gap, margin = max(4, size // 16), max(6, size // 12)
    width = 2 * margin + len(columns) * size + (len(columns) - 1) * gap
    titles = wrap(title, head, width - 2 * margin, 2)
    labels = [wrap(column.label, plain, size, 2) for column in columns]
    rows = max((len(lines) for lines in labels), default=0)
    notes = any(column.note for column in columns)

    y_heading = margin + len(titles) * line_height(head) + (gap // 2 if titles else 0)
    y_label = y_heading + line_height(bold)
    y_note = y_label + rows * line_height(plain)
    y_image = y_note + notes * line_height(small) + gap // 2
    y_scale = y_image + shown.height + max(3, gap // 2)
    scales = any(column.map is not None for column in columns)
    bottom = y_scale + (size // 28 + line_height(small) if scales else 0) + margin // 2

    sheet = Image.new("RGB", (width, bottom), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw_lines(draw, (margin, margin), titles, head, INK)
    for i, (column, label) in enumerate(zip(columns, labels, strict=True)):
        x = margin + i * (size + gap)
        draw_lines(draw, (x, y_heading), wrap(column.heading, bold, size, 1), bold, INK)
        draw_lines(draw, (x, y_label), label, plain, INK)
        draw_lines(draw, (x, y_note), wrap(column.note, small, size, 1), small, SOFT)
        at = (x + (size - shown.width) // 2, y_image)
        if column.map is None:
            sheet.paste(_outlined(shown, evidence, image), at)
            continue
        values = as_array(column.map)
        sheet.paste(overlay(image, values, signed=column.signed, scale=column.scale, size=size, box=box), at)
        place = (x, y_scale, x + size, y_scale + max(4, size // 28))
        colour_bar(sheet, place, values, size // 18, signed=column.signed, scale=column.scale)
    return sheet


def grid(rows: Sequence[Image.Image]) -> Image.Image:
    """Panels one below the other, on white.

    Raises:
        ValueError: no panel at all.
    """
    if not rows:
        raise ValueError("a grid needs at least one panel: give it images to draw")
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), PAPER)
    y = 0
    for row in rows:
        sheet.paste(row, (0, y))
        y += row.height
    return sheet


def fit(image: Image.Image, size: int) -> Image.Image:
    """The image in RGB with its longer side `size` pixels long, aspect kept."""
    factor = size / max(image.size)
    shape = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.convert("RGB").resize(shape, Image.Resampling.LANCZOS)


def _on_screen(box: Box | None, image: Image.Image, shown: Image.Image) -> tuple[int, int, int, int]:
    """A box of the image in whole pixels of what is shown."""
    if box is None:
        return 0, 0, shown.width, shown.height
    x1, y1, x2, y2 = box
    if not (x2 > x1 and y2 > y1):
        raise ValueError(f"the box {box} has no area: give (x1, y1, x2, y2) with x1 < x2 and y1 < y2")
    width, height = full_size(image)
    sx, sy = shown.width / width, shown.height / height
    left, upper = round(x1 * sx), round(y1 * sy)
    return left, upper, max(left + 1, round(x2 * sx)), max(upper + 1, round(y2 * sy))


def _enlarge(values: np.ndarray, place: tuple[int, int, int, int], canvas: tuple[int, int]) -> np.ndarray:
    """The map, enlarged to its place on a canvas (width, height); NaN where it does not reach."""
    x1, y1, x2, y2 = place
    large = np.asarray(Image.fromarray(values.astype(np.float32)).resize((x2 - x1, y2 - y1), Image.Resampling.BICUBIC))
    full = np.full((canvas[1], canvas[0]), np.nan)
    left, upper, right, lower = max(x1, 0), max(y1, 0), min(x2, canvas[0]), min(y2, canvas[1])
    if right > left and lower > upper:
        full[upper:lower, left:right] = large[upper - y1 : lower - y1, left - x1 : right - x1]
    return full


def _lookup(position: np.ndarray, signed: bool) -> np.ndarray:
    """RGB 0..255 of positions 0..1 on the colour scale."""
    colours = matplotlib.colormaps[SIGNED_COLOURS if signed else SEQUENTIAL_COLOURS]
    return 255 * colours(np.nan_to_num(position))[..., :3]


def _ring(image: Image.Image, x: float, y: float) -> Image.Image:
    """A white ring with a dark rim, drawn at four times the size so that its edge is smooth."""
    radius, width = max(4.0, max(image.size) / 34), max(1.5, max(image.size) / 150)
    reach = int(radius + 3 * width) + 2
    left, upper = int(x) - reach, int(y) - reach
    patch = Image.new("RGBA", (8 * reach, 8 * reach), (255, 255, 255, 0))
    draw = ImageDraw.Draw(patch)
    cx, cy = 4 * (x - left), 4 * (y - upper)
    for colour, r, w in (((20, 20, 24, 255), radius + width * 0.8, width * 2.6), ((255, 255, 255, 255), radius, width)):
        box = (cx - 4 * r, cy - 4 * r, cx + 4 * r, cy + 4 * r)
        draw.ellipse(box, outline=colour, width=max(1, round(4 * w)))
    patch = patch.resize((2 * reach, 2 * reach), Image.Resampling.BOX)
    image = image.copy()
    image.paste(patch.convert("RGB"), (left, upper), patch.getchannel("A"))
    return image


def _outlined(shown: Image.Image, boxes: Sequence[Box], image: Image.Image) -> Image.Image:
    shown = shown.copy()
    draw = ImageDraw.Draw(shown)
    width = max(2, max(shown.size) // 110)
    for box in boxes:
        x1, y1, x2, y2 = _on_screen(box, image, shown)
        place = (max(0, x1), max(0, y1), min(shown.width - 1, x2), min(shown.height - 1, y2))
        if place[2] - place[0] > 2 * width and place[3] - place[1] > 2 * width:
            draw.rectangle(place, outline=INK, width=width + 2)
            draw.rectangle((place[0] + 1, place[1] + 1, place[2] - 1, place[3] - 1), outline=EVIDENCE, width=width)
    return shown


def colour_bar(
    sheet: Image.Image,
    place: tuple[int, int, int, int],
    values: np.ndarray,
    text_size: int,
    *,
    signed: bool,
    scale: float | None,
) -> None:
    """The colour scale with the values at its ends, and 0 where it lies between them."""
    x1, y1, x2, y2 = place
    low, high = colour_range(values, signed=signed, scale=scale)
    ramp = _lookup(np.linspace(0, 1, x2 - x1), signed)
    bar = np.broadcast_to(ramp.round().astype(np.uint8), (y2 - y1, x2 - x1, 3))
    sheet.paste(Image.fromarray(np.ascontiguousarray(bar)), (x1, y1))
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), outline=(200, 203, 210))
    face = font(text_size)
    left, right = number(low), number(high)
    draw.text((x1, y2 + 1), left, font=face, fill=SOFT)
    draw.text((x2 - face.getlength(right), y2 + 1), right, font=face, fill=SOFT)
    if low < 0 < high:
        x0 = x1 + (x2 - x1) * -low / (high - low)
        half = face.getlength("0") / 2
        if x0 - half > x1 + face.getlength(left + " ") and x0 + half < x2 - face.getlength(right + " "):
            draw.line((x0, y1, x0, y2), fill=INK)
            draw.text((x0 - half, y2 + 1), "0", font=face, fill=SOFT)
