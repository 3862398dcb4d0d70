"""Images and clips in class folders are told apart; where the classes are, and what their names are, is found."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from clips import numbered, write_clip
from command_line import attnpool, refused
from estimating import PYTHON
from PIL import Image

from attnpool.data import check, read, read_splits
from attnpool.data.people import people_of
from attnpool.data.shards.write import shard


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def frames(folder: Path, count: int = 4, first: int = 1, name: str = "image_{:05d}.jpg") -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        numbered(number).save(folder / name.format(number + first))


def moving(path: Path, count: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shades = [Image.new("L", (40, 30), 20 * i) for i in range(count)]
    shades[0].save(path, save_all=True, append_images=shades[1:], duration=40)


def videos(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_clip(root / name, 4)


def test_videos(tmp_path: Path) -> None:
    videos(tmp_path, *(f"{name}/{i}.{suffix}" for name in "ab" for i, suffix in enumerate(("mp4", "MOV", "mkv"))))
    videos(tmp_path, "a/more/3.avi")
    moving(tmp_path / "b" / "4.gif")
    train, val = read(f"folder:{tmp_path}")
    assert (train.media, train.classes, train.task) == ("clips", ("a", "b"), "single")
    assert {sample.path for sample in (*train, *val)} == {
        *("a/0.mp4", "a/1.MOV", "a/2.mkv", "a/more/3.avi", "b/0.mp4", "b/1.MOV", "b/2.mkv", "b/4.gif")
    }


def test_folders_of_frames(tmp_path: Path) -> None:
    for name in ("a/x", "a/y", "b/x", "b/deep/y"):
        frames(tmp_path / name, first=0)
    frames(tmp_path / "b" / "z", name="frame{}.png")
    for number in range(4):
        numbered(number).save(tmp_path / "a" / "x" / f"flow_x_{number:05d}.jpg")
    train, val = read(f"folder:{tmp_path}")
    assert train.media == "clips"
    assert {sample.path for sample in (*train, *val)} == {"a/x", "a/y", "b/x", "b/deep/y", "b/z"}
    assert train.notes == (
        f"{tmp_path}: 5 folders of numbered images of one size are read as the frames of clips",
        f"{tmp_path}: left out, not frames of their clips: 4 images, such as a/x/flow_x_00000.jpg",
    )
    assert f"note: {train.notes[1]}" in str(check(f"folder:{tmp_path}"))
    assert sum(part.frames for part in check(f"folder:{tmp_path}").parts.values()) == 20


@pytest.mark.parametrize("spoiled", ["a gap", "a late start", "a cover"])
def test_why_clips_are_read_as_images_is_said(tmp_path: Path, spoiled: str) -> None:
    for name in ("a/x", "a/y", "b/u", "b/v"):
        frames(tmp_path / name, 5)
    if spoiled == "a gap":
        (tmp_path / "a" / "x" / "image_00003.jpg").unlink()
    elif spoiled == "a late start":
        frames(tmp_path / "a" / "z", first=5)
    else:
        photo(tmp_path / "a" / "y" / "more" / "cover.jpg")
    train, _ = read(f"folder:{tmp_path}")
    assert train.media == "images"
    (note,) = train.notes
    assert "folders hold numbered images of one size, as the frames of a clip are; but a/" in note
    assert f"note: {note}" in str(check(f"folder:{tmp_path}"))


def test_a_link_to_a_folder_above_brings_in_nothing(tmp_path: Path) -> None:
    for name in "ab":
        for number in range(3):
            photo(tmp_path / name / f"{number}.jpg", number)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    train, val = read(f"folder:{tmp_path}")
    assert len(train) + len(val) == 6


def photos_in_albums(root: Path) -> None:
    """As cameras number them: from anywhere, or of two sizes."""
    for name in "ab":
        for number in range(3):
            photo(root / name / f"album {name}" / f"IMG_{2041 + number}.jpg", number)
            photo(root / name / f"other {name}" / f"{number}.jpg", number, (40 + number, 30))
            photo(root / name / f"words {name}" / f"{'xyz'[number]}.jpg", number)


def frames_beside_photos(root: Path) -> None:
    for name in "ab":
        frames(root / name / f"clip {name}")
        photo(root / name / "photo.jpg")


def still_and_moving(root: Path) -> None:
    for name in "ab":
        moving(root / name / "1.gif")
        moving(root / name / "2.gif", 1)


@pytest.mark.parametrize("make", [photos_in_albums, frames_beside_photos, still_and_moving])
def test_images_that_are_no_clips(tmp_path: Path, make: object) -> None:
    make(tmp_path)  # type: ignore[operator]
    train, val = read(f"folder:{tmp_path}")
    assert train.media == "images"
    assert len(train) + len(val) == sum(path.is_file() for path in tmp_path.rglob("*"))


def test_parts_of_another_name_are_no_classes_of_clips(tmp_path: Path) -> None:
    """Numbered images of one size in two folders of the same folders may be two parts of a dataset."""
    for name in ("first", "second"):
        for label in ("a", "b"):
            frames(tmp_path / name / label)
    refused(attnpool("check", f"folder:{tmp_path}"), "first and second hold folders of the same names, such as a")


def test_moving_gifs_alone_are_clips(tmp_path: Path) -> None:
    for name in "ab":
        for number in range(2):
            moving(tmp_path / name / f"{number}.gif")
    assert read(f"folder:{tmp_path}")[0].media == "clips"


def test_a_mixture_is_refused_with_the_counts(tmp_path: Path) -> None:
    videos(tmp_path, "a/1.mp4", "a/2.mp4", "b/1.mp4")
    photo(tmp_path / "b" / "2.jpg")
    refused(attnpool("check", f"folder:{tmp_path}"), "hold 1 images, such as b/2.jpg, and 3 videos; keep one kind")


def test_too_few_clips(tmp_path: Path) -> None:
    videos(tmp_path, "a/1.mp4", "a/2.mp4", "b/1.mp4")
    refused(attnpool("check", f"folder:{tmp_path}"), "two clips, one for train and one for val; too few has 'b' (1)")


@pytest.mark.parametrize("form", ["images/train", "dataset", "deep/down/below"])
def test_the_folder_in_the_folder(tmp_path: Path, form: str) -> None:
    for name in "ab":
        for number in range(4):
            photo(tmp_path / form / name / f"{number}.jpg", number)
            if form.endswith("train"):
                photo(tmp_path / "images" / "val" / name / f"{number}.jpg", number + 9)
    train, val = read(f"folder:{tmp_path}")
    assert train.root == tmp_path / form.removesuffix("/train")
    assert train.classes == ("a", "b")
    assert len(train) + len(val) == (16 if form.endswith("train") else 8)


def test_images_beside_labels_in_folders_of_the_same_names(tmp_path: Path) -> None:
    """As some annotation tools lay out a dataset; the folder to give is named."""
    for part in ("train", "val"):
        for name in "ab":
            photo(tmp_path / "images" / part / name / "1.jpg")
        (tmp_path / "labels" / part).mkdir(parents=True)
        (tmp_path / "labels" / part / "1.txt").write_text("0 0.5 0.5 1 1", encoding="utf-8")
    refused(attnpool("check", f"folder:{tmp_path}"), f"the images are in images: give folder:{tmp_path / 'images'}")


def test_what_is_left_aside_is_said(tmp_path: Path) -> None:
    """By check, by train and by evaluate."""
    for name in "ab":
        for number in range(4):
            photo(tmp_path / "data" / name / f"{number}.jpg", number)
        (tmp_path / "data" / name / "5.psd").write_bytes(b"x")
    source = f"folder:{tmp_path / 'data'}"
    note = f"{tmp_path / 'data'}: left out, no images by their suffix: 2 x .psd, such as a/5.psd"
    assert "ignored: 2 x .psd" in attnpool("check", source).text()
    words = ("--pooling", "average", "--epochs", 1, "--image-size", 32)
    assert f"attnpool: {note}" in attnpool("train", source, "--out", tmp_path / "run", *words).messages
    assert f"attnpool: {note}" in attnpool("evaluate", tmp_path / "run", source).messages


def test_numbers_and_accents(tmp_path: Path) -> None:
    """Classes that are numbers are in the order of their values; macOS and others spell accents in two ways."""
    for part, form in (("train", "NFC"), ("val", "NFD")):
        for name in ("10", "9", "été", "a"):
            photo(tmp_path / part / unicodedata.normalize(form, name) / "1.jpg")
    train, val = read(f"folder:{tmp_path}")
    assert train.classes == val.classes == ("9", "10", "a", "été")
    assert [sample.labels for sample in val] == [(0,), (1,), (2,), (3,)]
    assert all(val.file(sample).is_file() for sample in val)


def test_joints_of_clips(tmp_path: Path) -> None:
    """They are kept in a folder that is no class, and found there."""
    videos(tmp_path, *(f"{name}/{number}.mp4" for name in "ab" for number in range(2)))
    command = ("pose", f"folder:{tmp_path}", "--estimator", "mediapipe", "--python", PYTHON, "--every", 2)
    said = attnpool(*command).text()
    assert "8 labelled by" in said
    splits = read_splits(f"folder:{tmp_path}")
    assert splits["train"].classes == ("a", "b")
    for sample in splits["train"]:
        assert (tmp_path / sample.keypoints / "image_00003.json").is_file()
        assert people_of(splits["train"], sample, 2) == []


def test_annotations_are_for_images(tmp_path: Path) -> None:
    videos(tmp_path, *(f"{name}/{number}.mp4" for name in "ab" for number in range(2)))
    text = '{"images": [{"id": 1, "file_name": "a/0.mp4"}], "annotations": [], "categories": []}'
    (tmp_path / "annotations.json").write_text(text, encoding="utf-8")
    refused(attnpool("check", f"folder:{tmp_path}"), "annotations.json: is for images", "holds clips; move it away")


def test_a_training_on_clips(tmp_path: Path) -> None:
    """From class folders without anything else, with what works for HMDB51."""
    videos(tmp_path / "data", *(f"{name}/{number}.mp4" for name in ("walk", "run") for number in range(3)))
    words = ("--image-size", 32, "--epochs", 1, "--frames", 2, "--segments", 2)
    attnpool("train", f"folder:{tmp_path / 'data'}", "--out", tmp_path / "run", "--pooling", "average", *words)
    said = attnpool("predict", tmp_path / "run", tmp_path / "data" / "walk" / "0.mp4").text()
    assert "walk" in said
    value = attnpool("evaluate", tmp_path / "run", f"folder:{tmp_path / 'data'}", "--json").value()
    assert value["images"] == 2
    attnpool("explain", tmp_path / "run", tmp_path / "data" / "run" / "1.mp4", "--out", tmp_path / "panels").text()
    shard(f"folder:{tmp_path / 'data'}", tmp_path / "shards")
    again = attnpool("evaluate", tmp_path / "run", f"wds:{tmp_path / 'shards'}", "--json").value()
    assert again["mAP"] == value["mAP"]
