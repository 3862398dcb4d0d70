"""What folders hold: clips and images by themselves, frames of a clip, and what is left out and named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import attnpool as ap
from attnpool.data.decoding.contents import contents, frame_files, is_clip
from attnpool.data.decoding.video import read_clip
from attnpool.explain.png import png
from attnpool.files import is_ours, mark


def folder_of(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(found: list[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in found]


def gif(path: Path, frames: int) -> Path:
    shades = [Image.new("L", (40, 30), 20 * i) for i in range(frames)]
    shades[0].save(path, save_all=True, append_images=shades[1:], duration=40)
    return path


# What lies in a folder -> the clips in it, and what is left out.
CLIPS = {
    "two videos and a thumb": (["a.mp4", "b.avi", "thumb.jpg"], ["a.mp4", "b.avi"], ["thumb.jpg"]),
    "videos at any depth": (["a.mp4", "more/b.avi", "more/c/d.MOV"], ["a.mp4", "more/b.avi", "more/c/d.MOV"], []),
    "frames": (["image_00001.jpg", "image_00002.jpg"], ["."], []),
    "frames with a cover": (["img_1.jpg", "img_2.jpg", "cover.jpg"], ["."], ["cover.jpg"]),
    "frames with flow": (["img_1.jpg", "img_2.jpg", "x_1.jpg", "y_1.jpg", "flow_x_1.jpg"], ["."], ["flow_x_1.jpg", "x_1.jpg", "y_1.jpg"]),  # noqa: E501
    "one image": (["thumb.jpg"], ["."], []),
    "folders of frames and a cover": (["cover.jpg", "a/1.jpg", "a/2.jpg", "b/1.jpg"], ["a", "b"], ["cover.jpg"]),
    "frames in folders and beside them": (["1.jpg", "2.jpg", "a/1.jpg", "a/2.jpg"], [".", "a"], []),
    "other files": (["a.mp4", "a.srt", "Makefile", ".hidden.mp4", "__MACOSX/a.mp4"], ["a.mp4"], ["Makefile", "a.srt"]),
    "flowers are no flow": (["flower_1.jpg", "flower_2.jpg", "flow_x_1.jpg"], ["."], ["flow_x_1.jpg"]),
    "x alone is no flow": (["x_1.jpg", "x_2.jpg"], ["."], []),
    "nothing": ([], [], []),
}  # fmt: skip


@pytest.mark.parametrize("case", CLIPS)
def test_clips_in_folders(tmp_path: Path, case: str) -> None:
    there, clips, left = CLIPS[case]
    found = contents(folder_of(tmp_path, *there), "clips")
    assert names(found.media, tmp_path) == clips
    assert sorted(names([file for files in found.unused.values() for file in files], tmp_path)) == left


def test_images_in_folders(tmp_path: Path) -> None:
    folder_of(tmp_path, "b.JPG", "a.mp4", "c/d.png", "c/e.psd", ".thumbs/f.jpg")
    (tmp_path / "c" / "panel.png").write_bytes(png(Image.new("RGB", (8, 8)), mark("explain")))
    (tmp_path / "c" / "circle").symlink_to(tmp_path)
    found = contents(tmp_path, "images")
    assert names(found.media, tmp_path) == ["a.mp4", "b.JPG", "c/d.png"]
    assert found.notes(tmp_path) == [
        f"{tmp_path}: left out, neither an image nor a video by its suffix: c/e.psd",
        f"{tmp_path}: left out, drawn by attnpool: c/panel.png",
    ]


def test_optical_flow_among_images(tmp_path: Path) -> None:
    """It is no photo of anything, and that it is left out is said."""
    folder_of(tmp_path, "img_1.jpg", "flow_x_1.jpg", "a/x_1.jpg", "a/y_1.jpg", "b/x_1.jpg", "flower.jpg")
    found = contents(tmp_path, "images")
    assert names(found.media, tmp_path) == ["flower.jpg", "img_1.jpg", "b/x_1.jpg"]
    assert found.notes(tmp_path) == [
        f"{tmp_path}: left out, optical flow by its name: flow_x_1.jpg, a/x_1.jpg, a/y_1.jpg"
    ]


def test_a_pipe_among_images_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    gif(tmp_path / "a.gif", 1)
    assert names(contents(tmp_path, "images").media, tmp_path) == ["a.gif", "pipe.jpg"]
    found = ap.predict("lite0", [tmp_path])
    assert [(len(found), reason) for _, reason in found.failed] == [
        (1, f"{tmp_path / 'pipe.jpg'}: cannot be read as an image (not a file); remove or replace it")
    ]
    assert not is_ours(tmp_path / "pipe.jpg")


def test_many_left_out_files_are_counted(tmp_path: Path) -> None:
    folder_of(tmp_path, *(f"{i}.txt" for i in range(9)))
    assert contents(tmp_path, "images").notes(tmp_path)[0].endswith("suffix: 0.txt, 1.txt, 2.txt and 6 more")


def test_a_moving_gif_is_a_clip_among_clips(tmp_path: Path) -> None:
    moving, still = gif(tmp_path / "a.gif", 12), gif(tmp_path / "b.gif", 1)
    found = contents(tmp_path, "clips")
    assert (names(found.media, tmp_path), found.unused) == (["a.gif"], {"an image beside clips": [still]})
    assert [is_clip(moving, "clips"), is_clip(still, "clips"), is_clip(moving)] == [True, False, False]
    count, images, problem = read_clip(moving, range)
    assert (count, problem) == (12, "")
    assert [int(np.asarray(image).mean()) for image in images] == pytest.approx([20 * i for i in range(12)], abs=3)


def test_a_moving_gif_among_images_is_its_first_and_that_is_said(tmp_path: Path) -> None:
    gif(tmp_path / "a.gif", 3)
    (found,) = ap.predict("lite0", [tmp_path / "a.gif"])
    assert found.note == "the first of its 3 images counts"
    assert found.to_json()["note"] == found.note


def test_frames_beside_other_images(tmp_path: Path) -> None:
    folder_of(tmp_path, "img_10.jpg", "img_9.jpg", "cover.jpg", "x_9.jpg", "y_9.jpg", "flow_x_9.jpg")
    assert names(frame_files(tmp_path), tmp_path) == ["img_9.jpg", "img_10.jpg"]
