"""Late fusion: one score out of those of several streams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def fuse(scores: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """The weighted mean `sum_i w_i s_i / sum_i w_i` of several streams' scores.

    Temporal segment networks fuse the logits of colour and of optical flow as 1 : 1.5 (Wang et al., ECCV 2016).

    Args:
        scores: one array a stream, all of one shape, such as `(B, K)` logits.
        weights: one positive number a stream; only their ratios matter.

    Returns:
        float64, of the same shape.

    Raises:
        ValueError: there are no streams, the numbers of streams and weights or the shapes differ, or a weight is not
            positive.
    """
    if not scores or len(scores) != len(weights):
        raise ValueError(f"{len(scores)} streams and {len(weights)} weights: give one weight for each stream")
    shapes = [np.shape(array) for array in scores]
    if len(set(shapes)) > 1:
        raise ValueError(f"the streams' scores differ in shape: {', '.join(map(str, shapes))}; score the same samples")
    share = np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(share).all() and (share > 0).all()):
        raise ValueError(f"weights {', '.join(map(str, weights))}: each must be a positive number")
    share = share / share.sum()
    return np.sum([w * np.asarray(array, dtype=np.float64) for w, array in zip(share, scores, strict=True)], axis=0)


def weighted_run(word: str) -> tuple[Path, float]:
    """`runs/flow=1.5` -> the folder and the weight, which is 1 if it is not given.

    Raises:
        ValueError: the weight is no positive number.
    """
    folder, equals, weight = word.rpartition("=")
    if not equals or Path(word).is_dir():  # a folder may be called lr=0.1
        return Path(word), 1.0
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"fuse {word}: {weight!r} is no weight; write a positive number, such as {folder}=1.5")
    return Path(folder), value
