"""Attention as a departure from average pooling: a regression first, then maps under a penalty that the data choose.

Average pooling is the attention whose bottom-up map is 1 everywhere. So the classifier is fitted as average pooling,
which is a logistic regression; then the map is released, and leaves 1 only as far as the loss pays for the penalty
`strength * mean (h - 1)^2` (`PoolingHead.departure`). The strength and the weight decay of the classifier are chosen by
cross-validation on the training images; infinitely strong is the regression itself.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attnpool.data import batches, fold_numbers
from attnpool.features.batches import Batch, CachedFeatures
from attnpool.features.extraction import Features
from attnpool.models.clip_pooling import clips_of
from attnpool.models.recognizer import Recognizer
from attnpool.pooling import Pooled, PoolingHead
from attnpool.progress import bar
from attnpool.training.config import OptimizerOptions, TrainOptions
from attnpool.training.interruption import StopSignals
from attnpool.training.losses import labels_loss
from attnpool.training.optimizer import REGRESSION_DECAY, departure_optimizer, rate_factor

STRENGTHS = (0.03, 0.1, 0.3, 1.0)
DECAYS = (1, 3, 10)  # times the regression's: attention fits more, so that more decay may suit it
FOLDS = 3


@dataclass(frozen=True)
class Candidate:
    """A strength of the penalty (infinity for average pooling) and a weight decay of the classifier, to be tried."""

    strength: float
    weight_decay: float


@dataclass(frozen=True)
class Choice:
    """The candidate that was chosen, and the loss of each of them on the images that it was not trained on."""

    chosen: Candidate
    tried: tuple[tuple[Candidate, float], ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "chosen": _to_json(self.chosen),
            "folds": FOLDS,
            "tried": [_to_json(candidate) | {"loss": loss} for candidate, loss in self.tried],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Choice:
        return cls(
            _from_json(value["chosen"]), tuple((_from_json(entry), float(entry["loss"])) for entry in value["tried"])
        )


def _to_json(candidate: Candidate) -> dict[str, Any]:
    finite = math.isfinite(candidate.strength)  # JSON has no infinity
    return {"departure": candidate.strength if finite else "none", "weight_decay": candidate.weight_decay}


def _from_json(entry: dict[str, Any]) -> Candidate:
    strength = math.inf if entry["departure"] == "none" else float(entry["departure"])
    return Candidate(strength, float(entry["weight_decay"]))


def start_at_regression(model: Recognizer, features: Features, fit: SideBySide) -> None:
    """Fits the classifier of a model as average pooling; its bottom-up maps stay where they start."""
    average = Candidate(math.inf, regression_decay(len(features)))
    (head,) = fit.run(features.averaged, [Trial(model.head, average)])
    model.head.load_state_dict(head.state_dict())


def choose(model: Recognizer, features: Features, fit: SideBySide, *, show: bool = True) -> Choice:
    """Chooses how far attention departs from average pooling by cross-validation, all candidates side by side.

    The candidates of all folds are trained in one loop over the features, with the epochs, batches and loss of the
    training itself. The one with the smallest loss on the images that it was not trained on is chosen.

    Args:
        model: the recognizer; its `Standardize` is fitted. It is not changed.
        features: cached features of the training images.
        fit: how heads are trained; a `departure` or `weight_decay` in its options is the only one tried.
        show: show a progress bar.
    """
    decay = regression_decay(len(features))
    average = Candidate(math.inf, decay)
    strengths = STRENGTHS if fit.options.departure is None else (fit.options.departure,)
    decays = [times * decay for times in DECAYS] if fit.schedule.weight_decay is None else [fit.schedule.weight_decay]
    candidates = [Candidate(strength, value) for strength in strengths for value in decays]
    if len(candidates) == 1:
        return Choice(candidates[0], ())
    numbers = fold_numbers(features.dataset, FOLDS)
    pooled = features.averaged
    regressions = fit.run(pooled, [Trial(model.head, average, fold) for fold in range(FOLDS)], numbers)
    trials = [Trial(regressions[fold], candidate, fold) for candidate in candidates for fold in range(FOLDS)]
    heads = fit.run(features, trials, numbers, show="choosing the departure" if show else None)
    tried = list(zip(candidates, fit.held_out_losses(features, heads, numbers), strict=True))
    if fit.options.departure is None:
        tried.insert(0, (average, fit.held_out_losses(pooled, regressions, numbers)[0]))
    best = min(tried, key=lambda entry: entry[1] if math.isfinite(entry[1]) else math.inf)
    return Choice(best[0], tuple(tried))


def regression_decay(images: int) -> float:
    """The weight decay of a logistic regression on n images; see `optimizer.resolve`."""
    return REGRESSION_DECAY / max(images, 1)


class Trial(NamedTuple):
    """A head to be trained: where it starts, its candidate, and the fold that it leaves out, if any."""

    start: PoolingHead
    candidate: Candidate
    left_out: int | None = None


class SideBySide:
    """Trains heads with different settings on the same batches of cached features, which are read once for all.

    Args:
        model: the recognizer whose heads they are.
        options, schedule: as in a training.
        weights: weights of the classes, or None.
        segments: see `CachedFeatures`.
        stop: the signals that end it between two steps.
    """

    def __init__(
        self,
        model: Recognizer,
        options: TrainOptions,
        schedule: OptimizerOptions,
        weights: Tensor | None,
        segments: int = 0,
        stop: StopSignals | None = None,
    ) -> None:
        self.model, self.options, self.schedule, self.weights = model, options, schedule, weights
        self.segments, self.stop = segments, stop or StopSignals()

    def run(
        self, features: Features, trials: Sequence[Trial], numbers: Sequence[int] | None = None, show: str | None = None
    ) -> list[PoolingHead]:
        """Trains copies of the heads of `trials`; `numbers` are the folds of the images, `show` the title of a bar.

        Raises:
            Interrupted: SIGTERM or SIGINT was received.
        """
        options = self.options
        assert options.epochs is not None, "resolved by train()"
        heads = [copy.deepcopy(trial.start).train() for trial in trials]
        for head, trial in zip(heads, trials, strict=True):
            head.requires_grad_(True)
            if math.isinf(trial.candidate.strength):
                hold_maps(head)
        optimizer = departure_optimizer(
            [(head, trial.candidate.weight_decay) for head, trial in zip(heads, trials, strict=True)], self.schedule
        )
        source, samples = CachedFeatures(features, self.segments), features.dataset.samples
        own: Sequence[int | None] = numbers or [None] * len(samples)
        folds = dict(zip([sample.path for sample in samples], own, strict=True))
        total = options.epochs * math.ceil(len(samples) / options.batch_size)
        done = 0
        with torch.random.fork_rng([]), bar(total, show or "", "steps", hidden=show is None) as shown:
            torch.manual_seed(options.seed)
            for epoch in range(options.epochs):
                order = batches(len(samples), options.batch_size, seed=options.seed, epoch=epoch)
                for batch in source.batches(order, seed=options.seed, epoch=epoch, train=True):
                    factor = rate_factor(self.schedule, done, total)
                    for group in optimizer.param_groups:
                        group["lr"] = group["peak"] * factor
                    optimizer.zero_grad()
                    self.loss(heads, trials, batch, [folds[path] for path in batch.paths]).backward()
                    optimizer.step()
                    done += 1
                    shown.update(1)
                    self.stop.check()
        return [head.eval() for head in heads]

    def loss(
        self, heads: Sequence[PoolingHead], trials: Sequence[Trial], batch: Batch, folds: Sequence[int | None]
    ) -> Tensor:
        """The sum of the losses of all heads on a batch, each without the images of the fold that it leaves out."""
        found = self.pool(heads, batch)
        total = torch.zeros(())
        for left_out in dict.fromkeys(trial.left_out for trial in trials):
            inside = torch.tensor([left_out is None or fold != left_out for fold in folds])
            if not inside.any():
                continue
            together = [out for out, trial in zip(found, trials, strict=True) if trial.left_out == left_out]
            count = len(together)  # a mean over the images of all heads together, times their number
            total = total + count * labels_loss(
                torch.cat([out.logits[inside] for out in together]),
                batch.targets[inside].repeat(count, 1),
                batch.label_mask[inside].repeat(count, 1),
                self.model.task,
                self.options,
                self.weights,
            )
            for head, out, trial in zip(heads, found, trials, strict=True):
                if trial.left_out == left_out and math.isfinite(trial.candidate.strength):
                    assert out.bottom_up is not None
                    total = total + trial.candidate.strength * head.departure(out.bottom_up[inside])
        return total

    def pool(self, heads: Sequence[PoolingHead], batch: Batch) -> list[Pooled]:
        """The logits and bottom-up maps of all heads; those of the frames of a clip are averaged."""
        x = self.model.standardize(batch.inputs.flatten(0, -4))
        found = heads[0].side_by_side(heads, x)
        if batch.inputs.ndim == 4:
            return found
        return [clips_of(out, batch.inputs.shape[1]) for out in found]

    @torch.no_grad()
    def held_out_losses(self, features: Features, heads: Sequence[PoolingHead], numbers: Sequence[int]) -> list[float]:
        """The loss of every candidate on all images, each scored by the head of the fold that it is in.

        Args:
            features: features of the images.
            heads: the heads of all folds of the first candidate, then of the second, and so on.
            numbers: the folds of the images.
        """
        source, samples = CachedFeatures(features), features.dataset.samples
        folds = dict(zip([sample.path for sample in samples], numbers, strict=True))
        logits: list[list[Tensor]] = [[] for _ in range(len(heads) // FOLDS)]
        targets, masks = [], []
        order = batches(len(samples), self.options.batch_size, seed=0, epoch=0, shuffle=False)
        for batch in source.batches(order, seed=0, epoch=0, train=False):
            self.stop.check()
            found = torch.stack([out.logits for out in self.pool(heads, batch)]).unflatten(0, (-1, FOLDS))
            own = torch.tensor([folds[path] for path in batch.paths])
            for candidate, of_folds in enumerate(found):
                logits[candidate].append(of_folds[own, torch.arange(len(own))])
            targets.append(batch.targets)
            masks.append(batch.label_mask)
        return [
            float(
                labels_loss(
                    torch.cat(of), torch.cat(targets), torch.cat(masks), self.model.task, self.options, self.weights
                )
            )
            for of in logits
        ]


def hold_maps(head: PoolingHead) -> None:
    """Keeps the bottom-up maps of a head where they are, so that only its classifier is trained."""
    for parameter in head.released_parameters():
        parameter.requires_grad_(False)
