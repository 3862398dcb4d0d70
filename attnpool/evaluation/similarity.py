"""How alike the last features of different positions are: the paper's account of why attention helps some networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from attnpool.data import Dataset, Preprocessing, batches, load
from attnpool.models.recognizer import Recognizer
from attnpool.progress import bar

BATCH = 8


@dataclass(frozen=True)
class Similarity:
    """Similarity of the positions of a dataset's images.

    Attributes:
        mean: over the images (or the frames of clips).
        std: standard deviation between them.
        images: how many there are.
        failed: `(path, reason)` of those that could not be read.
    """

    mean: float
    std: float
    images: int
    failed: tuple[tuple[str, str], ...] = ()


def similarities(features: Tensor) -> Tensor:
    """Mean cosine similarity between the features of two different positions, for each image.

    `1 / (N (N - 1)) * sum_{i != j} u_i . u_j` with `u_i = x_i / |x_i|`, computed as `(|sum_i u_i|^2 - sum_i |u_i|^2) /
    (N (N - 1))`. A position whose features are all 0 is similar to none. At 1 all positions say the same, and attention
    to one rather than another changes nothing.

    Args:
        features: `(..., C, H, W)`, such as those of a backbone.

    Returns:
        `(...)`, float64, from -1 / (N - 1) to 1.

    Raises:
        ValueError: there are fewer than two positions, or values that are not finite.
    """
    if features.ndim < 3 or features.shape[-1] * features.shape[-2] < 2:
        raise ValueError(
            f"features of shape {tuple(features.shape)} have no two positions to compare: give (..., C, H, W), or the "
            "network a larger image"
        )
    if not bool(torch.isfinite(features).all()):
        raise ValueError("the features hold NaN or infinity: the network diverged")
    unit = F.normalize(features.flatten(-2).double(), dim=-2, eps=torch.finfo(torch.float64).tiny)
    count = unit.shape[-1]
    return (unit.sum(-1).square().sum(-1) - unit.square().sum((-2, -1))) / (count * (count - 1))


def similarity(features: Tensor) -> float:
    """The mean of `similarities` over the images.

    >>> round(similarity(torch.ones(2, 8, 7, 7)), 6)
    1.0
    """
    return float(similarities(features).mean())


@torch.inference_mode()
def feature_similarity(
    model: Recognizer,
    dataset: Dataset,
    *,
    limit: int | None = None,
    workers: int = 0,
    device: torch.device | None = None,
    progress: bool = True,
) -> Similarity:
    """How alike the positions of a network's last feature map are, on average over a dataset.

    The paper holds the similarity of BN-Inception's last features against ResNet-101's to be why attention helps the
    one and not the other (Sec. 4, "Base Network"), and gives no number. The features are those of the backbone, before
    they are standardised; for a bare `Backbone` write `Recognizer(backbone, classes=dataset.classes)`.

    Args:
        model: the recognizer whose backbone and preprocessing are used; it is left in the mode that it is in.
        dataset: the images or clips.
        limit: how many samples, evenly spread over the dataset, are looked at; all by default.
        workers: processes that decode images.
        device: where the backbone runs; by default where it is.
        progress: show a progress bar.

    Raises:
        ValueError: no image can be read, or the network's map has a single position.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; give at least 1")
    if not len(dataset):
        raise ValueError(f"{dataset.name}: has no images")
    count = len(dataset) if limit is None else min(limit, len(dataset))
    chosen = [i * len(dataset) // count for i in range(count)]
    order = [[chosen[i] for i in batch] for batch in batches(count, BATCH, seed=0, epoch=0, shuffle=False)]
    was_training, was_on = model.training, next(model.parameters()).device
    model.eval().to(device or was_on)
    found: list[Tensor] = []
    failed: list[tuple[str, str]] = []
    try:
        loaded = load(
            dataset, Preprocessing(**model.preprocessing), order, seed=0, epoch=0, train=False, workers=workers
        )
        with bar(count, "similarity", "images", hidden=not progress) as shown:
            for batch in loaded:
                failed += batch.failed
                if len(batch.indices):
                    pixels = batch.pixels.to(device or was_on)
                    found.append(similarities(model.features(model.normalize(pixels))).flatten().cpu())
                shown.update(len(batch.indices) + len(batch.failed))
    finally:
        model.train(was_training).to(was_on)
    if not found:
        raise ValueError(f"{dataset.name}: none of {count} images can be read; see attnpool check {dataset.name}")
    values = torch.cat(found)
    return Similarity(float(values.mean()), float(values.std(correction=0)), len(values), tuple(failed))
