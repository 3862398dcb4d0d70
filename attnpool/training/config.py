"""What a user can set about a model and its training; the command line and recipes are made from these fields."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def plain_type(hint: Any) -> Any:
    """`int | None` -> `int`."""
    if get_origin(hint) in (types.UnionType, Union):  # of a Literal and None, Python makes the older kind
        (hint,) = (argument for argument in get_args(hint) if argument is not types.NoneType)
    return hint


def converted(name: str, value: Any, kind: Any, usual: Any) -> Any:
    """A value from a file as the flag of that name would have given it.

    Args:
        name: of the option.
        value: what YAML made of it; of `1e-3`, that is a string.
        kind: `bool`, a `Literal` of strings, or a function of a string, such as `int`.
        usual: its default; only where that is `None`, no value is one.

    Raises:
        ValueError: the value is of another kind.
    """
    if value is None:
        if usual is not None:
            raise ValueError(f"{name} has no value; write one, such as {usual}, or leave it out")
        return None
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}; write true or false")
        return value
    if get_origin(kind) is Literal:
        if str(value) not in get_args(kind):
            raise ValueError(f"{name} is {value!r}; use one of {', '.join(get_args(kind))}")
        return str(value)
    try:
        return kind(str(value))
    except ValueError as error:
        raise ValueError(f"{name} is {value!r}; it takes {getattr(kind, '__name__', 'another value')}") from error


def typed(options: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that are fields of a dataclass of options, each `converted` to the field's type."""
    hints = get_type_hints(options)
    return {
        item.name: converted(item.name, values[item.name], plain_type(hints[item.name]), item.default)
        for item in fields(options)
        if item.name in values
    }


@dataclass(frozen=True)
class ModelOptions:
    """Which network, which pooling; the fields are arguments of `Recognizer`, which checks them."""

    backbone: str = field(
        default="lite0", metadata={"help": "lite0 (needs no network), another of ours, torchvision:NAME or a timm name"}
    )
    weights: str = field(
        default="pretrained", metadata={"help": "pretrained, random or a .safetensors, .pth or .pt file"}
    )
    pooling: str = field(
        default="attentional", metadata={"help": "a key of attnpool.POOLINGS, such as average or pose"}
    )
    rank: int | None = field(default=None, metadata={"help": "terms of attentional pooling (default: 1)"})
    per_class: bool | None = field(default=None, metadata={"help": "a bottom-up map for every class"})
    activation: Literal["relu", "sigmoid", "softmax"] | None = field(
        default=None, metadata={"help": "of the bottom-up map (default: none)"}
    )
    dropout: float | None = field(default=None, metadata={"help": "rate of dropout in the head (default: 0)"})
    dropout_on: Literal["pooled", "positions"] | None = field(
        default=None, metadata={"help": "what is dropped (default: pooled)"}
    )
    init: Literal["average", "official"] | None = field(
        default=None, metadata={"help": "start as average pooling, or as the released code (default: average)"}
    )
    dim: int | None = field(
        default=None,
        metadata={
            "help": "length of compact_bilinear's sketch (default: 2048), channels of covariance (default: 256), "
            "values of multi_query (default: as many as channels)"
        },
    )
    signed_sqrt: bool | None = field(default=None, metadata={"help": "signed square root of the sketch"})
    l2: bool | None = field(default=None, metadata={"help": "sketch, or netvlad's sums, divided by the norm"})
    iterations: int | None = field(default=None, metadata={"help": "of the root of covariance (default: 5)"})
    saliency: Literal["norm", "centre"] | None = field(
        default=None, metadata={"help": "map of saliency pooling: the features' norm, or the centre (default: norm)"}
    )
    queries: int | None = field(default=None, metadata={"help": "of multi-query pooling (default: 32)"})
    positions: bool | None = field(
        default=None,
        metadata={
            "help": "queries of multi-query pooling look at where and when, over a clip as a whole (default: no)"
        },
    )
    clusters: int | None = field(default=None, metadata={"help": "of netvlad pooling (default: 64)"})
    instances: Literal["none", "boxes"] = field(
        default="none", metadata={"help": "boxes: the best of the image and of its persons' boxes counts"}
    )
    context: float = field(default=1.5, metadata={"help": "with instances: times its size a box is enlarged to"})
    standardize: bool | None = field(
        default=None,
        metadata={"help": "standardise features with fixed statistics (default: if the backbone is frozen)"},
    )
    freeze_backbone: bool = field(
        default=True, metadata={"help": "train the head alone, on features that are computed once (default: yes)"}
    )


@dataclass(frozen=True)
class TrainOptions:
    """How long and on what a recognizer is trained."""

    epochs: int | None = field(
        default=None,
        metadata={"help": "passes over the training part (default: 30, and more with few images, for 400 updates)"},
    )
    batch_size: int = field(default=32, metadata={"help": "images a step and process"})
    accumulate: int = field(default=1, metadata={"help": "steps whose gradients make one update"})
    precision: Literal["fp32", "bf16", "fp16"] = field(
        default="fp32", metadata={"help": "mixed precision (fp16 needs a GPU)"}
    )
    loss: Literal["auto", "cross_entropy", "random_positive", "bce", "focal", "asymmetric"] = field(
        default="auto",
        metadata={
            "help": "auto: cross-entropy for one label an image, BCE for several; random_positive: cross-entropy of "
            "one positive an image, drawn anew every time; formulas in docs/scores.md"
        },
    )
    class_weights: Literal["none", "balanced", "sqrt"] = field(
        default="none", metadata={"help": "weigh rare classes more"}
    )
    positive_weight: float = field(
        default=1.0, metadata={"help": "of the positive terms of bce, focal and asymmetric, such as 10"}
    )
    label_smoothing: float = field(default=0.0, metadata={"help": "part of the target that is spread over all classes"})
    pose_weight: float = field(default=1.0, metadata={"help": "of the pose loss, for heads that predict pose"})
    pose_target: Literal["disc", "gaussian"] = field(
        default="disc", metadata={"help": "heatmap of a joint: the official filled disc, or a Gaussian as wide"}
    )
    patience: int = field(
        default=0,
        metadata={
            "help": "stop after so many epochs without a better mAP on a part held out of train, "
            "and keep the best weights; 0: never"
        },
    )
    tune_fraction: float = field(default=0.15, metadata={"help": "with patience: the part of train held out"})
    trainval: bool = field(
        default=False,
        metadata={"help": "train on val too, as for a benchmark's test server; scores on val then say nothing"},
    )
    seed: int = field(default=0, metadata={"help": "of the head's start, the order, augmentation and dropout"})
    workers: int = field(default=0, metadata={"help": "processes that decode images"})
    use_cache: bool = field(default=True, metadata={"help": "keep the features of a frozen backbone on disk"})

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; give at least 1")
        for name in ("seed", "workers", "patience", "pose_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more")
        if not (math.isfinite(self.positive_weight) and self.positive_weight > 0):
            raise ValueError(f"positive_weight is {self.positive_weight}; give a positive number")
        if self.pose_target not in ("disc", "gaussian"):
            raise ValueError(f"unknown pose_target {self.pose_target!r}: use disc or gaussian")
        if not 0 < self.tune_fraction < 1:
            raise ValueError(f"tune_fraction is {self.tune_fraction}; give a number between 0 and 1")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; give a number from 0 up to, not including, 1")


@dataclass(frozen=True)
class OptimizerOptions:
    """How weights are updated. The defaults suit a head on a frozen, standardised backbone (docs/study.md)."""

    optimizer: Literal["auto", "adamw", "sgd"] = field(
        default="auto",
        metadata={
            "help": "adamw, or sgd with momentum 0.9; auto: sgd for average pooling on a frozen backbone, which is "
            "logistic regression, else adamw"
        },
    )
    lr: float | None = field(
        default=None, metadata={"help": "peak learning rate of the head (default: by optimizer and pooling)"}
    )
    backbone_lr: float | None = field(
        default=None, metadata={"help": "of a backbone that is trained (default: lr with sgd, lr / 10 with adamw)"}
    )
    weight_decay: float | None = field(
        default=None,
        metadata={
            "help": "on weights, not on biases and batch norm (default: 5e-4; for average pooling on a frozen backbone "
            "10 / images, which is C = 0.1 of a logistic regression)"
        },
    )
    schedule: Literal["cosine", "step", "constant"] = field(default="cosine", metadata={"help": "of the learning rate"})
    warmup: float = field(default=0.05, metadata={"help": "part of all updates in which the rate rises linearly"})
    step_updates: int = field(default=5000, metadata={"help": "schedule step: updates between two reductions"})
    step_factor: float = field(default=0.33, metadata={"help": "schedule step: factor of a reduction"})
    clip: float | None = field(default=None, metadata={"help": "largest norm of the gradient"})
    ema: float = field(
        default=0.0,
        metadata={
            "help": "decay, such as 0.999, of a moving average of the weights that is then what is kept; 0: none"
        },
    )

    def __post_init__(self) -> None:
        if self.optimizer not in ("auto", "adamw", "sgd"):
            raise ValueError(f"unknown optimizer {self.optimizer!r}: use auto, adamw or sgd")
        if self.schedule not in ("cosine", "step", "constant"):
            raise ValueError(f"unknown schedule {self.schedule!r}: use cosine, step or constant")
        for name in ("lr", "backbone_lr", "clip"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; give a positive number")
        decay = self.weight_decay
        if decay is not None and not (math.isfinite(decay) and decay >= 0):
            raise ValueError(f"weight_decay is {self.weight_decay}; give 0 or a positive number")
        if not 0 <= self.ema < 1 or not 0 <= self.warmup < 1:
            raise ValueError(f"ema {self.ema} and warmup {self.warmup} must be in [0, 1)")
        if self.step_updates < 1:
            raise ValueError(f"step_updates is {self.step_updates}; give at least 1")
