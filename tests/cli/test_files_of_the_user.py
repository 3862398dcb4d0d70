"""A folder of the user's files of every kind, as input and as output of every verb: not one byte of it changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import write_clip
from command_line import attnpool
from PIL import Image

from attnpool.cli.verbs import VERBS

# Names that this library gives its own files, with content that is not ours.
OURS = (
    *(".attnpool.json", "run.json", "state.json", "choice.json", "model.safetensors", "best.safetensors", "log.jsonl"),
    *("evaluation-val.png", "evaluation-val.json", "scores.json", "results.json", "report.html", "submission.mat"),
    *("maps-attentional.png", "poolings.json", "poolings.md", "poolings.png", "table1.json", "table1.md"),
    *("pooling.json", "pooling.md", "pooling.png", "training.json", "annotations.json", "poses.json"),
    *(
        ".poses.json.partial.jsonl",
        "store.json",
        "classes.txt",
        "index.jsonl",
        "train-000000.tar",
        "weights.safetensors",
        "weights.pth",
        "recipe.yaml",
    ),
)

# Files of every kind, also in folders, with and without a suffix, hidden, and with names beyond ASCII.
SUFFIXES = (  # noqa: SIM905
    "heic avif svg psd pdf docx xlsx csv tsv json jsonl yaml toml xml html md txt log zip tar.gz mp3 wav mov mkv "
    "py ipynb c npz npy mat h5 pkl pt onnx bin partial lock bak tmp"
).split()
KINDS = [
    name
    for suffix in SUFFIXES
    for name in (f"kinds/file.{suffix}", f"kinds/Été {suffix}/1.{suffix}", f".hidden.{suffix}", f"runs/notes.{suffix}")
]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Photos of two classes, a clip, and files of all the names that outputs have."""
    folder = tmp_path / "mine"
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            pixels = random.integers(0, 256, (70, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
            Image.fromarray(pixels).save(folder / f"{name}{number}.png")
    write_clip(folder / "clip.avi", 3)
    for name in OURS:
        (folder / name).write_bytes(f'{{"mine": "{name}"}}'.encode())
    for name in (*KINDS, f"features/mine-64-{'0' * 16}/0123456789abcdef.f16", "features/mine/records.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"mine, {name}".encode())
    assert sum(path.is_file() for path in folder.rglob("*")) >= 200
    return folder


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def commands(mine: Path, run: Path) -> Iterator[list[Any]]:
    """Every verb with the folder, or a file of it, wherever something is read or written."""
    photos, photo = f"folder:{mine}", mine / "a0.png"
    yield ["quickstart", "--out", mine, "--images", 28]
    yield ["playground", mine, "--images", 28]
    yield ["check", photos]
    for word in (["list"], ["verify"], ["prune", "--max-size", 0], ["prune", "--days", 0]):
        yield ["cache", *word, "--cache", mine]
    for out in (mine, mine / "runs", mine / "a"):
        yield ["shard", photos, out]
        yield ["train", photos, "--out", out, "--image-size", 64, "--epochs", 1]
        yield ["convert", "lite0", "--out", out]
        yield ["convert-tf", mine / "model", "--variant", "pose", "--classes", mine / "classes.txt", "--out", out]
        yield ["reproduce", "table1", "--scale", "small", "--out", out]
        yield ["reproduce", "poolings", "--data", photos, "--out", out]
    yield ["benchmark", "pooling", "--quick", "--out", mine]
    yield ["benchmark", "training", "--quick", "--out", mine]
    yield ["train", photos, "--out", mine / "weights.pth", "--weights", mine / "weights.pth"]
    yield ["train", photos, "--out", mine, "--recipe", mine / "recipe.yaml"]
    yield ["convert", "lite0", "--weights", mine / "weights.safetensors", "--out", mine]
    yield ["evaluate", run, photos, "--plot", mine / "a0.png"]
    yield ["evaluate", mine, photos]
    yield ["check", f"wds:{mine}"]
    yield ["predict", run, mine]
    yield ["explain", run, photo, mine / "clip.avi", "--out", mine]
    yield ["explain", run, photo, "--out", mine]
    yield ["explain", run, mine, "--out", mine]
    yield ["explain", run, photo, "--out", photo]
    yield ["pose", photos, "--estimator", "keypointrcnn", "--weights", mine / "weights.pth"]


def test_not_one_byte_changes(mine: Path, run: Path) -> None:
    before = content(mine)
    used = set()
    for command in commands(mine, run):
        outcome = attnpool(*command)
        after = content(mine)
        assert {name: after.get(name) for name in before} == before, command
        assert outcome.code == 2 or command[0] in ("explain", "predict", "check", "cache"), (command, outcome)
        used.add(command[0])
    assert used == set(VERBS)
    new = set(content(mine)) - set(before)
    assert new == {"a0-2.png", "clip.png"}, "explain writes beside what is there"
