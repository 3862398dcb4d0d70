"""The shapes of the network's inputs, which are known before the images are decoded."""

from __future__ import annotations

from pathlib import Path

from attnpool.data.crops import input_size
from attnpool.data.dataset import Dataset
from attnpool.data.decoding.image import Unreadable, quiet, upright_size
from attnpool.data.decoding.video import read_frames
from attnpool.data.preprocessing import Preprocessing


def shapes(dataset: Dataset, options: Preprocessing) -> list[tuple[int, int]] | None:
    """Height and width of the network's input for every sample, by which batches are grouped; None if all are alike.

    The header of every image is read, and the first frame of every clip. One that cannot be read counts as square.
    """
    if options.view != "whole":
        return None
    found = []
    with quiet():
        for sample in dataset:
            path = dataset.file(sample)
            size = first_frame(path) if dataset.media == "clips" else upright_size(path)
            width, height = input_size(size or (1, 1), options)
            found.append((height, width))
    return found


def first_frame(path: Path) -> tuple[int, int] | None:
    """Width and height of a clip's first frame, upright; None if it cannot be read."""
    try:
        return read_frames(path, [0])[0].size
    except Unreadable:
        return None
