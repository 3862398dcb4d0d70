"""The comparison of three poolings in its smallest form."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import Outcome, attnpool, refused
from PIL import Image

from attnpool.experiments.quickstart import Quickstart, quickstart
from attnpool.files import MARK_FILE, claim
from attnpool.models.run import Run

HEADS = ["average", "attentional", "pose"]


def start(out: Path, *more: Any, images: int = 42, epochs: int = 2) -> Outcome:
    words = ["--out", out, "--images", images, "--epochs", epochs, "--image-size", 96, "--seeds", 0, 1]
    return attnpool("quickstart", *words, *more)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    out = tmp_path_factory.mktemp("quickstart") / "q"
    return out, start(out, "--json")


def test_results(first: tuple[Path, Outcome]) -> None:
    out, outcome = first
    results = outcome.value()
    assert json.loads((out / "results.json").read_text()) == results
    assert {"seeds", "heads", "seconds"} <= set(results)
    assert results["seeds"] == [0, 1]
    assert list(results["heads"]) == HEADS
    for values in results["heads"].values():
        assert set(values) == {"mAP", "accuracy", "pointing"}
        for numbers in values.values():
            assert len(numbers) == 2
            assert all(0 <= number <= 1 for number in numbers)
    assert results["images"] == {"train": 28, "val": 14}
    assert results["seconds"] > 0


def test_what_is_written(first: tuple[Path, Outcome]) -> None:
    out, _ = first
    images = ["maps-attentional.png", "maps-pose.png"]
    assert sorted(path.name for path in out.iterdir()) == [
        MARK_FILE,
        *images,
        "report.html",
        "results.json",
        "runs",
        "world",
    ]
    for name in images:
        with Image.open(out / name) as image:
            image.load()
    assert sorted(path.name for path in (out / "runs").iterdir()) == sorted(f"{h}-{s}" for h in HEADS for s in (0, 1))
    for head in HEADS:
        assert Run.load(out / "runs" / f"{head}-1").model.pooling == head
    page = (out / "report.html").read_text(encoding="utf-8")
    references = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page) + re.findall(r"url\(([^)]*)\)", page)
    assert len(references) >= 3  # a plot and two sheets of maps
    assert all(reference.strip("\"'").startswith(("data:", "#")) for reference in references)
    assert "<script" not in page
    assert "Pose-regularised attentional pooling" in page
    assert f"attnpool quickstart --out {out} --images 42 --epochs 2 --image-size 96 --seeds 0 1" in page


def test_the_second_call_does_nothing_again(first: tuple[Path, Outcome]) -> None:
    out, outcome = first
    weights = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    began = time.monotonic()
    text = start(out).text()
    assert time.monotonic() - began < 60  # no images to make, features to compute or heads to train
    again = json.loads((out / "results.json").read_text())
    assert again | {"seconds": 0} == outcome.value() | {"seconds": 0}
    assert weights == {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert "Average pooling" in text
    assert "mean ± standard deviation over 2 seeds" in text
    assert str(out / "report.html") in text


def test_other_options_in_the_same_folder(first: tuple[Path, Outcome]) -> None:
    out, _ = first
    refused(start(out, images=56), out / "world", "42 images, not 56", "another folder as out")
    refused(start(out, epochs=3), out / "runs", "epochs was 2, is 3", "another folder as out")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--images", 20], "20 images are too few"),
        (["--epochs", 0], "epochs is 0"),
        (["--seeds", 3, 3], "seeds 3 3"),
        (["--seeds", -1], "seed is -1"),
        (["--image-size", 10], "size 10"),
    ],
    ids=str,
)
def test_options_that_cannot_be_used(tmp_path: Path, more: list[Any], words: str) -> None:
    refused(start(tmp_path / "q", *more), words)
    assert not list(tmp_path.rglob("*.jpg"))
    assert not (tmp_path / "q" / "runs").exists()


def test_a_folder_that_holds_something_else(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "q").mkdir()
    photos.rename(tmp_path / "q" / "world")
    refused(start(tmp_path / "q"), tmp_path / "q", "holds files that are not by attnpool (world)")
    claim(tmp_path / "r", "a quickstart")
    (tmp_path / "q" / "world").rename(tmp_path / "r" / "world")
    refused(start(tmp_path / "r"), tmp_path / "r" / "world", "12 images, not 42", "another folder as out")
    (tmp_path / "file").write_text("x")
    refused(start(tmp_path / "file"), tmp_path / "file")


def test_no_seeds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one or more different numbers"):
        quickstart(out=tmp_path / "q", seeds=[], progress=False)


def test_the_table() -> None:
    def table(seeds: list[int]) -> str:
        values = {key: [0.5, 0.7][: len(seeds)] for key in ("mAP", "accuracy", "pointing")}
        return str(Quickstart(Path("q"), {"seeds": seeds, "heads": {"average": values}}))

    assert "60.0 ± 14.1" in table([0, 1])
    assert "over 2 seeds" in table([0, 1])
    assert "50.0" in table([4])
    assert "±" not in table([4]).splitlines()[1]
    assert "one seed" in table([4])
