"""Recognizers with different poolings on the same features of a small world, to be trained side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attnpool as ap
from attnpool.features.extraction import extract
from attnpool.features.features import Features, standardize
from attnpool.training.config import OptimizerOptions, TrainOptions
from attnpool.training.side_by_side import SideBySide

SMALL = {"image_size": 96, "short_side": None, "max_width": None}


def small_models(world: Path, poolings: Sequence[str]) -> tuple[dict[str, ap.Recognizer], Features]:
    """Recognizers with different poolings, and features of their training images."""
    train, _ = ap.read(f"folder:{world}")
    backbone = ap.Backbone("lite0", frozen=True)
    models = {
        pooling: ap.Recognizer(backbone, classes=train.classes, preprocessing=SMALL, pooling=pooling)
        for pooling in poolings
    }
    features = extract(next(iter(models.values())), train, progress=False)
    for model in models.values():
        standardize(model, features, pooled=model.pooling in ("average", "attentional"))
    return models, features


def side_by_side(epochs: int) -> SideBySide:
    return SideBySide(TrainOptions(epochs=epochs), OptimizerOptions(), None)
