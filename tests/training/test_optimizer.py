"""Rates, groups, averages of weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from torch import nn

import attnpool as ap
from attnpool.backbones.backbone import Backbone
from attnpool.pooling import POOLINGS
from attnpool.training.config import OptimizerOptions, TrainOptions
from attnpool.training.optimizer import (
    MovingAverage,
    build_optimizer,
    rate_factor,
    resolve,
    start_at_priors,
)


def test_cosine_against_its_formula() -> None:
    options = OptimizerOptions(warmup=0.1)
    factors = [rate_factor(options, update, 100) for update in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert factors[10:] == pytest.approx([0.5 + 0.5 * math.cos(math.pi * i / 90) for i in range(90)])
    assert max(factors) == 1


def test_step_is_the_papers() -> None:
    """SGD at 1e-3, times 0.33 every 5000 updates."""
    options = OptimizerOptions(optimizer="sgd", schedule="step", warmup=0)
    factors = [rate_factor(options, update, 12000) for update in (0, 4999, 5000, 9999, 10000, 11999)]
    assert factors == pytest.approx([1, 1, 0.33, 0.33, 0.33**2, 0.33**2])


def test_every_pooling_has_a_rate() -> None:
    for head in POOLINGS.values():
        assert all(head(8, 3).learning_rate(name) > 0 for name in ("adamw", "sgd"))


def test_rates_of_a_normalised_sketch() -> None:
    """Its entries are hundreds of times smaller, and so its gradients; flags and fine-tuning are as ever."""
    backbone = Backbone("lite0", frozen=True)

    def rate(lr: float | None = None, **options: Any) -> float:
        model = ap.Recognizer(
            backbone, classes=["a", "b"], pooling="compact_bilinear", pooling_options={"dim": 8} | options
        )
        found = resolve(model, OptimizerOptions(lr=lr), 100).lr
        assert found is not None
        return found

    assert rate(l2=True) == rate(l2=True, signed_sqrt=True) > 100 * rate()
    assert rate(signed_sqrt=True) == rate()
    assert rate(lr=0.5, l2=True) == 0.5


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_groups(frozen: bool, name: str) -> None:
    model = ap.Recognizer(Backbone("lite0", frozen=frozen), classes=["a", "b"])
    options = resolve(model, OptimizerOptions(optimizer=name), 100)  # type: ignore[arg-type]
    optimizer = build_optimizer(model, options)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters() if p.requires_grad}
    assert len(held) == len({id(p) for p in held})
    for group in optimizer.param_groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])
    head = {id(p) for p in model.head.parameters()}
    rates = {group["peak"] for group in optimizer.param_groups if not {id(p) for p in group["params"]} & head}
    if frozen:
        assert not rates
    else:
        assert rates == {(options.lr or 0) / (1 if name == "sgd" else 10)}


def test_moving_average_against_its_formula() -> None:
    layer = nn.Linear(1, 1, bias=False)
    average = MovingAverage(layer, 0.5)
    expected = layer.weight.item()
    for update in range(20):
        with torch.no_grad():
            layer.weight.fill_(update)
        average.update(layer, update)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * update
    assert average.weights["weight"].item() == pytest.approx(expected, rel=1e-5)
    average.swap(layer)
    assert layer.weight.item() == pytest.approx(expected, rel=1e-5)
    average.swap(layer)
    assert layer.weight.item() == 19
    other = MovingAverage(layer, 0.5)
    other.load(average.state())
    assert torch.equal(other.weights["weight"], average.weights["weight"])


@pytest.mark.parametrize(
    "wrong",
    [{"lr": 0.0}, {"lr": math.nan}, {"clip": -1.0}, {"ema": 1.0}, {"warmup": 1.0}, {"weight_decay": -1.0},
     {"optimizer": "adam"}, {"schedule": "linear"}, {"step_updates": 0}],
)  # fmt: skip
def test_wrong_options(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        OptimizerOptions(**wrong)


def test_automatic_optimizer() -> None:
    """SGD for average pooling on a frozen backbone; what the user says is left as it is."""
    frozen, whole = Backbone("lite0", frozen=True), Backbone("lite0")
    for pooling in POOLINGS:
        resolved = resolve(ap.Recognizer(frozen, classes=["a", "b"], pooling=pooling), OptimizerOptions(), 100)
        assert resolved.optimizer == {"average": "sgd", "attentional": "departure"}.get(pooling, "adamw")
        base = "sgd" if resolved.optimizer == "departure" else resolved.optimizer  # the classifier's is a regression's
        assert resolved.lr == POOLINGS[pooling](8, 2).learning_rate(base)
        model = ap.Recognizer(whole, classes=["a", "b"], pooling=pooling)
        assert resolve(model, OptimizerOptions(), 100).optimizer == "adamw"
    model = ap.Recognizer(frozen, classes=["a", "b"])
    for plain in (TrainOptions(departure=0.0), TrainOptions(use_cache=False)):
        assert resolve(model, OptimizerOptions(), 100, plain).optimizer == "adamw"
    assert resolve(model, OptimizerOptions(lr=1e-3), 100).optimizer == "adamw"
    said = OptimizerOptions(optimizer="adamw", lr=0.5, weight_decay=0.0)
    assert resolve(ap.Recognizer(frozen, classes=["a", "b"], pooling="average"), said, 100) == said


def test_logistic_regression_has_its_prior_and_priors(world: Path) -> None:
    """C = 0.1 in scikit-learn's terms, and biases at the centred logarithm of the frequencies."""
    model = ap.Recognizer("lite0", classes=["a", "b", "c"], pooling="average")
    assert resolve(model, OptimizerOptions(), 250).weight_decay == pytest.approx(1 / (0.1 * 250))
    samples = tuple(ap.data.Sample(str(i), (label,)) for i, label in enumerate([0] * 8 + [1] * 2 + [2] * 2))
    start_at_priors(model, ap.Dataset("folder:x", world, model.classes, samples))
    expected = torch.tensor([8.0, 2.0, 2.0]).log()
    assert torch.allclose(model.head.alpha, expected - expected.mean())
    other = ap.Recognizer("lite0", classes=["a", "b", "c"], pooling="max", task="multi")
    start_at_priors(other, ap.Dataset("folder:x", world, other.classes, samples))
    frequency = torch.tensor([8.5, 2.5, 2.5]) / 13
    assert torch.allclose(other.head.alpha, (frequency / (1 - frequency)).log())
    focal = ap.Recognizer("lite0", classes=["a", "b", "c"], pooling="average", task="multi")
    start_at_priors(focal, ap.Dataset("folder:x", world, focal.classes, samples), TrainOptions(loss="focal"))
    assert not focal.head.alpha.any()


def test_priors_of_several_labels_are_what_scikit_learn_fits(world: Path) -> None:
    """To inputs that say nothing; entries that are not known do not count."""
    generator = np.random.default_rng(0)
    samples = tuple(
        ap.data.Sample(
            str(i), tuple(np.flatnonzero(generator.random(3) < [0.1, 0.4, 0.8]).tolist()), ambiguous=(1,) * (i < 50)
        )
        for i in range(400)
    )
    model = ap.Recognizer("lite0", classes=["a", "b", "c"], pooling="average", task="multi")
    start_at_priors(model, ap.Dataset("folder:x", world, model.classes, samples))
    for k in range(3):
        known = [sample for sample in samples if k not in sample.ambiguous]
        fitted = LogisticRegression().fit(np.zeros((len(known), 1)), [k in sample.labels for sample in known])
        assert model.head.alpha[k].item() == pytest.approx(fitted.intercept_[0], abs=0.02)
    rate = model.head.learning_rate("sgd")
    assert resolve(model, OptimizerOptions(), 400).lr == pytest.approx(3 * rate)
    assert resolve(model, OptimizerOptions(), 400, TrainOptions(loss="cross_entropy")).lr == rate


def test_position_embeddings_and_class_tokens_do_not_decay() -> None:
    backbone = Backbone("vit_tiny_patch16_224", "random")
    model = ap.Recognizer(backbone, classes=["a", "b"])
    optimizer = build_optimizer(model, resolve(model, OptimizerOptions(), 100))
    decaying = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    named = dict(backbone.net.named_parameters())
    assert {"pos_embed", "cls_token"} <= set(named)
    for name, parameter in named.items():
        assert (id(parameter) in decaying) == (parameter.ndim > 1 and name not in ("pos_embed", "cls_token")), name
