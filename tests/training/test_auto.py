"""`auto`: what it tries, what it never looks at, and what it refuses."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import attnpool as ap
from attnpool.backbones.backbone import Backbone
from attnpool.data import Dataset
from attnpool.models.run import Run
from attnpool.training.auto import highest_mAP
from attnpool.training.config import Options
from attnpool.training.cross_validation import Choice, Tried
from attnpool.training.interruption import Interrupted
from attnpool.training.optimizer import Setting
from attnpool.training.recipe import fit
from attnpool.training.side_by_side import SideBySide
from tests.command_line import attnpool, refused

SMALL = {"image_size": 96, "epochs": 2}


def chosen(run: Run) -> Choice:
    return Choice.from_json(run.about["results"]["auto"])


@pytest.fixture(scope="module")
def auto_run(parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("auto") / "run"
    return fit(Options.of(SMALL | {"pooling": "auto"}), parts, out, backbone=frozen, progress=False)


def test_a_run_says_what_was_chosen_and_from_what(auto_run: Run) -> None:
    choice = chosen(auto_run)
    assert choice.chosen.mAP == max(entry.mAP for entry in choice.tried)
    assert {entry.pooling for entry in choice.tried} >= {"average", "attentional", "covariance"}
    assert all(entry.seconds > 0 for entry in choice.tried)
    model, recipe = auto_run.about["model"], auto_run.about["recipe"]
    assert model["pooling"] == choice.chosen.pooling
    assert (recipe["optimizer"], recipe["lr"]) == (choice.chosen.setting.optimizer, choice.chosen.setting.lr)
    assert not list(auto_run.folder.glob("choice*"))


def test_validation_labels_change_nothing(
    parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path, auto_run: Run
) -> None:
    """Shuffled, they give the same choice and the same model."""
    train, val = parts
    labels = [sample.labels for sample in val]
    shuffled = [replace(sample, labels=label) for sample, label in zip(val, labels[1:] + labels[:1], strict=True)]
    other = train, replace(val, samples=tuple(shuffled))
    options = Options.of(SMALL | {"pooling": "auto"})
    again = fit(options, other, tmp_path / "run", backbone=frozen, progress=False)
    assert [replace(entry, seconds=0.0) for entry in chosen(again).tried] == [
        replace(entry, seconds=0.0) for entry in chosen(auto_run).tried
    ]
    weights = [run.folder / "model.safetensors" for run in (auto_run, again)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_finished_run_is_not_chosen_again(parts: tuple[Dataset, Dataset], frozen: Backbone, auto_run: Run) -> None:
    options = Options.of(SMALL | {"pooling": "auto"})
    again = fit(options, parts, auto_run.folder, backbone=frozen, progress=False)
    assert again.about == auto_run.about
    with pytest.raises(ValueError, match="epochs was 2, is 3"):
        fit(options.change({"epochs": 3}), parts, auto_run.folder, backbone=frozen, progress=False)
    with pytest.raises(ValueError, match="that auto chose; add it"):
        fit(Options.of(SMALL), parts, auto_run.folder, backbone=frozen, progress=False)


@pytest.mark.parametrize("step", [1, 3])
def test_stopped_while_it_chooses(
    parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """By a real SIGTERM, while rates are tried or compared: the same call goes on, and chooses the same."""
    options = Options.of({"image_size": 96, "epochs": 3, "pooling": "covariance", "channels": 16, "lr": "auto"})
    whole = fit(options, parts, tmp_path / "whole", backbone=frozen, progress=False)
    count, original, stop = iter(range(1, 10**6)), SideBySide.loss, step

    def loss(self: SideBySide, *args: Any) -> Any:
        if next(count) == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args)

    monkeypatch.setattr(SideBySide, "loss", loss)
    with pytest.raises(Interrupted, match="continues"):
        fit(options, parts, tmp_path / "part", backbone=frozen, progress=False)
    again = fit(options, parts, tmp_path / "part", backbone=frozen, progress=False)
    assert chosen(again).chosen.setting == chosen(whole).chosen.setting
    weights = [run.folder / "model.safetensors" for run in (whole, again)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_the_command_prints_the_table(world: Path, tmp_path: Path) -> None:
    command = ["train", f"folder:{world}", "--out", tmp_path / "run", "--image-size", 96, "--epochs", 2]
    shown = attnpool(*command, "--pooling", "max", "--lr", "auto")
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0].split()[:3] == ["pooling", "mAP", "loss"]
    assert lines[1].split()[0] == "max"
    again = attnpool(*command, "--pooling", "max", "--lr", "auto", "--json")
    assert json.loads(again.out)["auto"]["chosen"]["pooling"] == "max"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--pooling", "auto", "--rank", "2"], "leave rank out"),
        (["--pooling", "auto", "--lr", "auto"], "pooling auto chooses lr"),
        (["--pooling", "auto", "--backbone-lr", "0.1"], "--backbone-lr would change nothing"),
        (["--pooling", "auto", "--lr", "0.1"], "pooling auto chooses lr"),
        (["--pooling", "auto", "--departure", "0.1"], "pooling auto chooses departure"),
        (["--lr", "auto", "--weight-decay", "0.1"], "lr auto chooses --weight-decay"),
        (["--lr", "auto", "--no-freeze-backbone"], "needs cached features"),
        (["--lr", "auto", "--no-use-cache"], "needs cached features"),
        (["--lr", "auto", "--pooling", "pose"], "pose head"),
        (["--lr", "auto", "--instances", "boxes"], "leave instances out"),
        (["--lr", "auto", "--no-standardize"], "leave standardize out"),
        (["--lr", "automatic"], "invalid float or auto value"),
    ],
)
def test_what_does_not_go_together_is_refused(world: Path, tmp_path: Path, flags: list[str], message: str) -> None:
    refused(attnpool("train", f"folder:{world}", "--out", tmp_path / "run", *flags), message)
    assert not (tmp_path / "run").exists()


def test_mistakes_show_before_the_choosing(world: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    command = ["train", f"folder:{world}", "--pooling", "auto", "--out"]
    refused(attnpool(*command, tmp_path / "file"), "is a file")
    refused(attnpool(*command, tmp_path / "run", "--positive-weight", 3), "--positive-weight is 3.0")
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "run").exists()


def test_python_builds_its_own_model(parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path) -> None:
    model = ap.Recognizer(frozen, classes=parts[0].classes)
    with pytest.raises(ValueError, match="give a number"):
        ap.train(model, *parts, out=tmp_path / "run", optimizer=ap.OptimizerOptions(lr="auto"))


def test_the_highest_map_is_chosen() -> None:
    """Of equal ones that with the smaller loss, and never one that diverged."""

    def entry(score: float, loss: float) -> Tried:
        return Tried("average", {}, Setting("sgd", 0.1, 0.1), loss, 0.0, score)

    best = entry(0.8, 0.5)
    assert highest_mAP([entry(0.7, 0.1), entry(0.8, 0.6), best, entry(0.9, math.nan)]) is best


def test_two_images_are_enough(parts: tuple[Dataset, Dataset], frozen: Backbone, tmp_path: Path) -> None:
    """One for each of two classes: a fold is empty, and every head is trained on a single image."""
    for split in ("train", "val"):
        for label in ("dark", "light"):
            (tmp_path / "photos" / split / label).mkdir(parents=True)
            Image.new("RGB", (64, 64), "white" if label == "light" else "black").save(
                tmp_path / "photos" / split / label / "one.png"
            )
    few = ap.read(f"folder:{tmp_path / 'photos'}")
    for pooling in ("auto", "attentional"):
        options = Options.of(SMALL | {"pooling": pooling})
        run = fit(options, few, tmp_path / pooling, backbone=frozen, progress=False)
        assert run.about["results"]["history"][-1]["mAP"] >= 0
