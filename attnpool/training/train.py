"""`train` trains a model on a dataset into a run folder; the same call continues where it was stopped."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from attnpool.data import READERS, Dataset, Preprocessing, hold_out
from attnpool.features.batches import BatchSource, CachedFeatures, Images
from attnpool.features.extraction import extract
from attnpool.features.features import standardize
from attnpool.keypoints.joints import MPII_JOINTS
from attnpool.models.feature_norm import Standardize
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import Run, is_finished, open_folder, require_usable, save_run
from attnpool.models.state import remove_state
from attnpool.training.checkpoint import ChoiceFile, load_state, require_same, split_of
from attnpool.training.class_weights import weights_of
from attnpool.training.config import OptimizerOptions, TrainOptions
from attnpool.training.cross_validation import Choice
from attnpool.training.departure import candidates, choose, start_at_regression
from attnpool.training.interruption import StopSignals
from attnpool.training.losses import resolve_loss
from attnpool.training.optimizer import departs, is_logistic_regression, resolve, start_at_priors
from attnpool.training.processes import join, once
from attnpool.training.relevance import require_no_augmentation
from attnpool.training.side_by_side import SideBySide, hold_maps
from attnpool.training.trainer import Trainer


def train(
    model: Recognizer,
    train: Dataset,
    val: Dataset,
    *,
    out: str | Path,
    options: TrainOptions | None = None,
    optimizer: OptimizerOptions | None = None,
    preprocessing: Preprocessing | None = None,
    cache: Path | None = None,
    split_seed: int = 0,
    results: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Run:
    """Trains a recognizer into a run folder. The same call continues where it was stopped, with the same result.

    The features of a frozen backbone are computed once and kept on disk (`features.extract`); otherwise images are
    decoded and augmented in every epoch. After every epoch the mAP on `val` is logged. The result has the weights of
    the last epoch; those of the epoch with the best mAP are kept beside them. With `patience`, a part held out of
    `train` takes the place of `val` in this, and the result has the weights of the best epoch.

    Args:
        model: the recognizer, which is trained in place.
        train, val: the two splits of a dataset, from `data.read`.
        out: the run folder.
        options, optimizer: see `TrainOptions` and `OptimizerOptions`.
        preprocessing: augmentation; its image_size, short_side and max_width are replaced by those of the model.
        cache: folder of features, `features.cache_folder()` by default.
        split_seed: seed with which `train` and `val` were split, to be saved with the run.
        results: further results to be saved with the run, such as what `auto` chose from.
        progress: show progress bars.

    Raises:
        ValueError: the options or the data cannot be used, or the folder holds another run.
        TrainingFailed: the loss is not finite; the message names the files of the batch.
        Interrupted: SIGTERM or SIGINT was received; the state is saved.
    """
    options = options or TrainOptions()
    optimizer = resolve(model, optimizer or OptimizerOptions(), len(train), options)
    options = replace(options, epochs=options.epochs or default_epochs(len(train), options))
    folder = Path(out)
    check(model, train, val, options, optimizer, folder)
    if not (model.sees_people or learns_joints(model, options)):
        train, val = train.without_people(), val.without_people()
    preprocessing = replace(preprocessing or Preprocessing(), **model.preprocessing)
    recipe = {
        "data": train.name,
        **asdict(options),
        **asdict(optimizer),
        "preprocessing": asdict(preprocessing),
    }
    split = split_of(train, val, split_seed)
    identity = {**recipe, "model": model.describe(), "split": split}
    if is_finished(folder):
        finished = Run.load(folder)
        about = finished.about
        if ("auto" in about["results"]) != ("auto" in (results or {})):
            said = "that auto chose; add it" if "auto" in about["results"] else "without auto; leave it out"
            raise ValueError(f"{folder}: holds a run {said}, or give another folder as out")
        require_same(folder, {**about["recipe"], "model": about["model"], "split": about["split"]}, identity)
        return finished
    load_state(folder, identity)  # so that an error comes before the long work
    fitted, monitored = hold_out(train, options.tune_fraction) if options.patience else (train, val)
    departing = optimizer.optimizer == "departure"
    pooled = departing or model.pooling == "average"
    with open_folder(folder) if join().is_main_process else nullcontext():
        sources = prepare(
            model, train, val, (fitted, monitored), options, preprocessing, cache, progress, pooled=pooled
        )
    if departing or is_logistic_regression(model):
        start_at_priors(model, sources[0].dataset, options)
    choice = None
    if departing:
        choice = once(partial(depart, model, sources[0], folder, options, optimizer, identity, progress))
        chosen = choice.chosen.setting
        held = math.isinf(chosen.departure)  # the maps stay, and there is nothing to penalise
        options = replace(options, departure=0.0 if held else chosen.departure)
        optimizer = replace(optimizer, weight_decay=chosen.weight_decay)
    trainer = Trainer(model, *sources, folder, options, optimizer, identity)
    trainer.fit(progress)
    if trainer.main:
        skipped = [{"file": path, "reason": reason} for path, reason in sorted(trainer.at.failed.items())]
        found = {
            "weights": str(model.backbone.report or "random"),
            "history": trainer.at.history,
            "skipped": skipped,
            **({} if choice is None else {"departure": choice.to_json()}),
            **(results or {}),
        }
        save_run(model, folder, recipe=recipe, split=split, results=found)
        remove_state(folder)
    trainer.accelerator.wait_for_everyone()
    return Run.load(folder)


def depart(
    model: Recognizer,
    source: BatchSource,
    folder: Path,
    options: TrainOptions,
    optimizer: OptimizerOptions,
    identity: dict[str, Any],
    progress: bool,
) -> Choice:
    """Starts a model as average pooling, fitted, and chooses how far its attention departs from that.

    What an earlier call has chosen is not chosen again.
    """
    assert isinstance(source, CachedFeatures)
    weights = weights_of(source.dataset, options.class_weights, model.task)
    with StopSignals() as stop:
        fit = SideBySide(options, optimizer, weights, source.segments, stop)
        several = len(candidates(model, len(source.dataset), fit)) > 1
        fit.file = ChoiceFile(folder, identity) if several else None
        if fit.file and fit.file.choice:
            choice = Choice.from_json(fit.file.choice)
        else:
            choice = choose(model, source.features, fit, show=progress)
            if fit.file:
                fit.file.save_choice(choice.to_json())
        if math.isinf(choice.chosen.setting.departure):  # what is trained now is the regression
            hold_maps(model.head)
        else:
            start_at_regression(model, source.features, fit)
        stop.check()
    return choice


def learns_joints(model: Recognizer, options: TrainOptions) -> bool:
    """Whether a part of the loss is about joints."""
    return model.pooling == "pose" and options.pose_weight > 0


def default_epochs(images: int, options: TrainOptions) -> int:
    """The default number of epochs: 30, or as many as give 400 updates, because small datasets have few per epoch."""
    updates = math.ceil(images / (options.batch_size * options.accumulate))
    return max(30, math.ceil(400 / max(updates, 1)))


def require_outside(folder: Path, data: Dataset) -> None:
    """Raises ValueError if a run would be written among the classes of a folder of images."""
    whole = data.format in READERS and READERS[data.format].every_file
    if whole and folder.resolve().is_relative_to(data.root.resolve()):
        raise ValueError(f"out {folder}: is in the folder of the images, as if it were a class; give one outside of it")


def check(
    model: Recognizer,
    train: Dataset,
    val: Dataset,
    options: TrainOptions,
    optimizer: OptimizerOptions,
    folder: Path,
) -> None:
    """Raises ValueError for mistakes that would otherwise show only after long work."""
    require_usable(folder)
    require_outside(folder, train)
    if train.classes != model.classes or val.classes != model.classes:
        different = sorted((set(train.classes) ^ set(model.classes)) | (set(val.classes) ^ set(model.classes)))
        raise ValueError(
            f"{train.name}: its classes are not those of the model, they differ in "
            f"{', '.join(different[:5]) or 'their order'}; build the model with classes=train.classes"
        )
    if not len(train) or not len(val):
        raise ValueError(
            f"{train.name}: {len(train)} images to train on and {len(val)} to validate on; both splits need some"
        )
    if optimizer.lr == "auto":
        raise ValueError("lr auto is for attnpool train, which builds the models to choose from; give a number")
    resolve_loss(options.loss, model.task, options.positive_weight)
    joints = model.pooling_options.get("joints", len(MPII_JOINTS))
    if joints != len(MPII_JOINTS) and options.pose_weight:
        raise ValueError(
            f"joints is {joints}, but the pose loss needs {len(MPII_JOINTS)}: leave joints out, or use pose_weight 0"
        )
    if options.departure and not model.head.departs:
        raise ValueError(
            f"departure is {options.departure}, but pooling {model.pooling} with these options does not start as "
            "average pooling with a bottom-up map to release: leave departure out, or use pooling attentional"
        )
    if options.departure and model.instances == "boxes":
        raise ValueError(
            f"departure is {options.departure}, but with instances boxes the scores have no maps to hold: leave "
            "departure or instances out"
        )
    if optimizer.optimizer == "departure" and not departs(model, options):
        raise ValueError(
            "optimizer departure is for attentional pooling that starts as average pooling (init average), on a frozen "
            "backbone with use_cache and standardize, without instances and with a departure other than 0; leave "
            "optimizer out"
        )
    labelled = (s.keypoints or any(person.joints for person in s.people) for s in train)
    if learns_joints(model, options) and not any(labelled):
        raise ValueError(
            f"{train.name}: no image of train has joints, which pooling pose learns from; add them, see attnpool pose, "
            "or use pose_weight 0"
        )
    if model.instances == "boxes" and not any(sample.people or sample.keypoints for sample in train):
        raise ValueError(f"{train.name}: train has no boxes or keypoints of persons; leave out instances")
    if model.instances == "boxes" and train.media == "clips":
        raise ValueError(f"{train.name}: holds clips, but boxes are known in images alone; leave out instances")
    if options.precision == "fp16" and not torch.cuda.is_available():
        raise ValueError("precision fp16 needs a GPU; use bf16 or fp32")


def prepare(
    model: Recognizer,
    train: Dataset,
    val: Dataset,
    parts: tuple[Dataset, Dataset],
    options: TrainOptions,
    preprocessing: Preprocessing,
    cache: Path | None,
    progress: bool,
    *,
    pooled: bool,
) -> tuple[BatchSource, BatchSource]:
    """The sources of the batches of `parts` (to fit and to monitor); also fits the model's `Standardize`."""
    fitted, monitored = parts
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    common: dict[str, Any] = {"workers": options.workers, "device": device, "progress": progress}
    if not model.backbone.frozen or not options.use_cache:
        if preprocessing.cached_views > 1:
            raise ValueError(
                f"cached_views is {preprocessing.cached_views}, but the features of this training are not kept: leave "
                "it out, or use freeze_backbone and use_cache"
            )
        if isinstance(model.standardize, Standardize):
            with tempfile.TemporaryDirectory() as place:  # use_cache off keeps nothing
                folder = cache if options.use_cache else Path(place)
                features = extract(model, fitted, cache=folder, **common)
                standardize(model, features, pooled=pooled)
                del features
        return Images(fitted, preprocessing, options.workers), Images(monitored, preprocessing, options.workers)
    require_no_augmentation(preprocessing)
    views = preprocessing.cached_views
    if views > 1:  # first, because it refuses clips
        crops, flip = preprocessing.kept
        seen = extract(model, fitted, crops=crops, flip=flip, cache=cache, **common)
    both = train.joined(val, "all")
    features = extract(model, both, cache=cache, **common)
    chosen = [features.select([sample.path for sample in part], part.split) for part in parts]
    for part, readable in zip(parts, chosen, strict=True):
        if not len(readable):
            raise ValueError(
                f"{part.name}: none of the {len(part)} images of {part.split} can be read; "
                f"see attnpool check {part.name}"
            )
    if views > 1:
        chosen[0] = seen
    standardize(model, chosen[0], pooled=pooled)
    if model.pooling == "average" and model.instances == "none":
        # the mean of standardised features is the standardised mean, so this gives the same scores faster
        chosen = [part.averaged for part in chosen]
    return CachedFeatures(chosen[0], preprocessing.segments), CachedFeatures(chosen[1])
