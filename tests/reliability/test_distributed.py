"""Jobs of several processes: they end as one process does, whatever is trained; one that dies ends the job.

.venv/bin/python -m pytest tests/reliability/test_distributed.py -o addopts=
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import attnpool, launch
from safetensors.torch import load_file, save_file

from attnpool.backbones.backbone import Backbone

BOUND = 1e-5
WHOLE = ["--backbone", "test_resnet", "--no-freeze-backbone"]
CASES = {
    "cached": ["--batch-size", 5],
    "joints": ["--pooling", "pose", "--batch-size", 4],
    "joints without weight": ["--pooling", "pose", "--pose-weight", 0, "--batch-size", 5],
    "whole network, three processes": [*WHOLE, "--batch-size", 3, "--color-jitter", 0.3, "--workers", 1],
    "whole network, gradients clipped": [*WHOLE, "--batch-size", 5, "--clip", 0.5, "--optimizer", "sgd", "--lr", 0.05],
    "more processes than batches": [*WHOLE, "--batch-size", 28],
    "auto": ["--lr", "auto", "--batch-size", 5],
}


@pytest.fixture
def words(world: Path, tmp_path: Path) -> list[Any]:
    save_file(Backbone("test_resnet", "random").net.state_dict(), tmp_path / "start.safetensors")
    return ["train", f"folder:{world}", "--image-size", 96, "--epochs", 4]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES)
def test_as_one_process(words: list[Any], tmp_path: Path, case: str) -> None:
    more = CASES[case]
    if more[:1] == WHOLE[:1]:
        more = [*more, "--weights", tmp_path / "start.safetensors"]
    processes = 3 if "three" in case else 2
    attnpool(*words, *more, "--out", tmp_path / "one", "--accumulate", processes).text()
    process = launch(*words, *more, "--out", tmp_path / "many", "--json", processes=processes)
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err[-3000:]
    json.loads(out)
    one, many = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "many"))
    assert max(float((one[key].double() - many[key].double()).abs().max()) for key in one) < BOUND
    ends = [json.loads((tmp_path / name / "log.jsonl").read_text("utf-8").splitlines()[-1]) for name in ("one", "many")]
    for key in ("epoch", "loss", "lr", "mAP", "accuracy"):
        assert ends[0][key] == pytest.approx(ends[1][key], abs=1e-5)


def children(pid: int) -> list[int]:
    """The processes that torchrun has started, in the order of their numbers."""
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed(words: list[Any], tmp_path: Path, rank: int) -> None:
    """It ends the job, and the other says so in a line; the same command, or a restart by torchrun, goes on."""
    out = tmp_path / "run"
    given = [
        *words,
        *WHOLE,
        "--weights",
        tmp_path / "start.safetensors",
        "--batch-size",
        5,
        "--epochs",
        60,
        "--out",
        out,
    ]
    process = launch(*given, processes=2)
    while process.poll() is None and not (out / "log.jsonl").exists():
        time.sleep(0.02)
    os.kill(children(process.pid)[rank], signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    lines = [line for line in err.splitlines() if line.startswith("attnpool: ")]  # none, if torchrun was quicker
    expected = f"attnpool: process {1 - rank}: another process of the job has ended; the same command"
    assert [line for line in lines if not line.startswith(expected)] == [], err[-3000:]
    assert not (out / "run.json").exists()
    process = launch(*given, processes=2, restarts=1)
    while process.poll() is None and len((out / "log.jsonl").read_text("utf-8").splitlines()) < 3:
        time.sleep(0.02)
    os.kill(children(process.pid)[rank], signal.SIGKILL)
    _, err = process.communicate(timeout=400)
    assert process.returncode == 0, err[-3000:]
    assert (out / "run.json").exists()
