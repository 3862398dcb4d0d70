"""Losses: scalar means over the images of a batch, in float32 or better whatever the precision of the scores.

An empty batch (every file of it unreadable) costs 0 and gives zero gradients instead of NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


def classification_loss(
    logits: Tensor,
    targets: Tensor,
    task: Literal["single", "multi"],
    *,
    loss: str = "auto",
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The loss of the scores of a batch.

    Args:
        logits: `(B, K)` scores.
        targets: `(B, K)`, 1 where the image shows the class, else 0.
        task: "single" (one class an image) or "multi" (any number).
        loss: "cross_entropy", "bce" or "auto": cross-entropy if the task is single, BCE if it is multi.
        class_weights: `(K,)` from `class_weights()`. Cross-entropy weighs each image by its class,
            `sum_i w_i l_i / sum_i w_i`; BCE weighs the positive terms (torch's `pos_weight`).
        label_smoothing: in `[0, 1)`; the part of the target spread evenly over the classes (cross-entropy) or
            over yes and no (BCE).

    Returns:
        A scalar.

    Raises:
        ValueError: shapes that do not fit, an unknown loss, or a smoothing outside `[0, 1)`.
    """
    if task not in DEFAULT_LOSS:
        raise ValueError(f"unknown task {task!r}: choose one of {', '.join(DEFAULT_LOSS)}")
    name = DEFAULT_LOSS[task] if loss == "auto" else loss
    if name not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}: choose one of auto, {', '.join(LOSSES)}")
    if logits.ndim != 2 or logits.shape != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must both be (images, classes); "
            "make the targets multi-hot"
        )
    if class_weights is not None and class_weights.shape != logits.shape[1:]:
        raise ValueError(
            f"class weights {tuple(class_weights.shape)} for {logits.shape[1]} classes: give one weight for each class"
        )
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label smoothing is {label_smoothing}: choose a number from 0 up to, not including, 1")
    logits = _at_least_float32(logits)
    targets = targets.to(logits.dtype)
    weights = None if class_weights is None else class_weights.to(logits)
    return LOSSES[name](logits, targets, weights, label_smoothing)


def _cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    # Several positives share the image evenly, which is the expectation of drawing one of them at random. An image
    # without any (a clip of an unlisted action in a multi-label set) has nothing to say here and weighs nothing.
    share = targets / targets.sum(1, keepdim=True).clamp_min(1)
    image_weight = share.sum(1) if weights is None else share @ weights
    smooth = share * (1 - smoothing) + smoothing / logits.shape[1]
    losses = -(smooth * logits.log_softmax(1)).sum(1)
    return (image_weight * losses).sum() / image_weight.sum().clamp_min(torch.finfo(logits.dtype).tiny)


def _bce(logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    smooth = targets * (1 - smoothing) + smoothing / 2
    total = F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weights, reduction="sum")
    return total / max(logits.numel(), 1)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor | None, float], Tensor]] = {
    "cross_entropy": _cross_entropy,
    "bce": _bce,
}
DEFAULT_LOSS = {"single": "cross_entropy", "multi": "bce"}


def class_weights(
    counts: Tensor, kind: Literal["none", "balanced", "sqrt"], task: Literal["single", "multi"], images: int
) -> Tensor | None:
    """Weights that let rare classes count as much as frequent ones.

    Args:
        counts: `(K,)` how many training images show each class.
        kind: "none"; "balanced": `images / (classes with examples * count)`, as in scikit-learn, for a single label
            and `(images - count) / count` for several; "sqrt": the square root of that, gentler on very rare classes.
        task: "single" or "multi".
        images: how many training images there are.

    Returns:
        `(K,)` float32, or `None` for "none". A class without examples weighs 0 (single) or 1 (multi: it has no
        positive term to weigh).

    Raises:
        ValueError: an unknown kind, or more examples of a class than images.
    """
    if kind not in ("none", "balanced", "sqrt"):
        raise ValueError(f"unknown class weights {kind!r}: choose one of none, balanced, sqrt")
    if kind == "none":
        return None
    counts = counts.double()
    if bool((counts > images).any()):
        raise ValueError(f"a class has {int(counts.max())} examples in {images} images: count each image once a class")
    seen = counts > 0
    if task == "single":
        balanced = images / (seen.sum() * counts.clamp_min(1)) * seen
    else:
        balanced = torch.where(seen, (images - counts) / counts.clamp_min(1), 1.0)
    return (balanced.sqrt() if kind == "sqrt" else balanced).float()


def pose_loss(predicted: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
    """The L2 loss of the predicted pose heatmaps: the mean over images of `sum_j v_j * 0.5 * MSE_j / 16`.

    `MSE_j` is the mean over positions of the squared difference of joint j's maps, `v_j` is 1 where the image has a
    label of the joint. The authors' code divides by the batch once more than it should; with its 16 images a GPU
    that is the 16 here, so the loss has the released setting's size at every batch size.

    Args:
        predicted: `(B, J, h, w)` heatmaps of the head (`Pooled.pose`).
        target: `(B, J, h, w)` from `attnpool.pose.heatmaps`.
        labelled: `(B, J)` bool.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes that do not fit.
    """
    if predicted.ndim != 4 or predicted.shape != target.shape or labelled.shape != predicted.shape[:2]:
        raise ValueError(
            f"predicted {tuple(predicted.shape)}, target {tuple(target.shape)} and labelled {tuple(labelled.shape)} "
            "must be (B, J, h, w), the same, and (B, J); draw the targets at the size of the predicted maps"
        )
    predicted = _at_least_float32(predicted)
    squared = (predicted - target.to(predicted.dtype)).square().mean((-2, -1))
    return (squared * labelled).sum() * 0.5 / 16 / max(predicted.shape[0], 1)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
