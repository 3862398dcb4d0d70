"""Cross-validation: against single trainings and scikit-learn's log loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss  # type: ignore[import-untyped]

import attnpool as ap
from attnpool.data import fold_numbers
from attnpool.features.features import Features
from attnpool.training.config import OptimizerOptions, TrainOptions
from attnpool.training.cross_validation import FOLDS, Candidate, cross_validate, losses_of
from attnpool.training.losses import labels_loss
from attnpool.training.optimizer import Setting
from attnpool.training.side_by_side import HeldOut, SideBySide, Trial
from tests.heads import side_by_side, small_models


@pytest.fixture(scope="module")
def made(world: Path) -> tuple[dict[str, ap.Recognizer], Features]:
    return small_models(world, ("average", "covariance"))


def test_cross_validation_scores_what_was_left_out(made: tuple[dict[str, ap.Recognizer], Features]) -> None:
    """Against one training for each fold, and scikit-learn's log loss."""
    models, features = made
    folds, fit = np.array(fold_numbers(features.dataset, FOLDS)), side_by_side(2)
    model, setting = models["covariance"], Setting("adamw", 1e-3, 0.1)
    average = Candidate(models["average"], Setting("sgd", 0.01, 0.1))
    found = cross_validate([average, Candidate(model, setting)], features, fit)
    probabilities = np.zeros((len(features), 14))
    for fold in range(FOLDS):
        (head,) = fit.run(features, [Trial(model, model.head, setting, fold)], folds.tolist())
        rows = np.flatnonzero(folds == fold)
        with torch.no_grad():
            logits = head(model.standardize(features.batch(rows.tolist()))).logits
        probabilities[rows] = logits.double().softmax(1).numpy()
    labels = [sample.labels[0] for sample in features.dataset]
    assert found[1].loss == pytest.approx(log_loss(labels, probabilities, labels=range(14)), rel=1e-4)
    assert min(entry.error for entry in found) == 0


@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "focal", "random_positive"])
def test_the_loss_is_the_mean_of_the_parts_of_the_images(
    made: tuple[dict[str, ap.Recognizer], Features], loss: str
) -> None:
    """Also with weights of classes and entries that are not known."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 14, generator=generator)
    targets = torch.nn.functional.one_hot(torch.arange(6), 14).float()
    mask = torch.ones(6, 14, dtype=torch.bool)
    mask[2, 5:] = False
    model, weights = made[0]["average"], torch.rand(14, generator=generator)
    fit = SideBySide(TrainOptions(loss=loss), OptimizerOptions(), weights)  # type: ignore[arg-type]
    parts = losses_of(logits, HeldOut(logits[None], targets, mask), model, fit)
    whole = labels_loss(logits, targets, mask, "single", fit.options, weights)
    assert parts.mean() == pytest.approx(float(whole), rel=1e-5)


def test_settings_of_a_costly_head_are_screened_first(made: tuple[dict[str, ap.Recognizer], Features]) -> None:
    """The best of them goes on; heads that share their work, and what needs averages alone, all do."""
    models, features = made
    settings = [Setting("adamw", rate, 5e-4) for rate in (1e3, 1e-4, 1e2)]
    candidates = [Candidate(models["covariance"], setting) for setting in settings]
    candidates += [Candidate(models["average"], Setting("sgd", 0.01, decay)) for decay in (0.1, 1.0)]
    found = cross_validate(candidates, features, side_by_side(9))
    assert [(entry.pooling, entry.setting) for entry in found] == [
        ("covariance", settings[1]),
        ("average", Setting("sgd", 0.01, 0.1)),
        ("average", Setting("sgd", 0.01, 1.0)),
    ]
