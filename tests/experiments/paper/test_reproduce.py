"""Tables from beginning to end, in their smallest form: worlds in the benchmarks' formats, real trainings."""

from __future__ import annotations

import json
import math
import shutil
import signal
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Process, attnpool, refused
from safetensors.torch import save_file
from scipy.io import loadmat

from attnpool.backbones.backbone import Backbone
from attnpool.data import read_splits
from attnpool.data.formats.mpii import annolist_ids
from attnpool.evaluation.evaluate import evaluate
from attnpool.experiments.paper.reproduce import jobs_of, reproduce
from attnpool.experiments.paper.tables import TABLES, plan
from attnpool.files import MARK_FILE
from attnpool.models.run import Run
from attnpool.training.config import Options
from attnpool.training.recipe import RECIPES, fit, read_recipe

SCORES = {"mAP", "mAP_voc07", "mAP_sklearn", "accuracy", "known_object", "pointing", "skipped"}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Worlds in the three formats. Not to be changed."""
    folder = tmp_path_factory.mktemp("worlds")
    for style, count, more in (
        ("mpii", 42, ("--size", 96)), ("hico", 28, ("--size", 96)), ("hmdb51", 28, ("--frames", 4)),
    ):  # fmt: skip
        attnpool("playground", folder / style, "--style", style, "--images", count, *more).text()
    return {name: folder / name for name in ("mpii", "hico", "hmdb51")}


def words(table: str, root: Path, out: Path, rows: tuple[str, ...], seeds: tuple[int, ...]) -> list[Any]:
    data = f"--{TABLES[table].data}"
    return ["reproduce", table, "--scale", "small", data, root, "--rows", *rows, "--seeds", *seeds, "--out", out]


@pytest.fixture(scope="module")
def command(roots: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    out = tmp_path_factory.mktemp("reproduce") / "table1"
    return words("table1", roots["mpii"], out, ("resnet101-attention", "resnet101", "bn-inception"), (0, 3))


@pytest.fixture(scope="module")
def table1(command: list[Any]) -> dict[str, Any]:
    """What the command prints."""
    return attnpool(*command, "--json").value()


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# tables


def test_table1(command: list[Any], table1: dict[str, Any], roots: dict[str, Path]) -> None:
    out = command[-1]
    assert json.loads((out / "table1.json").read_text()) == table1
    assert [row["row"] for row in table1["rows"]] == ["resnet101", "resnet101-attention"]  # in the paper's order
    assert [row["paper"] for row in table1["rows"]] == [{"val": 26.2}, {"val": 30.3}]
    assert (table1["table"], table1["scale"], table1["seeds"], table1["complete"]) == ("table1", "small", [0, 3], True)
    assert (table1["data"], table1["metric"]) == (str(roots["mpii"]), "mAP")
    assert list(table1["skipped"]) == ["bn-inception"]
    val = read_splits(f"mpii:{roots['mpii']}")["val"]
    for row in table1["rows"]:
        assert [training["seed"] for training in row["trainings"]] == [0, 3]
        for training in row["trainings"]:
            assert set(training) == {"seed", "split", "run", "train_loss", "train", "similarity"} | SCORES
            assert set(training["train"]) == SCORES
            assert training["skipped"] == 0
            assert 0 <= training["mAP"] <= 1
            assert training["pointing"] is not None  # of MPII-style worlds it is known where the evidence is
        assert row["trainings"][0]["similarity"] == row["trainings"][1]["similarity"]  # of the same frozen features
    training = table1["rows"][1]["trainings"][1]
    run = Run.load(training["run"])
    assert run.about["recipe"]["seed"] == 3
    assert (run.model.pooling, run.model.backbone.name) == ("attentional", "lite0")
    assert training["train_loss"] == run.about["results"]["history"][-1]["loss"]
    assert training["mAP"] == pytest.approx(evaluate(run, val).scores.mAP)


def test_the_page_has_means_and_spreads(command: list[Any], table1: dict[str, Any]) -> None:
    page = (command[-1] / "table1.md").read_text(encoding="utf-8")
    assert page.startswith("# Table 1: MPII, and the paper's ablations\n")
    means = []
    for row in table1["rows"]:
        values = [100 * training["mAP"] for training in row["trainings"]]
        means.append(statistics.mean(values))
        assert f"| {row['title']} | {row['paper']['val']} | {means[-1]:.1f} ± {statistics.stdev(values):.1f} |" in page
    assert f": {'+' if means[1] >= means[0] else ''}{means[1] - means[0]:.1f} ± " in page
    assert "Row bn-inception is not here: its backbone's weights are in no package" in page
    assert "Not complete" not in page


def test_the_second_call_does_nothing_again(command: list[Any], table1: dict[str, Any]) -> None:
    out = command[-1]
    before = files(out / "runs")
    text = attnpool(*command).text()
    assert files(out / "runs") == before
    assert json.loads((out / "table1.json").read_text()) == table1
    assert text.startswith("Table 1: MPII")
    assert str(out / "table1.md") in text


def test_rows_and_seeds_are_added(command: list[Any], table1: dict[str, Any], roots: dict[str, Path]) -> None:
    out = command[-1]
    before = files(out / "runs")
    more = words("table1", roots["mpii"], out, ("resnet101",), (3, 0, 1))
    value = attnpool(*more, "--json").value()
    row, other = value["rows"]
    assert [training["seed"] for training in row["trainings"]] == [3, 0, 1]
    assert other["row"] == "resnet101-attention"  # which the earlier call left there
    assert [training["seed"] for training in other["trainings"]] == [3, 0]
    assert row["trainings"][1::-1] == table1["rows"][0]["trainings"]
    assert before.items() <= files(out / "runs").items()
    attnpool(*command).text()  # puts the files of the table back


def test_numbers_of_other_data_or_options_are_never_mixed_in(
    command: list[Any], table1: dict[str, Any], roots: dict[str, Path], tmp_path: Path
) -> None:
    out = command[-1]
    before = files(out)
    shutil.copytree(roots["mpii"], tmp_path / "mpii")
    other = words("table1", tmp_path / "mpii", out, ("resnet101",), (0,))
    refused(attnpool(*other), out / "runs" / "resnet101-0", f"data was mpii:{roots['mpii']}", "another folder as out")
    large = ["full" if word == "small" else word for word in command]
    refused(
        attnpool(*large, "--rows", "resnet101"), out / "runs" / "resnet101-0", "other options", "another folder as out"
    )
    assert files(out) == before
    shutil.copytree(out / "runs" / "resnet101-0", tmp_path / "out" / "runs" / "resnet101-0")
    shutil.copy(out / MARK_FILE, tmp_path / "out")
    more = words("table1", tmp_path / "mpii", tmp_path / "out", ("rank2",), (0,))
    assert [row["row"] for row in attnpool(*more, "--json").value()["rows"]] == ["rank2"]


def test_a_row_for_mpiis_server(roots: dict[str, Path], tmp_path: Path) -> None:
    root = roots["mpii"]
    command = words("table1", root, tmp_path, ("resnet101-attention-test",), (5, 6))
    value = attnpool(*command, "--json").value()
    (row,) = value["rows"]
    (training,) = row["trainings"]  # one seed is enough for a file
    assert training["seed"] == 5
    assert set(training) == {"seed", "split", "run", "train_loss", "submission"}
    file = loadmat(training["submission"])
    splits = read_splits(f"mpii:{root}")
    numbers = annolist_ids(root)
    assert sorted(file["sample_ids"].ravel()) == sorted(numbers[sample.path] for sample in splits["test"])
    assert [str(cell[0]) for cell in file["class_ids"].ravel()] == list(splits["train"].classes)
    assert file["scores"].shape == (len(splits["test"]), len(splits["train"].classes))
    assert np.isfinite(file["scores"]).all()
    trained = Run.load(training["run"]).about["split"]
    assert set(trained["train"]) == {sample.path for name in ("train", "val") for sample in splits[name]}
    assert f"For MPII's server (labels of the test part are not public): {training['submission']}" in (
        tmp_path / "table1.md"
    ).read_text(encoding="utf-8")
    assert training["submission"] in attnpool(*command).text()


def test_table2(roots: dict[str, Path], tmp_path: Path) -> None:
    command = words("table2", roots["hico"], tmp_path, ("cbp", "attention"), (4,))
    value = attnpool(*command, "--json").value()
    assert value["metric"] == "mAP_voc07"
    assert [(row["row"], row["paper"]) for row in value["rows"]] == [
        ("cbp", {"test": 26.8}),
        ("attention", {"test": 35.0}),
    ]
    for row in value["rows"]:
        (training,) = row["trainings"]
        assert training["accuracy"] is None  # there are several labels
        assert 0 <= training["known_object"] <= 1
    run = Run.load(value["rows"][0]["trainings"][0]["run"])
    assert (run.model.pooling, run.about["model"]["pooling_options"]["dim"]) == ("compact_bilinear", 2048)
    assert run.about["recipe"]["loss"] == "random_positive"
    found = evaluate(run, read_splits(f"hico:{roots['hico']}")["val"])
    assert value["rows"][0]["trainings"][0]["mAP_voc07"] == pytest.approx(found.scores.mAP_voc07)
    page = (tmp_path / "table2.md").read_text(encoding="utf-8")
    assert "| row | paper, test | mAP (11 points) | Known-Object |" in page
    assert "| ResNet101 with CBP | 26.8 | " in page


def test_table3(roots: dict[str, Path], tmp_path: Path) -> None:
    command = words("table3", roots["hmdb51"], tmp_path, ("attention-224",), (0,))
    value = attnpool(*command, "--json").value()
    assert value["metric"] == "accuracy"
    (row,) = value["rows"]
    assert [training["split"] for training in row["trainings"]] == ["split1", "split2", "split3"]
    for number, training in enumerate(row["trainings"], 1):
        run = Run.load(training["run"])
        dataset = read_splits(f"hmdb51{'' if number == 1 else f'-{number}'}:{roots['hmdb51']}")["train"]
        assert run.about["split"]["train"] == [sample.path for sample in dataset]
        assert run.model.preprocessing["image_size"] == 224
    accuracies = [100 * training["accuracy"] for training in row["trainings"]]
    cells = " | ".join(f"{number:.1f}" for number in (*accuracies, statistics.mean(accuracies)))
    page = (tmp_path / "table3.md").read_text(encoding="utf-8")
    assert (
        "| row | paper, split1 | paper, split2 | paper, split3 | paper, mean | split1 | split2 | split3 | mean |"
        in page
    )
    assert f"| Linear Attn. Pooling, 224 px | - | - | - | - | {cells} |" in page


def test_weights_from_a_file(command: list[Any], table1: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "lite0.safetensors"
    save_file(Backbone("lite0").net.state_dict(), file)
    for recipe in plan("table1", ["bn-inception", "resnet101"], "full")[0]:
        (job,) = jobs_of(recipe, "mpii", tmp_path, [0], "full", 0, {"bn_inception": file})
        assert job.options.model["weights"] == (str(file) if recipe.name == "bn-inception" else "pretrained")
    # the numbers may be others: what was trained from other weights is not taken for it
    refused(
        attnpool(*command, "--weights", f"lite0={file}"), f"weights was pretrained, is {file}", "another folder as out"
    )


@pytest.mark.parametrize(("table", "row"), [("table1", "resnet101-pose"), ("table2", "cbp"), ("table3", "pose-224")])
def test_recipes_at_full_scale_train_the_whole_network(
    table: str, row: str, roots: dict[str, Path], tmp_path: Path
) -> None:
    """The full recipe but for a small network, small images and one epoch."""
    options = Options.of(read_recipe(RECIPES / table / f"{row}.yaml").options)
    less = {"backbone": "test_resnet", "weights": "random", "epochs": 1, "batch_size": 4, "accumulate": 2, "frames": 2}
    options = options.change(less | {"image_size": 64, "short_side": 68})
    splits = read_splits(f"{TABLES[table].data}:{roots[TABLES[table].data]}")
    run = fit(options, (splits["train"], splits["val"]), tmp_path / "run", progress=False)
    (epoch,) = run.about["results"]["history"]
    assert math.isfinite(epoch["loss"])
    assert not run.model.backbone.frozen
    before = Backbone("test_resnet", "random", seed=0).net.state_dict()
    after = run.model.backbone.net.state_dict()
    assert all(not before[name].equal(after[name]) for name in before if before[name].ndim == 4)
    recipe = run.about["recipe"]
    assert (recipe["optimizer"], recipe["lr"], recipe["schedule"], recipe["warmup"]) == ("sgd", 1e-3, "step", 0.0)


# interruptions


def test_a_process_that_is_stopped_goes_on_to_the_same_table(
    command: list[Any], table1: dict[str, Any], tmp_path: Path
) -> None:
    again = [*command[:-1], tmp_path / "again"]
    second = tmp_path / "again" / "runs" / "resnet101-3"
    process = Process(*again, folder=tmp_path / "output")
    process.until(second.exists)
    process.send(signal.SIGTERM)
    outcome = process.wait()
    assert outcome.code == 143, outcome
    assert len(outcome.messages) == 1, outcome.messages
    before = files(tmp_path / "again" / "runs" / "resnet101-0")
    half = json.loads((tmp_path / "again" / "table1.json").read_text())
    assert half["complete"] is False
    assert "Not complete: the same command goes on." in (tmp_path / "again" / "table1.md").read_text(encoding="utf-8")
    assert [training["seed"] for training in half["rows"][0]["trainings"]] == [0]
    value = attnpool(*again, "--json").value()
    assert files(tmp_path / "again" / "runs" / "resnet101-0") == before
    assert without_folders(value) == without_folders(table1)


def without_folders(results: dict[str, Any]) -> dict[str, Any]:
    """Results without the folders of their runs."""
    rows = [
        row | {"trainings": [training | {"run": Path(training["run"]).name} for training in row["trainings"]]}
        for row in results["rows"]
    ]
    return results | {"rows": rows}


def test_scores_that_are_damaged_are_made_again(
    command: list[Any], table1: dict[str, Any], tmp_path: Path, roots: dict[str, Path]
) -> None:
    shutil.copytree(command[-1] / "runs" / "resnet101-0", tmp_path / "runs" / "resnet101-0")
    shutil.copy(command[-1] / MARK_FILE, tmp_path)
    for text in ("{", "[]", "{}", None):
        file = tmp_path / "runs" / "resnet101-0" / "scores.json"
        file.unlink() if text is None else file.write_text(text)
        value = attnpool(*words("table1", roots["mpii"], tmp_path, ("resnet101",), (0,)), "--json").value()
        (training,) = value["rows"][0]["trainings"]
        assert training | {"run": ""} == table1["rows"][0]["trainings"][0] | {"run": ""}


def test_a_hidden_bar_changes_nothing(command: list[Any], table1: dict[str, Any], roots: dict[str, Path]) -> None:
    rows = ["resnet101", "resnet101-attention", "bn-inception"]
    found = reproduce(
        "table1", out=command[-1], mpii=roots["mpii"], rows=rows, seeds=[0, 3], scale="small", progress=False
    )
    assert found.results == table1
    assert str(found).endswith("table1.md")


# mistakes


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["table9"], ["table9", "table1", "table2", "table3"]),
        (["table1", "--scale", "tiny"], ["tiny", "full", "small"]),
        (["table1"], ["table1 at full scale needs data: give mpii, the root of its files, or use scale small"]),
        (["table3", "--seeds", 1], ["give hmdb51, the root"]),
        (["table1", "--hico", "x"], ["table1 is about mpii; give mpii, the root of its files, and not hico"]),
        (
            ["table2", "--hico", "x", "--mpii", "x"],
            ["give hico, the root of its files, and not mpii"],
        ),
        (["table2", "--scale", "small", "--hmdb51", "x"], ["give hico, the root of its files, and not hmdb51"]),
        (["table2", "--hico", "nowhere"], ["nowhere"]),
        (["table2", "--scale", "small", "--rows", "rank2"], ["table2 has no row 'rank2': use some of resnet101, cbp"]),
        (["table1", "--scale", "small", "--rows", "bn-inception"], ["none of these rows", "use scale full"]),
        (["table1", "--scale", "small", "--seeds", 1, 1], ["seeds 1 1: give one or more different numbers"]),
        (["table1", "--scale", "small", "--seeds", -1], ["seed is -1; give 0 or more"]),
        (["table1", "--scale", "small", "--workers", -1], ["workers is -1; give 0 or more"]),
        (["table1", "--scale", "small", "--seeds"], ["--seeds"]),
        (["table1", "--mpii", "x", "--weights", "a"], ["weights a: write BACKBONE=FILE, such as bn_inception="]),
        (["table1", "--mpii", "x", "--weights", "=a"], ["weights =a: write BACKBONE=FILE"]),
        (["table1", "--mpii", "x", "--weights", "bn_inception=a"], ["weights bn_inception=a: there is no such file"]),
        (
            ["table1", "--mpii", "x", "--weights", "vgg=a"],
            ["has the backbone vgg, but bn_inception, resnet101.tv_in1k"],
        ),
        (["table2", "--scale", "small", "--weights", "vgg=a"], ["none of the rows has the backbone vgg, but lite0"]),
        ([], ["table"]),
    ],
    ids=str,
)
def test_what_cannot_be_run(tmp_path: Path, more: list[Any], expected: list[str]) -> None:
    refused(attnpool("reproduce", *more, "--out", tmp_path / "out"), *expected)
    assert not (tmp_path / "out").exists()


def test_no_seeds(tmp_path: Path) -> None:
    for changes in ({"seeds": []}, {"scale": "tiny"}, {"table": "table4"}):
        arguments: dict[str, Any] = {"table": "table1", "scale": "small"} | changes
        with pytest.raises(ValueError):
            reproduce(out=tmp_path / "out", progress=False, **arguments)
    assert not (tmp_path / "out").exists()


def test_a_fault_of_the_data_shows_before_the_first_training(tmp_path: Path, roots: dict[str, Path]) -> None:
    shutil.copytree(roots["hmdb51"], tmp_path / "hmdb51")
    for file in (tmp_path / "hmdb51").rglob("*_test_split3.txt"):
        file.unlink()
    refused(attnpool(*words("table3", tmp_path / "hmdb51", tmp_path / "out", ("resnet101",), (0,))), "split3")
    shutil.copytree(roots["mpii"], tmp_path / "mpii")
    for file in (tmp_path / "mpii").rglob("*test*.txt"):
        file.unlink()
    rows = ("resnet101", "resnet101-pose-test")
    refused(
        attnpool(*words("table1", tmp_path / "mpii", tmp_path / "out", rows, (0,))),
        "has no list of its test part, which resnet101-pose-test is for; add it, or name other rows",
    )
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_a_file(tmp_path: Path, roots: dict[str, Path]) -> None:
    (tmp_path / "out").write_text("x")
    refused(attnpool(*words("table1", roots["mpii"], tmp_path / "out", ("resnet101",), (0,))), tmp_path / "out")
    refused(attnpool("reproduce", "table1", "--scale", "small", "--out", tmp_path / "out"), tmp_path / "out")
