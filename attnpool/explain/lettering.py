"""Lettering on images: one font, which comes with matplotlib, and lines that fit their column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from PIL import ImageDraw, ImageFont


def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans in pixels; matplotlib brings the file, so it is the same on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, max(7, size))


def line_height(face: ImageFont.FreeTypeFont) -> int:
    """Pixels from one line of text to the next."""
    ascent, descent = face.getmetrics()
    return ascent + descent + 1


def wrap(text: str, face: ImageFont.FreeTypeFont, width: float, lines: int) -> list[str]:
    """Text in at most `lines` lines no wider than `width` pixels; what does not fit ends in an ellipsis."""
    words = text.split()
    done: list[str] = []
    while words and len(done) < lines:
        count = 1
        while count < len(words) and face.getlength(" ".join(words[: count + 1])) <= width:
            count += 1
        last = len(done) == lines - 1
        line = " ".join(words if last else words[:count])
        if face.getlength(line) > width:  # the end of the text, or one word wider than the line
            line, rest = _cut(line, face, width, ellipsis=last)
            words = [rest, *words[count:]] if rest and not last else words[count:]
        else:
            words = [] if last else words[count:]
        done.append(line)
    return done


def _cut(text: str, face: ImageFont.FreeTypeFont, width: float, *, ellipsis: bool) -> tuple[str, str]:
    """The part of a text that fits, and the rest."""
    end = "…" if ellipsis else ""
    count = len(text)
    while count > 1 and face.getlength(text[:count].rstrip() + end) > width:
        count -= 1
    return text[:count].rstrip() + end, text[count:]


def draw_lines(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    lines: Sequence[str],
    face: ImageFont.FreeTypeFont,
    colour: tuple[int, int, int],
) -> None:
    """Lines of text below each other; `at` is the upper left corner."""
    for i, line in enumerate(lines):
        draw.text((at[0], at[1] + i * line_height(face)), line, font=face, fill=colour)


def number(value: float) -> str:
    """A number in three significant digits with a true minus sign: 3.21, −0.0458, 1.2e+05."""
    if value == 0:
        return "0"
    text = f"{value:.3g}" if abs(value) >= 1e5 or abs(value) < 1e-3 else f"{value:.{max(0, 2 - _exponent(value))}f}"
    return text.replace("-", "−")


def _exponent(value: float) -> int:
    return int(f"{abs(value):.2e}".split("e")[1])
