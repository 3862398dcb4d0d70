"""Images that are nearly the same, by the correlation of small grey copies."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from attnpool.data.dataset import Dataset
from attnpool.data.decoding.image import Unreadable, decode, quiet
from attnpool.progress import bar

SIDE = 16  # of the small copies
ALIKE = 0.95  # the least correlation of near-duplicates
FLAT = 4.0  # of 255: standard deviation below which a copy says nothing
MOST = 10_000  # images that a training looks through
ROWS = 1000  # that are compared at a time


def signature(image: Image.Image) -> np.ndarray | None:
    """`(256,)` a small grey copy with mean 0 and length 1; None for a flat image, which is like any other.

    Copies that were scaled, compressed, or changed in brightness and contrast have nearly the same.
    """
    grey = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32).ravel()
    grey = grey - grey.mean()
    return None if grey.std() < FLAT else grey / np.linalg.norm(grey)


def near(known: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """For every one of `others` (path -> signature) that is nearly one of `known`, both paths; the nearest counts."""
    if not known or not others:
        return []
    names, paths = list(known), list(others)
    columns, rows = np.stack([known[name] for name in names]).T, np.stack([others[path] for path in paths])
    found = []
    for start in range(0, len(paths), ROWS):
        alike = rows[start : start + ROWS] @ columns
        nearest = alike.argmax(1)
        found += [
            (paths[start + row], names[column])
            for row, column in enumerate(nearest.tolist())
            if alike[row, column] >= ALIKE
        ]
    return found


def small(size: tuple[int, int]) -> float:
    """How many pixels of an image become one of a copy that is large enough for its signature."""
    return max(1.0, min(size) / (2 * SIDE))


def signatures(dataset: Dataset, *, progress: bool = False) -> dict[str, np.ndarray]:
    """The signatures of all images that can be read and are not flat."""
    found = {}
    with quiet(), bar(len(dataset), f"near-duplicates in {dataset.split}", "images", hidden=not progress) as shown:
        for sample in dataset:
            shown.update(1)
            try:
                with dataset.opened(sample) as file:
                    value = signature(decode(file, small))
            except Unreadable:
                continue
            if value is not None:
                found[sample.path] = value
    return found


def note_on_images(train: Dataset, val: Dataset, *, progress: bool = False) -> list[str]:
    """What is to be said if images of val are nearly images of train; nothing of clips, shards, or very many images."""
    if train.media != "images" or train.storage is not None or len(train) + len(val) > MOST:
        return []
    found = near(signatures(train, progress=progress), signatures(val, progress=progress))
    if not found:
        return []
    said = (
        f"{len(found)} of {len(val)} images of val are nearly images of train, such as {found[0][0]} and {found[0][1]}"
    )
    return [f"{said}; scores look too good: see attnpool check {train.name}"]
