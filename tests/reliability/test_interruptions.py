"""A training that is stopped and killed again and again, at random moments, ends where an undisturbed one does."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Process, attnpool
from safetensors.torch import save_file

from attnpool.backbones.backbone import Backbone

CASES = {
    "pose": ["--pooling", "pose", "--dropout", 0.3, "--batch-size", 5, "--accumulate", 2],
    "rank 2, sgd, patience": ["--rank", 2, "--optimizer", "sgd", "--patience", 30, "--batch-size", 8],
    "whole network": ["--backbone", "test_resnet", "--no-freeze-backbone", "--color-jitter", 0.3, "--workers", 1],
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", CASES)
def test_a_training_that_is_disturbed(world: Path, tmp_path: Path, case: str) -> None:
    options = ["--epochs", 20, "--image-size", 96, "--ema", 0.9, *CASES[case], "--cache", tmp_path / "cache"]
    if case == "whole network":
        save_file(Backbone("test_resnet", "random").net.state_dict(), tmp_path / "start.safetensors")
        options += ["--weights", tmp_path / "start.safetensors"]
    words: list[Any] = ["train", f"folder:{world}", *options, "--out"]
    began = time.monotonic()
    attnpool(*words, tmp_path / "whole").text()
    length = time.monotonic() - began
    rng = np.random.default_rng([11, len(case)])
    out, codes = tmp_path / "out", []
    for attempt in range(12):
        signum = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT)[int(rng.integers(3))]
        process = Process(*words, out, folder=tmp_path / "output")
        end = time.monotonic() + rng.uniform(0, 0.4) * length
        while time.monotonic() < end and process.process.is_alive():
            time.sleep(0.001)
        if process.process.is_alive():
            process.send(signum)
        outcome = process.wait()
        codes.append(outcome.code)
        assert outcome.code in (0, 143, 130, -signal.SIGKILL, -signal.SIGTERM), (attempt, outcome)
        if outcome.code == 0:
            break
        assert len(outcome.messages) <= 1, outcome
        if (out / "state.json").exists():
            state = json.loads((out / "state.json").read_text())
            assert (out / state["tensors"]).exists()
    attnpool(*words, out).text()
    assert codes[0] != 0
    for name in ("model.safetensors", "best.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (name, codes)
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [(entry["epoch"], entry["loss"], entry["mAP"]) for entry in log] == [
        (entry["epoch"], entry["loss"], entry["mAP"]) for entry in expected
    ]
