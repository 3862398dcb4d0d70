"""No space left from the k-th write on, for every k: one line, exit code 1, and nothing that was there is lost.

.venv/bin/python -m pytest tests/reliability/test_no_space.py -o addopts=    (needs gcc)
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import attnpool

sys.path.insert(0, str(Path(__file__).parent))
from faults import Disk, watched

MEDIAPIPE = ["--estimator", "mediapipe", "--python", Path(__file__).parents[2] / ".venv-pose" / "bin" / "python"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A playground of 28 small drawings, and a run on it."""
    root = tmp_path_factory.mktemp("small")
    attnpool("playground", root / "world", "--images", 28, "--seed", 1, "--size", 64).text()
    for number, image in enumerate(
        sorted((root / "world").rglob("*.jpg"))[:4]
    ):  # without joints, which are to be found
        (root / "photos" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, root / "photos" / "ab"[number % 2] / f"{number}.jpg")
    words = ["--image-size", 64, "--epochs", 2, "--pooling", "average"]
    attnpool("train", f"folder:{root / 'world'}", "--out", root / "run", *words).text()
    return root


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    root = tmp_path_factory.mktemp("disk")
    with watched(root / "disk", root / "harness", root / "disk" / "cache") as found:
        yield found


def content(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def commands(disk: Path, small: Path) -> dict[str, list[Any]]:
    world, run = f"folder:{disk / 'world'}", disk / "run"
    photo = next((disk / "world" / "val").rglob("*.jpg"))
    return {
        "train": ["train", world, "--out", disk / "new", "--image-size", 64, "--epochs", 2, "--pooling", "average"],
        "evaluate": ["evaluate", run, world],
        "explain": ["explain", run, photo, "--out", disk / "explained"],
        "convert": ["convert", "lite0", "--out", disk / "converted"],
        "pose": ["pose", f"folder:{disk / 'photos'}", *MEDIAPIPE],
        "reproduce": [
            *("reproduce", "poolings", "--data", world, "--rows", "average", "--seeds", 0, "--epochs", 1),
            *("--image-size", 64, "--out", disk / "study"),
        ],
        "shard": ["shard", world, disk / "shards", "--per-shard", 8],
    }


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("verb", ["train", "evaluate", "explain", "convert", "pose", "reproduce", "shard"])
def test_every_write(disk: Disk, small: Path, verb: str) -> None:
    def fresh() -> list[Any]:
        shutil.rmtree(disk.folder)
        shutil.copytree(small, disk.folder)
        return commands(disk.folder, small)[verb]

    words = fresh()
    before = content(disk.folder)
    outcome, count = disk.run(*words)
    assert outcome.code == 0, outcome
    whole = content(disk.folder)
    assert count > 3
    print(f"{verb}: {count} writes", file=sys.__stderr__)
    for k in range(1, count + 1):
        words = fresh()
        outcome, _ = disk.run(*words, fail_at=k)
        assert outcome.code == 1, (k, outcome)
        (line,) = outcome.messages
        assert "no space left" in line, (k, line)
        now = content(disk.folder)
        assert {name: now.get(name) for name in before} == before, k
        assert not [name for name in now if name.endswith((".partial", ".tmp")) and "poses" not in name], (k, now)
        for name in now:
            if name.endswith(".json"):
                json.loads((disk.folder / name).read_text(encoding="utf-8"))
        if k % 5 == 0 or k in (1, count):  # there is space again
            again, _ = disk.run(*words)
            assert again.code == 0, (k, again)
            same = {name for name in whole if name.endswith((".safetensors", ".png", "poses.json", ".tar", ".jsonl"))}
            end = content(disk.folder)
            assert {name: end.get(name) for name in same} == {name: whole[name] for name in same}, k
