"""Maps -> pictures: showing where the evidence is."""

from attnpool.explain.columns import figure_columns
from attnpool.explain.overlays import Column, grid, overlay, panel
from attnpool.explain.storyboard import Row, figure_rows, storyboard

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
