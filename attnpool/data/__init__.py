"""Datasets: what is in them (`read`, `check`), and batches of their images (`batches`, `load`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from attnpool.data.check import check_splits
from attnpool.data.check_report import Check
from attnpool.data.dataset import Dataset, Person, Sample
from attnpool.data.decoding.image import read_image
from attnpool.data.formats.coco import with_evidence
from attnpool.data.formats.folder import read_folder
from attnpool.data.formats.hico import read_hico
from attnpool.data.formats.hmdb51 import read_hmdb51
from attnpool.data.formats.mpii import annolist_ids, read_mpii
from attnpool.data.loader import PixelBatch, batches, label_tensors, load
from attnpool.data.preprocessing import Preprocessing
from attnpool.data.splits import hold_out
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
    "annolist_ids",
    "batches",
    "check",
    "eval_view",
    "eval_views",
    "hold_out",
    "label_tensors",
    "load",
    "read",
    "read_all",
    "read_image",
    "read_splits",
    "segment_positions",
    "train_view",
]

READERS: dict[str, Callable[..., dict[str, Dataset]]] = {
    "folder": read_folder,
    "mpii": read_mpii,
    "hico": read_hico,
    "hmdb51": read_hmdb51,
    "hmdb51-2": partial(read_hmdb51, number=2),
    "hmdb51-3": partial(read_hmdb51, number=3),
}
"""Format -> its reader: `reader(root, name=, split_seed=, val_fraction=, test=)` gives split -> Dataset."""


def read_splits(
    source: str | Path, *, split_seed: int = 0, val_fraction: float = 0.25, test: bool = True
) -> dict[str, Dataset]:
    """Read a dataset's dataset: "train", "val" and, if there is one and it is wanted, "test".

    Args:
        source: `FORMAT:PATH`, such as `folder:photos`; the formats are the keys of `READERS`.
        split_seed: of the split into train and val, where the dataset does not come with one.
        val_fraction: part of every class that becomes val in such a split.
        test: whether to look for a test split.

    Raises:
        ValueError: no such format, or the dataset is missing or malformed; one line with what to do.
    """
    scheme, colon, path = str(source).partition(":")
    reader = READERS.get(scheme) if colon else None
    if reader is None or not path:
        given = str(source) or "DIR"
        hint = f"folder:{'DIR' if colon else given}"
        raise ValueError(f"{given!r} does not say which format to read ({', '.join(READERS)}); write {hint}")
    root = Path(path).expanduser()
    splits = reader(root, name=str(source), split_seed=split_seed, val_fraction=val_fraction, test=test)
    if scheme == "mpii":  # the one benchmark with one actor an image; `folder` has read the file itself
        splits = {part: with_evidence(dataset) for part, dataset in splits.items()}
    return splits


def read(source: str | Path, *, split_seed: int = 0, val_fraction: float = 0.25) -> tuple[Dataset, Dataset]:
    """Read a dataset's dataset: (train, val). Arguments and errors are those of `read_splits`."""
    splits = read_splits(source, split_seed=split_seed, val_fraction=val_fraction, test=False)
    return splits["train"], splits["val"]


def read_all(source: str | Path, *, split_seed: int = 0, val_fraction: float = 0.25) -> Dataset:
    """Train and val in one dataset, in order of path; a test split stays apart. Errors are those of `read_splits`."""
    train, val = read(source, split_seed=split_seed, val_fraction=val_fraction)
    samples = sorted((*train.samples, *val.samples), key=lambda sample: sample.path)
    return replace(train, samples=tuple(samples), split="all")


def check(
    source: str | Path,
    *,
    split_seed: int = 0,
    val_fraction: float = 0.25,
    progress: Callable[[int, int], None] | None = None,
) -> Check:
    """Decode every image of a dataset, its test split included, and say what cannot be used.

    Args:
        source: as in `read_splits`.
        split_seed: as in `read_splits`.
        val_fraction: as in `read_splits`.
        progress: called with (images done, images in all) after each.

    Raises:
        ValueError: as in `read_splits`. Images that cannot be read are no error: they are listed.
    """
    return check_splits(str(source), read_splits(source, split_seed=split_seed, val_fraction=val_fraction), progress)
