"""The deletion test against a loop over one image, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import attnpool as ap
from attnpool.data import Preprocessing
from attnpool.evaluation.deletion import COVERED, ORDERS, cover, deletion, gradients_through, look
from attnpool.evaluation.evaluate import evaluate
from attnpool.features.batches import Images
from tests.command_line import attnpool, refused


@pytest.fixture(scope="module")
def done(run: Path) -> ap.Run:
    return ap.Run.load(run)


def test_drops_against_a_loop(done: ap.Run, world: Path) -> None:
    """Pixel by pixel, for the first image."""
    _, val = ap.read(f"folder:{world}")
    one = val.select([val.samples[0].path])
    model, options = done.model, Preprocessing(**done.model.preprocessing)
    found = deletion(model, Images(one, options))
    (prediction,) = ap.predict(model, [one.file(one.samples[0])], maps=True)
    best = model.classes.index(prediction.scores[0][0])
    assert found.before == pytest.approx(prediction.scores[0][1], abs=1e-5)
    combined = prediction.pooled.combined[0].numpy()
    own = combined[best] - combined.mean(0)
    x = model.normalize(prediction.view.pixels[None])
    side, (h, w) = x.shape[-1], own.shape
    for part, drop in zip(COVERED, found.drops["maps"], strict=True):
        covered = x.clone()
        for cell in np.argsort(-own.ravel())[: math.ceil(part * h * w)]:
            row, column = divmod(int(cell), w)
            covered[0, :, row * side // h : (row + 1) * side // h, column * side // w : (column + 1) * side // w] = 0
        with torch.no_grad():
            after = model(covered).logits.double().softmax(1)[0, best].item()
        assert drop == pytest.approx(found.before - after, abs=1e-5)


def test_the_gradient_is_that_of_the_logit(done: ap.Run) -> None:
    """Against a difference quotient in float64."""
    model = done.model.double()
    x = torch.randn(1, 3, 96, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    chosen, _, cells = look(model, x)
    direction = torch.zeros_like(x)
    direction[0, 1, 40, 50] = 1e-5
    with torch.no_grad():
        up, down = (model(x + step * direction).logits[0, chosen[0]] for step in (1, -1))
    quotient = abs(float(up - down)) / 2e-5
    with torch.enable_grad(), gradients_through(model):
        inside = x.clone().requires_grad_()
        model(inside).logits[0, chosen[0]].backward()
    assert float(inside.grad[0, 1, 40, 50].abs()) == pytest.approx(quotient, rel=1e-4)
    h, w = cells["gradient"].shape[-2:]
    summed = inside.grad.abs().sum((0, 1)).numpy().reshape(h, 96 // h, w, 96 // w).mean((1, 3))
    assert np.allclose(cells["gradient"][0].numpy(), summed)
    model.float()


def test_everything_covered_is_the_same_in_every_order() -> None:
    x = torch.randn(2, 3, 8, 8)
    for cells in (torch.randn(2, 4, 4), torch.zeros(2, 2, 2)):
        assert not cover(x, cells, 1.0).any()
    assert torch.equal(cover(x, torch.arange(16.0).view(1, 4, 4).repeat(2, 1, 1), 1 / 16)[:, :, :6], x[:, :, :6])


def test_evaluate_prints_it(run: Path, world: Path) -> None:
    shown = attnpool("evaluate", run, f"folder:{world}", "--deletion", "--json")
    found = json.loads(shown.out)["deletion"]
    assert set(found["drops"]) == set(ORDERS)
    assert found["images"] == 14
    assert "cells covered by" in str(evaluate(run, f"folder:{world}", deletion=True))


def test_what_has_no_single_map_is_refused(run: Path, world: Path) -> None:
    command = ["evaluate", run, f"folder:{world}", "--deletion"]
    refused(attnpool(*command, "--flip"), "leave out crops and flip")
    refused(attnpool(*command, "--fuse", run), "leave out fuse")
    refused(attnpool("evaluate", run, f"folder:{world}", "--frames", 3), "leave frames out")
