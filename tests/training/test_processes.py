"""Two processes of `torchrun` go through the batches of one that accumulates over two, and end with its weights."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import attnpool, launch
from safetensors.torch import load_file, save_file

from attnpool.backbones.backbone import Backbone
from attnpool.training.checkpoint import pack_scaler, unpack_scaler
from attnpool.training.processes import Elsewhere, once, together

BOUND = 1e-5  # of the difference between the weights of one and of two processes, whose sums are in another order


def log(run: Path) -> list[dict[str, Any]]:
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "images_per_s"} for line in lines]


def own_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("attnpool: ")]


def test_two_processes_stopped_and_resumed_end_as_one(world: Path, tmp_path: Path) -> None:
    """A whole network with batch norm, and 28 images in six batches of 5 and one of 3: one process has none at last."""
    save_file(Backbone("test_resnet", "random").net.state_dict(), tmp_path / "start.safetensors")
    words = ["train", f"folder:{world}", "--backbone", "test_resnet", "--weights", tmp_path / "start.safetensors"]
    words += ["--no-freeze-backbone", "--image-size", 96, "--epochs", 10, "--batch-size", 5, "--ema", 0.9]
    words += ["--pooling", "pose", "--pose-weight", 0, "--dropout", 0.3]
    attnpool(*words, "--out", tmp_path / "one", "--accumulate", 2).text()
    two = [*words, "--out", tmp_path / "two", "--json"]
    process = launch(*two)
    while process.poll() is None and not (tmp_path / "two" / "best.safetensors").exists():
        time.sleep(0.01)
    process.terminate()
    _, err = process.communicate(timeout=120)
    (line,) = own_lines(err)
    assert line == f"attnpool: process 0: stopped; the same command continues from {tmp_path / 'two' / 'state.json'}"
    alone = attnpool(*words, "--out", tmp_path / "two")
    assert (alone.code, "was begun by 2 processes" in alone.err) == (2, True)
    process = launch(*two)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert len(json.loads(out)) >= 6  # one value, and not one of each process
    assert log(tmp_path / "two") == [
        {name: value if value is None else pytest.approx(value, abs=1e-5) for name, value in entry.items()}
        for entry in log(tmp_path / "one")
    ]
    for name in ("model.safetensors", "best.safetensors"):
        one, other = (load_file(tmp_path / run / name) for run in ("one", "two"))
        assert max(float((one[key].double() - other[key].double()).abs().max()) for key in one) < BOUND


def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    process = launch("train", f"folder:{tmp_path / 'none'}", "--out", tmp_path / "run")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")  # what torchrun makes of an exit code 2
    (line,) = own_lines(err)
    assert "none does not exist; give a directory" in line


def test_the_loss_of_a_process_is_told_in_a_line() -> None:
    with pytest.raises(Elsewhere, match="another process of the job has ended; the same command continues"), together():
        raise RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    with pytest.raises(RuntimeError, match="size mismatch"), together():
        raise RuntimeError("size mismatch")


def test_a_single_process_does_what_the_first_does() -> None:
    assert once(lambda: 3) == 3
    with pytest.raises(KeyError):
        once(lambda: {}["nothing"])


def test_the_scale_of_losses_is_kept() -> None:
    """Of float16, which needs a GPU; the scaler itself does not."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=4)
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], 0.1)
    for factor in (1.0, float("inf"), 1.0, 1.0):
        scaler.scale((weight * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    tensors = pack_scaler(scaler)
    other = torch.amp.GradScaler("cpu", growth_interval=4)
    unpack_scaler(other, tensors)
    assert other.state_dict() == scaler.state_dict()
    assert scaler.state_dict()["scale"] == 512.0
    assert pack_scaler(None) == {}
    unpack_scaler(None, tensors)
