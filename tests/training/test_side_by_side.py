"""Heads trained side by side: each as if it were alone, and without the images that it leaves out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import attnpool as ap
from attnpool.data import fold_numbers
from attnpool.features.features import Features
from attnpool.training.cross_validation import FOLDS
from attnpool.training.optimizer import Setting
from attnpool.training.side_by_side import Trial
from tests.heads import side_by_side, small_models


@pytest.fixture(scope="module")
def made(world: Path) -> tuple[dict[str, ap.Recognizer], Features]:
    return small_models(world, ("average", "attentional", "covariance", "netvlad"))


def test_heads_side_by_side_are_those_trained_alone(made: tuple[dict[str, ap.Recognizer], Features]) -> None:
    models, features = made
    folds, fit = fold_numbers(features.dataset, FOLDS), side_by_side(3)
    chosen = [
        ("attentional", Setting("departure", 0.01, 0.3, 0.1), 1),
        ("covariance", Setting("adamw", 1e-3, 0.1), 0),
        ("attentional", Setting("departure", 0.01, 0.0, 1.0), None),
        ("average", Setting("sgd", 0.01, 0.1), 2),
        ("netvlad", Setting("adamw", 1e-3, 5e-4), 2),
        ("attentional", Setting("adamw", 3e-3, 5e-4), 2),
    ]
    trials = [Trial(models[pooling], models[pooling].head, setting, fold) for pooling, setting, fold in chosen]
    together = fit.run(features, trials, folds)
    for trial, head in zip(trials, together, strict=True):
        (alone,) = fit.run(features, [trial], folds)
        for name, value in alone.state_dict().items():
            assert torch.allclose(head.state_dict()[name], value, atol=1e-5), (trial.model.pooling, name)


def test_a_head_never_sees_the_fold_that_it_leaves_out(made: tuple[dict[str, ap.Recognizer], Features]) -> None:
    """Other labels there give the same head."""
    models, features = made
    folds, fit = fold_numbers(features.dataset, FOLDS), side_by_side(2)
    other = [
        replace(sample, labels=((sample.labels[0] + 1) % 14,)) if number == 0 else sample
        for sample, number in zip(features.dataset, folds, strict=True)
    ]
    changed = replace(features, dataset=replace(features.dataset, samples=tuple(other)))
    model = models["attentional"]
    trial = Trial(model, model.head, Setting("departure", 0.01, 0.1, 0.1), 0)
    (first,), (second,) = fit.run(features, [trial], folds), fit.run(changed, [trial], folds)
    assert all(torch.equal(first.state_dict()[name], value) for name, value in second.state_dict().items())
