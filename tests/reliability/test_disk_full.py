"""No space left, wherever it runs out: one line, exit code 1, nothing half-written; then the same command works.

Every size of the disk is one place where the space ends: in the features, in their list, in the log, in the weights of
the best epoch, in the saved state, in the run itself.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Outcome, Process, SmallDisk, attnpool, failed, small_disk

import attnpool as ap


@pytest.fixture(params=["a small file system", "a limit on files"])
def limited(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run_on(disk: SmallDisk, limited: str, tmp_path: Path, *words: Any) -> Outcome:
    """The command on a small file system (where that may be mounted), or with a limit on the size of every file."""
    if limited == "a small file system" and disk.mounted:
        return disk.run(*words)
    return Process(*words, folder=tmp_path / "output", limit=1024 * disk.kib).wait()


@pytest.fixture(scope="module")
def reference(world: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "r"
    attnpool("train", f"folder:{world}", "--out", out, "--epochs", 2, "--image-size", 96).text()
    return out


@pytest.mark.parametrize("kib", [1, 4, 12, 30, 100, 250, 500, 900, 940])
def test_features(world: Path, run: Path, reference: Path, tmp_path: Path, kib: int, limited: str) -> None:
    """The features of 42 images take 42 x 3 x 3 x 1280 x 2 bytes, 945 KiB."""
    start = max(kib, 4) if limited == "a small file system" else kib  # a file system has a page at least
    with small_disk(tmp_path / "disk", start) as disk:
        disk.kib = kib
        cache = disk.folder / "cache"
        words = ["train", f"folder:{world}", "--out", tmp_path / "r", "--epochs", 2, "--image-size", 96]
        outcome = run_on(disk, limited, tmp_path, *words, "--cache", cache)
        failed(outcome, 1, "no space left", "free some")
        assert not (tmp_path / "r").exists()
        disk.grow()
        attnpool(*words, "--cache", cache).text()
        stored = read_all(world, cache, run)
        assert np.array_equal(stored, read_all(world, None, run))  # what was cut off is not there, nor twice
        assert len(list(cache.rglob("*.f16"))) == 1
    for name in ("model.safetensors", "best.safetensors"):
        assert (tmp_path / "r" / name).read_bytes() == (reference / name).read_bytes()


def read_all(world: Path, cache: Path | None, run: Path) -> np.ndarray:
    train, _ = ap.read(f"folder:{world}")
    features = ap.extract(ap.Run.load(run).model, train, cache=cache, progress=False)
    return features.batch(range(len(features))).numpy()


@pytest.mark.parametrize("kib", [1, 4, 8, 16, 60, 90, 120, 200, 320, 1024, 10_000, 13_000])
def test_runs(world: Path, run: Path, reference: Path, tmp_path: Path, kib: int, limited: str) -> None:
    """A run takes 14 MB, its best weights 90 KiB."""
    start = max(kib, 4) if limited == "a small file system" else kib
    with small_disk(tmp_path / "disk", start) as disk:
        disk.kib = kib
        out = disk.folder / "r"
        words = ["train", f"folder:{world}", "--out", out, "--epochs", 2, "--image-size", 96]
        failed(run_on(disk, limited, tmp_path, *words), 1, "no space left", "free some")
        assert attnpool("predict", out, min(world.rglob("*.jpg"))).code == 2
        assert not list(out.rglob("*.partial"))
        disk.grow()
        attnpool(*words).text()
        for name in ("model.safetensors", "best.safetensors"):
            assert (out / name).read_bytes() == (reference / name).read_bytes()


@pytest.mark.parametrize("kib", [4, 40])
def test_panels_plots_and_worlds(world: Path, run: Path, tmp_path: Path, kib: int, limited: str) -> None:
    """Each of them takes more than that."""
    image = min(world.rglob("*.jpg"))
    with small_disk(tmp_path / "disk", kib) as disk:
        for words in (
            ["explain", run, image, "--out", disk.folder / "e"],
            ["evaluate", run, f"folder:{world}", "--plot", disk.folder / "plot.png"],
            ["playground", disk.folder / "p", "--images", 28, "--size", 448],
        ):
            outcome = run_on(disk, limited, tmp_path, *words)
            if words[0] == "evaluate":  # the numbers are not lost for it
                assert "mAP" in outcome.out
                outcome = replace(outcome, out="")
            failed(outcome, 1, "no space left", "free some")
            assert not [path for path in disk.folder.rglob("*") if path.is_file()], words
        disk.grow()
        attnpool("explain", run, image, "--out", disk.folder / "e").text()
        attnpool("evaluate", run, f"folder:{world}", "--plot", disk.folder / "plot.png").text()
        attnpool("playground", disk.folder / "p", "--images", 28, "--size", 448).text()
