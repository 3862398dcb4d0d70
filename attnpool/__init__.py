"""attnpool: what people are doing in an image, and exactly where the evidence is.

The names below are the library; they are imported when first used, so that `import attnpool` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
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
    from attnpool.models.run import Run
    from attnpool.pooling import (
        POOLINGS,
        AttentionalPooling,
        AveragePooling,
        BilinearPooling,
        CompactBilinearPooling,
        CovariancePooling,
        MaxPooling,
        MultiQueryPooling,
        NetVLADPooling,
        Pooled,
        PoseRegularizedPooling,
        SaliencyPooling,
    )
    from attnpool.training.config import OptimizerOptions, TrainOptions
    from attnpool.training.train import train

__all__ = [
    "POOLINGS",
    "AttentionalPooling",
    "AveragePooling",
    "Backbone",
    "BilinearPooling",
    "CompactBilinearPooling",
    "CovariancePooling",
    "Dataset",
    "MaxPooling",
    "MultiQueryPooling",
    "NetVLADPooling",
    "OptimizerOptions",
    "Pooled",
    "PoseRegularizedPooling",
    "Preprocessing",
    "Recognizer",
    "Run",
    "SaliencyPooling",
    "TrainOptions",
    "check",
    "convert",
    "convert_tf",
    "evaluate",
    "explain_files",
    "extract",
    "feature_similarity",
    "label_pose",
    "predict",
    "read",
    "train",
]

_HOME = {
    "attnpool.backbones.backbone": ("Backbone",),
    "attnpool.models.run": ("Run",),
    "attnpool.models.conversion.classifier": ("convert",),
    "attnpool.data": ("Dataset", "Preprocessing", "check", "read"),
    "attnpool.evaluation.evaluate": ("evaluate",),
    "attnpool.evaluation.similarity": ("feature_similarity",),
    "attnpool.explain.explain": ("explain_files",),
    "attnpool.features.extraction": ("extract",),
    "attnpool.training.config": ("OptimizerOptions", "TrainOptions"),
    "attnpool.pooling": (
        "POOLINGS",
        "AttentionalPooling",
        "MultiQueryPooling",
        "AveragePooling",
        "BilinearPooling",
        "CompactBilinearPooling",
        "CovariancePooling",
        "MaxPooling",
        "Pooled",
        "PoseRegularizedPooling",
        "SaliencyPooling",
        "NetVLADPooling",
    ),
    "attnpool.data.pose_labelling": ("label_pose",),
    "attnpool.evaluation.predict": ("predict",),
    "attnpool.models.recognizer": ("Recognizer",),
    "attnpool.models.conversion.tensorflow": ("convert_tf",),
    "attnpool.training.train": ("train",),
}
_MODULES = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'attnpool' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
