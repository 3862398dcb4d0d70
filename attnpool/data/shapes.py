"""The shapes of the network's inputs, which are known before the images are decoded."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from attnpool.data.crops import input_size
from attnpool.data.dataset import Dataset, Sample
from attnpool.data.decoding.image import Unreadable, quiet, upright_size
from attnpool.data.decoding.video import read_frames
from attnpool.data.preprocessing import Preprocessing


def shapes(dataset: Dataset, options: Preprocessing) -> list[tuple[int, int]] | None:
    """Height and width of the network's input for every sample, by which batches are grouped; None if all are alike.

    The header of every image is read, and the first frame of every clip, unless their storage knows their size. One
    that cannot be read counts as square.
    """
    if options.view != "whole":
        return None
    found = []
    with quiet():
        for sample in dataset:
            width, height = input_size(size_of(dataset, sample) or (1, 1), options)
            found.append((height, width))
    return found


def size_of(dataset: Dataset, sample: Sample) -> tuple[int, int] | None:
    """Width and height of an image, or of a clip's first frame, upright; None if it cannot be read."""
    if dataset.storage and (known := dataset.storage.size(sample.path)):
        return known
    with suppress(Unreadable), dataset.opened(sample) as file:
        return first_frame(file) if dataset.media == "clips" else upright_size(file)
    return None


def first_frame(path: Path) -> tuple[int, int] | None:
    """Width and height of a clip's first frame, upright; None if it cannot be read."""
    try:
        return read_frames(path, [0])[0].size
    except Unreadable:
        return None
