"""Tables of numbers, as text for a terminal and in Markdown: the one place where cells become lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DASHES = {"l": "---", "r": "---:"}


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean ± standard deviation (n - 1); the mean alone of a single value, "-" of none."""
    if not len(values):
        return "-"
    numbers = np.array(values, dtype=np.float64)
    mean = f"{numbers.mean():.{digits}f}"
    return f"{mean} ± {numbers.std(ddof=1):.{digits}f}" if len(numbers) > 1 else mean


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> list[str]:
    """Lines of a table for a terminal, columns padded to their widest cell.

    Args:
        header: titles of the columns.
        rows: as many cells each.
        align: "l" or "r" for each column; by default the first is aligned to the left and the others to the right.
    """
    align = align or default_alignment(header)
    widths = [max(len(cells[i]) for cells in [header, *rows]) for i in range(len(header))]
    lines = []
    for cells in [header, *rows]:
        padded = [
            cell.ljust(width) if side == "l" else cell.rjust(width)
            for cell, width, side in zip(cells, widths, align, strict=True)
        ]
        lines.append("  ".join(padded))
    return lines


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> list[str]:
    """Lines of a table in Markdown; arguments as in `text_table`.

    Cells are not padded, so that a number that becomes longer changes its own line of a page and no other.
    """
    rule = "|" + "".join(f"{DASHES[side]}|" for side in align or default_alignment(header))
    return [markdown_row(header), rule, *(markdown_row(cells) for cells in rows)]


def markdown_row(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def default_alignment(header: Sequence[str]) -> str:
    return "l" + "r" * (len(header) - 1)
