"""Showing where the evidence is: maps over pictures, their peaks, and whether those lie in the right place."""

from attnpool.explain.columns import figure_columns
from attnpool.explain.overlays import Column, grid, overlay, panel
from attnpool.explain.peaks import peak, pointing

__all__ = ["Column", "figure_columns", "grid", "overlay", "panel", "peak", "pointing"]
