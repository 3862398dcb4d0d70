"""Many heads with different settings trained on the same batches of cached features, which are read once for all."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from attnpool.data import batches
from attnpool.features.batches import Batch, CachedFeatures
from attnpool.features.features import Features
from attnpool.models.clip_pooling import clips_of
from attnpool.models.recognizer import Recognizer
from attnpool.pooling import Pooled, PoolingHead
from attnpool.progress import bar
from attnpool.training.checkpoint import SAVE_SECONDS, ChoiceFile, pack_optimizer, seed_step, unpack_optimizer
from attnpool.training.config import OptimizerOptions, TrainOptions
from attnpool.training.interruption import StopSignals
from attnpool.training.losses import labels_loss
from attnpool.training.optimizer import Setting, optimizer_of_heads, rate_factor


class Trial(NamedTuple):
    """A head to be trained.

    Attributes:
        model: the recognizer whose head it is like; its standardisation is used. Trials of one model are computed
            together.
        head: where the head starts; it is copied.
        setting: how it is trained.
        left_out: the fold that it is not trained on, if any.
    """

    model: Recognizer
    head: PoolingHead
    setting: Setting
    left_out: int | None = None


@dataclass(frozen=True)
class HeldOut:
    """The logits of every image from heads that were not trained on it.

    Attributes:
        logits: `(candidates, n, K)`.
        targets, label_mask: `(n, K)`, as in `data.PixelBatch`.
    """

    logits: Tensor
    targets: Tensor
    label_mask: Tensor


class SideBySide:
    """Trains heads on the same batches, with the epochs, the batches and the loss of a training.

    Args:
        options, schedule: as in a training; what a `Setting` says takes the place of the schedule's.
        weights: weights of the classes, or None.
        segments: see `CachedFeatures`.
        stop: the signals that end it between two steps.
        file: where the state is kept, so that the same call continues.
    """

    def __init__(
        self,
        options: TrainOptions,
        schedule: OptimizerOptions,
        weights: Tensor | None,
        segments: int = 0,
        stop: StopSignals | None = None,
        file: ChoiceFile | None = None,
    ) -> None:
        self.options, self.schedule, self.weights = options, schedule, weights
        self.segments, self.stop, self.file = segments, stop or StopSignals(), file

    def run(
        self,
        features: Features,
        trials: Sequence[Trial],
        folds: Sequence[int] | None = None,
        show: str | None = None,
        keep: str | None = None,
    ) -> list[PoolingHead]:
        """Trains copies of the heads of `trials`, and returns them in eval mode.

        Args:
            features: features of the training images.
            trials: the heads.
            folds: the fold of every image, if trials leave some out.
            show: title of a progress bar.
            keep: name under which the state is kept in `file`; None for a run of seconds.

        Raises:
            Interrupted: SIGTERM or SIGINT was received; the state is saved.
        """
        options, samples = self.options, features.dataset.samples
        assert options.epochs is not None, "resolved by train()"
        heads = [copy.deepcopy(trial.head).train().requires_grad_(True) for trial in trials]
        settings = [trial.setting for trial in trials]
        for head, setting in zip(heads, settings, strict=True):
            if math.isinf(setting.departure):
                hold_maps(head)
        optimizer = optimizer_of_heads(list(zip(heads, settings, strict=True)))
        total = options.epochs * len(self.order(features, 0))
        file, stage = (self.file, keep) if keep else (None, "")
        done = resumed(file, stage, heads, optimizer)
        own: Sequence[int | None] = folds or [None] * len(samples)
        numbers = dict(zip([sample.path for sample in samples], own, strict=True))
        saved = time.monotonic()
        with torch.random.fork_rng([]), bar(total, show or "", "steps", done=done, hidden=show is None) as shown:
            for batch in self.batches(features, done):
                seed_step(options.seed, done)
                factor = rate_factor(self.schedule, done, total)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * factor
                optimizer.zero_grad()
                loss = self.loss(trials, heads, batch, [numbers[path] for path in batch.paths])
                if features.shapes:  # batches of one shape have different sizes, and every image counts as much
                    loss = loss * len(batch.paths) * total / (options.epochs * len(samples))
                loss.backward()
                if self.schedule.clip:
                    for head in heads:
                        torch.nn.utils.clip_grad_norm_(head.parameters(), self.schedule.clip)
                optimizer.step()
                done += 1
                shown.update(1)
                if file and (self.stop.received or time.monotonic() - saved > SAVE_SECONDS):
                    file.save_state(stage, done, packed(heads) | pack_optimizer(optimizer))
                    saved = time.monotonic()
                self.stop.check(file.path if file else None)
        return [head.eval() for head in heads]

    def batches(self, features: Features, done: int) -> Iterator[Batch]:
        """The batches of all epochs, without those that are done."""
        source, options = CachedFeatures(features, self.segments), self.options
        assert options.epochs is not None
        for epoch in range(options.epochs):
            order = self.order(features, epoch)
            left = order[done:]
            done = max(done - len(order), 0)
            yield from source.batches(left, seed=options.seed, epoch=epoch, train=True)

    def order(self, features: Features, epoch: int) -> list[list[int]]:
        """The batches of an epoch."""
        size, seed = self.options.batch_size, self.options.seed
        return batches(len(features), size, seed=seed, epoch=epoch, groups=features.shapes)

    def loss(
        self, trials: Sequence[Trial], heads: Sequence[PoolingHead], batch: Batch, folds: Sequence[int | None]
    ) -> Tensor:
        """The sum of the losses of all heads on a batch, each without the images of the fold that it leaves out."""
        found = pool(trials, heads, batch)
        total = torch.zeros(())
        for left_out in dict.fromkeys(trial.left_out for trial in trials):
            inside = torch.tensor([left_out is None or fold != left_out for fold in folds])
            if not inside.any():
                continue
            together = [i for i, trial in enumerate(trials) if trial.left_out == left_out]
            count = len(together)  # a mean over the images of all heads together, times their number
            total = total + count * labels_loss(
                torch.cat([found[i].logits[inside] for i in together]),
                batch.targets[inside].repeat(count, 1),
                batch.label_mask[inside].repeat(count, 1),
                trials[0].model.task,
                self.options,
                self.weights,
            )
            for i in together:
                strength, bottom_up = trials[i].setting.departure, found[i].bottom_up
                if strength and math.isfinite(strength):
                    assert bottom_up is not None
                    total = total + strength * heads[i].departure(bottom_up[inside])
        return total

    @torch.no_grad()
    def held_out(
        self, features: Features, trials: Sequence[Trial], heads: Sequence[PoolingHead], folds: Sequence[int]
    ) -> HeldOut:
        """Scores every image by the heads that left out the fold that it is in.

        Args:
            features: features of the images.
            trials, heads: what was trained: all folds 0, 1, ... of the first candidate, then of the second, and so on.
            folds: the folds of the images.
        """
        count = 1 + max(trial.left_out or 0 for trial in trials)
        numbers = dict(zip([sample.path for sample in features.dataset], folds, strict=True))
        logits, targets, masks = [], [], []
        size = self.options.batch_size
        order = batches(len(features), size, seed=0, epoch=0, shuffle=False, groups=features.shapes)
        for batch in CachedFeatures(features).batches(order, seed=0, epoch=0, train=False):
            self.stop.check(self.file.path if self.file else None)
            found = torch.stack([out.logits for out in pool(trials, heads, batch)]).unflatten(0, (-1, count))
            own = torch.tensor([numbers[path] for path in batch.paths], dtype=torch.long)
            logits.append(found[:, own, torch.arange(len(own))])
            targets.append(batch.targets)
            masks.append(batch.label_mask)
        return HeldOut(torch.cat(logits, 1), torch.cat(targets), torch.cat(masks))


def pool(trials: Sequence[Trial], heads: Sequence[PoolingHead], batch: Batch) -> list[Pooled]:
    """The logits, and for a departure the bottom-up maps, of all heads for a batch of images or clips."""
    of_models: dict[int, list[int]] = {}
    for i, trial in enumerate(trials):
        of_models.setdefault(id(trial.model), []).append(i)
    found: dict[int, Pooled] = {}
    for places in of_models.values():
        model, same = trials[places[0]].model, [heads[i] for i in places]
        x = model.standardize(batch.inputs.flatten(0, -4))
        clips = batch.inputs.ndim == 5
        if clips and same[0].over_time:
            x = x.unflatten(0, batch.inputs.shape[:2])
        outputs = same[0].side_by_side(same, x)
        if clips and not same[0].over_time:
            outputs = [clips_of(out, batch.inputs.shape[1]) for out in outputs]
        found |= dict(zip(places, outputs, strict=True))
    return [found[i] for i in range(len(trials))]


def hold_maps(head: PoolingHead) -> None:
    """Keeps the bottom-up maps of a head where they are, so that only its classifier is trained."""
    for parameter in head.released_parameters():
        parameter.requires_grad_(False)


def packed(heads: Sequence[PoolingHead]) -> dict[str, Tensor]:
    """The tensors of heads under flat names."""
    return {f"head.{i}.{name}": value for i, head in enumerate(heads) for name, value in head.state_dict().items()}


def resumed(file: ChoiceFile | None, stage: str, heads: Sequence[PoolingHead], optimizer: torch.optim.Optimizer) -> int:
    """Restores heads and their optimizer from a file; returns the number of steps that are done."""
    found = file.read_state(stage) if file else None
    if found is None:
        return 0
    done, tensors = found
    for i, head in enumerate(heads):
        head.load_state_dict(beginning(tensors, f"head.{i}."))
    unpack_optimizer(optimizer, tensors)
    return done


def beginning(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
