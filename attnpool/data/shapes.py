"""The shapes of the network's inputs, which are known before the images are decoded."""

from __future__ import annotations

from attnpool.data.crops import input_size
from attnpool.data.dataset import Dataset
from attnpool.data.decoding.image import quiet, upright_size
from attnpool.data.preprocessing import Preprocessing


def shapes(dataset: Dataset, options: Preprocessing) -> list[tuple[int, int]] | None:
    """Height and width of the network's input for every sample, by which batches are grouped; None if all are alike.

    The header of every image is read. One that cannot be read counts as square.
    """
    if options.view != "whole":
        return None
    found = []
    with quiet():
        for sample in dataset:
            width, height = input_size(upright_size(dataset.file(sample)) or (1, 1), options)
            found.append((height, width))
    return found
