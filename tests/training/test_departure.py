"""The departure from average pooling: its regression against scikit-learn, the choice, and what it leaves alone."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

import attnpool as ap
from attnpool.features.extraction import extract
from attnpool.features.features import Features, standardize
from attnpool.models.state import CHOICE_FILE
from attnpool.pooling import AttentionalPooling
from attnpool.training.config import OptimizerOptions, TrainOptions
from attnpool.training.cross_validation import Tried, regression_decay
from attnpool.training.departure import Choice, choose, chosen_of, start_at_regression
from attnpool.training.interruption import Interrupted
from attnpool.training.optimizer import Setting, resolve, start_at_priors
from attnpool.training.side_by_side import SideBySide

SMALL = {"image_size": 96, "short_side": None, "max_width": None}


def prepared(world: Path, epochs: int, **options: Any) -> tuple[ap.Recognizer, Features, SideBySide]:
    train, _ = ap.read(f"folder:{world}")
    model = ap.Recognizer(
        "lite0", classes=train.classes, preprocessing=SMALL, pooling_options=options.pop("pooling_options", {})
    )
    chosen = TrainOptions(epochs=epochs, **options)
    schedule = resolve(model, OptimizerOptions(), len(train), chosen)
    features = extract(model, train, progress=False)
    standardize(model, features, pooled=True)
    start_at_priors(model, features.dataset)
    return model, features, SideBySide(chosen, schedule, None)


def pooled_inputs(model: ap.Recognizer, features: Features) -> torch.Tensor:
    return model.standardize(features.averaged.batch(range(len(features)))).flatten(1)


def test_starts_at_the_regression_of_scikit_learn(world: Path) -> None:
    """Its maps are 1 everywhere, so that the classifier is that of average pooling."""
    model, features, fit = prepared(world, 400)
    start_at_regression(model, features, fit)
    x = pooled_inputs(model, features).double().numpy()
    y = np.array([sample.labels[0] for sample in features.dataset])
    probabilities = LogisticRegression(C=0.1, max_iter=1000).fit(x, y).predict_proba(x)
    with torch.no_grad():
        out = model.pool(features.batch(range(len(features))), maps=True)
    assert out.bottom_up is not None
    assert torch.equal(out.bottom_up, torch.ones_like(out.bottom_up))
    assert np.abs(out.logits.softmax(1).numpy() - probabilities).max() < 0.02


@pytest.mark.parametrize("options", [{}, {"rank": 2}, {"activation": "softmax"}, {"hidden": 8}, {"per_class": True}])
def test_departure_is_the_penalty_of_its_formula(options: dict[str, Any]) -> None:
    head = AttentionalPooling(6, 3, **options).double()
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bottom_up = head(x, maps="bottom_up").bottom_up
    if options.get("rank") != 2:
        assert head.departure(bottom_up).item() == pytest.approx(0, abs=1e-20)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3)
    bottom_up, full = head(x, maps="bottom_up").bottom_up, head(x, maps=True).bottom_up
    assert torch.equal(bottom_up, full)
    h = bottom_up.detach().numpy()
    expected = sum(((h[:, p] - (1 if p == 0 else 0)) ** 2).mean() for p in range(h.shape[1]))
    assert head.departure(bottom_up).item() == pytest.approx(expected, rel=1e-12)


def test_the_choice_is_among_average_pooling_and_the_candidates(world: Path) -> None:
    model, features, fit = prepared(world, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    choice = choose(model, features, fit, show=False)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert math.isinf(choice.tried[0].setting.departure)
    assert len(choice.tried) == 13
    assert Choice.from_json(json.loads(json.dumps(choice.to_json()))) == choice


def tried(departure: float, loss: float, error: float) -> Tried:
    return Tried("attentional", {}, Setting("departure", 0.1, 0.1, departure), loss, error, 0.5)


def test_attention_must_be_surely_better() -> None:
    """By more than two standard errors of the difference; a candidate that diverged is never chosen."""
    best, diverged = tried(0.3, 1.0, 0.0), tried(0.03, math.nan, math.nan)
    near, far = tried(math.inf, 1.1, 0.06), tried(math.inf, 1.1, 0.04)
    assert chosen_of([near, diverged, best]) is near
    assert chosen_of([far, diverged, best]) is best
    assert chosen_of([diverged, best]) is best


def test_given_values_are_not_chosen(world: Path) -> None:
    model, features, fit = prepared(world, 2, departure=0.7)
    assert {entry.setting.departure for entry in choose(model, features, fit, show=False).tried} == {0.7}
    fit.schedule = replace(fit.schedule, weight_decay=0.02)
    choice = choose(model, features, fit, show=False)
    assert (choice.chosen.setting.departure, choice.chosen.setting.weight_decay, choice.tried) == (0.7, 0.02, ())


def test_average_pooling_is_inside_the_family(world: Path, tmp_path: Path) -> None:
    """A penalty without bounds gives average pooling's scores."""
    train, val = ap.read(f"folder:{world}")
    decay = regression_decay(len(train))
    runs = {}
    for pooling, options in (
        ("average", TrainOptions(epochs=400)),
        ("attentional", TrainOptions(epochs=400, departure=1e3)),
    ):
        model = ap.Recognizer("lite0", classes=train.classes, pooling=pooling, preprocessing=SMALL)
        runs[pooling] = ap.train(
            model,
            train,
            val,
            out=tmp_path / pooling,
            options=options,
            optimizer=OptimizerOptions(weight_decay=decay),
            progress=False,
        )
    files = [val.file(sample) for sample in val]
    scores = {
        pooling: np.array([[score for _, score in sorted(p.scores)] for p in ap.predict(run.model, files, top=14)])
        for pooling, run in runs.items()
    }
    assert np.abs(scores["attentional"] - scores["average"]).max() < 0.05


def test_where_average_pooling_is_chosen_it_is_what_is_trained(world: Path, tmp_path: Path) -> None:
    """To the last bit of the classifier, and with maps that are 1."""
    train, val = ap.read(f"folder:{world}")
    heads = {}
    for pooling in ("average", "attentional"):
        model = ap.Recognizer("lite0", classes=train.classes, pooling=pooling, preprocessing=SMALL)
        run = ap.train(model, train, val, out=tmp_path / pooling, options=TrainOptions(epochs=2), progress=False)
        heads[pooling] = run.model.head
    assert run.about["results"]["departure"]["chosen"]["departure"] == "infinite"
    average, attention = heads["average"].state_dict(), heads["attentional"].state_dict()
    assert torch.allclose(average["a"], attention["a"], atol=1e-6)
    assert torch.allclose(average["alpha"], attention["alpha"], atol=1e-6)
    assert not attention["b"].any()


def test_a_run_says_what_was_chosen(run: Path) -> None:
    """The default of attention on a frozen backbone; the file of the choice is gone with the checkpoint."""
    about = ap.Run.load(run).about
    assert about["recipe"]["optimizer"] == "departure"
    found = Choice.from_json(about["results"]["departure"])
    assert found.chosen == chosen_of(found.tried)
    assert not (run / CHOICE_FILE).exists()


@pytest.mark.parametrize(("departure", "step", "total"), [(None, 1, 7), (None, 5, 10), (0.3, 3, 8)])
def test_stopped_while_it_chooses(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, departure: float | None, step: int, total: int
) -> None:
    """By a real SIGTERM, among the regressions or the candidates: the same call goes on, and ends the same.

    Of 2 steps each: regressions of the folds, average pooling (if a departure is not given), candidates, which continue
    where they were stopped, and the regression of the result (if it is not average pooling).
    """
    train, val = ap.read(f"folder:{world}")
    options = TrainOptions(epochs=2, departure=departure)

    def once(out: Path, options: TrainOptions = options) -> ap.Run:
        model = ap.Recognizer("lite0", classes=train.classes, preprocessing=SMALL, pooling_options={"dropout": 0.3})
        return ap.train(model, train, val, out=out, options=options, progress=False)

    whole = once(tmp_path / "whole")
    count, original = iter(range(1, 10**6)), SideBySide.loss

    def loss(self: SideBySide, *args: Any) -> Any:
        if next(count) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args)

    monkeypatch.setattr(SideBySide, "loss", loss)
    with pytest.raises(Interrupted):
        once(tmp_path / "part")
    with pytest.raises(ValueError, match="not finished"):
        ap.Run.load(tmp_path / "part")
    with pytest.raises(ValueError, match="epochs was 2, is 3"):
        once(tmp_path / "part", replace(options, epochs=3))
    again = once(tmp_path / "part")
    assert (again.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
    assert again.about["results"]["departure"] == whole.about["results"]["departure"]
    assert next(count) - 1 == total
    assert not list(again.folder.glob("choice*"))


@pytest.mark.parametrize(
    ("pooling", "options", "optimizer", "message"),
    [
        ("average", {"departure": 0.3}, {}, "leave departure out"),
        ("average", {}, {"optimizer": "departure"}, "leave optimizer out"),
        ("attentional", {"departure": 0.0}, {"optimizer": "departure"}, "leave optimizer out"),
        ("attentional", {"use_cache": False}, {"optimizer": "departure"}, "leave optimizer out"),
    ],
)
def test_what_would_change_nothing_is_refused(
    world: Path, tmp_path: Path, pooling: str, options: dict[str, Any], optimizer: dict[str, Any], message: str
) -> None:
    train, val = ap.read(f"folder:{world}")
    model = ap.Recognizer("lite0", classes=train.classes, pooling=pooling, preprocessing=SMALL)
    with pytest.raises(ValueError, match=message):
        ap.train(
            model,
            train,
            val,
            out=tmp_path / "run",
            options=TrainOptions(epochs=1, **options),
            optimizer=OptimizerOptions(**optimizer),
            progress=False,
        )
    assert not (tmp_path / "run").exists()


def test_a_penalty_that_cannot_be_is_refused(world: Path, tmp_path: Path) -> None:
    """Instances have no maps to hold, and an infinite strength is no number of JSON."""
    train, val = ap.read(f"folder:{world}")
    model = ap.Recognizer("lite0", classes=train.classes, preprocessing=SMALL, instances="boxes")
    with pytest.raises(ValueError, match="leave departure or instances out"):
        ap.train(model, train, val, out=tmp_path / "run", options=TrainOptions(departure=0.3), progress=False)
    for wrong in (math.inf, math.nan, -1.0):
        with pytest.raises(ValueError, match="departure is"):
            TrainOptions(departure=wrong)
