"""Optimizers, learning-rate schedules and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from attnpool.data import Dataset, label_tensors
from attnpool.models.feature_norm import Standardize
from attnpool.models.recognizer import Recognizer
from attnpool.pooling import PoolingHead
from attnpool.training.config import OptimizerOptions, TrainOptions
from attnpool.training.losses import SIGMOID_LOSSES, resolve_loss

# Peak learning rates where the backbone is trained too; 1e-3 is the paper's rate for SGD.
FINE_TUNING_LR = {"adamw": 3e-4, "sgd": 1e-3}
# The prior of a logistic regression, C = 0.1 on the sum of losses, as a weight decay times the number of images.
REGRESSION_DECAY = 10.0
# Peak rate of a map that is released from average pooling, times the number of its inputs: Adam's first steps are of
# the size of the rate in every weight, so that the map moves by as much wherever the features have one sign.
RELEASED_LR = 0.4


@dataclass(frozen=True)
class Setting:
    """How a head on cached features is trained.

    Attributes:
        optimizer: "sgd", "adamw" or "departure".
        lr: peak learning rate, with "departure" that of the classifier.
        weight_decay: weight decay, with "departure" that of the classifier.
        departure: strength of the penalty on the departure from average pooling; infinity holds the maps.
    """

    optimizer: str
    lr: float
    weight_decay: float
    departure: float = 0.0


def is_logistic_regression(model: Recognizer) -> bool:
    """Whether training is a convex problem: average pooling and a linear classifier on a frozen backbone.

    With instances the score is the best of several linear scores, and starting from weights near 0 works as well.
    """
    return model.backbone.frozen and model.head.linear


def departs(model: Recognizer, train: TrainOptions) -> bool:
    """Whether a training can be a departure from average pooling (`training.departure`)."""
    cached = model.backbone.frozen and train.use_cache and model.instances == "none"
    # The rates are for standardised features; a converted classifier has none, and has learned its weights already.
    standardized = isinstance(model.standardize, Standardize)
    return cached and standardized and model.head.departs and train.departure != 0


def resolve(
    model: Recognizer, options: OptimizerOptions, images: int, train: TrainOptions | None = None
) -> OptimizerOptions:
    """Fills in the defaults that depend on the model: optimizer, peak learning rate of the head and weight decay.

    Where training is logistic regression, gradient descent from near 0 stays near the smallest weights that fit the
    data, while AdamW's steps are as long in useless directions as in useful ones. Its weight decay is the Gaussian
    prior `|w|^2 / (2 C)` with C = 0.1 on the sum of losses; on their mean over n images that is a decay of 1 / (C n).

    Args:
        model: the recognizer to be trained.
        options: the options that the user gave.
        images: number n of training images.
        train: the other options of the training.
    """
    convex, train = is_logistic_regression(model), train or TrainOptions()
    name = options.optimizer
    if name == "auto":
        free = options.lr is not None or not departs(model, train)
        name = ("sgd" if convex else "adamw") if free else "departure"
    if name == "departure":  # its weight decay is chosen with the strength of the penalty
        return replace(options, optimizer=name, lr=options.lr or regression_rate(model, train))
    if convex and name == "sgd":
        rate = options.lr or regression_rate(model, train)
    else:
        rate = options.lr or (model.head.learning_rate(name) if model.backbone.frozen else FINE_TUNING_LR[name])
    decay = options.weight_decay
    if decay is None:
        decay = REGRESSION_DECAY / max(images, 1) if convex and name == "sgd" else 5e-4
    return replace(options, optimizer=name, lr=rate, weight_decay=decay)


def regression_rate(model: Recognizer, train: TrainOptions) -> float:
    """The peak rate of SGD for a logistic regression.

    The losses of several labels are means over the classes, so that their gradients are as many times smaller as there
    are classes, and the rate is as many times larger.
    """
    sigmoid = resolve_loss(train.loss, model.task, train.positive_weight) in SIGMOID_LOSSES
    return model.head.learning_rate("sgd") * (len(model.classes) if sigmoid else 1)


@torch.no_grad()
def start_at_priors(model: Recognizer, dataset: Dataset, train: TrainOptions | None = None) -> None:
    """Starts a logistic regression's biases where they are best while the weights are 0.

    That is at the logarithm of the class frequencies, centred, and with several labels and the loss bce at the
    `log(p / (1 - p))` of every class. The gradients of the biases are small against those of a thousand weights, so
    they would hardly move from their start. With unbalanced classes that costs 2 points of mAP; and with several labels
    attention would learn maps that are large everywhere, because they multiply the biases, too.
    """
    train = train or TrainOptions()
    alpha, loss = getattr(model.head, "alpha", None), resolve_loss(train.loss, model.task, train.positive_weight)
    if alpha is None:
        return
    targets, known = label_tensors(dataset.samples, len(model.classes))
    if model.task == "single":
        priors = targets.sum(0).clamp_min(1).log()
        alpha[: len(priors)] = priors - priors.mean()
    elif loss == "bce":
        positive = (targets * known).sum(0)
        priors = (train.positive_weight * (positive + 0.5) / (known.sum(0) - positive + 0.5)).log()
        alpha[: len(priors)] = priors


def build_optimizer(model: Recognizer, options: OptimizerOptions) -> torch.optim.Optimizer:
    """The optimizer of all trainable parameters, from resolved options; `peak` holds each group's peak learning rate.

    Biases, norms and the parameters that a network names in `no_weight_decay()` do not decay.
    """
    from timm.optim import param_groups_weight_decay  # timm takes a while, and who scores has no use for it

    assert options.optimizer != "auto"
    assert options.lr is not None
    assert not isinstance(options.lr, str)  # "auto" is a float by now
    assert options.weight_decay is not None
    if options.optimizer == "departure":
        return optimizer_of_heads([(model.head, Setting("departure", options.lr, options.weight_decay))])
    rate = options.lr
    # In the paper's recipe (SGD) the whole network has one learning rate.
    backbone_rate = options.backbone_lr or (rate if options.optimizer == "sgd" else rate / 10)
    groups = []
    for part, peak in ((model.backbone.net, backbone_rate), (model.standardize, rate), (model.head, rate)):
        # A vision transformer names its position embeddings and class tokens there.
        named: Any = getattr(part, "no_weight_decay", tuple)
        found = param_groups_weight_decay(part, options.weight_decay, no_weight_decay_list=named())
        groups += [{**group, "lr": peak, "peak": peak} for group in found]
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=rate)


def optimizer_of_heads(heads: Sequence[tuple[PoolingHead, Setting]]) -> torch.optim.Optimizer:
    """One optimizer for heads that are trained side by side, each as its `Setting` says.

    With "departure" the classifier is trained as a logistic regression is, by SGD, and the bottom-up map by Adam: the
    scale of its gradient depends on the classifier. Parameters that do not require gradients are left out.
    """
    from timm.optim import param_groups_weight_decay

    groups: dict[str, list[dict[str, Any]]] = {"adam": [], "sgd": [], "adamw": []}
    for head, setting in heads:
        if setting.optimizer != "departure":
            for group in param_groups_weight_decay(head, setting.weight_decay):
                groups[setting.optimizer].append({**group, "lr": setting.lr, "peak": setting.lr})
            continue
        released = {id(parameter) for parameter in head.released_parameters()}
        for parameter in head.parameters():
            if not parameter.requires_grad:
                continue
            if id(parameter) in released:
                rate = RELEASED_LR / (parameter.shape[1] if parameter.ndim > 1 else head.in_channels)
                groups["adam"].append({"params": [parameter], "lr": rate, "peak": rate, "weight_decay": 0.0})
            else:
                decay = setting.weight_decay if parameter.ndim > 1 else 0.0
                groups["sgd"].append(
                    {"params": [parameter], "lr": setting.lr, "peak": setting.lr, "weight_decay": decay}
                )
    made = {
        "adam": lambda found: torch.optim.Adam(found),
        "sgd": lambda found: torch.optim.SGD(found, momentum=0.9),
        "adamw": lambda found: torch.optim.AdamW(found),
    }
    return Joined([made[name](found) for name, found in groups.items() if found])


class Joined(torch.optim.Optimizer):
    """Several optimizers of different parameters as one, with one state."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.share()

    def share(self) -> None:
        """Gives the parts the groups and the state of the whole."""
        first = 0
        for part in self.parts:
            part.state = self.state
            part.param_groups = self.param_groups[first : first + len(part.param_groups)]
            first += len(part.param_groups)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.share()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()


def rate_factor(options: OptimizerOptions, update: int, total: int) -> float:
    """The learning rate at an update as a fraction of its peak. It has no state, so nothing is saved for resuming.

    The rate rises linearly over `warmup * total` updates; then it follows half a cosine to 0, falls in steps, or stays
    constant.
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

    In the first updates d is `(1 + n) / (10 + n)`, so that the random initial weights are forgotten quickly. Batch-norm
    statistics are moving averages already and are copied as they are.
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
        """Exchanges the model's weights and their averages; a second call exchanges them back."""
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
