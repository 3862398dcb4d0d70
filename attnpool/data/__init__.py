"""Datasets: reading (`read`) and checking (`check`) them, and loading batches of their images (`batches`, `load`)."""

from __future__ import annotations

from attnpool.data.check import check
from attnpool.data.check_report import Check
from attnpool.data.dataset import Dataset, Person, Sample
from attnpool.data.decoding.image import read_image
from attnpool.data.formats import READERS
from attnpool.data.loader import PixelBatch, label_tensors, load
from attnpool.data.order import batches
from attnpool.data.preprocessing import Preprocessing
from attnpool.data.reading import has_own_split, read, read_all, read_splits
from attnpool.data.shapes import shapes
from attnpool.data.splits import fold_numbers, hold_out
from attnpool.data.temporal_sampling import segment_positions
from attnpool.data.views import View, eval_view, eval_views, train_view
from attnpool.keypoints.joints import Box

__all__ = [
    "READERS",
    "Box",
    "Check",
    "Dataset",
    "Person",
    "PixelBatch",
    "Preprocessing",
    "Sample",
    "View",
    "batches",
    "check",
    "eval_view",
    "eval_views",
    "fold_numbers",
    "has_own_split",
    "hold_out",
    "label_tensors",
    "load",
    "read",
    "read_all",
    "read_image",
    "read_splits",
    "segment_positions",
    "shapes",
    "train_view",
]
