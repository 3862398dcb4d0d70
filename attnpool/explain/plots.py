"""Plots as PNG bytes, drawn with matplotlib's objects alone: no pyplot, no global state, no display."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from attnpool.evaluation.metrics import Scores
from attnpool.explain.lettering import font

INK, SOFT, LINE = "#1c1e24", "#5f6675", "#e4e5e9"
HEAD_COLOURS = ("#8a8f9c", "#b2182b", "#2166ac", "#e08214", "#1b7837", "#762a83", "#35978f", "#c51b7d")
BAR = "#3b6ea5"
HEAD = 0.95  # inches above the first axes
NAMED_MATRIX = 40  # classes up to which a confusion matrix carries names
MOST_CLASSES = 40  # rows of a comparison


def evaluation_plot(scores: Scores, confusion: np.ndarray | None, classes: Sequence[str]) -> bytes:
    """Per-class AP as sorted bars and the confusion matrix as a PNG.

    Up to 40 classes the matrix stands beside the bars and carries names; above, it stands over columns of bars, with
    the most frequent mistakes in words beside it.
    """
    order = sorted(range(len(classes)), key=lambda k: -(-1 if (ap := scores.per_class[k]["AP"]) is None else ap))
    rows = [scores.per_class[k] for k in order]
    names = _inches([_bar_label(row) for row in rows], 8.5)
    accuracy = (
        "" if scores.accuracy is None or np.isnan(scores.accuracy) else f", accuracy {100 * scores.accuracy:.1f}%"
    )
    mean = "–" if np.isnan(scores.mAP) else f"{100 * scores.mAP:.1f}%"
    head = f"mAP {mean} over {scores.classes_scored} classes{accuracy}, {scores.images} images"
    draw = _small if len(classes) <= NAMED_MATRIX else _large
    figure = draw(rows, confusion, classes, names)
    _text(figure, 0.15, 0.35, head, fontsize=12, fontweight="bold", color=INK, va="center")
    return _render(figure)


def _small(rows: Sequence[Mapping], confusion: np.ndarray | None, classes: Sequence[str], names: float) -> Figure:
    """Bars and, to their right, the matrix; all sizes in inches."""
    bars = 0.28 * len(rows) + 0.2
    width, height = names + 3.9, HEAD + bars + 0.6
    matrix = max(3.3, (0.36 if len(classes) <= 20 else 0.25) * len(classes))
    if confusion is not None:
        bars = matrix  # a row of the matrix is as high as a bar
        below = _inches([_short(name) for name in classes], 8)
        width, height = width + below + matrix + 0.4, HEAD + matrix + max(below, 0.6)
    figure = Figure(figsize=(max(width, 6.8), height), dpi=160, facecolor="white")
    _bars(_axes(figure, names, HEAD, 3.4, bars), rows, len(rows), dense=False)
    if confusion is not None:
        _matrix(_axes(figure, width - matrix - 0.4, HEAD, matrix, matrix), confusion, classes, named=True)
    return figure


def _large(rows: Sequence[Mapping], confusion: np.ndarray | None, classes: Sequence[str], names: float) -> Figure:
    """The matrix and the most frequent mistakes, and below them columns of bars; all sizes in inches."""
    matrix, column = 7.0, names + 1.9
    columns = max(min(int(14.2 / column), -(-len(rows) // 25)), -(-len(rows) // 120))
    slots = -(-len(rows) // columns)
    bars = 0.165 * slots + 0.2
    top = HEAD + (matrix + 1.1 if confusion is not None else 0)
    figure = Figure(figsize=(max(columns * column + 0.3, 14.5), top + bars + 0.6), dpi=110, facecolor="white")
    if confusion is not None:
        _matrix(_axes(figure, 0.6, HEAD, matrix, matrix), confusion, classes, named=False)
        for n, line in enumerate(_mistakes(confusion, classes, 30)):
            colour = INK if n else SOFT
            _text(figure, matrix + 1.3, HEAD + 0.225 * n, line, fontsize=9, color=colour, va="top", parse_math=False)
    for i in range(columns):
        axes = _axes(figure, i * column + names, top, column - names - 0.15, bars)
        _bars(axes, rows[i * slots : (i + 1) * slots], slots, dense=True)
    return figure


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes with their upper left corner so many inches from that of the figure."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))


def _text(figure: Figure, left: float, top: float, text: str, **style: Any) -> None:
    w, h = figure.get_size_inches()
    figure.text(left / w, 1 - top / h, text, **style)


def _bars(axes: Axes, rows: Sequence[Mapping], slots: int, *, dense: bool) -> None:
    values = [100 * (row["AP"] or 0.0) for row in rows]
    axes.barh(range(len(rows)), values, color=BAR, height=0.7)
    for i, row in enumerate(rows):
        text = "no image" if row["AP"] is None else f"{values[i]:.0f}"
        inside = values[i] > 80
        axes.text(values[i] + (-1.5 if inside else 1.5), i, text, va="center_baseline",
                  ha="right" if inside else "left", fontsize=7 if dense else 8,
                  color="white" if inside else SOFT)  # fmt: skip
    labels = [_bar_label(row) for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=7.5 if dense else 8.5, parse_math=False)
    axes.set_ylim(slots - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("AP in % (images of the class)", fontsize=8.5, color=SOFT)
    _plain(axes)


def _matrix(axes: Axes, confusion: np.ndarray, classes: Sequence[str], named: bool) -> None:
    totals = confusion.sum(1, keepdims=True)
    rates = confusion / np.maximum(totals, 1)
    # The root lets single mistakes show among hundreds of classes.
    shade = rates if named else np.sqrt(rates)
    axes.imshow(shade, cmap="Blues", vmin=0, vmax=1, interpolation="nearest" if named else "antialiased")
    title = "row: true class, column: taken for" + ("; % of the row" if named else "; darker: a larger part of the row")
    axes.set_title(title, fontsize=8.5, color=SOFT, loc="left")
    axes.tick_params(length=0, labelsize=8, colors=INK)
    for spine in axes.spines.values():
        spine.set_color(LINE)
    if not named:
        axes.set_xlabel("class number, in the order of the class list", fontsize=8.5, color=SOFT)
        return
    labels = [_short(name) for name in classes]
    axes.set_xticks(range(len(classes)), labels, rotation=90, parse_math=False)
    axes.set_yticks(range(len(classes)), labels, parse_math=False)
    for i, j in zip(*np.nonzero(confusion), strict=True):
        axes.text(j, i, f"{100 * rates[i, j]:.0f}", ha="center", va="center",
                  fontsize=7.5 if len(classes) <= 20 else 5, color="white" if rates[i, j] > 0.55 else INK)  # fmt: skip


def _mistakes(confusion: np.ndarray, classes: Sequence[str], most: int) -> list[str]:
    """The most frequent mistakes in words: in a matrix of hundreds of classes nobody finds them."""
    wrong = confusion - np.diag(np.diag(confusion))
    lines = ["most frequent mistakes"]
    for flat in np.argsort(-wrong, axis=None, kind="stable")[:most]:
        i, j = divmod(int(flat), len(classes))
        if wrong[i, j] > 0:
            lines.append(f"{wrong[i, j]} of {confusion[i].sum()}  {_short(classes[i])}  →  {_short(classes[j])}")
    return lines if len(lines) > 1 else ["no mistakes"]


def comparison_plot(per_class: Mapping[str, np.ndarray], classes: Sequence[str]) -> bytes:
    """Per-class AP of several heads: a dot at the mean over seeds, a line over their range.

    Args:
        per_class: head -> `(seeds, K)` fractions, NaN for a class without positives.
        classes: K names. Of more than 40, the 40 on which the heads differ most are drawn, and the plot says so.

    Returns:
        A PNG.

    Raises:
        ValueError: there is nothing to compare.
    """
    if not per_class:
        raise ValueError("there is nothing to compare: give the per-class AP of at least one head")
    values = {head: 100 * np.atleast_2d(np.asarray(v, dtype=np.float64)) for head, v in per_class.items()}
    means = np.stack([v.mean(0) for v in values.values()])
    scored = [k for k in range(len(classes)) if not np.isnan(means[:, k]).any()]
    if not scored:
        raise ValueError("there is no class that every head has an AP for: evaluate on images that show the classes")
    spread = means.max(0) - means.min(0)
    shown = sorted(scored, key=lambda k: -spread[k])[:MOST_CLASSES]
    shown.sort(key=lambda k: -means[:, k].mean())

    rows = len(shown) + 1
    names = _inches(["all classes (bold)", *(_short(classes[k]) for k in shown)], 9)
    ncols = max(1, min(len(values), int(6.3 / (_inches([_short(head) for head in values], 9.5) + 0.4))))
    top = 0.25 + 0.27 * -(-len(values) // ncols)
    figure = Figure(figsize=(names + 6.6, top + 0.34 * rows + 0.75), dpi=200, facecolor="white")
    axes = _axes(figure, names, top, 6.3, 0.34 * rows)
    step = min(0.2, 0.7 / max(len(values), 1))
    for h, (head, v) in enumerate(values.items()):
        y = np.arange(rows) + (h - (len(values) - 1) / 2) * step
        picked = np.column_stack([v[:, scored].mean(1), v[:, shown]])
        colour = HEAD_COLOURS[h % len(HEAD_COLOURS)]
        axes.hlines(y, picked.min(0), picked.max(0), color=colour, linewidth=2, alpha=0.45)
        axes.plot(picked.mean(0), y, "o", color=colour, markersize=5.5, label=_short(head), markeredgewidth=0)
    axes.axhspan(-0.5, 0.5, color="#f3f4f6", zorder=0)
    axes.hlines(np.arange(rows - 1) + 0.5, 0, 100, color=LINE, linewidth=0.6, zorder=0)
    axes.set_yticks(range(rows), ["all classes", *(_short(classes[k]) for k in shown)], fontsize=9, parse_math=False)
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xlim(0, 100)
    label = "average precision in %: mean (dot) and range (line) over seeds"
    if len(shown) < len(scored):
        label += f"\nthe {len(shown)} of {len(scored)} classes on which the heads differ most"
    axes.set_xlabel(label, fontsize=9, color=SOFT)
    _plain(axes)
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=ncols, frameon=False, fontsize=9.5, handletextpad=0.2
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return _render(figure)


def ratio_plot(values: Mapping[str, Mapping[str, float]], rows: Mapping[str, bool], label: str) -> bytes:
    """Multiples of a common base on a logarithmic axis: a line of dots a row, the base at 1.

    Args:
        values: series -> row -> multiple; a row may lack in a series.
        rows: their names in order, and which are drawn bold: ours.
        label: of the axis.

    Returns:
        A PNG.
    """
    names = _inches([_short(name, 60) for name in rows], 10.5)  # bold letters are wider
    top = 0.5
    figure = Figure(figsize=(names + 6.6, top + 0.3 * len(rows) + 0.75), dpi=160, facecolor="white")
    axes = _axes(figure, names, top, 6.3, 0.3 * len(rows))
    at = {name: number for number, name in enumerate(rows)}
    for i, (series, found) in enumerate(values.items()):
        y = [at[name] + (i - (len(values) - 1) / 2) * 0.2 for name in found]
        axes.plot(
            list(found.values()), y, "o", color=HEAD_COLOURS[i + 1], markersize=5, label=series, markeredgewidth=0
        )
    axes.set_xscale("log")
    axes.axvline(1, color=SOFT, linewidth=1, zorder=0)
    axes.hlines([n + 0.5 for n in range(len(rows) - 1)], *axes.get_xlim(), color=LINE, linewidth=0.6, zorder=0)
    axes.margins(x=0)
    axes.set_yticks(range(len(rows)), [_short(name, 60) for name in rows], fontsize=9, parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(f"{label} (bold: attnpool)", fontsize=9, color=SOFT)
    _plain(axes)
    for text, ours in zip(axes.get_yticklabels(), rows.values(), strict=True):
        text.set_fontweight("bold" if ours else "normal")
        text.set_color(INK if ours else SOFT)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, frameon=False, fontsize=9.5, handletextpad=0.2)
    return _render(figure)


def study_plot(scores: Mapping[str, Sequence[float]], costs: Mapping[str, float]) -> bytes:
    """mAP of rows, a dot at the mean and a line over the range, and beside it what a row costs.

    Args:
        scores: row -> percent, a seed each.
        costs: row -> multiple of average pooling's time; a row may lack.

    Returns:
        A PNG.
    """
    rows = list(scores)
    names, top, height = _inches([_short(row, 40) for row in rows], 9), 0.15, 0.32 * len(rows)
    figure = Figure(figsize=(names + 7.4, top + height + 0.75), dpi=160, facecolor="white")
    left, right = _axes(figure, names, top, 4.6, height), _axes(figure, names + 4.8, top, 2.4, height)
    y = np.arange(len(rows))
    low, high, mean = (np.array([f(values) for values in scores.values()]) for f in (np.min, np.max, np.mean))
    left.hlines(y, low, high, color=HEAD_COLOURS[1], linewidth=2, alpha=0.45)
    left.plot(mean, y, "o", color=HEAD_COLOURS[1], markersize=5, markeredgewidth=0)
    right.semilogx(list(costs.values()), [rows.index(row) for row in costs], "o", color=BAR, markersize=5)
    right.set_xticks(ticks := [1, 3, 10, 30, 100, 300], [str(tick) for tick in ticks])
    right.minorticks_off()
    right.set_xlim(0.8, 1.5 * max([3, *costs.values()]))
    labels = ("mAP in %: mean (dot) and range (line) over seeds", "forward + backward, average = 1")
    for axes, label in zip((left, right), labels, strict=True):
        axes.set_yticks(y, [_short(row, 40) for row in rows], fontsize=9, parse_math=False)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(label, fontsize=9, color=SOFT)
        _plain(axes)
    right.set_yticklabels([])
    return _render(figure)


def _plain(axes: Axes) -> None:
    axes.tick_params(length=0, colors=INK)
    axes.tick_params(axis="x", labelsize=8.5, colors=SOFT)
    axes.grid(axis="x", color=LINE, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(LINE)


def _short(name: str, most: int = 34) -> str:
    name = " ".join(name.split())
    return name if len(name) <= most else name[: most - 1].rstrip() + "…"


def _bar_label(row: Mapping) -> str:
    return f"{_short(row['class'])}  ({row['positives']})"


def _inches(labels: Sequence[str], points: float) -> float:
    """Room for the widest of these labels, with a margin."""
    face = font(100)
    return max(face.getlength(label) for label in labels) / 100 * points / 72 + 0.25


def _render(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is no reason to fail or to fill the screen.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
        FigureCanvasAgg(figure).print_png(buffer, pil_kwargs={"dpi": (figure.dpi, figure.dpi)})
    return buffer.getvalue()
