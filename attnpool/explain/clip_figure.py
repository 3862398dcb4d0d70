"""Maps over the frames of a clip: the paper's Figure 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from attnpool.evaluation.pointing import as_array
from attnpool.explain.image_figure import leading_term, percent
from attnpool.explain.lettering import draw_lines, font, line_height, number, wrap
from attnpool.explain.overlay import INK, PAPER, SOFT, colour_bar, fit, overlay

if TYPE_CHECKING:
    from attnpool.keypoints.joints import Box


@dataclass(frozen=True)
class Row:
    """One row of a storyboard.

    Attributes:
        heading: what is drawn, such as "bottom-up".
        maps: `(T, h, w)`, one for every frame that is shown; `None` shows the frames themselves.
        signed, scale: see `overlay`; all frames of a row share a scale.
        label: the class that the maps are for, "" if they are for none.
        note: a short text below the label.
        captions: below each frame; none by default.
    """

    heading: str
    maps: np.ndarray | None = None
    signed: bool = True
    scale: float | None = None
    label: str = ""
    note: str = ""
    captions: tuple[str, ...] = ()


def figure_rows(
    classes: Sequence[str],
    logits: Any,
    shown: Sequence[int],
    numbers: Sequence[int],
    count: int,
    *,
    top_down: Any,
    bottom_up: Any,
    combined: Any,
    chosen: Sequence[int],
    probabilities: Any,
    remark: str = "",
    plain: bool = True,
) -> list[Row]:
    """The rows of a clip's figure: its frames, bottom-up maps, combined maps of some classes, and their difference.

    All combined maps share one colour scale, so classes and frames compare. Below each stands what the frame adds to
    the clip's score; over all T frames, not just those that are shown, this adds up to the score. With two classes the
    last row is the difference of their maps, as in `image_figure.figure_columns`.

    Args:
        classes: K names.
        logits: `(K,)` scores of the clip.
        shown: which of the T frames are drawn.
        numbers: T numbers of frames in the clip, counted from 0.
        count: how many frames the clip has.
        top_down: `(T, P, K, h, w)`. bottom_up: `(T, P, 1 or K, h, w)`. combined: `(T, K, h, w)`. Each is one clip of
            the `Pooled` field of that name. Of the P terms of a higher rank the one with the largest share is shown.
        chosen: classes; the bottom-up maps of a head that has one for every class are those of the first.
        probabilities: `(K,)`.
        remark: a remark on the frames, "" for none.
        plain: also show the combined maps, not only the difference; of a single class they are shown in any case.
    """
    scores, likely, frames = as_array(logits), as_array(probabilities), list(shown)
    down, up, both = as_array(top_down), as_array(bottom_up), as_array(combined)
    best = chosen[0]
    # One long image of all frames, to find the term that matters most in the clip.
    term, of_rank = leading_term(_side_by_side(down), _side_by_side(up), best)
    per_class = up.shape[2] > 1
    saliency = up[frames, term, best if per_class else 0]
    part = f"{len(frames)} of the {len(numbers)} that were scored; " if len(frames) < len(numbers) else ""
    note = "; ".join(text for text in (f"{part}the clip has {count}", remark) if text)
    rows = [
        Row("frames", note=note, captions=tuple(f"frame {numbers[t] + 1}" for t in frames)),
        Row(
            "bottom-up",
            saliency,
            signed=False,
            scale=float(saliency.max()),
            label=classes[best] if per_class else "",
            note=" · ".join(text for text in (of_rank, "" if per_class else "shared by all classes") if text),
        ),
    ]
    scale = float(np.abs(both[frames][:, list(chosen)]).max())
    classes_shown = list(dict.fromkeys(chosen))
    for k in classes_shown if plain or len(classes_shown) == 1 else ():
        shares, likelihood = both[frames, k].sum((-2, -1)), percent(likely[k])
        rows.append(
            Row(
                "combined",
                both[frames, k],
                scale=scale,
                label=classes[k],
                note=f"adds up over all frames to its score, {number(float(scores[k]))}; probability {likelihood}",
                captions=tuple(f"adds {number(float(share))}" for share in shares),
            )
        )
    if len(classes_shown) == 2:
        other = classes_shown[1]
        apart, gap = both[frames, best] - both[frames, other], float(scores[best] - scores[other])
        rows.append(
            Row(
                "difference",
                apart,
                scale=float(np.abs(apart).max()),
                label=f"{classes[best]} rather than {classes[other]}",
                note=f"adds up over all frames to {number(gap)}, the difference of scores; probabilities "
                f"{percent(likely[best])} and {percent(likely[other])}",
                captions=tuple(f"adds {number(float(share))}" for share in apart.sum((-2, -1))),
            )
        )
    return rows


def _side_by_side(maps: np.ndarray) -> np.ndarray:
    """`(T, P, K, h, w)` -> `(P, K, T h, w)`."""
    return np.moveaxis(maps, 0, 2).reshape(*maps.shape[1:3], -1, maps.shape[-1])


def storyboard(
    frames: Sequence[Image.Image], rows: Sequence[Row], title: str, *, size: int = 208, box: Box | None = None
) -> Image.Image:
    """Frames from left to right, and below each of them its maps; what a row shows stands on its left.

    Args:
        frames: the frames that are shown, all of one size.
        rows: from `figure_rows`, or your own.
        title: a line above; "" for none.
        size: the longer side of a frame in pixels.
        box: the part of a frame that the maps cover, see `overlay`.
    """
    head, bold, plain, small = font(17, bold=True), font(15, bold=True), font(14), font(12)
    gap, margin, text = 10, 16, 190
    cell = fit(frames[0], size).size
    width = 2 * margin + text + len(frames) * (cell[0] + gap)
    titles = wrap(title, head, width - 2 * margin, 2)
    heights = [_text_height(row, text, bold, plain, small) for row in rows]
    under = [line_height(small) + 2 if row.captions else 0 for row in rows]
    tops = [margin + len(titles) * line_height(head) + gap * bool(titles)]
    for height, caption in zip(heights, under, strict=True):
        tops.append(tops[-1] + max(cell[1] + caption, height) + gap)

    sheet = Image.new("RGB", (width, tops[-1] + margin - gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw_lines(draw, (margin, margin), titles, head, INK)
    for row, y in zip(rows, tops, strict=False):
        at = y
        for words, face, colour, lines in (
            (row.heading, bold, INK, 1),
            (row.label, plain, INK, 2),
            (row.note, small, SOFT, 4),
        ):
            wrapped = wrap(words, face, text, lines)
            draw_lines(draw, (margin, at), wrapped, face, colour)
            at += len(wrapped) * line_height(face)
        if row.maps is not None:
            place = (margin, at + 6, margin + text, at + 14)
            colour_bar(sheet, place, as_array(row.maps), 12, signed=row.signed, scale=row.scale)
        for t, frame in enumerate(frames):
            x = margin + text + gap + t * (cell[0] + gap)
            if row.maps is None:
                sheet.paste(fit(frame, size), (x, y))
            else:
                drawn = overlay(frame, row.maps[t], signed=row.signed, scale=row.scale, size=size, box=box)
                sheet.paste(drawn, (x, y))
            if row.captions:
                draw.text((x, y + cell[1] + 2), row.captions[t], font=small, fill=SOFT)
    return sheet


def _text_height(row: Row, width: int, bold: Any, plain: Any, small: Any) -> int:
    height = line_height(bold) + len(wrap(row.label, plain, width, 2)) * line_height(plain)
    height += len(wrap(row.note, small, width, 4)) * line_height(small)
    return height + (16 + line_height(small) if row.maps is not None else 0)
