"""What a training step computes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnpool.features.batches import Batch
from attnpool.keypoints.heatmaps import heatmaps
from attnpool.models.recognizer import Recognizer
from attnpool.training.config import TrainOptions
from attnpool.training.losses import classification_loss, pose_loss


class Step(nn.Module):
    """One forward pass to the loss, as one module, so that data-parallel wrappers see it.

    Args:
        model: to be trained.
        options: of the losses.
        weights: of the classes, from `losses.class_weights`, or `None`.
    """

    def __init__(self, model: Recognizer, options: TrainOptions, weights: Tensor | None) -> None:
        super().__init__()
        self.model = model
        self.options = options
        self.weights = weights

    def forward(self, batch: Batch, cached: bool, device: torch.device) -> Tensor:
        model, options = self.model, self.options
        inputs = batch.inputs.to(device)
        out = model.pool(inputs, boxes=batch.boxes) if cached else model(model.normalize(inputs), boxes=batch.boxes)
        loss = classification_loss(
            out.logits,
            batch.targets.to(device),
            model.task,
            loss=options.loss,
            label_mask=batch.label_mask.to(device),
            class_weights=self.weights,
            positive_weight=options.positive_weight,
            label_smoothing=options.label_smoothing,
        )
        if out.pose is not None and options.pose_weight:
            size = model.preprocessing["image_size"]
            pose = out.pose.flatten(0, -4)  # the frames of clips are so many images
            cells = (pose.shape[2], pose.shape[3])
            target, labelled = heatmaps(batch.people, (size, size), cells, kind=options.pose_target)
            loss = loss + options.pose_weight * pose_loss(pose, target.to(device), labelled.to(device))
        return loss
