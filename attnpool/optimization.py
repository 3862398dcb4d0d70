"""Optimizers, learning-rate schedules and the moving average of weights."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from attnpool.options import OptimizerOptions
from attnpool.recognizer import Recognizer

# Peak rates of heads on a frozen, standardised backbone, from docs/study.md.
HEAD_LR = {
    "adamw": {"average": 3e-2, "max": 1e-2, "attentional": 3e-3, "pose": 3e-3},
    "sgd": {"average": 3e-3, "max": 1e-2, "attentional": 1e-2, "pose": 1e-2},
}
# With a backbone that is trained too; 1e-3 is the paper's rate for SGD.
FINE_TUNING_LR = {"adamw": 3e-4, "sgd": 1e-3}


def resolve(model: Recognizer, options: OptimizerOptions) -> OptimizerOptions:
    """The options with the defaults that depend on the model filled in: the optimizer and the head's peak rate.

    Gradient descent on a convex problem that starts near 0 stays near the smallest weights that fit, which with few
    pictures is worth 2 mAP over AdamW, whose steps are as long in useless directions as in useful ones.
    """
    name = options.optimizer
    if name == "auto":
        name = "sgd" if model.backbone.frozen and model.pooling == "average" else "adamw"
    rate = options.lr or (HEAD_LR[name][model.pooling] if model.backbone.frozen else FINE_TUNING_LR[name])
    return replace(options, optimizer=name, lr=rate)


def build_optimizer(model: Recognizer, options: OptimizerOptions) -> torch.optim.Optimizer:
    """The optimizer over everything trainable, from resolved options; groups keep their peak rate in `peak`."""
    assert options.optimizer != "auto"
    assert options.lr is not None
    rate = options.lr
    # In the paper's recipe (SGD) one rate serves the whole network.
    backbone_rate = options.backbone_lr or (rate if options.optimizer == "sgd" else rate / 10)
    groups = []
    for parts, peak in (((model.backbone,), backbone_rate), ((model.standardize, model.head), rate)):
        parameters = [p for part in parts for p in part.parameters() if p.requires_grad]
        for decay, chosen in (
            (options.weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            if chosen:
                groups.append({"params": chosen, "lr": peak, "peak": peak, "weight_decay": decay})
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=rate)


def rate_factor(options: OptimizerOptions, update: int, total: int) -> float:
    """The learning rate at an update as a part of its peak; depends on nothing else, so resuming needs no state.

    Linear rise over `warmup * total` updates, then half a cosine to 0, steps, or constant.
    """
    warm = round(options.warmup * total)
    if update < warm:
        return (update + 1) / (warm + 1)
    if options.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (update - warm) / max(total - warm, 1)))
    if options.schedule == "step":
        return options.step_factor ** (update // options.step_updates)
    return 1.0


class MovingAverage:
    """An exponential moving average of a model's trainable weights, `m <- d m + (1 - d) w` with d rising to `decay`.

    In the first updates d is `(1 + n) / (10 + n)`, so that the random start does not linger. Batch-norm statistics are
    moving averages already and are copied as they are.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module, updates: int) -> None:
        decay = min(self.decay, (1 + updates) / (10 + updates))
        for name, parameter in model.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(parameter.detach(), 1 - decay)

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchanges the model's weights and the averages; a second call undoes it."""
        for name, parameter in model.named_parameters():
            if name in self.weights:
                held = self.weights[name].clone()
                self.weights[name].copy_(parameter)
                parameter.copy_(held)

    def state(self) -> dict[str, Tensor]:
        return {f"ema.{name}": value for name, value in self.weights.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        for name, value in self.weights.items():
            value.copy_(tensors[f"ema.{name}"])
