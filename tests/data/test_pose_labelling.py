"""`attnpool pose` for real: estimators, files, interruptions and mistakes."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from command_line import Process, attnpool, refused
from estimating import PYTHON, photo, save_checkpoint

from attnpool.data import read_all
from attnpool.data.formats.coco import read_annotations, read_marks
from attnpool.keypoints import MPII_FLIP, Joints

MEDIAPIPE = ("--estimator", "mediapipe", "--python", PYTHON)
JOURNAL = ".poses.json.partial.jsonl"


def few_of(world: Path, folder: Path) -> Path:
    """A copy of the playground with the first image of each class in each part, 28 in all."""
    shutil.copytree(world, folder)
    for group in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        for image in sorted(group.glob("*.jpg"))[1:]:
            image.unlink()
    file = folder / "annotations.json"
    content = json.loads(file.read_text())
    kept = {entry["id"] for entry in content["images"] if (folder / entry["file_name"]).exists()}
    content["images"] = [entry for entry in content["images"] if entry["id"] in kept]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in kept]
    file.write_text(json.dumps(content))
    return folder


@pytest.fixture
def copy(world: Path, tmp_path: Path) -> Path:
    """The playground without its joints; boxes, `actor` and `in_use` are there."""
    shutil.copytree(world, tmp_path / "play")
    file = tmp_path / "play" / "annotations.json"
    content = json.loads(file.read_text())
    for entry in content["annotations"]:
        entry.pop("keypoints", None)
    file.write_text(json.dumps(content))
    return tmp_path / "play"


def distances(found: Joints, real: Joints) -> tuple[float, float] | None:
    """How far limbs are from those of the playground's person, and from their mirror images; 1 is the image."""
    errors = [
        [np.hypot(joint[0] - other[0], joint[1] - other[1]) / 96 for other in (real[j], real[MPII_FLIP[j]]) if other]
        for j in (0, 1, 2, 3, 4, 5, 12, 13)
        if (joint := found[j])
    ]
    both = [pair for pair in errors if len(pair) == 2]
    return (float(np.mean([a for a, _ in both])), float(np.mean([b for _, b in both]))) if both else None


def test_people_are_found_where_they_are(world: Path, copy: Path) -> None:
    """Against the playground's own joints: close to them, and left is left."""
    value = attnpool("pose", f"folder:{copy}", *MEDIAPIPE, "--json").value()
    assert (value["labelled"], value["known"], value["failed"]) == (42, 0, [])
    truth, found = read_annotations(world / "annotations.json"), read_marks(copy)
    right, swapped = [], []
    for name, marks in found.items():
        assert marks.evidence == truth[name].evidence
        assert marks.objects == truth[name].objects
        for person in (person for person in marks.people if person.joints):
            pairs = [distances(person.joints, real.joints) for real in truth[name].people if real.joints]
            nearest = min((pair for pair in pairs if pair), key=min, default=None)  # bystanders have joints, too
            if nearest:
                right.append(nearest[0])
                swapped.append(nearest[1])
    assert len(right) > 20
    assert np.median(right) < 0.05
    assert np.median(right) < np.median(swapped)
    again = attnpool("pose", f"folder:{copy}", *MEDIAPIPE, "--json").value()
    assert (again["labelled"], again["known"]) == (0, 42)


def test_labels_by_hand_are_kept(world: Path, tmp_path: Path) -> None:
    few_of(world, tmp_path / "play")
    file = tmp_path / "play" / "annotations.json"
    before = file.read_bytes()
    assert attnpool("pose", f"folder:{tmp_path / 'play'}", *MEDIAPIPE, "--json").value()["known"] == 28
    assert file.read_bytes() == before
    again = attnpool("pose", f"folder:{tmp_path / 'play'}", *MEDIAPIPE, "--overwrite", "--json").value()
    assert (again["labelled"], again["known"]) == (0, 28)
    assert file.read_bytes() == before
    assert not (tmp_path / "play" / "poses.json").exists()


def test_a_file_that_is_not_ours_is_in_the_way(photos: Path) -> None:
    (photos / "poses.json").write_text('{"images": [], "annotations": [], "categories": []}')
    refused(attnpool("pose", f"folder:{photos}", *MEDIAPIPE), photos / "poses.json", "not by attnpool")


def test_an_interrupted_run_goes_on(copy: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(copy, tmp_path / "whole")
    attnpool("pose", f"folder:{whole}", *MEDIAPIPE).text()
    before = (copy / "annotations.json").read_bytes()
    assert (whole / "annotations.json").read_bytes() == before
    journal = copy / JOURNAL
    for signum, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        lines = journal.read_bytes().count(b"\n") if journal.exists() else 0
        process = Process("pose", f"folder:{copy}", *MEDIAPIPE, folder=tmp_path / "output")
        process.until(lambda lines=lines: journal.exists() and journal.read_bytes().count(b"\n") > lines + 3)
        process.send(signum)
        assert process.wait().code == code
        assert (copy / "annotations.json").read_bytes() == before
    with journal.open("ab") as file:
        file.write(b'{"file": "cut o')  # as a crash of the machine leaves it
    value = attnpool("pose", f"folder:{copy}", *MEDIAPIPE, "--json").value()
    assert value["known"] >= 6
    assert value["labelled"] == 42 - value["known"]
    assert not journal.exists()
    assert (copy / "annotations.json").read_bytes() == before
    assert (copy / "poses.json").read_bytes() == (whole / "poses.json").read_bytes()


def test_clips_have_a_file_a_frame(tmp_path: Path) -> None:
    for name in ("wave", "drink"):
        for clip, part in (("a", 1), ("b", 2)):
            folder = tmp_path / name / f"{name}_{clip}"
            folder.mkdir(parents=True)
            for frame in range(5):
                photo().resize((171, 200)).save(folder / f"image_{frame + 1:05d}.jpg")
            with (tmp_path / f"{name}_test_split1.txt").open("a") as file:
                file.write(f"{name}_{clip}.avi {part} \n")
    value = attnpool("pose", f"hmdb51:{tmp_path}", *MEDIAPIPE, "--every", 2, "--json").value()
    assert (value["labelled"], value["people"], value["failed"]) == (12, 12, [])
    files = sorted((tmp_path / "keypoints" / "wave" / "wave_a").iterdir())
    assert [file.name for file in files] == [f"image_{i:05d}.json" for i in (1, 3, 5)]
    assert read_all(f"hmdb51:{tmp_path}").samples[0].keypoints == "keypoints/drink/drink_a"
    files[1].unlink()
    again = attnpool("pose", f"hmdb51:{tmp_path}", *MEDIAPIPE, "--every", 2, "--json").value()
    assert (again["labelled"], again["known"]) == (1, 3)


def test_keypoint_rcnn_and_unreadable_images(photos: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "random.pth")
    for path in photos.glob("*/[2-5].jpg"):
        path.unlink()
    photo().resize((64, 75)).save(photos / "calling" / "0.jpg")
    (photos / "calling" / "1.jpg").write_bytes(b"no image")
    rcnn = ("--weights", tmp_path / "random.pth", "--short-side", 64)
    value = attnpool("pose", f"folder:{photos}", *rcnn, "--json").value()
    assert [item["file"] for item in value["failed"]] == ["calling/1.jpg"]
    assert value["labelled"] == 3
    people = read_annotations(photos / "poses.json")["calling/0.jpg"].people
    assert len(people) > 2
    assert all(person.box and any(person.joints) for person in people)


def test_mistakes(photos: Path, tmp_path: Path) -> None:
    source = f"folder:{photos}"
    refused(attnpool("pose", source, "--weights", tmp_path / "no.pth"), "no.pth")
    refused(
        attnpool("pose", source, "--estimator", "mediapipe"),
        "mediapipe is not installed",
        "give the interpreter of an environment",
    )
    refused(attnpool("pose", source, *MEDIAPIPE, "--weights", "x"), "leave out weights")
    refused(attnpool("pose", source, "--python", "x"), "leave out python")
    refused(attnpool("pose", source, *MEDIAPIPE, "--min-score", 2), "--min-score")
    refused(attnpool("pose", source, *MEDIAPIPE, "--every", 0), "every")
    refused(attnpool("pose", source, *MEDIAPIPE, "--split", "test"), "test")
    refused(attnpool("pose", tmp_path, *MEDIAPIPE), "folder:")
    (photos / "annotations.json").write_text("{")
    refused(attnpool("pose", source, *MEDIAPIPE), "annotations.json")


def test_training_sees_the_target_that_was_chosen(world: Path, tmp_path: Path) -> None:
    options = ("--pooling", "pose", "--image-size", 96, "--epochs", 1, "--json")
    losses = {
        kind: attnpool("train", f"folder:{world}", "--out", tmp_path / kind, "--pose-target", kind, *options).value()
        for kind in ("disc", "gaussian")
    }
    assert losses["disc"]["loss"] != losses["gaussian"]["loss"]
