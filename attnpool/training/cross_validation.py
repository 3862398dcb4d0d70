"""Chooses how a head is trained by cross-validation on the training images, all candidates side by side."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from attnpool.data import fold_numbers
from attnpool.evaluation.inference import as_probabilities
from attnpool.evaluation.metrics import score
from attnpool.features.features import Features
from attnpool.models.recognizer import Recognizer
from attnpool.pooling import POOLINGS, PoolingHead
from attnpool.pooling.options import resolved_options
from attnpool.training.config import TrainOptions
from attnpool.training.losses import labels_loss
from attnpool.training.optimizer import REGRESSION_DECAY, Setting, regression_rate
from attnpool.training.side_by_side import HeldOut, SideBySide, Trial

FOLDS = 3
SHORTER = 3  # how many times fewer epochs settings are screened with


class Candidate(NamedTuple):
    """A model, which is not changed, and how its head could be trained."""

    model: Recognizer
    setting: Setting


@dataclass(frozen=True)
class Tried:
    """A candidate, and what it reached on the images that it was not trained on.

    Attributes:
        pooling, options: key and options of its pooling, without those that have their default.
        setting: how it was trained.
        loss: mean of the losses of all images, not a number if the training diverged.
        error: standard error over the images of the difference of its loss and the smallest.
        mAP: mean average precision, 0..1.
        seconds: time of one forward and backward pass of the head for a batch.
    """

    pooling: str
    options: dict[str, Any]
    setting: Setting
    loss: float = math.nan
    error: float = math.nan
    mAP: float = math.nan
    seconds: float = math.nan

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        setting = values.pop("setting")
        if math.isinf(setting["departure"]):
            setting["departure"] = "infinite"  # JSON has no infinity
        return {key: None if value != value else value for key, value in (values | setting).items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Tried:
        departure = math.inf if value["departure"] == "infinite" else value["departure"]
        setting = Setting(value["optimizer"], value["lr"], value["weight_decay"], departure)
        numbers = {key: math.nan if value[key] is None else value[key] for key in ("loss", "error", "mAP", "seconds")}
        return cls(value["pooling"], value["options"], setting, **numbers)


@dataclass(frozen=True)
class Choice:
    """What was chosen, and all that was tried; nothing if there was only one way."""

    chosen: Tried
    tried: tuple[Tried, ...]

    def to_json(self) -> dict[str, Any]:
        return {"chosen": self.chosen.to_json(), "folds": FOLDS, "tried": [entry.to_json() for entry in self.tried]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Choice:
        return cls(Tried.from_json(value["chosen"]), tuple(Tried.from_json(entry) for entry in value["tried"]))


def smallest_loss(tried: Sequence[Tried]) -> Tried:
    """The candidate with the smallest loss; one that diverged is never it."""
    return min(tried, key=lambda entry: entry.loss if math.isfinite(entry.loss) else math.inf)


def cross_validate(
    candidates: Sequence[Candidate], features: Features, fit: SideBySide, show: str | None = None
) -> list[Tried]:
    """Trains every candidate on all folds but one, for each fold, and scores it on the images that were left out.

    Every class is spread over the folds. The heads of all folds are trained in one loop over the features, with the
    epochs, the batches and the loss of the training itself; those that only need averaged features in one over these.
    Of a model whose heads do not share their work the best candidate alone gets so far, see `screen`.

    Args:
        candidates: what to try; a model's `Standardize` is fitted. Models are not changed.
        features: cached features of the training images.
        fit: how heads are trained.
        show: title of a progress bar.

    Returns:
        What was trained on all folds, in the order of the candidates.
    """
    kept = fit.file.notes.get("screened") if fit.file else None
    if kept is None:
        kept = screen(candidates, features, fit, show and f"{show}: settings")
        if fit.file:
            fit.file.save_note("screened", kept)
    candidates = [candidates[i] for i in kept]
    folds = fold_numbers(features.dataset, FOLDS)
    averaged = features.averaged
    starts = regressions([candidate.model for candidate in candidates if departs(candidate)], averaged, fit, folds)
    losses: dict[int, np.ndarray] = {}
    scores: dict[int, float] = {}
    for source, places in (
        (averaged, [i for i, candidate in enumerate(candidates) if on_averages(candidate)]),
        (features, [i for i, candidate in enumerate(candidates) if not on_averages(candidate)]),
    ):
        if not places:
            continue
        trials = []
        for i in places:
            model, setting = candidates[i]
            begun = starts[id(model)] if departs(candidates[i]) else [model.head] * FOLDS
            trials += [Trial(model, begun[fold], setting, fold) for fold in range(FOLDS)]
        longest = source is features
        heads = fit.run(source, trials, folds, show if longest else None, keep="folds" if longest else None)
        held = fit.held_out(source, trials, heads, folds)
        for place, logits in zip(places, held.logits, strict=True):
            losses[place] = losses_of(logits, held, candidates[place].model, fit)
            scores[place] = mean_average_precision(logits, held, candidates[place].model)
    means = {i: float(values.mean()) if np.isfinite(values).all() else math.inf for i, values in losses.items()}
    best = min(means, key=lambda i: means[i])
    return [
        Tried(
            candidate.model.pooling,
            given_options(candidate.model),
            candidate.setting,
            means[i] if math.isfinite(means[i]) else math.nan,
            float((losses[i] - losses[best]).std() / math.sqrt(len(losses[i]))),
            scores[i],
        )
        for i, candidate in enumerate(candidates)
    ]


def given_options(model: Recognizer) -> dict[str, Any]:
    """The options of a model's pooling that differ from their defaults."""
    defaults = resolved_options(POOLINGS, model.pooling, {})
    return {name: value for name, value in model.pooling_options.items() if value != defaults[name]}


def screen(candidates: Sequence[Candidate], features: Features, fit: SideBySide, show: str | None) -> list[int]:
    """The candidates that are worth a cross-validation: the best of every model, or all where they share their work.

    They are trained for a third of the epochs on all folds but the first, which scores them.
    """
    count = Counter(id(candidate.model) for candidate in candidates if not on_averages(candidate))
    own = [
        i
        for i, candidate in enumerate(candidates)
        if not candidate.model.head.shares_work and not on_averages(candidate) and count[id(candidate.model)] > 1
    ]
    if not own:
        return list(range(len(candidates)))
    samples, folds = features.dataset.samples, fold_numbers(features.dataset, FOLDS)
    held = features.select([sample.path for sample, fold in zip(samples, folds, strict=True) if not fold], "tune")
    rest = features.select([sample.path for sample, fold in zip(samples, folds, strict=True) if fold], "train")
    assert fit.options.epochs is not None
    short = replace(fit.options, epochs=math.ceil(fit.options.epochs / SHORTER))
    quick = SideBySide(short, fit.schedule, fit.weights, fit.segments, fit.stop, fit.file)
    tried = [candidates[i] for i in own]
    models = {id(candidate.model): candidate.model for candidate in tried if departs(candidate)}
    begun = [Trial(model, model.head, regression(model, len(rest), fit.options)) for model in models.values()]
    starts = dict(zip(models, fit.run(rest.averaged, begun) if begun else [], strict=True))
    trials = [Trial(model, starts.get(id(model), model.head), setting) for model, setting in tried]
    heads = quick.run(rest, trials, show=show, keep="screening")
    scored = quick.held_out(held, trials, heads, [0] * len(held))
    losses = {
        i: float(losses_of(logits, scored, candidates[i].model, fit).mean())
        for i, logits in zip(own, scored.logits, strict=True)
    }
    best: dict[int, int] = {}
    for i in sorted(own, key=lambda i: losses[i] if math.isfinite(losses[i]) else math.inf):
        best.setdefault(id(candidates[i].model), i)
    return sorted({*range(len(candidates))} - {*own} | {*best.values()})


def departs(candidate: Candidate) -> bool:
    """Whether a candidate starts at a regression; with an infinite penalty it is one."""
    return candidate.setting.optimizer == "departure" and math.isfinite(candidate.setting.departure)


def on_averages(candidate: Candidate) -> bool:
    """Whether averaged features are all that a candidate needs: its bottom-up map is 1 everywhere, and stays so."""
    return candidate.model.head.linear or math.isinf(candidate.setting.departure)


def regressions(
    models: Sequence[Recognizer], averaged: Features, fit: SideBySide, folds: Sequence[int]
) -> dict[int, list[PoolingHead]]:
    """For the `id` of every model, its heads fitted as average pooling, each without one of the folds."""
    different = {id(model): model for model in models}
    trials = [
        Trial(model, model.head, regression(model, len(averaged), fit.options), fold)
        for model in different.values()
        for fold in range(FOLDS)
    ]
    heads = fit.run(averaged, trials, folds) if trials else []
    return {key: heads[i * FOLDS : (i + 1) * FOLDS] for i, key in enumerate(different)}


def regression(model: Recognizer, images: int, train: TrainOptions) -> Setting:
    """The setting with which a head that departs from average pooling, and has not yet, is a logistic regression."""
    return Setting("departure", regression_rate(model, train), regression_decay(images), math.inf)


def regression_decay(images: int) -> float:
    """The weight decay of a logistic regression on n images; see `optimizer.resolve`."""
    return REGRESSION_DECAY / max(images, 1)


def losses_of(logits: torch.Tensor, held: HeldOut, model: Recognizer, fit: SideBySide) -> np.ndarray:
    """The part of every image in the loss, `(n,)`; in place of one positive drawn at random, their expectation."""
    drawn = fit.options.loss == "random_positive"
    options = replace(fit.options, loss="cross_entropy") if drawn else fit.options
    parts = labels_loss(logits, held.targets, held.label_mask, model.task, options, fit.weights, reduction="none")
    return parts.double().numpy()


def mean_average_precision(logits: torch.Tensor, held: HeldOut, model: Recognizer) -> float:
    """The mAP of the images as `evaluate` computes it, not a number for logits that are none."""
    if not bool(torch.isfinite(logits).all()):
        return math.nan
    rows = held.targets.bool().any(1) if model.task == "single" else torch.ones(len(logits), dtype=torch.bool)
    given = as_probabilities(logits[rows], model.scores)
    found = score(given, held.targets[rows].numpy() > 0, model.classes, model.task, held.label_mask[rows].numpy())
    return found.mAP
