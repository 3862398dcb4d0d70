"""Weights of classes in a loss, from the number of their images."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from attnpool.data import Dataset


def weights_of(
    dataset: Dataset, kind: Literal["none", "balanced", "sqrt"], task: Literal["single", "multi"]
) -> Tensor | None:
    """The weights of the classes of a dataset; see `class_weights`."""
    counts = torch.zeros(len(dataset.classes))
    for sample in dataset:
        counts[list(sample.labels)] += 1
    return class_weights(counts, kind, task, len(dataset))


def class_weights(
    counts: Tensor, kind: Literal["none", "balanced", "sqrt"], task: Literal["single", "multi"], images: int
) -> Tensor | None:
    """Weights that let rare classes count as much as frequent ones.

    Args:
        counts: `(K,)`, the number of training images that show each class.
        kind: "none"; "balanced": `images / (classes with examples * count)`, as in scikit-learn, for a single label
            and `(images - count) / count` for several; "sqrt": the square root of that, for smaller weights of very
            rare classes.
        task: "single" or "multi".
        images: number of training images.

    Returns:
        `(K,)` float32, or `None` for "none". A class without examples has weight 0 (single) or 1 (multi, where it
        has no positive terms).

    Raises:
        ValueError: the kind is unknown, or a class has more examples than there are images.
    """
    if kind not in ("none", "balanced", "sqrt"):
        raise ValueError(f"unknown class weights {kind!r}: choose one of none, balanced, sqrt")
    if kind == "none":
        return None
    counts = counts.double()
    if bool((counts > images).any()):
        raise ValueError(f"a class has {int(counts.max())} examples in {images} images: count an image once per class")
    seen = counts > 0
    if task == "single":
        balanced = images / (seen.sum() * counts.clamp_min(1)) * seen
    else:
        balanced = torch.where(seen, (images - counts) / counts.clamp_min(1), 1.0)
    return (balanced.sqrt() if kind == "sqrt" else balanced).float()
