"""Trainings that are killed and stopped again and again, at random moments and while they write, end where an
undisturbed one does: 100 times kill -9, 20 times SIGTERM, 20 times Ctrl-C.

.venv/bin/python -m pytest tests/reliability/test_interruptions.py -o addopts= -s
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Process, attnpool
from safetensors.torch import save_file

from attnpool.backbones.backbone import Backbone

WHOLE = ["--backbone", "test_resnet", "--no-freeze-backbone"]
CASES = {
    "cached, pose, accumulated": ["--pooling", "pose", "--dropout", 0.3, "--batch-size", 5, "--accumulate", 2],
    "cached, sgd, patience": ["--rank", 2, "--optimizer", "sgd", "--patience", 30, "--batch-size", 8],
    "whole, shards, two workers": [*WHOLE, "--workers", 2, "--batch-size", 3],
    "whole, no workers": [*WHOLE, "--color-jitter", 0.3, "--batch-size", 7],
    "whole, two workers, bf16": [*WHOLE, "--workers", 2, "--precision", "bf16", "--batch-size", 5, "--accumulate", 3],
}
WANTED = {"kill at random": 17, "kill while writing": 8, "SIGTERM": 5, "Ctrl-C": 5}  # for each case
SIGNALS = {"SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}


def writes(place: Path) -> bool:
    """Whether something is being written: a file before it gets its name, or rows of features."""
    return bool(list(place.rglob("*.partial")) or list(place.rglob("*.todo")))


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("case", CASES)
def test_a_training_that_is_disturbed(world: Path, tmp_path: Path, case: str) -> None:
    epochs = 4 if "two workers" in case else 12  # every epoch starts the workers anew
    options = ["--epochs", epochs, "--image-size", 96, "--ema", 0.9, *CASES[case]]
    if "whole" in case:
        save_file(Backbone("test_resnet", "random").net.state_dict(), tmp_path / "start.safetensors")
        options += ["--weights", tmp_path / "start.safetensors"]
    source = f"folder:{world}"
    if "shards" in case:
        attnpool("shard", source, tmp_path / "shards", "--per-shard", 2).text()
        source = f"wds:{tmp_path / 'shards'}"
    words: list[Any] = ["train", source, *options, "--out"]
    attnpool(*words, tmp_path / "whole", "--cache", tmp_path / "cache").text()
    began = time.monotonic()
    assert Process(*words, tmp_path / "timed", "--cache", tmp_path / "c", folder=tmp_path / "o").wait(600).code == 0
    length = time.monotonic() - began
    rng = np.random.default_rng([11, len(case)])
    left, series, torn = Counter(WANTED), 0, 0
    while left.total():
        place = tmp_path / f"series{series}"
        place.mkdir()
        command = [*words, place / "out", "--cache", place / "cache"]
        series += 1
        while left.total():
            kind = str(rng.choice(sorted(left.elements())))
            process = Process(*command, folder=tmp_path / "output", always_save=True)
            end = time.monotonic() + rng.uniform(0.05, 0.5) * length
            while time.monotonic() < end and process.process.is_alive():
                time.sleep(0.001)
            while kind == "kill while writing" and process.process.is_alive() and not writes(place):
                pass
            sent = process.process.is_alive()
            if sent:
                process.send(SIGNALS.get(kind, signal.SIGKILL))
            outcome = process.wait(600)
            if outcome.code == 0:  # it was at its end
                break
            left[kind] -= 1
            torn += writes(place)
            assert outcome.code in (143, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT), (kind, outcome)
            assert len(outcome.messages) <= 1, outcome
            if (place / "out" / "state.json").exists():
                state = json.loads((place / "out" / "state.json").read_text(encoding="utf-8"))
                assert (place / "out" / state["tensors"]).exists()
        if not (place / "out" / "run.json").exists():
            attnpool(*command).text()
        for name in ("model.safetensors", "best.safetensors"):
            assert (place / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
        assert log(place / "out") == log(tmp_path / "whole")
        assert not list((place / "out").glob("state*"))
    print(f"{case}: {dict(WANTED)}, {torn} left something half-written, {series} trainings", file=sys.__stderr__)


def log(run: Path) -> list[tuple[Any, ...]]:
    entries = map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [(entry["epoch"], entry["loss"], entry["mAP"], entry["accuracy"]) for entry in entries]
