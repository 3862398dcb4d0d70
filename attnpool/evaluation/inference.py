"""Outputs of a recognizer on every sample of a source, before anything is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnpool.data import batches
from attnpool.evaluation.pointing import peak, pointing
from attnpool.features.batches import BatchSource
from attnpool.models.recognizer import Recognizer
from attnpool.pooling import Pooled
from attnpool.progress import bar

BATCH = 32


@dataclass(frozen=True)
class Outputs:
    """Scores of the readable images of a dataset, in its order.

    Attributes:
        logits: `(n, K)` float64.
        targets: `(n, K)` bool.
        label_mask: `(n, K)` bool, false where the label is ambiguous.
        paths: of the n samples.
        pointed: `(n,)` 1 where the combined map of the true class peaks in the evidence, 0 where not, NaN without
            evidence or without a combined map.
        failed: `(path, reason)` of images that cannot be read.
    """

    logits: np.ndarray
    targets: np.ndarray
    label_mask: np.ndarray
    paths: list[str]
    pointed: np.ndarray
    failed: list[tuple[str, str]]


@torch.no_grad()
def score_source(
    model: Recognizer,
    source: BatchSource,
    *,
    maps: bool = True,
    device: torch.device | None = None,
    positions: Sequence[int] | None = None,
    progress: str = "",
) -> Outputs:
    """Scores every sample of a source with the model as it stands, in eval mode; leaves the mode as it was.

    Args:
        model: the recognizer.
        source: of images or features.
        maps: also make combined maps and see whether they point to the evidence.
        device: where the model is.
        positions: only these samples.
        progress: title of a progress bar, "" for none.
    """
    was_training = model.training
    model.eval()
    chosen = list(range(len(source.dataset)) if positions is None else positions)
    logits, targets, label_mask, paths, pointed, failed = [], [], [], [], [], list(source.failed)
    size = max(1, BATCH // source.inputs_per_sample)
    groups = [source.shapes[i] for i in chosen] if source.shapes else None
    blocks = [source.blocks[i] for i in chosen] if source.blocks else None
    parts = batches(len(chosen), size, seed=0, epoch=0, shuffle=False, groups=groups, blocks=blocks)
    order = [[chosen[i] for i in part] for part in parts]
    unit = "clips" if source.dataset.media == "clips" else "images"
    shown = bar(len(chosen), progress, unit, hidden=not progress)
    with_evidence = maps and any(sample.evidence for sample in source.dataset)
    for batch in source.batches(order, seed=0, epoch=0, train=False):
        failed += batch.failed
        shown.update(len(batch.paths) + len(batch.failed))
        if not batch.paths:
            continue
        inputs = batch.inputs.to(device) if device else batch.inputs
        features = inputs if source.cached else features_of(model, inputs)
        true = batch.targets.argmax(1)
        wanted, place = true.unique(return_inverse=True)
        maps_of = wanted.tolist() if with_evidence else False
        out = model.pool(features, maps=maps_of, boxes=batch.boxes, size=batch.size, views=source.views)
        logits.append(out.logits.double().cpu().numpy())
        targets.append(batch.targets.numpy() > 0)
        label_mask.append(batch.label_mask.numpy())
        paths += batch.paths
        pointed.append(points(out, place, batch.targets, batch.evidence, batch.size))
    shown.close()
    model.train(was_training)
    width = len(model.classes)
    if groups:
        place = {sample.path: i for i, sample in enumerate(source.dataset)}
        back = np.argsort([place[path] for path in paths])
        logits, targets, label_mask, pointed = (
            [np.concatenate(parts)[back]] if paths else [] for parts in (logits, targets, label_mask, pointed)
        )
        paths = [paths[i] for i in back]
    return Outputs(
        np.concatenate(logits) if paths else np.zeros((0, width)),
        np.concatenate(targets) if paths else np.zeros((0, width), bool),
        np.concatenate(label_mask) if paths else np.zeros((0, width), bool),
        paths,
        np.concatenate(pointed) if paths else np.zeros(0),
        failed,
    )


def features_of(model: Recognizer, pixels: Tensor) -> Tensor:
    """The backbone's features of pixels `(B, 3, S, S)` or `(B, T, 3, S, S)`, `BATCH` views at a time.

    Ten crops of 25 frames at once would fill the memory.
    """
    views = pixels.flatten(0, -4)
    each = [model.features(model.normalize(part)) for part in views.split(BATCH)]
    return torch.cat(each).unflatten(0, pixels.shape[:-3])


def merge(accelerator: Any, outputs: Outputs) -> Outputs:
    """The outputs of all processes of a training, in each of them."""
    if accelerator.num_processes == 1:
        return outputs
    from accelerate.utils import gather_object

    parts: list[Outputs] = gather_object([outputs])
    return Outputs(
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.targets for part in parts]),
        np.concatenate([part.label_mask for part in parts]),
        [path for part in parts for path in part.paths],
        np.concatenate([part.pointed for part in parts]),
        list(dict.fromkeys(failure for part in parts for failure in part.failed)),
    )


def as_probabilities(logits: Tensor, scores: str) -> np.ndarray:
    """Softmax or sigmoids of logits `(B, K)` in float64; `scores` is that of the recognizer."""
    exact = logits.detach().double().cpu()
    return (exact.softmax(1) if scores == "softmax" else exact.sigmoid()).numpy()


def points(
    out: Pooled, place: Tensor, targets: Tensor, evidence: Sequence[Sequence[Any]], size: tuple[int, int]
) -> np.ndarray:
    """`(B,)`: whether the combined map of the (first) true class peaks in the evidence; NaN where none is known.

    Nothing is known of clips and of several crops. `place` says for every image which of the maps is that of its true
    class.
    """
    if out.combined is None or out.combined.ndim != 4 or not len(targets):
        return np.full(len(targets), np.nan)
    combined = out.combined[torch.arange(len(place)), place.to(out.combined.device)]
    boxes = [boxes if positive else [] for boxes, positive in zip(evidence, targets.any(1).tolist(), strict=True)]
    return pointing(peak(combined, size), boxes)
