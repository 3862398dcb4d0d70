"""Maps -> images: showing where the evidence is."""

from attnpool.explain.clip_figure import Row, figure_rows, storyboard
from attnpool.explain.columns import figure_columns
from attnpool.explain.overlay import Column, grid, overlay, panel

__all__ = [
    "Column",
    "Row",
    "figure_columns",
    "figure_rows",
    "grid",
    "overlay",
    "panel",
    "storyboard",
]
