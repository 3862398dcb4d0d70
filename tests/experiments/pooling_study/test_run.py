"""The study of poolings in its smallest form, from end to end, with real trainings on several splits."""

from __future__ import annotations

import io
import json
import signal
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Process, attnpool, refused
from PIL import Image

from attnpool.data import read
from attnpool.evaluation.evaluate import evaluate
from attnpool.experiments.pooling_study import poolings
from attnpool.experiments.pooling_study.run import split
from attnpool.explain.plots import study_plot
from attnpool.models.run import Run

SMALL = ("--image-size", "96", "--epochs", "1")


def words(source: str, out: Path, rows: tuple[str, ...], seeds: tuple[int, ...]) -> list[Any]:
    return ["reproduce", "poolings", "--data", source, *SMALL, "--rows", *rows, "--seeds", *seeds, "--out", out]


@pytest.fixture(scope="module")
def command(world: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    out = tmp_path_factory.mktemp("study") / "poolings"
    return words(f"folder:{world}", out, ("auto", "rank1", "average"), (0, 3))


@pytest.fixture(scope="module")
def study(command: list[Any]) -> dict[str, Any]:
    """What the command prints."""
    return attnpool(*command, "--json").value()


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def without_times(results: dict[str, Any]) -> dict[str, Any]:
    """Results without what a clock measured, and without the folders of their runs."""
    rows = {}
    for name, entry in results["rows"].items():
        trainings = {
            s: t | {"seconds": 0, "deletion": bool(t["deletion"]), "run": Path(t["run"]).name}
            for s, t in entry["trainings"].items()
        }
        rows[name] = entry | {"trainings": trainings}
    return results | {"rows": rows, "costs": list(results["costs"])}


# what is found


def test_rows(command: list[Any], study: dict[str, Any], world: Path) -> None:
    out = command[-1]
    assert json.loads((out / "poolings.json").read_text()) == study
    assert list(study["rows"]) == ["average", "rank1", "auto"]
    assert (study["seeds"], study["complete"], study["keypoints"], study["classes"]) == ([0, 3], True, True, 14)
    data = read(f"folder:{world}")
    assert study["images"] == {"train": len(data[0]), "val": len(data[1])}
    for name, entry in study["rows"].items():
        for seed, training in entry["trainings"].items():
            run = Run.load(training["run"])
            train, val = split(data, int(seed))
            recipe = run.about["recipe"]
            assert (recipe["seed"], recipe["epochs"]) == (int(seed), 1)
            assert run.about["split"]["train"] == [sample.path for sample in train]
            assert training["parameters"] == sum(weight.numel() for weight in run.model.head.parameters())
            found = evaluate(run, val)
            expected = found.scores.mAP, found.scores.accuracy, found.pointing
            assert (training["mAP"], training["accuracy"], training["pointing"]) == pytest.approx(expected)
            assert (training["deletion"] is None) == (seed != "0")
            assert 0 <= training["calibration"] <= 1
            assert training["seconds"] > 0
            assert (training["chosen"] is None) == (name != "auto")
    assert study["costs"]["average"]["cost"] == 1
    assert study["costs"]["rank1"]["cost"] > 0
    assert "auto" not in study["costs"]  # what it chooses is another row's


def test_every_seed_has_another_split_of_the_same_images(world: Path) -> None:
    data = read(f"folder:{world}")
    paths = {sample.path for part in data for sample in part}
    held = []
    for seed in (0, 1):
        train, val = split(data, seed)
        assert (train.split, val.split, train.classes) == ("train", "val", data[0].classes)
        assert {sample.path for sample in train} | {sample.path for sample in val} == paths
        assert len(train) + len(val) == len(paths)
        assert abs(len(val) - len(data[1])) <= len(val.classes) / 2  # rounded class by class
        held.append({sample.path for sample in val})
    assert held[0] != held[1]


def test_clips_keep_their_split(tmp_path: Path) -> None:
    attnpool("playground", tmp_path / "clips", "--style", "hmdb51", "--images", 28, "--frames", 4).text()
    data = read(f"hmdb51:{tmp_path / 'clips'}")
    assert split(data, 1) is data


def test_the_page_has_means_and_spreads(command: list[Any], study: dict[str, Any]) -> None:
    page = (command[-1] / "poolings.md").read_text(encoding="utf-8")
    means = {}
    for name, entry in study["rows"].items():
        values = [100 * training["mAP"] for training in entry["trainings"].values()]
        means[name] = statistics.mean(values)
        assert f"| {entry['title']} | {means[name]:.1f} ± {statistics.stdev(values):.1f} |" in page
    gain = means["rank1"] - means["average"]
    assert f"- Attention, rank 1: {'+' if gain >= 0 else ''}{gain:.1f} ± " in page
    chosen = study["rows"]["auto"]["trainings"]["3"]["chosen"]
    assert f"- seed 3: {chosen}" in page
    assert "- auto against the best of the others, " in page
    assert "Not complete" not in page
    with Image.open(command[-1] / "poolings.png") as image:
        assert image.format == "PNG"


# interruptions and second calls


def test_the_second_call_does_nothing_again(command: list[Any], study: dict[str, Any]) -> None:
    out = command[-1]
    before = files(out / "runs")
    assert {Path(path).parent.name for path in before if path.endswith("run.json")} == {
        f"{row}-{seed}" for row in ("average", "rank1", "auto") for seed in (0, 3)
    }
    text = attnpool(*command).text()
    assert files(out / "runs") == before
    assert json.loads((out / "poolings.json").read_text()) == study
    assert str(out / "poolings.md") in text


def test_rows_and_seeds_are_added(command: list[Any], study: dict[str, Any], world: Path) -> None:
    out = command[-1]
    before = files(out / "runs")
    more = attnpool(*words(f"folder:{world}", out, ("average",), (0, 1)), "--json").value()
    assert list(more["rows"]) == list(study["rows"])  # which the earlier call left there
    assert list(more["rows"]["average"]["trainings"]) == ["0", "3", "1"]
    assert more["rows"]["rank1"] == study["rows"]["rank1"]
    assert before.items() <= files(out / "runs").items()
    attnpool(*command).text()  # puts the table back


@pytest.mark.parametrize(
    ("more", "named"),
    [(("--epochs", 2), "epochs was 1, is 2"), (("--image-size", 64), "--image-size was 96, is 64")],
    ids=str,
)
def test_other_options_are_never_mixed_in(
    command: list[Any], study: dict[str, Any], more: tuple[Any, ...], named: str
) -> None:
    before = files(command[-1])
    refused(attnpool(*command, *more), command[-1], named, "another folder as out")
    assert files(command[-1]) == before


def test_a_process_that_is_stopped_goes_on_to_the_same_numbers(
    study: dict[str, Any], world: Path, tmp_path: Path
) -> None:
    again = words(f"folder:{world}", tmp_path / "again", ("average", "rank1"), (0, 3))
    process = Process(*again, folder=tmp_path / "output")
    process.until((tmp_path / "again" / "runs" / "rank1-0").exists)
    process.send(signal.SIGTERM)
    outcome = process.wait()
    assert outcome.code == 143, outcome
    assert len(outcome.messages) == 1, outcome.messages
    before = files(tmp_path / "again" / "runs" / "average-0")
    assert before
    half = json.loads((tmp_path / "again" / "poolings.json").read_text())
    assert half["complete"] is False
    assert "Not complete: the same command goes on." in (tmp_path / "again" / "poolings.md").read_text(encoding="utf-8")
    value = without_times(attnpool(*again, "--json").value())
    assert files(tmp_path / "again" / "runs" / "average-0") == before
    for name in ("average", "rank1"):
        assert value["rows"][name] == without_times(study)["rows"][name]


def test_a_damaged_file_is_made_again_from_the_runs(study: dict[str, Any], command: list[Any]) -> None:
    out = command[-1]
    before = files(out / "runs")
    (out / "poolings.json").write_text("{")
    value = attnpool(*command, "--json").value()
    assert without_times(value) == without_times(study)
    assert files(out / "runs") == before


@pytest.mark.parametrize("name", ["poolings.md", "poolings.json", "poolings.png"])
def test_files_of_the_user_are_left_alone(world: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"a": 1}')
    refused(
        attnpool(*words(f"folder:{world}", tmp_path, ("average",), (0,))),
        tmp_path,
        f"holds files that are not by attnpool ({name})",
    )
    assert files(tmp_path).keys() == {str(tmp_path / name)}
    assert (tmp_path / name).read_text() == '{"a": 1}'


# other data


def test_a_folder_without_boxes_or_joints(photos: Path, tmp_path: Path) -> None:
    value = attnpool(*words(f"folder:{photos}", tmp_path / "out", ("pose",), (0,)), "--json").value()
    assert value["rows"]["pose"]["trainings"]["0"]["pointing"] is None
    page = (tmp_path / "out" / "poolings.md").read_text(encoding="utf-8")
    assert "No keypoints are known in train: the pose head was trained without its pose loss." in page


def test_several_labels_an_image(tmp_path: Path) -> None:
    attnpool("playground", tmp_path / "hico", "--style", "hico", "--images", 28, "--size", 96).text()
    found = poolings(
        out=tmp_path / "out", data=f"hico:{tmp_path / 'hico'}", rows=["average"], seeds=[0], epochs=1, image_size=96,
        progress=False,
    )  # fmt: skip
    training = found.results["rows"]["average"]["trainings"]["0"]
    assert training["accuracy"] is None
    assert 0 < training["mAP"] <= 1
    assert 0 < training["calibration"] < 1
    assert str(found).endswith("poolings.png")


# what is drawn


def test_the_plot_has_a_row_for_each_pooling() -> None:
    heights = []
    for count in (2, 12):
        names = [f"row {n}" for n in range(count)]
        scores = {name: [60.0 + n, 61.0 + n] for n, name in enumerate(names)}
        image = Image.open(io.BytesIO(study_plot(scores, dict.fromkeys(names, 2.0))))
        heights.append(image.height)
    assert heights[1] - heights[0] == pytest.approx(10 * 0.32 * 160, abs=2)


def test_auto_alone_has_no_cost_to_draw() -> None:
    image = Image.open(io.BytesIO(study_plot({"auto": [60.0]}, {})))
    assert image.format == "PNG"


# mistakes


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--rows", "rank3"], ["poolings has no row 'rank3': use some of average, max"]),
        (["--seeds", 1, 1], ["seeds 1 1: give one or more different numbers"]),
        (["--seeds", -1], ["seed is -1; give 0 or more"]),
        (["--epochs", 0], ["epochs is 0; give at least 1"]),
        (["--images", 3], ["3"]),
        (["--images", 0], ["0"]),
        (["--images", 60, "--data", "folder:x"], ["images is the size of the playground", "leave one of them out"]),
        (["--data", "folder:nowhere"], ["nowhere"]),
        (["--scale", "small"], ["poolings has no --scale: leave it out"]),
        (["--mpii", "x"], ["poolings has no --mpii: leave it out"]),
        (["--weights", "vgg=a"], ["weights vgg=a: the backbone is lite0"]),
        (["--weights", "lite0=nowhere.pth"], ["nowhere.pth"]),
    ],
    ids=str,
)
def test_what_cannot_be_studied(tmp_path: Path, more: list[Any], expected: list[str]) -> None:
    refused(attnpool("reproduce", "poolings", *more, "--out", tmp_path / "out"), *expected)
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize("option", ["--data", "--images", "--backbone", "--epochs", "--image-size"])
def test_options_of_the_study_alone(tmp_path: Path, option: str) -> None:
    refused(attnpool("reproduce", "table1", "--scale", "small", option, 1, "--out", tmp_path / "out"), option)
    assert not (tmp_path / "out").exists()


def test_images_of_several_shapes(tmp_path: Path) -> None:
    """A training sees them whole; what a head costs is measured on a batch of one shape."""
    sizes = [(64, 64), (96, 64), (64, 128)]
    for number, (width, height) in enumerate(sizes * 6):
        file = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file)
    words = ["--rows", "average", "max", "--seeds", 0, "--epochs", 1, "--image-size", 64, "--out", tmp_path / "study"]
    found = attnpool("reproduce", "poolings", "--data", f"folder:{tmp_path / 'photos'}", *words, "--json").value()
    assert found["complete"]
    assert found["costs"]["max"]["cost"] > 0
