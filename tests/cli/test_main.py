"""The command line: what it prints where, its exit codes, bad input, signals, a full disk."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Outcome, Process, attnpool, failed, refused, small_disk
from PIL import Image
from safetensors.torch import load_file, save_file

from attnpool.backbones import weights
from attnpool.cli.flags import in_flags


def real(*arguments: Any) -> Outcome:
    """A process as a shell starts it."""
    words = [sys.executable, "-m", "attnpool", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True)
    return Outcome(done.returncode, done.stdout, done.stderr)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def an_image(world: Path) -> Path:
    return min((world / "val").rglob("*.jpg"))


# what is printed


def test_a_process_prints_one_json_value(run: Path, world: Path) -> None:
    value = real("predict", run, an_image(world), "--top", 14, "--json").value()
    assert [entry["file"] for entry in value] == [str(an_image(world))]
    assert all(set(entry) == {"label", "score"} for entry in value[0]["predictions"])
    assert sum(entry["score"] for entry in value[0]["predictions"]) == pytest.approx(1)


def test_a_process_that_is_misused() -> None:
    refused(real("sing"), "sing", "train", "--help")


@pytest.mark.parametrize("words", [(), ("train",), ("predict", "run"), ("playground", "x", "--images", "many")])
def test_missing_and_wrong_arguments(words: tuple[str, ...]) -> None:
    refused(attnpool(*words), "--help")


@pytest.mark.parametrize(
    "verb", ["quickstart", "playground", "check", "train", "evaluate", "predict", "explain", "benchmark"], ids=str
)
def test_help_has_an_example(verb: str) -> None:
    outcome = attnpool(verb, "--help")
    assert outcome.code == 0
    assert f"example:\n  attnpool {verb}" in outcome.out
    assert "--json" in outcome.out


def test_playground(tmp_path: Path, world: Path) -> None:
    value = attnpool("playground", tmp_path / "a", "--images", 28, "--size", 64, "--seed", 3, "--json").value()
    assert value == {"directory": str(tmp_path / "a"), "style": "folder", "images": 28, "seed": 3, "size": 64}
    assert len(list((tmp_path / "a").rglob("*.jpg"))) == 28
    text = attnpool("playground", world, "--images", 42, "--seed", 1, "--size", 96).text()  # there already
    assert f"attnpool train folder:{world}" in text


@pytest.mark.parametrize(("style", "count"), [("mpii", 42), ("hico", 28), ("hmdb51", 28)])
def test_playground_in_a_format_of_a_benchmark(tmp_path: Path, style: str, count: int) -> None:
    more = ("--frames", 2) if style == "hmdb51" else ("--size", 64)
    words = ("playground", tmp_path / "a", "--style", style, "--images", count, *more)
    value = attnpool(*words, "--json").value()
    unit = "clips" if style == "hmdb51" else "images"
    assert value == {"directory": str(tmp_path / "a"), "style": style, unit: count, "seed": 0, more[0][2:]: more[1]}
    assert f"{count} {unit}; next: attnpool train {style}:{tmp_path / 'a'}" in attnpool(*words).text()
    attnpool("check", f"{style}:{tmp_path / 'a'}").text()
    refused(attnpool(*words[:4], "--images", 5, *more), f"5 {unit} are too few", "or more")


def test_check(world: Path, photos: Path) -> None:
    value = attnpool("check", f"folder:{world}", "--json").value()
    assert sum(value["images"]["val"].values()) == 14
    assert value["unusable"] == []
    (photos / "calling/0.jpg").write_bytes(b"nothing")
    assert "11 of 12 images can be used" in attnpool("check", f"folder:{photos}").text()


def test_train_says_how_it_went(command: list[str], run: Path) -> None:
    before = files(run)
    value = attnpool(*command, "--json").value()  # finished already: says so again
    assert (value["run"], value["epochs"], value["skipped"]) == (str(run), 4, [])
    assert 0 <= value["mAP"] <= 1
    assert value["loss"] > 0
    text = attnpool(*command).text()
    assert f"next: attnpool evaluate {run}" in text
    assert "none missing" in text  # of the backbone's weights
    assert files(run) == before


def test_evaluate(run: Path, world: Path, tmp_path: Path) -> None:
    plot = tmp_path / "made" / "plot.png"
    value = attnpool("evaluate", run, f"folder:{world}", "--json", "--plot", plot).value()
    assert {"mAP", "mAP_voc07", "mAP_sklearn", "accuracy", "per_class", "images", "skipped", "pointing"} <= set(value)
    assert (value["images"], value["skipped"], value["plot"]) == (14, [], str(plot))
    assert len(value["per_class"]) == 14
    Image.open(plot).load()
    text = attnpool("evaluate", run, f"folder:{world}", "--split", "all", "--best", "--plot", plot).text()
    assert "42 images" in text
    assert "calling with a phone" in text


def test_predict_and_explain_print_text(run: Path, world: Path, tmp_path: Path) -> None:
    text = attnpool("predict", run, an_image(world), "--top", 2).text()
    assert text.count(" %  ") == 2
    text = attnpool("explain", run, an_image(world), "--out", tmp_path / "e").text()
    assert text.startswith(f"{tmp_path / 'e'}/")
    value = attnpool("explain", run, an_image(world).parent, "--out", tmp_path / "e", "--json").value()
    assert [Path(item["panel"]).exists() for item in value] == [True]


# bad input


def test_datasets_that_cannot_be_used(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "out"

    def train(source: str, *more: Any) -> Outcome:
        return attnpool("train", source, "--out", out, "--image-size", 64, *more)

    (tmp_path / "empty").mkdir()
    refused(train(f"folder:{tmp_path / 'empty'}"), tmp_path / "empty", "no images", "put the images in")
    refused(train(f"folder:{tmp_path / 'missing'}"), tmp_path / "missing", "does not exist", "give a directory")
    refused(train(str(photos)), photos, "write folder:")
    refused(attnpool("check", f"folder:{tmp_path / 'empty'}"), "no images")
    shutil.copytree(photos / "calling", tmp_path / "single" / "calling")
    refused(train(f"folder:{tmp_path / 'single'}"), "a single class, 'calling'", "add a folder")
    for image in photos.rglob("*.jpg"):
        image.write_bytes(image.read_bytes()[:100])
    refused(train(f"folder:{photos}"), photos, "none of its 12 images can be read", "attnpool check")
    assert not out.exists()


def test_a_truncated_image_is_skipped_and_reported(tmp_path: Path, photos: Path) -> None:
    for name in ("calling/0.jpg", "calling/1.jpg", "drinking/0.jpg"):
        (photos / name).write_bytes((photos / name).read_bytes()[:300])
    broken = {"calling/0.jpg", "calling/1.jpg", "drinking/0.jpg"}
    words = ["train", f"folder:{photos}", "--out", tmp_path / "r", "--image-size", 64, "--epochs", 2]
    value = attnpool(*words, "--json").value()
    assert {item["file"] for item in value["skipped"]} == broken
    assert all(item["reason"] for item in value["skipped"])
    value = attnpool("evaluate", tmp_path / "r", f"folder:{photos}", "--split", "all", "--json").value()
    assert {item["file"] for item in value["skipped"]} == broken
    assert value["images"] == 9
    text = attnpool("evaluate", tmp_path / "r", f"folder:{photos}", "--split", "all", "--no-use-cache").text()
    assert "9 images, 3 skipped" in text
    assert "skipped calling/0.jpg: " in text


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--pooling", "magic"], ["invalid choice: 'magic'", "average", "attentional"]),
        (["--pooling", "average", "--rank", "2"], ["average", "rank", "attentional"]),
        (["--pooling", "pose", "--per-class"], ["pose", "--per-class", "attentional"]),
        (["--rank", "0"], ["rank"]),
        (["--activation", "tanh"], ["tanh", "relu"]),
        (["--backbone", "resnet18b"], ["unknown backbone 'resnet18b'", "lite0"]),
        (["--weights", "nowhere.pth"], ["nowhere.pth", "no such weights file"]),
        (["--epochs", "0"], ["epochs is 0", "at least 1"]),
        (["--lr", "nan"], ["lr is nan"]),
        (["--dropout", "1.5"], ["dropout"]),
        (["--image-size", "0"], ["--image-size is 0"]),
        (["--short-side", "10"], ["--short-side 10"]),
        (["--precision", "fp64"], ["fp64", "bf16"]),
        (["--split-seed", "x"], ["split-seed"]),
    ],
    ids=lambda value: " ".join(value[:2]),
)
def test_options_that_cannot_be_used(tmp_path: Path, photos: Path, more: list[str], words: list[str]) -> None:
    refused(attnpool("train", f"folder:{photos}", "--out", tmp_path / "out", *more), *words)
    assert not (tmp_path / "out").exists()


def test_weights_that_do_not_fit(tmp_path: Path, photos: Path, run: Path) -> None:
    tensors = load_file(run / "model.safetensors")
    del tensors["backbone.net.conv_stem.weight"]
    save_file(tensors, tmp_path / "w.safetensors")
    (tmp_path / "w.pth").write_bytes(b"no weights at all")
    for name, words in (("w.safetensors", "does not fit"), ("w.pth", "cannot be read as weights")):
        out = attnpool("train", f"folder:{photos}", "--out", tmp_path / "out", "--weights", tmp_path / name)
        refused(out, tmp_path / name, words)
    assert not (tmp_path / "out").exists()


def test_no_network(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "reachable", lambda host: False)
    monkeypatch.setattr(weights, "cached_file", lambda repository: None)
    outcome = attnpool("train", f"folder:{photos}", "--out", tmp_path / "out", "--backbone", "resnet18")
    refused(outcome, "resnet18", "cannot be reached", "lite0", "random")
    assert not (tmp_path / "out").exists()


def test_runs_that_cannot_be_used(run: Path, world: Path, photos: Path, tmp_path: Path) -> None:
    def each(folder: Path, *words: Any) -> None:
        refused(attnpool("evaluate", folder, f"folder:{world}"), folder, *words)
        refused(attnpool("predict", folder, an_image(world)), folder, *words)
        refused(attnpool("explain", folder, an_image(world), "--out", tmp_path / "e"), folder, *words)
        assert not (tmp_path / "e").exists()

    each(world, "not a run folder", "finished training")
    each(tmp_path / "nowhere", "not a run folder", "finished training")
    old = tmp_path / "old"
    shutil.copytree(run, old)
    about = json.loads((old / "run.json").read_text())
    (old / "run.json").write_text(json.dumps(about | {"format": 99}))
    each(old, "format 99", "reads format 2", "train again")
    (old / "run.json").write_text((run / "run.json").read_text()[:1000])
    each(old, "damaged", "train again")
    (old / "run.json").write_bytes(b"\xff\xfe{}")
    each(old, "damaged")
    changed = about | {"model": about["model"] | {"classes": ["a", "b"]}}
    (old / "run.json").write_text(json.dumps(changed))
    each(old, "is not what was written there")
    del changed["check"]
    (old / "run.json").write_text(json.dumps(changed))
    each(old, "do not fit together")
    shutil.copy(run / "run.json", old / "run.json")
    (old / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:1000])
    each(old, "damaged", "new folder")
    (old / "model.safetensors").unlink()
    each(old, "missing or damaged")


def test_other_classes_are_named(run: Path, world: Path, photos: Path, tmp_path: Path) -> None:
    drawn = {path: path.stat().st_mtime_ns for path in run.glob("evaluation-*.png")}  # other tests share the run
    refused(attnpool("evaluate", run, f"folder:{photos}"), photos, "calling, drinking", "calling with a phone", run)
    renamed = tmp_path / "renamed"
    shutil.copytree(world, renamed)
    for part in ("train", "val"):
        (renamed / part / "sweeping with a broom").rename(renamed / part / "sweeping")
    words = ("unknown to the run: sweeping;", "not in the data: sweeping with a broom")
    (renamed / "annotations.json").unlink()
    refused(attnpool("evaluate", run, f"folder:{renamed}"), *words)
    assert {path: path.stat().st_mtime_ns for path in run.glob("evaluation-*.png")} == drawn
    refused(attnpool("evaluate", run, f"folder:{world}", "--split", "test"), "no test part", "val, train or all")


def test_images_that_cannot_be_used(run: Path, world: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    (tmp_path / "empty" / ".hidden.jpg").write_text("x")
    out = tmp_path / "e"
    for verb in (["predict", run], ["explain", run, "--out", tmp_path / "panels"]):
        outcome = attnpool(*verb, tmp_path / "text.jpg", an_image(world), tmp_path / "text.jpg", "--json")
        assert outcome.code == 2
        assert [entry["file"] for entry in json.loads(outcome.out)] == [
            str(path) for path in (an_image(world), tmp_path / "text.jpg", tmp_path / "text.jpg")
        ]
        assert outcome.err.count("text.jpg: cannot be read as an image") == 2
    refused(attnpool("predict", run, tmp_path / "text.jpg"), tmp_path / "text.jpg", "cannot be read as an image")
    refused(attnpool("predict", run, tmp_path / "a", tmp_path / "b"), tmp_path / "a", f"; {tmp_path / 'b'}")
    gone, empty = tmp_path / "gone.jpg", tmp_path / "empty"
    refused(attnpool("predict", run, an_image(world), gone), gone, "no such file")
    refused(attnpool("explain", run, an_image(world), gone, "--out", out), gone, "no such file")
    refused(attnpool("predict", run, empty), empty, "no images in this folder")
    both = attnpool("predict", run, an_image(world), empty)
    assert (both.code, an_image(world).name in both.out, "no images in this folder" in both.err) == (2, True, True)
    refused(attnpool("predict", run, an_image(world), "--top", 0), "top is 0", "at least 1")
    refused(attnpool("explain", run, an_image(world), "--class", "flying", "--out", out), "'flying'", "calling with")
    assert not out.exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--images", "3"], ["3 images are too few", "28 or more"]),
        (["--size", "0"], ["size"]),
        (["--size", "-5"], ["size"]),
        (["--seed", "-1"], ["seed -1"]),
        (["--style", "coco"], ["folder", "hmdb51"]),
        (["--frames", "9"], ["folder", "no frames"]),
        (["--style", "hmdb51", "--size", "64"], ["320 x 240"]),
        (["--style", "hmdb51", "--frames", "1"], ["frames 1", "2 to 3000"]),
    ],
    ids=lambda value: " ".join(value[:2]),
)
def test_worlds_that_cannot_be_made(tmp_path: Path, more: list[str], words: list[str]) -> None:
    refused(attnpool("playground", tmp_path / "p", *more), *words)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_hold_something_else(run: Path, world: Path, command: list[str], tmp_path: Path) -> None:
    before = files(run)
    refused(attnpool(*command, "--rank", 2), run, "other options", "another folder as out")
    refused(attnpool(*command, "--seed", 2), run, "seed was 0, is 2")
    assert files(run) == before
    (tmp_path / "mine.txt").write_text("x")
    refused(attnpool("playground", tmp_path, "--images", 28), tmp_path, "not empty", "another directory")
    refused(attnpool("explain", run, an_image(world), "--out", tmp_path / "mine.txt"), tmp_path / "mine.txt")
    refused(attnpool(*command[:3], tmp_path / "mine.txt", *command[4:]), tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


# signals


def epochs_done(folder: Path) -> int:
    log = folder / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def same_weights(one: Path, other: Path) -> bool:
    names = ("model.safetensors", "best.safetensors")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_a_stopped_training_goes_on_with_the_same_result(world: Path, run: Path, tmp_path: Path) -> None:
    """`run` is asked for so that the features are there."""
    options = ["--epochs", 24, "--batch-size", 7, "--dropout", 0.5, "--ema", 0.9, "--image-size", 96, "--seed", 5]
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    words = ["train", f"folder:{world}", *options, "--out"]
    attnpool(*words, whole).text()
    for signum, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        before = epochs_done(out)
        process = Process(*words, out, folder=tmp_path / "output")
        process.until(lambda before=before: epochs_done(out) >= before + 2)
        process.send(signum)
        failed(process.wait(), code, "the same command continues", out / "state.json")
        assert before + 2 <= json.loads((out / "state.json").read_text())["progress"]["epoch"] < 24
        refused(attnpool("predict", out, an_image(world)), out, "not finished", "again")
        refused(attnpool("evaluate", out, f"folder:{world}"), out, "not finished", "again")
        refused(attnpool(*words, out, "--lr", 0.5), out, "other options", "lr")
    before = epochs_done(out)
    process = Process(*words, out, folder=tmp_path / "output")
    process.until(lambda: epochs_done(out) >= before + 2)
    process.send(signal.SIGKILL)
    assert process.wait().code == -signal.SIGKILL
    refused(attnpool("predict", out, an_image(world)), out, "not finished")
    attnpool(*words, out).text()
    assert epochs_done(out) == 24
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    assert same_weights(out, whole)


def test_a_killed_training_starts_again(world: Path, run: Path, command: list[str], tmp_path: Path) -> None:
    words = [*command[:3], tmp_path / "r", *command[4:]]
    process = Process(*words, folder=tmp_path / "output")
    process.until(lambda: epochs_done(tmp_path / "r") >= 1)
    process.send(signal.SIGKILL)
    assert process.wait().code == -signal.SIGKILL
    refused(attnpool("predict", tmp_path / "r", an_image(world)), tmp_path / "r", "training is not finished")
    attnpool(*words).text()
    assert same_weights(tmp_path / "r", run)


def test_features_computed_before_a_stop_are_kept(world: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    words = ["train", f"folder:{world}", "--out", tmp_path / "r", "--epochs", 1, "--cache", cache, "--image-size", 224]

    def rows() -> int:
        return sum(path.read_text().count("\n") - 1 for path in cache.rglob("*.jsonl"))  # but for the header

    process = Process(*words, folder=tmp_path / "output")
    process.until(lambda: rows() > 0)
    process.send(signal.SIGTERM)
    failed(process.wait(), 143, "stopped")
    kept = rows()
    assert 0 < kept < 42
    assert not (tmp_path / "r").exists()
    outcome = attnpool(*words)
    outcome.text()
    assert f"/{42 - kept} " in outcome.err  # the bar of what was left to compute
    assert rows() == 42


# no space left


def test_a_full_disk_for_features(world: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 200) as disk:
        words = ["train", f"folder:{world}", "--out", tmp_path / "r", "--epochs", 1, "--image-size", 96]
        words += ["--cache", disk.folder / "cache"]
        failed(disk.run(*words), 1, "no space left", "free some")
        assert not (tmp_path / "r").exists()
        disk.grow()
        attnpool(*words).text()
        assert len(attnpool("evaluate", tmp_path / "r", f"folder:{world}", "--json").value()["per_class"]) == 14


@pytest.mark.parametrize("kib", [60, 1024], ids=["while training", "at the end"])
def test_a_full_disk_for_the_run(world: Path, run: Path, tmp_path: Path, kib: int) -> None:
    with small_disk(tmp_path / "disk", kib) as disk:
        out = disk.folder / "r"
        words = ["train", f"folder:{world}", "--out", out, "--epochs", 2, "--image-size", 96]
        failed(disk.run(*words), 1, "no space left", disk.folder, "free some")
        assert attnpool("predict", out, an_image(world)).code == 2
        assert not list(out.rglob("*.partial"))
        disk.grow()
        attnpool(*words).text()
        attnpool("predict", out, an_image(world)).text()


@pytest.mark.parametrize(
    ("said", "typed"),
    [
        ("image_size is 0; give a positive number", "--image-size is 0; give a positive number"),
        ("leave split_seed out, or use_cache off", "leave --split-seed out, or --no-use-cache"),
        ("use freeze_backbone=True", "use --freeze-backbone"),
        ("a/image_size.jpg: 'image_size', image_size.tar", "a/image_size.jpg: 'image_size', image_size.tar"),
        ("tune_image_size_x, with rank and class_", "tune_image_size_x, with rank and class_"),
        ("smaller than image_size.", "smaller than --image-size."),
    ],
)
def test_messages_name_options_as_they_are_typed(said: str, typed: str) -> None:
    assert in_flags(said, ["image_size", "split_seed", "use_cache", "freeze_backbone", "rank", "class_"]) == typed


def test_a_message_names_the_flag(tmp_path: Path) -> None:
    refused(attnpool("train", "folder:x", "--out", tmp_path / "out", "--image-size", -1), "--image-size is -1; give")
