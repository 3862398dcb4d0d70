"""The options of a training. Flags and recipe keys derive from the fields, and help from their `Args` entries."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from attnpool.data import Preprocessing
from attnpool.models.recognizer import Recognizer
from attnpool.pooling import POOLINGS
from attnpool.pooling.options import options_of, resolved_options


@dataclass(frozen=True)
class TrainOptions:
    """The data, loss and length of a training.

    Args:
        epochs: number of passes over the training images (default: 30, or as many as give 400 updates).
        batch_size: number of images per batch, in each process.
        accumulate: number of batches whose gradients are added up for one update.
        precision: number format of the computation, fp32 or mixed precision (fp16 needs a GPU).
        loss: loss function, see docs/scores.md (auto: cross-entropy for one label per image, binary cross-entropy for
            several; random_positive: cross-entropy of one label per image, drawn at random in every step).
        class_weights: weights that make rare classes count more in the loss (balanced: in inverse proportion to their
            frequency; sqrt: the square root of that).
        positive_weight: weight of the positive terms of the losses bce, focal and asymmetric, such as 10.
        label_smoothing: fraction of the target that is spread over all classes, from 0 to below 1.
        pose_weight: weight of the pose loss, for poolings that predict pose.
        departure: strength of the penalty on how far the bottom-up maps of attention are from average pooling, from 0
            for none (default: chosen on train for attention on a frozen backbone, else 0).
        pose_target: shape of a joint in the target heatmaps, a filled disc as in the paper's code or a Gaussian of the
            same width.
        patience: number of epochs without a better mAP after which training stops and keeps its best weights, measured
            on a part held out of train (0: train for all epochs).
        tune_fraction: fraction of train that is held out to choose the best epoch, used with patience.
        trainval: train on val too, as for a benchmark's test server; scores on val then mean nothing.
        seed: seed of the initial weights, of the order of images, of augmentation and of dropout.
        workers: number of processes that decode images (0: the main process decodes them).
        use_cache: compute the features of a frozen backbone once and keep them on disk.
    """

    epochs: int | None = None
    batch_size: int = 32
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    loss: Literal["auto", "cross_entropy", "random_positive", "bce", "focal", "asymmetric"] = "auto"
    class_weights: Literal["none", "balanced", "sqrt"] = "none"
    positive_weight: float = 1.0
    label_smoothing: float = 0.0
    pose_weight: float = 1.0
    departure: float | None = None
    pose_target: Literal["disc", "gaussian"] = "disc"
    patience: int = 0
    tune_fraction: float = 0.15
    trainval: bool = False
    seed: int = 0
    workers: int = 0
    use_cache: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; give at least 1")
        for name in ("seed", "workers", "patience", "pose_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more")
        if not (math.isfinite(self.positive_weight) and self.positive_weight > 0):
            raise ValueError(f"positive_weight is {self.positive_weight}; give a positive number")
        if self.departure is not None and not (math.isfinite(self.departure) and self.departure >= 0):
            raise ValueError(f"departure is {self.departure}; give 0 or a positive number")
        if self.pose_target not in ("disc", "gaussian"):
            raise ValueError(f"unknown pose_target {self.pose_target!r}: use disc or gaussian")
        if not 0 < self.tune_fraction < 1:
            raise ValueError(f"tune_fraction is {self.tune_fraction}; give a number between 0 and 1")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; give a number from 0 up to, not including, 1")


@dataclass(frozen=True)
class OptimizerOptions:
    """How the weights are updated. The defaults suit a head on a frozen, standardised backbone (docs/study.md).

    Args:
        optimizer: optimizer, adamw, sgd with momentum 0.9, or departure for attention that starts as a logistic
            regression, see docs/departure.md (auto: sgd for average pooling on a frozen backbone, which is logistic
            regression, departure for attention on one unless lr is given, else adamw).
        lr: peak learning rate of the head, or auto to choose it and the weight decay on train, see docs/auto.md
            (default: depends on optimizer and pooling).
        backbone_lr: peak learning rate of a backbone that is trained (default: lr with sgd, lr / 10 with adamw).
        weight_decay: weight decay, which leaves out biases, norms and position embeddings (default: 5e-4; for average
            pooling on a frozen backbone 10 / number of images, which is C = 0.1 of a logistic regression; chosen on
            train with optimizer departure).
        schedule: learning-rate schedule after the warm-up.
        warmup: fraction of all updates in which the learning rate rises linearly to its peak.
        step_updates: number of updates between two reductions of the learning rate, with schedule step.
        step_factor: factor by which the learning rate is multiplied at each reduction, with schedule step.
        clip: largest norm of the gradient, to which larger gradients are scaled down (default: no limit).
        ema: decay of an exponential moving average of the weights, which is kept in their place, such as 0.999 (0: no
            average).
    """

    optimizer: Literal["auto", "adamw", "sgd", "departure"] = "auto"
    lr: float | Literal["auto"] | None = None
    backbone_lr: float | None = None
    weight_decay: float | None = None
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    warmup: float = 0.05
    step_updates: int = 5000
    step_factor: float = 0.33
    clip: float | None = None
    ema: float = 0.0

    def __post_init__(self) -> None:
        if self.optimizer not in ("auto", "adamw", "sgd", "departure"):
            raise ValueError(f"unknown optimizer {self.optimizer!r}: use auto, adamw, sgd or departure")
        if self.schedule not in ("cosine", "step", "constant"):
            raise ValueError(f"unknown schedule {self.schedule!r}: use cosine, step or constant")
        for name in ("lr", "backbone_lr", "clip"):
            value = getattr(self, name)
            if value not in (None, "auto") and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; give a positive number")
        decay = self.weight_decay
        if decay is not None and not (math.isfinite(decay) and decay >= 0):
            raise ValueError(f"weight_decay is {self.weight_decay}; give 0 or a positive number")
        if not 0 <= self.ema < 1 or not 0 <= self.warmup < 1:
            raise ValueError(f"ema {self.ema} and warmup {self.warmup} must be in [0, 1)")
        if not 0 < self.step_factor <= 1:
            raise ValueError(f"step_factor is {self.step_factor}; give a number above 0, at most 1")
        if self.step_updates < 1:
            raise ValueError(f"step_updates is {self.step_updates}; give at least 1")


AUTO = "auto"  # as the pooling: the pooling, its options and how it is trained are chosen on train
MODEL = ("backbone", "weights", "pooling", "instances", "context", "standardize", "freeze_backbone", "tokens")
"""The arguments of `Recognizer` that are options. The others follow from the data and from other options."""


@dataclass(frozen=True)
class Options:
    """Everything that a training depends on besides the data.

    Attributes:
        model: arguments of `Recognizer`: all those of `MODEL`, and the `pooling_options` that were given.
        train, optimizer, preprocessing: see their classes.
    """

    model: Mapping[str, Any]
    train: TrainOptions
    optimizer: OptimizerOptions
    preprocessing: Preprocessing

    @classmethod
    def of(cls, values: Mapping[str, Any], where: str = "options") -> Options:
        """Builds options from a flat mapping of names to values, as recipes and the command line give it.

        Raises:
            ValueError: a name is unknown, or a value has the wrong type or is out of range; the message begins with
                `where`.
        """
        typed = typed_options(values, where)
        try:
            model = {name: typed.get(name, inspect.signature(Recognizer).parameters[name].default) for name in MODEL}
            given = {name: value for name, value in typed.items() if name in pooling_option_names()}
            if model["pooling"] != AUTO:
                resolved_options(POOLINGS, model["pooling"], given)
            elif given:
                name = next(iter(given))
                raise ValueError(f"pooling auto has options of its own: leave {name} out, or name a pooling")
            chosen = {
                name: {item.name: typed[item.name] for item in fields(part) if item.name in typed}
                for name, part in PARTS.items()
            }
            seen = chosen["preprocessing"]
            if "view" not in seen:
                seen["view"] = Preprocessing.default_view(seen)
            parts = {name: PARTS[name](**values) for name, values in chosen.items()}
            return cls(model | {"pooling_options": given}, **parts)
        except ValueError as error:
            raise ValueError(said_of(where, error)) from error

    def flat(self) -> dict[str, Any]:
        """These options as the flat mapping that `of` takes."""
        model = {name: value for name, value in self.model.items() if name != "pooling_options"}
        parts = (value for name in PARTS for value in asdict(getattr(self, name)).items())
        return model | self.model["pooling_options"] | dict(parts)

    def change(self, values: Mapping[str, Any], where: str = "options") -> Options:
        """These options with some of them changed; errors are those of `of`."""
        return Options.of(self.flat() | dict(values), where)


def pooling_option_names() -> set[str]:
    """The names of the options of all poolings."""
    return {name for head in POOLINGS.values() for name in options_of(head)}


def said_of(where: str, message: object) -> str:
    """A message that begins with the place of the mistake, if that has a name."""
    return f"{where}: {message}" if where else str(message)


def typed_options(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Converts the values of a flat mapping of options to the types of the options.

    Raises:
        ValueError: a name is unknown, or a value has the wrong type; the message begins with `where`.
    """
    makers: tuple[Any, ...] = (Recognizer, *PARTS.values(), *POOLINGS.values())
    known = {*MODEL, *pooling_option_names(), *(item.name for part in PARTS.values() for item in fields(part))}
    if unknown := [name for name in values if name not in known]:
        raise ValueError(said_of(where, f"unknown option {unknown[0]!r}; see attnpool train --help"))
    try:
        return {name: value for made in makers for name, value in converted_arguments(made, values).items()}
    except ValueError as error:
        raise ValueError(said_of(where, error)) from error


PARTS: dict[str, Any] = {"train": TrainOptions, "optimizer": OptimizerOptions, "preprocessing": Preprocessing}


def without_none(hint: Any) -> Any:
    """The type of a value that is not None: `int | None` -> `int`; of other unions, their first type."""
    if get_origin(hint) in (types.UnionType, Union):  # `Literal[...] | None` is a `typing.Union`
        return next(part for part in get_args(hint) if part is not types.NoneType)
    return hint


def converted(name: str, value: Any, hint: Any, default: Any) -> Any:
    """Converts a value from a YAML file to the type of an option.

    Args:
        name: name of the option, for error messages.
        value: the value as YAML reads it; `1e-3`, for example, is read as a string.
        hint: annotation of the option: bool, a Literal, or a type that can be made from a string, such as
            int.
        default: default of the option. Only an option whose default is `None` accepts an empty value, and then it is
            `None`.

    Raises:
        ValueError: the value is of another type.
    """
    kind = without_none(hint)
    if any(value in get_args(part) for part in get_args(hint) if get_origin(part) is Literal):
        return value  # a word beside numbers, such as "auto"
    if value is None:
        if default is not None:
            raise ValueError(f"{name} has no value; give one, such as {default}, or leave the option out")
        return None
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}; write true or false")
        return value
    if get_origin(kind) is Literal:
        choices = {str(choice): choice for choice in get_args(kind)}
        if str(value) not in choices:
            raise ValueError(f"{name} is {value!r}; use one of {', '.join(choices)}")
        return choices[str(value)]
    try:
        return kind(str(value))
    except ValueError as error:
        raise ValueError(f"{name} is {value!r}; it takes {getattr(kind, '__name__', 'another value')}") from error


def converted_arguments(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are arguments of a class or function, each `converted` to the type of its annotation."""
    hints = get_type_hints(getattr(function, "__init__") if isinstance(function, type) else function)  # noqa: B009
    parameters = inspect.signature(function).parameters
    return {
        name: converted(name, values[name], hints[name], parameter.default)
        for name, parameter in parameters.items()
        if name in values
    }
