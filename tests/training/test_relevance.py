"""Every option of a training changes what is trained, or is refused: none is passed over in silence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import attnpool, refused
from PIL import Image
from safetensors.numpy import load_file

from attnpool.cli.flags import flag_of
from attnpool.cli.signatures import Option
from attnpool.cli.verbs import poolings, training_options

# They change the speed alone.
SPEED = {"workers"}
# Values that differ enough from the default to be seen in a few steps; the others are found from type and choices.
VALUES: dict[str, Any] = {"batch_size": 5, "hidden": 8, "dim": 80, "short_side": 48, "max_width": 40, "warmup": 0.9}
VALUES |= {"epochs": 3, "tune_fraction": 0.4, "iterations": 1, "rank": 2, "step_updates": 2}
# What an option needs beside it.
BESIDE: dict[str, list[Any]] = {
    "dropout_on": ["--dropout", 0.5],
    "accumulate": ["--batch-size", 4],
    "tune_fraction": ["--patience", 1],
    "step_factor": ["--schedule", "step", "--batch-size", 4, "--step-updates", 2],
    "step_updates": ["--schedule", "step", "--batch-size", 4],
    "weight_decay": ["--lr", 0.01],
    "warmup": ["--lr", 0.01],
}
OPTIONS = [option for found in training_options().values() for option in found]
POOLING = {option.name: pooling for pooling, found in reversed(poolings().items()) for option in found}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Trains on small photos of two classes, one of them rare; the digest of what came out, each call made once."""
    root = tmp_path_factory.mktemp("options")
    random = np.random.default_rng(0)
    for name, count in (("a", 12), ("b", 6)):
        (root / "photos" / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (*random.integers(50, 90, 2), 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "photos" / name / f"{number}.png")
    known: dict[str, Any] = {}

    def train(*more: Any) -> Any:
        words = json.dumps([str(word) for word in more])
        if words not in known:
            out = root / "runs" / str(len(known))
            command = ["train", f"folder:{root / 'photos'}", "--out", out, "--image-size", 64, "--epochs", 2]
            outcome = attnpool(*command, "--cache", root / "cache", *more)
            known[words] = outcome if outcome.code else digest(out)
        return known[words]

    return train


def digest(run: Path) -> str:
    """A digest of a run's weights and measurements."""
    tensors = load_file(run / "model.safetensors")
    history = json.loads((run / "run.json").read_text("utf-8"))["results"]["history"]
    kept = [{name: entry[name] for name in ("loss", "mAP", "accuracy")} for entry in history]
    found = hashlib.sha256(json.dumps(kept).encode())
    for name in sorted(tensors):
        found.update(tensors[name].tobytes())
    return found.hexdigest()


def others(option: Option) -> list[list[Any]]:
    """The flag of an option with values other than its default (which may be among them if it depends)."""
    flag = f"--{option.name.replace('_', '-')}"
    if option.name in VALUES:
        return [[flag, VALUES[option.name]]]
    if option.choices:
        return [[flag, choice] for choice in option.choices if choice not in (option.default, None)]
    if option.type is bool:
        return [[flag], [flag.replace("--", "--no-", 1)]]
    if option.type is int:
        return [[flag, (option.default or 1) + 1]]
    if option.type is float:
        return [[flag, round((option.default or 0.1) * 0.7, 4)]]
    return [[flag, "unknown"]]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_an_option_changes_something_or_is_refused(option: Option, trained: Callable[..., Any]) -> None:
    beside = list(BESIDE.get(option.name, []))
    if (pooling := POOLING.get(option.name, "attentional")) != "attentional":
        beside += ["--pooling", pooling]
    before = trained(*beside)
    found = [trained(*beside, *words) for words in others(option)]
    for outcome in found:
        if not isinstance(outcome, str):
            refused(outcome, option.name.partition("_")[0])
    assert any(outcome != before for outcome in found) == (option.name not in SPEED)


@pytest.mark.parametrize("name", sorted(BESIDE.keys() - {"accumulate", "warmup", "weight_decay"}))
def test_what_an_option_needs_is_said(name: str, trained: Callable[..., Any]) -> None:
    (option,) = (option for option in OPTIONS if option.name == name)
    said = flag_of(name) if "_" in name else name
    refused(trained(*others(option)[0]), f"{said} would change nothing: ", "; leave it out")


def test_a_weight_decay_is_not_idle_beside_the_departure(trained: Callable[..., Any]) -> None:
    """It is the only one that is tried, also where average pooling, which has its own, is kept in the end."""
    assert isinstance(trained("--weight-decay", 0.07), str)
    strong, weak = (trained("--departure", 0.3, "--weight-decay", decay) for decay in (0.0005, 5.0))
    assert isinstance(strong, str)
    assert strong != weak
