"""attnpool: what people are doing in an image or a clip, and exactly where the evidence is.

The names below are the public API; they are imported when first used, so that `import attnpool` is quick. Everything
that `attnpool.pooling` exports (`AttentionalPooling`, ...) is here as well.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnpool.backbones.backbone import Backbone
    from attnpool.data import Dataset, Preprocessing, check, read
    from attnpool.data.pose_labelling import label_pose
    from attnpool.evaluation.evaluate import evaluate
    from attnpool.evaluation.predict import predict
    from attnpool.evaluation.similarity import feature_similarity
    from attnpool.explain.explain import explain_files
    from attnpool.features.extraction import extract
    from attnpool.models.conversion.classifier import convert
    from attnpool.models.conversion.tensorflow import convert_tf
    from attnpool.models.recognizer import Recognizer
    from attnpool.models.run import Run, load_model, save_run
    from attnpool.pooling import *  # noqa: F403
    from attnpool.training.config import OptimizerOptions, TrainOptions
    from attnpool.training.train import train

__all__ = [
    "Backbone",
    "Dataset",
    "OptimizerOptions",
    "Preprocessing",
    "Recognizer",
    "Run",
    "TrainOptions",
    "check",
    "convert",
    "convert_tf",
    "evaluate",
    "explain_files",
    "extract",
    "feature_similarity",
    "label_pose",
    "load_model",
    "predict",
    "read",
    "save_run",
    "train",
]

_HOME = {
    "Backbone": "attnpool.backbones.backbone",
    "Dataset": "attnpool.data",
    "OptimizerOptions": "attnpool.training.config",
    "Preprocessing": "attnpool.data",
    "Recognizer": "attnpool.models.recognizer",
    "Run": "attnpool.models.run",
    "TrainOptions": "attnpool.training.config",
    "check": "attnpool.data",
    "convert": "attnpool.models.conversion.classifier",
    "convert_tf": "attnpool.models.conversion.tensorflow",
    "evaluate": "attnpool.evaluation.evaluate",
    "explain_files": "attnpool.explain.explain",
    "extract": "attnpool.features.extraction",
    "feature_similarity": "attnpool.evaluation.similarity",
    "label_pose": "attnpool.data.pose_labelling",
    "load_model": "attnpool.models.run",
    "predict": "attnpool.evaluation.predict",
    "read": "attnpool.data",
    "save_run": "attnpool.models.run",
    "train": "attnpool.training.train",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("attnpool")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name == "POOLINGS" or name.startswith("Pool") or name.endswith("Pooling"):  # other names must not import torch
        pooling = import_module("attnpool.pooling")
        if name in pooling.__all__:
            return getattr(pooling, name)
    raise AttributeError(f"module 'attnpool' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *import_module("attnpool.pooling").__all__, "__version__"])
