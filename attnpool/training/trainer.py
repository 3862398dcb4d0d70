"""The training loop: it holds the model, the data, the optimizer and the progress of one call of `train`."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from attnpool.data import batches
from attnpool.evaluation.evaluate import summarize
from attnpool.evaluation.inference import merge, score_source
from attnpool.features.batches import Batch, BatchSource
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import load_best, open_board, save_best, trained_tensors, write_log
from attnpool.models.state import STATE_FILE
from attnpool.progress import bar
from attnpool.training.checkpoint import (
    SAVE_SECONDS,
    Progress,
    load_state,
    pack_optimizer,
    pack_scaler,
    save_state,
    seed_step,
    unpack_optimizer,
    unpack_scaler,
)
from attnpool.training.class_weights import weights_of
from attnpool.training.config import OptimizerOptions, TrainOptions
from attnpool.training.interruption import Interrupted, StopSignals, TrainingFailed
from attnpool.training.losses import Step
from attnpool.training.optimizer import MovingAverage, build_optimizer, rate_factor
from attnpool.training.processes import SharedStatistics, build_accelerator, together, told


class Trainer:
    """Runs a training: restores a checkpoint if there is one, runs the epochs, and saves checkpoints.

    Args:
        model: the recognizer, which is trained in place; its `Standardize` is fitted already.
        train: source of the training batches.
        monitor: source of the batches that are scored after every epoch.
        folder: the run folder.
        options, schedule: see their classes.
        identity: the options that a checkpoint must have been saved with.
    """

    def __init__(
        self,
        model: Recognizer,
        train: BatchSource,
        monitor: BatchSource,
        folder: Path,
        options: TrainOptions,
        schedule: OptimizerOptions,
        identity: dict[str, Any],
    ) -> None:
        self.accelerator = build_accelerator(options.precision)
        self.main = self.accelerator.is_main_process
        self.process_index, self.num_processes = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device
        self.model, self.train_source, self.monitor, self.folder = model.to(self.device), train, monitor, folder
        self.options, self.schedule, self.identity = options, schedule, identity
        assert options.epochs is not None, "resolved by train()"
        self.epochs = options.epochs
        weights = weights_of(train.dataset, options.class_weights, model.task)
        step = Step(model, options, None if weights is None else weights.to(self.device))
        self.step, self.optimizer = self.accelerator.prepare(step, build_optimizer(model, schedule))
        self.average = MovingAverage(model, schedule.ema) if schedule.ema else None
        self.steps = len(self.order(0))  # per epoch, in each process
        self.batches = len(self.order(0, alone=True))  # per epoch, in all processes together
        self.updates = self.epochs * math.ceil(self.steps / options.accumulate)  # in all epochs
        self.board: Any = None
        self.at = Progress(failed=dict((*train.failed, *monitor.failed)), processes=self.num_processes)
        self.totals: dict[str, Any] = {}  # the sums of `at` over all processes, after the last update
        self.resume()

    def resume(self) -> None:
        """Restores the checkpoint, if there is one."""
        found = load_state(self.folder, self.identity)
        if found is None:
            return
        self.at, tensors = found
        if self.at.processes != self.num_processes:
            raise ValueError(
                f"{self.folder}: was begun by {self.at.processes} processes and has batches of an epoch behind it that "
                f"{self.num_processes} would divide in another way; use as many, or another folder as out"
            )
        if not self.main:  # the sums of the checkpoint are those of all processes
            self.at.loss_sum, self.at.images = 0.0, 0
        with torch.no_grad():
            for name, tensor in trained_tensors(self.model).items():
                tensor.copy_(tensors[f"model.{name}"])
        unpack_optimizer(self.optimizer, tensors)
        unpack_scaler(self.accelerator.scaler, tensors)
        if self.average:
            self.average.load(tensors)

    def save(self) -> None:
        """Writes the checkpoint from which the same call continues."""
        if self.main:
            tensors = {f"model.{name}": tensor for name, tensor in trained_tensors(self.model).items()}
            tensors |= pack_optimizer(self.optimizer) | pack_scaler(self.accelerator.scaler)
            tensors |= self.average.state() if self.average else {}
            save_state(self.folder, replace(self.at, **self.totals), self.identity, tensors)
        self.saved = time.monotonic()

    def fit(self, show: bool) -> None:
        """Runs the remaining epochs; afterwards the model has the weights of the result, and is in eval mode.

        Raises:
            TrainingFailed: the loss is not finite.
            Interrupted: SIGTERM or SIGINT was received; the state is saved.
        """
        at, epochs = self.at, self.epochs
        self.saved = time.monotonic()
        cuda = [self.device] if self.device.type == "cuda" else []
        with contextlib.ExitStack() as stack:
            stack.enter_context(together())
            stack.enter_context(torch.random.fork_rng(cuda))  # steps reseed torch's generator; restore the caller's
            stop = stack.enter_context(StopSignals())
            done = at.epoch * self.steps + at.step
            hidden = not (show and self.main)
            shown = stack.enter_context(bar(epochs * self.steps, self.folder.name, "steps", done=done, hidden=hidden))
            while at.epoch < epochs and not self.out_of_patience():
                for updated in self.run_epoch(shown):
                    if not updated:
                        continue
                    signum = self.agreed(stop.received)
                    if signum or time.monotonic() - self.saved > SAVE_SECONDS:
                        self.save()
                    if signum:
                        raise Interrupted(signum, self.folder / STATE_FILE)
                self.end_epoch(stack)
                last = at.history[-1]
                shown.set_postfix_str(f"epoch {last['epoch']}/{epochs}, loss {last['loss']:.3f}{said_of(last['mAP'])}")
            if signum := self.agreed(stop.received):  # it came while the last epoch was scored
                self.save()
                raise Interrupted(signum, self.folder / STATE_FILE)
        if self.average:
            self.average.swap(self.model)
        if self.options.patience:
            load_best(self.model, self.folder)
        self.model.eval()

    def agreed(self, received: int | None = None) -> int:
        """The signal that any of the processes has received, 0 for none; also sums up what all have done."""
        every = told(self.accelerator, [received or 0, self.at.loss_sum, self.at.images])
        self.totals = {"loss_sum": float(every[:, 1].sum()), "images": int(every[:, 2].sum())}
        return int(every[:, 0].max())

    def out_of_patience(self) -> bool:
        patience = self.options.patience
        return bool(patience) and self.at.best_epoch >= 0 and self.at.epoch - 1 - self.at.best_epoch >= patience

    def run_epoch(self, shown: Any) -> Iterator[bool]:
        """Runs the rest of an epoch; yields after each batch whether there was an update."""
        at, options = self.at, self.options
        order = self.order(at.epoch)
        self.model.train()
        self.started, self.seen = time.monotonic(), 0
        shared = SharedStatistics(self.model, self.accelerator) if self.num_processes > 1 else None
        for batch in self.train_source.batches(order[at.step :], seed=options.seed, epoch=at.epoch, train=True):
            first = at.step // options.accumulate * options.accumulate
            last = min(first + options.accumulate, len(order))
            update = at.step + 1 == last
            # The batches of the update, in all processes.
            of_update = min(last * self.num_processes, self.batches) - first * self.num_processes
            if shared:
                shared.begin()
            with contextlib.nullcontext() if update else self.accelerator.no_sync(self.step):
                self.backward(batch, of_update)
            if shared:
                shared.share(seen=bool(order[at.step]))
            if update:
                self.update()
            at.step += 1
            at.failed.update(batch.failed)
            shown.set_postfix_str(self.describe(), refresh=False)
            shown.update(1)
            yield update

    def order(self, epoch: int, *, alone: bool = False) -> list[list[int]]:
        """The batches of an epoch, for this process, or as if it were `alone`."""
        return batches(
            len(self.train_source.dataset),
            self.options.batch_size,
            seed=self.options.seed,
            epoch=epoch,
            process_index=0 if alone else self.process_index,
            num_processes=1 if alone else self.num_processes,
            groups=self.train_source.shapes,
            blocks=self.train_source.blocks,
        )

    def backward(self, batch: Batch, of_update: float) -> None:
        """Adds the gradients of a batch, which is one of `of_update` batches of an update, in all processes."""
        at = self.at
        number = at.step * self.num_processes + self.process_index
        seed_step(self.options.seed, at.epoch * self.batches + number)
        loss = self.step(batch, self.train_source.cached, self.device)
        if self.train_source.shapes:  # batches of one shape have different sizes, and every image counts as much
            mean = len(self.train_source.dataset) / self.batches
            of_update = of_update * mean / max(len(batch.paths), 1)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingFailed(
                f"the loss is {value} at epoch {at.epoch + 1}, step {at.step + 1}; no weight was changed by it. "
                f"Try a lower lr, or look at the batch's files: {', '.join(batch.paths)}"
            )
        if at.step % self.options.accumulate == 0:  # only now, because the forward pass needs the memory
            self.optimizer.zero_grad()
        # The gradients of all processes are averaged.
        self.accelerator.backward(loss * (self.num_processes / of_update))
        at.loss_sum += value * len(batch.paths)
        at.images += len(batch.paths)
        self.seen += len(batch.paths)

    def update(self) -> None:
        """Makes one step of the optimizer."""
        factor = rate_factor(self.schedule, self.at.updates, self.updates)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        if self.schedule.clip:
            self.accelerator.clip_grad_norm_(self.step.parameters(), self.schedule.clip)
        self.optimizer.step()
        if self.average:
            self.average.update(self.model, self.at.updates)
        self.at.updates += 1

    def describe(self) -> str:
        at = self.at
        speed = self.seen * self.num_processes / max(time.monotonic() - self.started, 1e-9)
        score = said_of(at.history[-1]["mAP"]) if at.history else ""
        loss = at.loss_sum / max(at.images, 1)
        return f"epoch {at.epoch + 1}/{self.epochs}, loss {loss:.3f}{score}, {speed:.0f} images/s"

    def end_epoch(self, stack: contextlib.ExitStack) -> None:
        """Evaluates the monitored part, writes the logs and keeps the best weights; `stack` closes what it opens."""
        at = self.at
        speed = self.seen * self.num_processes / max(time.monotonic() - self.started, 1e-9)
        if self.average:
            self.average.swap(self.model)
        positions = range(self.process_index, len(self.monitor.dataset), self.num_processes)
        outputs = merge(
            self.accelerator,
            score_source(self.model, self.monitor, maps=False, device=self.device, positions=positions),
        )
        scores = summarize(outputs, self.model, self.monitor.dataset.split).scores
        at.failed.update(outputs.failed)
        self.agreed()
        if self.num_processes > 1:
            from accelerate.utils import gather_object

            for failed in gather_object([at.failed]):
                at.failed.update(failed)
        entry = {
            "epoch": at.epoch + 1,
            "loss": self.totals["loss_sum"] / max(self.totals["images"], 1),
            "lr": self.optimizer.param_groups[-1]["lr"],
            "mAP": known(scores.mAP),
            "accuracy": known(scores.accuracy),
            "images_per_s": round(speed, 1),
        }
        at.history.append(entry)
        # Where no class has a positive there is no mAP, and the last epoch counts as the best.
        if scores.mAP > at.best or math.isnan(scores.mAP):
            at.best, at.best_epoch = known(scores.mAP) or at.best, at.epoch
            if self.main:
                save_best(self.model, self.folder)
        if self.average:
            self.average.swap(self.model)
        at.epoch, at.step, at.loss_sum, at.images = at.epoch + 1, 0, 0.0, 0
        if self.main:
            if self.board is None:  # not earlier, so that a training that cannot run leaves no files
                self.board = stack.enter_context(open_board(self.folder, at.epoch))
            for name, value in entry.items():
                if name != "epoch" and value is not None:
                    self.board.add_scalar(name, value, at.epoch)
            write_log(self.folder, at.history)


def known(score: float | None) -> float | None:
    """The score, or None where it is not a number because nothing could be scored."""
    return None if score is None or math.isnan(score) else score


def said_of(mAP: float | None) -> str:
    """The part of a progress bar that tells the mAP, if it is known."""
    return "" if mAP is None else f", mAP {100 * mAP:.1f}"
