"""The pose estimators by name. They find the persons in an image and their joints with published networks."""

from __future__ import annotations

from pathlib import Path

from attnpool.keypoints.blazepose import MediaPipe
from attnpool.keypoints.detections import Estimator
from attnpool.keypoints.keypoint_rcnn import KeypointRCNN

ESTIMATORS = ("keypointrcnn", "mediapipe")


def build_estimator(
    kind: str,
    *,
    weights: str | Path | None = None,
    python: str | Path | None = None,
    min_score: float = 0.5,
    short_side: int | None = None,
) -> Estimator:
    """Builds the estimator "keypointrcnn" or "mediapipe"; arguments that are `None` have the estimator's default.

    Raises:
        ValueError: the estimator is unknown, does not have an option, or cannot be set up.
    """
    if kind == "keypointrcnn":
        if python is not None:
            raise ValueError("keypointrcnn runs in this environment; leave out python")
        return KeypointRCNN(
            "pretrained" if weights is None else weights,
            min_score=min_score,
            short_side=800 if short_side is None else short_side,
        )
    if kind == "mediapipe":
        if weights is not None or short_side is not None:
            given = "weights" if weights is not None else "short_side"
            raise ValueError(f"mediapipe comes with its model and its input size; leave out {given}")
        return MediaPipe(python, min_score=min_score)
    raise ValueError(f"unknown estimator {kind!r}: use {' or '.join(ESTIMATORS)}")
