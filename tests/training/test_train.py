"""Training: the same result however often it is stopped, and nothing lost or half done when it cannot go on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import arguments
from torch import Tensor

import attnpool as ap
from attnpool.backbones.backbone import Backbone
from attnpool.data import Dataset, hold_out
from attnpool.features.batches import Batch, CachedFeatures
from attnpool.files import MARK_FILE
from attnpool.models.run import Run
from attnpool.training.config import OptimizerOptions, TrainOptions
from attnpool.training.interruption import Interrupted, TrainingFailed
from attnpool.training.trainer import Trainer

VIEW = {"image_size": 96, "short_side": None, "max_width": None}


def fit(
    parts: tuple[Dataset, Dataset],
    out: Path,
    backbone: Backbone,
    *,
    model: dict[str, Any] | None = None,
    lr: float | None = None,
    optimizer: dict[str, Any] | None = None,
    preprocessing: ap.Preprocessing | None = None,
    **options: Any,
) -> Run:
    recognizer = ap.Recognizer(backbone, classes=parts[0].classes, preprocessing=VIEW, **arguments(model or {}))
    return ap.train(
        recognizer,
        *parts,
        out=out,
        options=TrainOptions(**({"epochs": 3, "batch_size": 8} | options)),
        optimizer=OptimizerOptions(lr=lr, **(optimizer or {})),
        preprocessing=preprocessing,
        progress=False,
    )


def weights(run: Run, part: str = "head.") -> dict[str, Tensor]:
    return {name: t for name, t in run.model.state_dict().items() if name.startswith(part)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def history(run: Run) -> list[dict[str, Any]]:
    """What was written down, without the speed."""
    return [{k: v for k, v in entry.items() if k != "images_per_s"} for entry in run.about["results"]["history"]]


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sends this process a real SIGTERM while the n-th batch from now on is trained on, once."""

    def arrange(n: int) -> None:
        count, original = iter(range(1, 10**6)), Trainer.backward

        def backward(self: Trainer, batch: Batch, together: int) -> None:
            if next(count) == n:
                os.kill(os.getpid(), signal.SIGTERM)
            original(self, batch, together)

        monkeypatch.setattr(Trainer, "backward", backward)

    return arrange


VARIANTS = {
    "plain": {},
    "free": {"departure": 0.0},
    "dropout": {"model": {"dropout": 0.5}},
    "averaged weights": {"optimizer": {"ema": 0.9}},
    "accumulated sgd": {"accumulate": 3, "optimizer": {"optimizer": "sgd"}, "lr": 0.01},
    "pose": {"model": {"pooling": "pose"}},
    "average": {"model": {"pooling": "average"}},
    "patience": {"patience": 4, "epochs": 7},
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("stops", [(2,), (3, 4)])
def test_resumed_is_the_same(
    name: str,
    stops: tuple[int, ...],
    parts: tuple[Dataset, Dataset],
    frozen: Backbone,
    tmp_path: Path,
    interrupt_at: Callable[[int], None],
) -> None:
    """Stopped once or twice, in the middle or at the end of an epoch: the weights are those of an unbroken run."""
    whole = fit(parts, tmp_path / "whole", frozen, **VARIANTS[name])
    for stop in stops:
        interrupt_at(stop)
        with pytest.raises(Interrupted) as stopped:
            fit(parts, tmp_path / "broken", frozen, **VARIANTS[name])
        assert stopped.value.signum == signal.SIGTERM
        with pytest.raises(ValueError, match="not finished"):
            Run.load(tmp_path / "broken")
    resumed = fit(parts, tmp_path / "broken", frozen, **VARIANTS[name])
    assert same(weights(resumed), weights(whole))
    assert history(resumed) == history(whole)
    assert same(weights(Run.load(resumed.folder, best=True)), weights(Run.load(whole.folder, best=True)))
    assert sorted(path.name for path in resumed.folder.iterdir()) == [
        MARK_FILE, "best.safetensors", "log.jsonl", "model.safetensors", "run.json", "tensorboard",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["plain", "averaged weights"])
def test_a_signal_while_the_last_epoch_is_scored_is_not_lost(
    name: str, parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = VARIANTS[name] | {"epochs": 2, "departure": 0.0}
    whole = fit(parts, tmp_path / "whole", frozen, **options)
    scored: list[int] = []
    original = CachedFeatures.batches

    def batches(self: CachedFeatures, order: Any, *, seed: int, epoch: int, train: bool) -> Iterator[Batch]:
        if not train:
            scored.append(1)
            if len(scored) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
        yield from original(self, order, seed=seed, epoch=epoch, train=train)

    monkeypatch.setattr(CachedFeatures, "batches", batches)
    with pytest.raises(Interrupted):
        fit(parts, tmp_path / "broken", frozen, **options)
    resumed = fit(parts, tmp_path / "broken", frozen, **options)
    assert len(scored) == 2  # nothing was left to do but to save the run
    assert same(weights(resumed), weights(whole))
    assert history(resumed) == history(whole)


def test_whole_network_resumed_is_the_same(
    parts: tuple[Dataset, Dataset], tmp_path: Path, interrupt_at: Callable[[int], None]
) -> None:
    """Full fine-tuning with augmentation, drop-path and batch-norm statistics."""
    few = tuple(replace(part, samples=part.samples[:14:2] + part.samples[1:14:2]) for part in parts)
    assert all(len(part) == 14 for part in few)
    view = ap.Preprocessing(image_size=96, color_jitter=0.3, random_resized_crop=True)

    def run(out: str) -> Run:
        return fit(few, tmp_path / out, Backbone("lite0"), epochs=2, preprocessing=view)  # type: ignore[arg-type]

    whole = run("whole")
    interrupt_at(1)
    with pytest.raises(Interrupted):
        run("broken")
    resumed = run("broken")
    assert same(weights(resumed, ""), weights(whole, ""))
    start = Backbone("lite0").state_dict()
    moved = {name.removeprefix("backbone."): t for name, t in weights(whole, "backbone.").items()}
    assert not torch.equal(moved["net.conv_stem.weight"], start["net.conv_stem.weight"])
    assert not torch.equal(moved["net.bn1.running_mean"], start["net.bn1.running_mean"])


def test_frozen_backbone_does_not_move(parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path) -> None:
    """Neither with cached features nor with images, where it runs inside a module in training mode."""
    before = {name: t.clone() for name, t in frozen.state_dict().items()}
    for cached in (True, False):
        run = fit(parts, tmp_path / str(cached), frozen, epochs=1, use_cache=cached)
        assert same(frozen.state_dict(), before)
        assert same({n.removeprefix("backbone."): t for n, t in weights(run, "backbone.").items()}, before)


def test_finished_run_is_returned(parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path) -> None:
    first = fit(parts, tmp_path / "a", frozen)
    stamp = (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns
    assert same(weights(fit(parts, tmp_path / "a", frozen)), weights(first))
    assert (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match=r"lr was .* is 0\.5"):
        fit(parts, tmp_path / "a", frozen, lr=0.5)
    with pytest.raises(ValueError, match="holds a run with other options"):
        fit((parts[0], replace(parts[1], samples=parts[1].samples[1:])), tmp_path / "a", frozen)


def test_unfinished_run_with_other_options(
    parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path, interrupt_at: Callable[[int], None]
) -> None:
    interrupt_at(1)
    with pytest.raises(Interrupted):
        fit(parts, tmp_path / "a", frozen)
    with pytest.raises(ValueError, match="epochs was 3, is 4"):
        fit(parts, tmp_path / "a", frozen, epochs=4)


def test_loss_that_is_not_finite(parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path) -> None:
    """Stops before the update, names the files of the batch, and leaves no finished run."""
    with pytest.raises(TrainingFailed, match=r"loss is (nan|inf)") as failed:
        fit(parts, tmp_path / "a", frozen, lr=1e36, optimizer={"optimizer": "sgd", "warmup": 0.0})
    assert sum(sample.path in str(failed.value) for sample in parts[0]) == 8
    assert not (tmp_path / "a" / "run.json").exists()


def test_accumulated_is_a_larger_batch(parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path) -> None:
    """Two halves make the update of the whole: 24 of 28 images, so that all batches are full."""
    train = replace(parts[0], samples=parts[0].samples[:24])
    results = [
        fit((train, parts[1]), tmp_path / str(size), frozen, batch_size=size, accumulate=12 // size, lr=1e-3,
            optimizer={"optimizer": "sgd"})
        for size in (12, 6)
    ]  # fmt: skip
    one, other = (weights(run) for run in results)
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    moved = ap.Recognizer(frozen, classes=parts[0].classes, preprocessing=VIEW).head.state_dict()
    assert not torch.allclose(one["head.a"], moved["a"], atol=1e-4)


# Options with which a head is small, and a rate for a few epochs.
SMALL: dict[str, dict[str, Any]] = {
    "pose": {"hidden": 64},
    "compact_bilinear": {"dim": 256},
    "covariance": {"channels": 16},
    "multi_query": {"queries": 4, "dim": 64},
    "netvlad": {"clusters": 4},
}


def test_learns(parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path) -> None:
    """Every head can learn 28 images by heart, pose loss or not; and the log tells of it."""
    for pooling in ap.POOLINGS:
        model = {"pooling": pooling} | SMALL.get(pooling, {})
        run = fit(parts, tmp_path / pooling, frozen, model=model, epochs=12, lr=1e-2)
        losses = [entry["loss"] for entry in history(run)]
        assert losses[-1] < 0.1 * losses[0]
        outcome = ap.evaluate(run, replace(parts[0], split="train"))
        assert outcome.scores.mAP == 1
        lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
        assert [line["loss"] for line in lines] == losses


def test_tensorboard(parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = fit(parts, tmp_path / "a", frozen)
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    read = [event.value for event in events.Scalars("mAP")]
    assert read == pytest.approx([entry["mAP"] for entry in history(run)])


def test_monitoring_part(parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path) -> None:
    """With patience, val plays no part: the run is the same whatever val holds."""
    one = fit(parts, tmp_path / "one", frozen, patience=1, epochs=5, tune_fraction=0.3)
    fewer = (parts[0], replace(parts[1], samples=parts[1].samples[:3]))
    other = fit(fewer, tmp_path / "other", frozen, patience=1, epochs=5, tune_fraction=0.3)
    assert same(weights(one), weights(other))
    assert history(one) == history(other)
    best = max(history(one), key=lambda entry: entry["mAP"])
    assert len(history(one)) in (5, best["epoch"] + 1)
    rest, held = hold_out(parts[0], 0.3)
    assert not {s.path for s in rest} & {s.path for s in held}
    assert len(rest) + len(held) == len(parts[0])


def test_a_val_without_a_positive(parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path) -> None:
    """There is no mAP, which JSON holds as null; the last epoch counts as the best."""
    train, val = (replace(part, task="multi") for part in parts)
    val = replace(val, samples=tuple(replace(sample, labels=()) for sample in val))
    run = fit((train, val), tmp_path / "a", frozen, model={"task": "multi"}, epochs=2)
    assert [entry["mAP"] for entry in history(run)] == [None, None]
    content = (run.folder / "run.json").read_text(encoding="utf-8")
    assert json.loads(content, parse_constant=pytest.fail)["results"]["history"][0]["mAP"] is None
    assert same(weights(ap.Run.load(run.folder, best=True)), weights(run))
    assert "mAP       unknown: no class has a positive here" in str(ap.evaluate(run, val))


def test_several_labels(parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path) -> None:
    several = tuple(
        replace(part, task="multi", samples=tuple(replace(s, labels=(k := s.labels[0], (k + 1) % 14)) for s in part))
        for part in parts
    )  # fmt: skip
    run = fit(several, tmp_path / "a", frozen, model={"task": "multi"}, class_weights="sqrt", label_smoothing=0.05)  # type: ignore[arg-type]
    outcome = ap.evaluate(run, several[1])
    assert outcome.scores.accuracy is None
    assert outcome.confusion is None
    assert 0 < outcome.scores.mAP < 1


def test_broken_image_is_reported(parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path) -> None:
    """It is left out of the epoch and named; no other image takes its place."""
    copy = tmp_path / "world"
    shutil.copytree(parts[0].root, copy)
    broken = parts[0].samples[5].path
    (copy / broken).write_bytes((copy / broken).read_bytes()[:600])
    for cached in (True, False):
        run = fit(ap.read(f"folder:{copy}"), tmp_path / f"run-{cached}", frozen, use_cache=cached, epochs=1)
        (skipped,) = run.about["results"]["skipped"]
        assert skipped["file"] == broken
        assert skipped["reason"]


def test_half_precision(parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path) -> None:
    half = fit(parts, tmp_path / "half", frozen, precision="bf16")
    full = fit(parts, tmp_path / "full", frozen)
    assert history(half)[-1]["loss"] == pytest.approx(history(full)[-1]["loss"], rel=0.1)
    assert not same(weights(half), weights(full))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="fp16 needs a GPU"):
            fit(parts, tmp_path / "fp16", frozen, precision="fp16")


def test_random_numbers_of_the_caller_are_left_alone(
    parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path
) -> None:
    model = ap.Recognizer(frozen, classes=parts[0].classes, pooling_options={"dropout": 0.3}, preprocessing=VIEW)
    torch.manual_seed(5)
    ap.train(model, *parts, out=tmp_path / "a", options=TrainOptions(epochs=1), progress=False)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))


def test_seed_changes_the_run(parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path) -> None:
    runs = [fit(parts, tmp_path / str(seed), frozen, seed=seed) for seed in (0, 1)]
    assert not same(weights(runs[0]), weights(runs[1]))


def test_classes_must_agree(parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path) -> None:
    model = ap.Recognizer(frozen, classes=["a", "b"], preprocessing=VIEW)
    with pytest.raises(ValueError, match="they differ in a, b, calling"):
        ap.train(model, *parts, out=tmp_path / "a", progress=False)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch_size": 0}, {"seed": -1}, {"tune_fraction": 1.0}, {"label_smoothing": 1.0}]
)
def test_wrong_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainOptions(**wrong)


@pytest.mark.parametrize("name", ["flip", "color_jitter"])
def test_augmentation_of_kept_features_is_refused_from_python_too(
    frozen: Backbone, parts: tuple[Dataset, Dataset], tmp_path: Path, name: str
) -> None:
    with pytest.raises(ValueError, match=f"{name} would change nothing: the features of a frozen backbone"):
        fit(parts, tmp_path / "run", frozen, preprocessing=ap.Preprocessing(**{name: 0.25}))
    assert not (tmp_path / "run").exists()
