"""The memory of a training stays flat, and a frozen backbone stays what it was, bit by bit.

.venv/bin/python -m pytest tests/reliability/test_memory.py -o addopts= -s
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Process, attnpool

import attnpool as ap
from attnpool.backbones.backbone import Backbone

EPOCHS, FIRST, SLOPE = 25, 5, 1.0  # epochs, those before everything is loaded, MB an epoch
CASES = {
    "cached": ["--pooling", "attentional", "--batch-size", 7],
    "decoded": ["--no-use-cache", "--standardize", "--batch-size", 7],
    "whole network": ["--backbone", "test_resnet", "--weights", "random", "--no-freeze-backbone", "--ema", 0.9],
    "whole network, shards": ["--backbone", "test_resnet", "--weights", "random", "--no-freeze-backbone"],
    "whole network, two workers": [
        "--backbone",
        "test_resnet",
        "--weights",
        "random",
        "--no-freeze-backbone",
        "--workers",
        2,
    ],
}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", CASES)
def test_memory_is_flat(world: Path, tmp_path: Path, case: str) -> None:
    out = tmp_path / "run"
    source = f"folder:{world}"
    if "shards" in case:
        attnpool("shard", source, tmp_path / "shards", "--per-shard", 2).text()
        source = f"wds:{tmp_path / 'shards'}"
    words = ["train", source, "--out", out, "--epochs", EPOCHS, "--image-size", 96, *CASES[case]]
    process = Process(*words, folder=tmp_path / "output", always_save=True)
    log, sizes = out / "log.jsonl", []

    def epochs() -> int:
        return len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0

    for epoch in range(1, EPOCHS + 1):
        process.until(lambda epoch=epoch: epochs() >= epoch, 600)  # type: ignore[misc]
        pages = Path(f"/proc/{process.process.pid}/statm").read_text(encoding="utf-8").split()[1]
        sizes.append(int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6)
        if epoch == EPOCHS - 1:
            break  # after the last epoch the process ends
    assert process.wait().code == 0
    kept = sizes[FIRST:]
    slope = float(np.polyfit(range(len(kept)), kept, 1)[0])
    print(f"{case}: {slope:+.3f} MB an epoch, {kept[0]:.0f} to {kept[-1]:.0f} MB", file=sys.__stderr__)
    assert slope < SLOPE


def test_a_frozen_backbone_is_bit_equal(world: Path, tmp_path: Path) -> None:
    """Weights and buffers, with and without the cache, with joints."""
    before = {name: tensor.clone() for name, tensor in Backbone("lite0").net.state_dict().items()}
    for number, more in enumerate(([], ["--no-use-cache"], ["--pooling", "pose", "--ema", 0.9])):
        out = tmp_path / str(number)
        words = ["train", f"folder:{world}", "--out", out, "--epochs", 3, "--image-size", 96, *more]
        assert Process(*words, folder=tmp_path / "output").wait().code == 0
        after = ap.Run.load(out).model.backbone.net.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
