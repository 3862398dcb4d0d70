"""Scores of a run: average precision in the three definitions in use, accuracy, confusion.

All of it is numpy in float64 and none of it depends on the order of the images: images with the same score enter
the precision-recall curve together, as one point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["voc10", "voc07", "sklearn"]


def average_precision(scores: np.ndarray, positives: np.ndarray, kind: Kind = "voc10") -> float:
    """Average precision of one class.

    Args:
        scores: `(n,)`, higher means more certain; infinite values are allowed.
        positives: `(n,)` bool.
        kind: "voc10": area under the curve after precision was made monotone (VOC2010 and later, MPII's);
            "voc07": mean of the best precision at recall >= 0, 0.1, ..., 1 (VOC2007, HICO's);
            "sklearn": `sum_n (R_n - R_{n-1}) P_n` without interpolation, as scikit-learn has it.

    Returns:
        A fraction, NaN if there are no positives. Formulas stand in docs/scores.md.

    Raises:
        ValueError: the shapes do not fit together, a score is NaN, or the kind is unknown.
    """
    if kind not in AREAS:
        raise ValueError(f"unknown definition of average precision {kind!r}: choose one of {', '.join(AREAS)}")
    scores, positives = np.asarray(scores, dtype=np.float64), np.asarray(positives, dtype=bool)
    if scores.ndim != 1 or scores.shape != positives.shape:
        raise ValueError(f"scores {scores.shape} and positives {positives.shape} must be two lists of one length")
    _no_nan(scores)
    if not positives.any():
        return math.nan
    return AREAS[kind](*_curve(scores, positives))


def _curve(scores: np.ndarray, positives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True positives and images retrieved at every distinct score, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_ties = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    return np.cumsum(positives[order])[last_of_ties], last_of_ties + 1


def _voc10(hits: np.ndarray, retrieved: np.ndarray) -> float:
    return float(np.sum(np.diff(hits, prepend=0) * _monotone(hits / retrieved)) / hits[-1])


def _voc07(hits: np.ndarray, retrieved: np.ndarray) -> float:
    # Recall >= k / 10 is asked in whole numbers: 3 of 10 positives must reach recall 0.3, and 0.1 * 3 > 0.3 in binary.
    first_reaching = np.searchsorted(10 * hits, np.arange(11) * hits[-1])
    return float(np.mean(_monotone(hits / retrieved)[first_reaching]))


def _sklearn(hits: np.ndarray, retrieved: np.ndarray) -> float:
    return float(np.sum(np.diff(hits, prepend=0) * (hits / retrieved)) / hits[-1])


def _monotone(precision: np.ndarray) -> np.ndarray:
    """At every point the best precision from there on."""
    return np.maximum.accumulate(precision[::-1])[::-1]


AREAS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"voc10": _voc10, "voc07": _voc07, "sklearn": _sklearn}


@dataclass(frozen=True)
class Scores:
    """What a set of images scored. Fractions 0..1; a mean over no class or no image is NaN.

    Attributes:
        mAP, mAP_voc07, mAP_sklearn: means over the classes that have positives, see `average_precision`.
        accuracy: the part of the images whose class scores strictly higher than every other; `None` if an image may
            have several classes.
        per_class: `{"class", "AP", "AP_voc07", "AP_sklearn", "positives", "images"}` for each class in order; the APs
            are `None` for a class without positives, `images` is how many count for it.
        images: the denominator of the accuracy.
        classes_scored: the denominator of the means.
    """

    mAP: float
    mAP_voc07: float
    mAP_sklearn: float
    accuracy: float | None
    per_class: tuple[dict[str, Any], ...]
    images: int
    classes_scored: int

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold: NaN becomes null."""
        values = asdict(self) | {"per_class": [dict(row) for row in self.per_class]}
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def score(
    scores: np.ndarray,
    targets: np.ndarray,
    classes: Sequence[str],
    task: Literal["single", "multi"] = "single",
    counted: np.ndarray | None = None,
) -> Scores:
    """Scores all images.

    Args:
        scores: `(n, K)`; for a single label rank by softmax probabilities, as the paper does.
        targets: `(n, K)` bool, the classes each image shows.
        classes: K names.
        task: "single" or "multi".
        counted: `(n, K)` bool, False where an image does not count for a class: neither its label nor its rank does.
            HICO's default setting leaves out images whose label is ambiguous; its Known-Object setting counts only
            images that are known to show the class (1) or its object alone (-1). By default all count.

    Raises:
        ValueError: the shapes do not fit together, a score is NaN, or the task is single and an image has not exactly
            one class.
    """
    scores, targets = np.asarray(scores, dtype=np.float64), np.asarray(targets, dtype=bool)
    counted = np.ones(targets.shape, bool) if counted is None else np.asarray(counted, dtype=bool)
    if scores.shape != targets.shape or scores.ndim != 2 or scores.shape[1] != len(classes):
        raise ValueError(
            f"scores {scores.shape} and targets {targets.shape} must be (images, {len(classes)}): one column a class"
        )
    if counted.shape != targets.shape:
        raise ValueError(f"counted {counted.shape} and targets {targets.shape} must be of one shape")
    _no_nan(scores)
    kinds = {"AP": "voc10", "AP_voc07": "voc07", "AP_sklearn": "sklearn"}
    rows: list[dict[str, Any]] = []
    for k, name in enumerate(classes):
        use = counted[:, k]
        positives = targets[use, k]
        values: dict[str, float | None] = dict.fromkeys(kinds)
        if positives.any():
            curve = _curve(scores[use, k], positives)
            values = {key: AREAS[kind](*curve) for key, kind in kinds.items()}
        rows.append({"class": name, **values, "positives": int(positives.sum()), "images": len(positives)})
    means = {key: _mean([row[key] for row in rows if row["positives"]]) for key in kinds}
    accuracy = None
    if task == "single":
        if not (targets.sum(1) == 1).all():
            raise ValueError("every image must have exactly one class; use task='multi' where images have several")
        accuracy = _mean((_predicted(scores, targets.argmax(1)) == targets.argmax(1)).tolist())
    return Scores(
        mAP=means["AP"],
        mAP_voc07=means["AP_voc07"],
        mAP_sklearn=means["AP_sklearn"],
        accuracy=accuracy,
        per_class=tuple(rows),
        images=len(scores),
        classes_scored=sum(row["positives"] > 0 for row in rows),
    )


def confusion(scores: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """How often images of one class were taken for another.

    Args:
        scores: `(n, K)`.
        labels: `(n,)` the true class numbers.
        num_classes: K.

    Returns:
        `(K, K)` counts: row the truth, column the prediction. A tie at the top counts against the truth, so the
        diagonal agrees with `Scores.accuracy`.

    Raises:
        ValueError: the shapes or labels do not fit together, or a score is NaN.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if scores.shape != (len(labels), num_classes) or not ((labels >= 0) & (labels < num_classes)).all():
        raise ValueError(f"scores {scores.shape} and {len(labels)} labels must be for the same {num_classes} classes")
    _no_nan(scores)
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(counts, (labels, _predicted(scores, labels)), 1)
    return counts


def _predicted(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The class with the highest score; the true class only if no other reaches it.

    Otherwise a network that gives every class the same score would be right about the class that is listed first.
    """
    if scores.shape[1] == 1 or not len(scores):
        return np.zeros(len(scores), dtype=np.int64)
    rows = np.arange(len(scores))
    top = scores.max(1, keepdims=True) == scores
    others = top.copy()
    others[rows, labels] = False
    return np.where(others.any(1), others.argmax(1), labels)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _no_nan(scores: np.ndarray) -> None:
    if np.isnan(scores).any():
        raise ValueError("the scores hold NaN: the network diverged, train it again with a lower learning rate")


def calibration_error(
    probabilities: np.ndarray,
    targets: np.ndarray,
    counted: np.ndarray | None = None,
    task: Literal["single", "multi"] = "single",
    bins: int = 15,
) -> float:
    """The expected calibration error, `sum_b n_b / n |accuracy_b - confidence_b|` (Guo et al., ICML 2017).

    With one label an image the confidence is the probability of the best class, and it is right if the image has that
    class. With several every class of every image counts, with its probability and whether the image has it. Bins are
    equally wide, `(0, 1 / bins], ...`.

    Args:
        probabilities: `(n, K)`.
        targets: `(n, K)` bool.
        counted: `(n, K)` bool, which labels are known (default: all).
        task: "single" or "multi".
        bins: number of bins.

    Returns:
        A fraction, NaN if nothing can be counted.
    """
    targets = np.asarray(targets, bool)
    known = np.ones_like(targets) if counted is None else np.asarray(counted, bool)
    if task == "single":
        rows = targets.any(1)
        best = probabilities[rows].argmax(1)
        confidence, right = probabilities[rows].max(1), targets[rows][np.arange(len(best)), best]
    else:
        confidence, right = probabilities[known], targets[known]
    if not len(confidence):
        return math.nan
    number = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(number, confidence, bins) - np.bincount(number, right, bins)
    return float(np.abs(gaps).sum() / len(confidence))
