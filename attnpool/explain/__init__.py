"""Showing where the evidence is: maps over pictures, their peaks, whether those lie in the right place, and how much
the positions of a network's last features differ at all."""

from attnpool.explain.columns import figure_columns
from attnpool.explain.overlays import Column, grid, overlay, panel
from attnpool.explain.peaks import peak, pointing
from attnpool.explain.similarity import Similarity, feature_similarity, similarities, similarity
from attnpool.explain.storyboard import Row, figure_rows, storyboard

__all__ = [
    "Column",
    "Row",
    "Similarity",
    "feature_similarity",
    "figure_columns",
    "figure_rows",
    "grid",
    "overlay",
    "panel",
    "peak",
    "pointing",
    "similarities",
    "similarity",
    "storyboard",
]
