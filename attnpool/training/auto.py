"""`--pooling auto`, `--lr auto`: the pooling and how it is trained, chosen by cross-validation on the training images.

All candidates are trained side by side in one loop over cached features (`cross_validation.cross_validate`). The one
that is chosen is then trained on all of train as any other. Validation images are not looked at.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from attnpool.data import Dataset, batches
from attnpool.evaluation.tables import text_table
from attnpool.features.batches import CachedFeatures
from attnpool.features.extraction import extract
from attnpool.features.features import Features, standardize
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import Run, is_finished
from attnpool.training.checkpoint import ChoiceFile, require_same
from attnpool.training.class_weights import weights_of
from attnpool.training.config import AUTO, Options
from attnpool.training.cross_validation import (
    Candidate,
    Choice,
    Tried,
    cross_validate,
    given_options,
    regression_decay,
)
from attnpool.training.departure import DECAYS, STRENGTHS
from attnpool.training.interruption import StopSignals
from attnpool.training.optimizer import Setting, departs, is_logistic_regression, regression_rate, start_at_priors
from attnpool.training.side_by_side import SideBySide
from attnpool.training.train import default_epochs

# What `--pooling auto` tries, which is what was best of its kind and size (docs/auto.md). Attention is tried as a
# departure from average pooling.
TRIED: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("average", {}),
    ("attentional", {}),
    ("attentional", {"per_class": True}),
    ("attentional", {"hidden": 64, "activation": "softmax"}),
    ("covariance", {"channels": 64}),
)
RATES = (0.3, 1.0, 3.0)  # times the rate of the pooling for AdamW
ADAMW_DECAYS = (5e-4, 0.3)
CHOSEN = ("optimizer", "weight_decay", "departure")  # options that `auto` chooses besides the rate
REPEATS = 3  # of measuring what a head costs


def is_asked(options: Options) -> bool:
    """Whether options leave something to be chosen."""
    return AUTO in (options.model["pooling"], options.optimizer.lr)


def check(options: Options) -> None:
    """Raises ValueError for options that do not go together with `auto`."""
    word = "pooling auto" if options.model["pooling"] == AUTO else "lr auto"
    given, defaults = options.flat(), Options.of({}).flat()
    for name in CHOSEN:
        if given[name] != defaults[name]:
            raise ValueError(f"{word} chooses {name}: leave it out")
    if options.model["pooling"] == AUTO and options.optimizer.lr is not None:
        raise ValueError("pooling auto chooses lr: leave it out, or name a pooling")
    if options.optimizer.backbone_lr is not None:
        raise ValueError(f"{word} is for a frozen backbone, which has no rate: leave backbone_lr out")
    if not options.model["freeze_backbone"] or not options.train.use_cache:
        raise ValueError(f"{word} needs cached features of a frozen backbone: use freeze_backbone and use_cache")
    if options.model["instances"] != "none":
        raise ValueError(f"{word} does not choose for instances: leave instances out")
    if options.model["standardize"] not in (None, True):
        raise ValueError(f"{word} has rates for standardised features: leave standardize out")
    if options.model["pooling"] == "pose":
        raise ValueError("lr auto does not choose for the pose head, whose loss needs joints: give lr a number")


def without(options: Options) -> Options:
    """Options without `auto`: average pooling in the place of the pooling, and the default rate.

    Raises:
        ValueError: the options do not go together with `auto`.
    """
    check(options)
    return options.change({"lr": None} | ({"pooling": "average"} if options.model["pooling"] == AUTO else {}))


def choose(
    options: Options,
    make: Callable[[Options], Recognizer],
    train: Dataset,
    folder: Path,
    identity: Mapping[str, Any],
    *,
    cache: Path | None = None,
    progress: bool = True,
) -> Choice:
    """Chooses the pooling and how it is trained, or reads what an earlier call has chosen.

    The candidate with the highest mAP on images that it was not trained on is chosen. (The loss would prefer poolings
    that are less sure of themselves: with several labels an image it chose one that was 7 mAP worse.)

    Args:
        options: the options of the training.
        make: builds the recognizer that options describe; all share one backbone.
        train: the training images.
        folder: the run folder, where the choice and its state are kept.
        identity: what an earlier call must have been given.
        cache: folder of features.
        progress: show progress bars.

    Raises:
        ValueError: the options do not go together with `auto`, or the folder holds another run.
        Interrupted: SIGTERM or SIGINT was received; the state is saved.
    """
    if is_finished(folder):
        before = Run.load(folder).about["results"].get("auto")
        if before is None:
            raise ValueError(f"{folder}: holds a run without auto; leave it out, or give another folder as out")
        require_same(folder, before["asked"], identity)
        return Choice.from_json(before)
    file = ChoiceFile(folder, identity)
    if file.choice:
        return Choice.from_json(file.choice)
    own = options.model["pooling"], options.model["pooling_options"]
    tried = TRIED if own[0] == AUTO else (own,)
    plain = without(options)
    first = make(plain)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    crops, flip = options.preprocessing.kept
    features = extract(
        first,
        train,
        crops=crops,
        flip=flip,
        cache=cache,
        workers=options.train.workers,
        device=device,
        progress=progress,
    )
    models = [make(plain.change({"pooling": pooling, **values})) for pooling, values in tried]
    candidates = [candidate for model in models for candidate in ways(model, options, features)]
    fit = SideBySide(
        replace(options.train, epochs=options.train.epochs or default_epochs(len(features), options.train)),
        replace(options.optimizer, lr=None),
        weights_of(features.dataset, options.train.class_weights, first.task),
        options.preprocessing.segments,
        file=file,
    )
    with StopSignals() as fit.stop:
        found = cross_validate(candidates, features, fit, "choosing the pooling" if progress else None)
    costs = {(model.pooling, str(given_options(model))): seconds(model, features) for model in models}
    found = [replace(entry, seconds=costs[entry.pooling, str(entry.options)]) for entry in found]
    choice = Choice(highest_mAP(found), tuple(found))
    file.save_choice(choice.to_json())
    return choice


def highest_mAP(tried: Sequence[Tried]) -> Tried:
    """The candidate with the highest mAP, of equal ones the one with the smaller loss; never one that diverged."""
    return max(tried, key=lambda entry: (entry.mAP, -entry.loss) if math.isfinite(entry.loss) else (-1.0, 0.0))


def ways(model: Recognizer, options: Options, features: Features) -> list[Candidate]:
    """How the head of a model could be trained: as a regression, as a departure from one, or by AdamW.

    Also fits the model's `Standardize`, and starts its biases where such a training does.
    """
    decay = regression_decay(len(features))
    regression, departing = is_logistic_regression(model), departs(model, options.train)
    if regression or departing:
        start_at_priors(model, features.dataset, options.train)
        rate = regression_rate(model, options.train)
        name, strengths = ("departure", STRENGTHS) if departing else ("sgd", (0.0,))
        settings = [Setting(name, rate, times * decay, strength) for strength in strengths for times in DECAYS]
    else:
        rate = model.head.learning_rate("adamw")
        settings = [Setting("adamw", times * rate, value) for times in RATES for value in ADAMW_DECAYS]
    standardize(model, features, pooled=regression or departing)
    return [Candidate(model, setting) for setting in settings]


def seconds(model: Recognizer, features: Features) -> float:
    """The time of one forward and backward pass of a head for (up to) 32 images, the median of a few."""
    first = batches(len(features), 32, seed=0, epoch=0, shuffle=False, groups=features.shapes)[:1]
    (batch,) = CachedFeatures(features).batches(first, seed=0, epoch=0, train=False)
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        model.pool(batch.inputs).logits.square().mean().backward()
        taken.append(time.perf_counter() - started)
    model.zero_grad()
    return statistics.median(taken)


def applied(options: Options, chosen: Tried) -> Options:
    """Options with what was chosen in the place of `auto`."""
    setting = chosen.setting
    return options.change(
        {
            "pooling": chosen.pooling,
            **chosen.options,
            "optimizer": setting.optimizer,
            "lr": setting.lr,
            "weight_decay": setting.weight_decay,
            **({"departure": setting.departure} if setting.optimizer == "departure" else {}),
        }
    )


def table(choice: Choice) -> list[str]:
    """The best candidate of every pooling as lines of text, the highest mAP first."""
    best: dict[str, Tried] = {}
    left = list(choice.tried)
    while left:
        entry = highest_mAP(left)
        left.remove(entry)
        best.setdefault(title(entry), entry)
    rows = [
        [
            name,
            f"{100 * entry.mAP:.1f}",
            f"{entry.loss:.3f}",
            entry.setting.optimizer,
            f"{entry.setting.lr:.2g}",
            f"{entry.setting.weight_decay:.2g}",
            f"{entry.setting.departure:g}" if entry.setting.departure else "-",
            f"{1000 * entry.seconds:.0f}",
            "chosen" if entry == choice.chosen else "",
        ]
        for name, entry in best.items()
    ]
    header = ["pooling", "mAP", "loss", "optimizer", "rate", "decay", "departure", "ms", ""]
    return text_table(header, rows, "lrrlrrrrl")


def title(entry: Tried) -> str:
    """A pooling and those of its options that are not the default."""
    given = [f"{name} {value}" for name, value in entry.options.items()]
    return ", ".join([entry.pooling, *given])
