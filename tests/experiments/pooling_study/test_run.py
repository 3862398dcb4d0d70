"""The study of poolings in its smallest form, from end to end: rates chosen on a part of train, real trainings."""

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
from sklearn.metrics import log_loss

from attnpool.data import hold_out, read
from attnpool.evaluation.evaluate import evaluate
from attnpool.evaluation.predict import predict
from attnpool.experiments.pooling_study import ROWS, poolings
from attnpool.experiments.pooling_study.rows import next_rate
from attnpool.explain.plots import study_plot
from attnpool.models.run import Run
from attnpool.training.config import Options
from attnpool.training.recipe import fit

SMALL = ("--image-size", "96", "--epochs", "1")


def words(source: str, out: Path, rows: tuple[str, ...], seeds: tuple[int, ...]) -> list[Any]:
    return ["reproduce", "poolings", "--data", source, *SMALL, "--rows", *rows, "--seeds", *seeds, "--out", out]


@pytest.fixture(scope="module")
def command(world: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    out = tmp_path_factory.mktemp("study") / "poolings"
    return words(f"folder:{world}", out, ("rank1", "average"), (0, 3))


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
        trainings = {s: t | {"seconds": 0, "run": Path(t["run"]).name} for s, t in entry["trainings"].items()}
        rows[name] = entry | {"trainings": trainings}
    return results | {"rows": rows, "costs": list(results["costs"])}


# what is found


def test_rows(command: list[Any], study: dict[str, Any], world: Path) -> None:
    out = command[-1]
    assert json.loads((out / "poolings.json").read_text()) == study
    assert list(study["rows"]) == ["average, 0", "average, 0.8", "rank1, 0", "rank1, 0.8"]
    assert (study["seeds"], study["complete"], study["keypoints"], study["classes"]) == ([0, 3], True, True, 14)
    train, val = read(f"folder:{world}")
    assert study["images"] == {"train": len(train), "held out": len(study["held out"]), "val": len(val)}
    for entry in study["rows"].values():
        tried = {float(rate): score for rate, score in entry["tried"].items()}
        assert set(tried) >= set(ROWS[entry["row"]].rates)
        assert tried[entry["lr"]] == max(tried.values())
        assert next_rate(entry["grid"], tried) is None
        assert entry["parameters"] == {"average": 1280 * 14 + 14, "rank1": 1280 * 14 + 14 + 1281}[entry["row"]]
        for seed, training in entry["trainings"].items():
            run = Run.load(training["run"])
            recipe, head = run.about["recipe"], run.about["model"]["pooling_options"]
            assert (recipe["seed"], recipe["lr"], recipe["epochs"]) == (int(seed), entry["lr"], 1)
            assert head["dropout"] == (0.8 if entry["dropout"] else 0)
            assert run.about["split"]["train"] == [sample.path for sample in train]
            found = evaluate(run, val)
            expected = found.scores.mAP, found.scores.accuracy, found.pointing
            assert (training["mAP"], training["accuracy"], training["pointing"]) == pytest.approx(expected)
    assert study["costs"]["average"]["cost"] == 1
    assert study["costs"]["rank1"]["cost"] > 0


def test_the_loss_is_that_of_the_trained_head_without_dropout(study: dict[str, Any], world: Path) -> None:
    train, _ = read(f"folder:{world}")
    for name in ("average, 0.8", "rank1, 0"):
        training = study["rows"][name]["trainings"]["3"]
        run = Run.load(training["run"])
        found = predict(run.model, [train.file(sample) for sample in train], top=14)
        given = np.array([[dict(each.scores)[c] for c in train.classes] for each in found])
        labels = [sample.labels[0] for sample in train]
        expected = log_loss(labels, given, labels=range(14))
        assert training["train_loss"] == pytest.approx(expected, rel=1e-2)  # kept features are of half precision


def test_rates_are_chosen_on_a_part_of_train(study: dict[str, Any], world: Path, tmp_path: Path) -> None:
    train, val = read(f"folder:{world}")
    held = set(study["held out"])
    assert held < {sample.path for sample in train}
    assert not held & {sample.path for sample in val}
    parts = hold_out(train, 0.2)
    assert {sample.path for sample in parts[1]} == held
    options = Options.of({"epochs": 1, "image_size": 96, "lr": 0.003, "seed": 10, "dropout": 0.8})
    run = fit(options, parts, tmp_path / "run", progress=False)
    assert not held & set(run.about["split"]["train"])
    assert study["rows"]["rank1, 0.8"]["tried"]["0.003"] == evaluate(run, parts[1]).scores.mAP


def test_the_page_has_means_and_spreads(command: list[Any], study: dict[str, Any]) -> None:
    page = (command[-1] / "poolings.md").read_text(encoding="utf-8")
    means = {}
    for name, entry in study["rows"].items():
        values = [100 * training["mAP"] for training in entry["trainings"].values()]
        means[name] = statistics.mean(values)
        cells = f"{entry['title']} | {entry['dropout']:g} | {entry['lr']:g} | {means[name]:.1f} ± "
        assert f"| {cells}{statistics.stdev(values):.1f} |" in page
        assert f"- {entry['title']}, dropout {entry['dropout']:g}: {min(map(float, entry['tried'])):g}: " in page
    gain = means["rank1, 0.8"] - means["average, 0.8"]
    assert f"- Attention, rank 1, dropout 0.8: {'+' if gain >= 0 else ''}{gain:.1f} ± " in page
    assert "Not complete" not in page
    with Image.open(command[-1] / "poolings.png") as image:
        assert image.format == "PNG"


# interruptions and second calls


def test_the_second_call_does_nothing_again(command: list[Any], study: dict[str, Any]) -> None:
    out = command[-1]
    before = files(out / "runs")
    assert {Path(path).parent.name for path in before if path.endswith("run.json")} == {
        f"{row}-dropout-{dropout}-{seed}" for row in ("average", "rank1") for dropout in ("0", "0.8") for seed in (0, 3)
    }  # the runs that rates were chosen with are not kept
    text = attnpool(*command).text()
    assert files(out / "runs") == before
    assert json.loads((out / "poolings.json").read_text()) == study
    assert str(out / "poolings.md") in text


def test_rows_and_seeds_are_added(command: list[Any], study: dict[str, Any], world: Path) -> None:
    out = command[-1]
    before = files(out / "runs")
    more = attnpool(*words(f"folder:{world}", out, ("average",), (0, 1)), "--json").value()
    assert list(more["rows"]) == list(study["rows"])  # which the earlier call left there
    assert list(more["rows"]["average, 0"]["trainings"]) == ["0", "3", "1"]
    assert more["rows"]["average, 0"]["tried"] == study["rows"]["average, 0"]["tried"]
    assert more["rows"]["rank1, 0"] == study["rows"]["rank1, 0"]
    assert before.items() <= files(out / "runs").items()
    attnpool(*command).text()  # puts the table back


@pytest.mark.parametrize(
    ("more", "named"),
    [(("--epochs", 2), "epochs was 1, is 2"), (("--image-size", 64), "image_size was 96, is 64")],
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
    again = words(f"folder:{world}", tmp_path / "again", ("average",), (0, 3))
    process = Process(*again, folder=tmp_path / "output")
    process.until((tmp_path / "again" / "runs" / "average-dropout-0.8-10-rate-0.01").exists)
    process.send(signal.SIGTERM)
    outcome = process.wait()
    assert outcome.code == 143, outcome
    assert len(outcome.messages) == 1, outcome.messages
    before = files(tmp_path / "again" / "runs" / "average-dropout-0-3")
    assert before
    half = json.loads((tmp_path / "again" / "poolings.json").read_text())
    assert half["complete"] is False
    assert "Not complete: the same command goes on." in (tmp_path / "again" / "poolings.md").read_text(encoding="utf-8")
    value = without_times(attnpool(*again, "--json").value())
    assert files(tmp_path / "again" / "runs" / "average-dropout-0-3") == before
    for name in ("average, 0", "average, 0.8"):
        assert value["rows"][name] == without_times(study)["rows"][name]


def test_a_damaged_file_is_made_again_from_the_runs(study: dict[str, Any], command: list[Any]) -> None:
    out = command[-1]
    before = files(out / "runs")
    (out / "poolings.json").write_text("{")
    value = attnpool(*command, "--json").value()
    assert without_times(value) == without_times(study)
    assert files(out / "runs") == before


# other data


def test_a_folder_without_boxes_or_joints(photos: Path, tmp_path: Path) -> None:
    value = attnpool(*words(f"folder:{photos}", tmp_path / "out", ("average",), (0,)), "--json").value()
    assert value["rows"]["average, 0"]["trainings"]["0"]["pointing"] is None
    page = (tmp_path / "out" / "poolings.md").read_text(encoding="utf-8")
    assert "No keypoints are known in train: the pose head was trained without its pose loss." in page


def test_several_labels_an_image(tmp_path: Path) -> None:
    attnpool("playground", tmp_path / "hico", "--style", "hico", "--images", 28, "--size", 96).text()
    found = poolings(
        out=tmp_path / "out", data=f"hico:{tmp_path / 'hico'}", rows=["average"], seeds=[0], epochs=1, image_size=96,
        progress=False,
    )  # fmt: skip
    training = found.results["rows"]["average, 0"]["trainings"]["0"]
    assert training["accuracy"] is None
    assert 0 < training["mAP"] <= 1
    assert str(found).endswith("poolings.png")


# what is drawn


def test_the_plot_has_a_row_for_each_pooling() -> None:
    heights = []
    for count in (2, 12):
        names = [f"row {n}" for n in range(count)]
        scores = {"dropout 0": {name: [60.0 + n, 61.0 + n] for n, name in enumerate(names)}}
        image = Image.open(io.BytesIO(study_plot(scores, dict.fromkeys(names, 2.0))))
        heights.append(image.height)
    assert heights[1] - heights[0] == pytest.approx(10 * 0.32 * 160, abs=2)


# mistakes


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--rows", "rank3"], ["poolings has no row 'rank3': use some of average, max"]),
        (["--seeds", 1, 1], ["seeds 1 1: give one or more different numbers"]),
        (["--seeds", -1], ["seed is -1; give 0 or more"]),
        (["--epochs", 0], ["epochs is 0; give at least 1"]),
        (["--images", 3], ["3"]),
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
