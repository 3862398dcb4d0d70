"""A power cut after every step of a command, with what a disk may have kept: what is there is whole, and work goes on.

.venv/bin/python -m pytest tests/reliability/test_power_cuts.py -o addopts=    (needs gcc)

The log of what a command did to a folder is replayed up to every step. What was not synced may be there, in part, or
not: new names in a folder until the folder is synced, and data until the file is.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import attnpool
from safetensors.torch import load_file

import attnpool as ap
from attnpool.features.store import FeatureStore

sys.path.insert(0, str(Path(__file__).parent))
from faults import Disk, Step, watched

DATA = ("lost", "half", "kept")
NAMES = ("lost", "kept")


class File:
    """The content of a file: what is surely on the disk, and what the system has."""

    def __init__(self, content: bytes = b"") -> None:
        self.durable, self.content = content, content

    def after(self, data: str) -> bytes:
        if data == "half":
            same = len(self.durable) if self.content.startswith(self.durable) else 0
            return self.content[: same + (len(self.content) - same) // 2]
        return self.durable if data == "lost" else self.content


class Folder:
    """A folder and all in it, as the log of a command changes it; `None` stands for a folder."""

    def __init__(self, root: Path) -> None:
        entries = {path.relative_to(root).as_posix(): path for path in root.rglob("*")}
        self.now: dict[str, File | None] = {
            name: None if path.is_dir() else File(path.read_bytes()) for name, path in entries.items()
        }
        self.durable = dict(self.now)

    def apply(self, step: Step) -> None:
        if step.kind == "C":
            file = self.now.get(step.path) or File()
            file.content = b""
            self.now[step.path] = file
        elif step.kind == "W":
            file = self.now.setdefault(step.path, File())
            assert file is not None
            old = file.content.ljust(step.offset, b"\0")
            file.content = old[: step.offset] + step.data + old[step.offset + len(step.data) :]
        elif step.kind == "R":
            self.now[step.data.decode()] = self.now.pop(step.path)
        elif step.kind == "U":
            self.now.pop(step.path, None)
        elif step.kind == "D":
            self.now[step.path] = None
        elif isinstance(file := self.now.get(step.path), File):
            file.durable = file.content
        else:  # a folder is synced: the names in it are what they are now
            for name in {*self.now, *self.durable}:
                if str(Path(name).parent) == step.path:
                    if name in self.now:
                        self.durable[name] = self.now[name]
                    else:
                        self.durable.pop(name, None)

    def write(self, root: Path, data: str, names: str) -> None:
        """What a disk may hold after a power cut."""
        shutil.rmtree(root)
        root.mkdir()
        for name, file in sorted((self.durable if names == "lost" else self.now).items()):
            if not (root / name).parent.is_dir():  # a folder whose own name is lost
                continue
            if file is None:
                (root / name).mkdir(exist_ok=True)
            else:
                (root / name).write_bytes(file.after(data))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    attnpool("playground", root / "world", "--images", 28, "--seed", 1, "--size", 64).text()
    attnpool("train", f"folder:{root / 'world'}", "--out", root / "run", "--image-size", 64, "--epochs", 1).text()
    return root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """The folder that is watched; the drawings are outside of it, as nothing is written to them."""
    with watched(tmp_path / "disk", tmp_path / "harness", tmp_path / "disk" / "cache") as found:
        yield found


def cuts(root: Path, start: Folder, steps: Sequence[Step]) -> Iterator[int]:
    """Makes every state that a power cut may leave, one after the other; yields their numbers."""
    states = itertools.product(range(len(steps) + 1), DATA, NAMES)
    done = 0
    for number, (count, data, names) in enumerate(states):
        while done < count:
            start.apply(steps[done])
            done += 1
        start.write(root, data, names)
        yield number


def require_whole(root: Path) -> None:
    """Every file that has its own name, and not that of a partial one, is what it says."""
    for path in root.rglob("*"):
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.name == "log.jsonl":
            [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        elif path.suffix == ".png":
            assert path.read_bytes().endswith(b"IEND\xaeB`\x82")


@pytest.mark.timeout(3000)
def test_training(disk: Disk, small: Path) -> None:
    """With a checkpoint after every update, and the cache on the same disk."""
    out, world = disk.folder / "new", small / "world"
    words = ["train", f"folder:{world}", "--out", out, "--image-size", 64, "--epochs", 2, "--batch-size", 11]
    words += ["--pooling", "average"]
    start = Folder(disk.folder)
    outcome, count = disk.run(*words, log=True, always_save=True)
    assert outcome.code == 0, outcome
    steps = disk.steps()
    weights = {name: (out / name).read_bytes() for name in ("model.safetensors", "best.safetensors")}
    (store,) = (disk.folder / "cache" / "features").iterdir()
    digests = [json.loads(line)["digest"] for line in next(store.glob("*.jsonl")).read_text().splitlines()[1:]]
    arrays, rows = FeatureStore(store).read(digests)
    features = {digest: np.array(arrays[array][row.number]) for digest, (array, row) in rows.items()}
    assert len(features) == 28
    resumed = 0
    for number in cuts(disk.folder, start, steps):
        require_whole(disk.folder)
        if store.is_dir():
            arrays, rows = FeatureStore(store).read(digests)
            assert all(np.array_equal(arrays[a][row.number], features[digest]) for digest, (a, row) in rows.items())
        if (out / "run.json").exists():
            ap.Run.load(out)
            assert (out / "model.safetensors").read_bytes() == weights["model.safetensors"]
        elif (out / "state.json").exists():
            assert (out / json.loads((out / "state.json").read_text())["tensors"]).exists()
        if number % 41 == 0:
            again, _ = disk.run(*words)
            assert again.code == 0, (number, again)
            assert {name: (out / name).read_bytes() for name in weights} == weights, number
            resumed += 1
    print(f"train: {count} writes, {len(steps)} steps, {number + 1} states, {resumed} resumed", file=sys.__stderr__)


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("verb", ["evaluate", "explain", "convert", "shard"])
def test_outputs(disk: Disk, small: Path, verb: str) -> None:
    """An output that was there before is the old one or the new one."""
    shutil.copytree(small / "run", disk.folder / "run")
    photo = next((small / "world" / "val").rglob("*.jpg"))
    words: dict[str, list[Any]] = {
        "evaluate": ["evaluate", disk.folder / "run", f"folder:{small / 'world'}"],
        "explain": ["explain", disk.folder / "run", photo, "--out", disk.folder / "explained"],
        "convert": ["convert", "lite0", "--out", disk.folder / "converted"],
        "shard": ["shard", f"folder:{small / 'world'}", disk.folder / "shards", "--per-shard", 8],
    }
    if verb in ("evaluate", "explain"):  # the others do not write twice
        assert disk.run(*words[verb])[0].code == 0
    start, before = Folder(disk.folder), contents(disk.folder)
    outcome, count = disk.run(*words[verb], log=True)
    assert outcome.code == 0, outcome
    steps, after = disk.steps(), contents(disk.folder)
    for number in cuts(disk.folder, start, steps):
        require_whole(disk.folder)
        now = contents(disk.folder)
        assert all(now.get(name) in (content, after[name]) for name, content in before.items()), number
        assert all(content == after[name] for name, content in now.items() if name.endswith((".tar", ".jsonl"))), number
    assert disk.run(*words[verb])[0].code == (2 if verb == "convert" else 0)
    print(f"{verb}: {count} writes, {len(steps)} steps, {number + 1} states", file=sys.__stderr__)


def contents(root: Path) -> dict[str, bytes]:
    """All files but those of the cache, which are not replaced."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and "cache" not in path.parts
    }
