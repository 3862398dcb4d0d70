"""The losses, and the module that computes their sum for a training step.

Losses are scalar means over the images of a batch, in float32 or better whatever the precision of the logits.

An empty batch (all of its files are unreadable) has loss 0 and zero gradients instead of NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpool.features.batches import Batch
from attnpool.keypoints.heatmaps import heatmaps
from attnpool.models.recognizer import Recognizer
from attnpool.pooling.base import Maps
from attnpool.training.config import TrainOptions


class Step(nn.Module):
    """The forward pass up to the loss as a single module, which data-parallel wrappers need.

    Args:
        model: the recognizer to be trained.
        options: the options of the losses.
        weights: weights of the classes, from `class_weights`, or `None`.
    """

    def __init__(self, model: Recognizer, options: TrainOptions, weights: Tensor | None) -> None:
        super().__init__()
        self.model = model
        self.options = options
        self.weights = weights

    def forward(self, batch: Batch, cached: bool, device: torch.device) -> Tensor:
        model, options = self.model, self.options
        inputs = batch.inputs.to(device)
        maps: Maps = "bottom_up" if options.departure else False
        if cached:
            out = model.pool(inputs, maps=maps, boxes=batch.boxes, size=batch.size)
        else:
            out = model(model.normalize(inputs), maps=maps, boxes=batch.boxes)
        targets, mask = batch.targets.to(device), batch.label_mask.to(device)
        loss = labels_loss(out.logits, targets, mask, model.task, options, self.weights)
        if options.departure and len(batch.paths):
            assert out.bottom_up is not None, "checked by train()"
            loss = loss + options.departure * model.head.departure(out.bottom_up)
        if out.pose is not None and options.pose_weight:
            pose = out.pose.flatten(0, -4)  # every frame of a clip counts as an image
            cells = (pose.shape[2], pose.shape[3])
            target, labelled = heatmaps(batch.people, batch.size, cells, kind=options.pose_target)
            loss = loss + options.pose_weight * pose_loss(pose, target.to(device), labelled.to(device))
        return loss


def labels_loss(
    logits: Tensor,
    targets: Tensor,
    label_mask: Tensor,
    task: Literal["single", "multi"],
    options: TrainOptions,
    weights: Tensor | None,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """The classification loss of a batch as the options of a training say."""
    return classification_loss(
        logits,
        targets,
        task,
        loss=options.loss,
        label_mask=label_mask,
        class_weights=weights,
        positive_weight=options.positive_weight,
        label_smoothing=options.label_smoothing,
        reduction=reduction,
    )


def classification_loss(
    logits: Tensor,
    targets: Tensor,
    task: Literal["single", "multi"],
    *,
    loss: str = "auto",
    label_mask: Tensor | None = None,
    class_weights: Tensor | None = None,
    positive_weight: float = 1.0,
    label_smoothing: float = 0.0,
    generator: torch.Generator | None = None,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """The classification loss of a batch.

    Softmax losses are means over the images that have a label. The others are means over the entries of the `(B, K)`
    table that are in the label mask, of `y L+ + (1 - y) L-` with `p = sigmoid(s)` for the logits s:

    - "cross_entropy": `-log softmax(s)_k`; several positives of an image share it evenly.
    - "random_positive": the cross-entropy of one positive per image, drawn at random, as the paper trained on HICO.
    - "bce": `L+ = -log p`, `L- = -log(1 - p)`.
    - "focal": `L+ = -a (1 - p)^g log p`, `L- = -(1 - a) p^g log(1 - p)`, g = 2, a = 0.25 (Lin et al., ICCV 2017).
    - "asymmetric": `L+ = -(1 - p) log p`, `L- = -q^4 log(1 - q)`, `q = max(p - 0.05, 0)`, so that easy negatives add
      nothing (Ridnik et al., ICCV 2021, with their gamma+ 1, gamma- 4 and margin 0.05).

    Args:
        logits: `(B, K)`.
        targets: `(B, K)`, 1 where the image shows the class, else 0.
        task: "single" (one class per image) or "multi" (any number).
        loss: one of the above, or "auto": cross-entropy if the task is single, BCE if it is multi.
        label_mask: `(B, K)` bool, False where the label is not known (HICO's ambiguous 0): such an entry counts neither
            in the sum nor in the number of entries, and is left out of a softmax.
        class_weights: `(K,)` from `class_weights()`. Softmax losses weight each image by its class,
            `sum_i w_i l_i / sum_i w_i`; the others weight the positive terms `L+` (torch's `pos_weight`).
        positive_weight: weight of all positive terms, on top of `class_weights`; not for softmax losses. 10 with "bce"
            is the weighted loss of HICO (Mallya & Lazebnik, ECCV 2016).
        label_smoothing: fraction of the target, in `[0, 1)`, that is spread evenly over the classes in the label mask
            (softmax) or over "shown" and "not shown" of each class (the others).
        generator: random generator of "random_positive", on the targets' device; by default torch's global one.
        reduction: "mean", or "none" for the part of every image, of which the loss is the mean.

    Returns:
        A scalar, or `(B,)` without reduction.

    Raises:
        ValueError: the shapes do not fit together, the loss is unknown or does not take one of the weights, or
            `label_smoothing` is outside `[0, 1)`.
    """
    name = resolve_loss(loss, task, positive_weight)
    if logits.ndim != 2 or logits.shape != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must both be (images, classes); "
            "make the targets multi-hot"
        )
    if label_mask is not None and label_mask.shape != logits.shape:
        raise ValueError(
            f"label_mask {tuple(label_mask.shape)} must have the shape of the logits, {tuple(logits.shape)}"
        )
    if class_weights is not None and class_weights.shape != logits.shape[1:]:
        raise ValueError(
            f"class_weights {tuple(class_weights.shape)} for {logits.shape[1]} classes: give one weight per class"
        )
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing is {label_smoothing}: give a number from 0 to below 1")
    logits = _at_least_float32(logits)
    label_mask = torch.ones_like(logits, dtype=torch.bool) if label_mask is None else label_mask
    targets = targets.to(logits.dtype) * label_mask
    weights = logits.new_ones(logits.shape[1]) if class_weights is None else class_weights.to(logits)
    if name in SIGMOID_LOSSES:
        losses, counts = _over_entries(
            SIGMOID_LOSSES[name], logits, targets, label_mask, weights * positive_weight, label_smoothing
        )
    else:
        if name == "random_positive":
            targets = _one_positive(targets, generator)
        losses, counts = _cross_entropy(logits, targets, label_mask, weights, label_smoothing)
    smallest = torch.finfo(logits.dtype).tiny
    if reduction == "none":
        return losses.flatten(1).sum(1) / counts.flatten(1).sum(1).mean().clamp_min(smallest)
    return losses.sum() / counts.sum().clamp_min(smallest)


def resolve_loss(loss: str, task: str, positive_weight: float = 1.0) -> str:
    """Replaces "auto" by the name of a loss, and checks that the loss takes the weight of positive terms.

    Raises:
        ValueError: the task or the loss is unknown, or `positive_weight` is given for a softmax loss.
    """
    if task not in DEFAULT_LOSS:
        raise ValueError(f"unknown task {task!r}: choose one of {', '.join(DEFAULT_LOSS)}")
    name = DEFAULT_LOSS[task] if loss == "auto" else loss
    if name not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}: choose one of auto, {', '.join(LOSSES)}")
    if not (math.isfinite(positive_weight) and positive_weight > 0):
        raise ValueError(f"positive_weight is {positive_weight}: give a positive number")
    if positive_weight != 1 and name not in SIGMOID_LOSSES:
        raise ValueError(
            f"positive_weight is {positive_weight}, which {name} does not have: use loss {', '.join(SIGMOID_LOSSES)}"
        )
    return name


def _cross_entropy(
    logits: Tensor, targets: Tensor, label_mask: Tensor, weights: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """The weighted losses of the images and their weights, `(B, 1)` each."""
    # Several positives share an image evenly, which is the expectation of drawing one of them at random. An image
    # without positives (a clip of an unlisted action in a multi-label dataset) has weight 0.
    share = targets / targets.sum(1, keepdim=True).clamp_min(1)
    image_weight = share @ weights
    smooth = share * (1 - smoothing) + smoothing / label_mask.sum(1, keepdim=True).clamp_min(1)
    # The masked entries are filled again after the softmax: infinity times 0 is NaN, and so is an empty softmax.
    log_softmax = logits.masked_fill(~label_mask, -math.inf).log_softmax(1).masked_fill(~label_mask, 0)
    losses = -(smooth * log_softmax).sum(1)
    return (image_weight * losses)[:, None], image_weight[:, None]


def _one_positive(targets: Tensor, generator: torch.Generator | None) -> Tensor:
    """Keeps one positive of every image, drawn uniformly."""
    # The keys are drawn from (0, 1], so that those of positives are larger than the 0 of the other entries.
    ticket = (1 - torch.rand(targets.shape, generator=generator, device=targets.device)) * (targets > 0)
    chosen = torch.zeros_like(targets).scatter_(1, ticket.argmax(1, keepdim=True), 1)
    return targets * chosen


def _over_entries(
    terms: Callable[[Tensor], tuple[Tensor, Tensor]],
    logits: Tensor,
    targets: Tensor,
    label_mask: Tensor,
    weights: Tensor,
    smoothing: float,
) -> tuple[Tensor, Tensor]:
    """`w y L+ + (1 - y) L-` of every entry in the label mask, and that mask, `(B, K)` each."""
    positive, negative = terms(logits)
    smooth = targets * (1 - smoothing) + smoothing / 2
    losses = weights * smooth * positive + (1 - smooth) * negative
    return losses * label_mask, label_mask.to(losses.dtype)


# The losses use `log p = logsigmoid(s)` and `log(1 - p) = logsigmoid(-s)`, which stay finite for any logit.
def _bce(logits: Tensor) -> tuple[Tensor, Tensor]:
    return -F.logsigmoid(logits), -F.logsigmoid(-logits)


def _focal(logits: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> tuple[Tensor, Tensor]:
    positive, negative = _bce(logits)
    return alpha * (-logits).sigmoid() ** gamma * positive, (1 - alpha) * logits.sigmoid() ** gamma * negative


def _asymmetric(logits: Tensor, gamma: float = 4.0, margin: float = 0.05) -> tuple[Tensor, Tensor]:
    shifted = (logits.sigmoid() - margin).clamp_min(0)
    return (-logits).sigmoid() * -F.logsigmoid(logits), -(shifted**gamma) * torch.log1p(-shifted)


# The terms L+ and L- of the losses that treat every class independently.
SIGMOID_LOSSES: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "bce": _bce,
    "focal": _focal,
    "asymmetric": _asymmetric,
}
LOSSES = ("cross_entropy", "random_positive", *SIGMOID_LOSSES)
DEFAULT_LOSS = {"single": "cross_entropy", "multi": "bce"}


def pose_loss(predicted: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
    """The L2 loss of the predicted pose heatmaps: the mean over images of `sum_j v_j * 0.5 * MSE_j / 16`.

    `MSE_j` is the mean over positions of the squared difference of joint j's maps, and `v_j` is 1 where the joint is
    labelled in the image. The authors' code divides by the batch size once too often. With its 16 images per GPU this
    is the 16 here, so that the loss has the magnitude of the released setting at every batch size.

    Args:
        predicted: `(B, J, h, w)` heatmaps of the head (`Pooled.pose`).
        target: `(B, J, h, w)` from `attnpool.keypoints.heatmaps`.
        labelled: `(B, J)` bool.

    Returns:
        A scalar.

    Raises:
        ValueError: the shapes do not fit together.
    """
    if predicted.ndim != 4 or predicted.shape != target.shape or labelled.shape != predicted.shape[:2]:
        raise ValueError(
            f"predicted {tuple(predicted.shape)}, target {tuple(target.shape)} and labelled {tuple(labelled.shape)} "
            "must be (B, J, h, w), (B, J, h, w) and (B, J); compute the targets at the size of the predicted maps"
        )
    predicted = _at_least_float32(predicted)
    squared = (predicted - target.to(predicted.dtype)).square().mean((-2, -1))
    return (squared * labelled).sum() * 0.5 / 16 / max(predicted.shape[0], 1)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
