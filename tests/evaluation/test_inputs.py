"""Files and folders as a user names them: what is looked at as an image and what as a clip."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnpool.evaluation.inputs import expand


def test_what_folders_mean(files: Path, tmp_path: Path) -> None:
    frames = files / "clip.frames"
    assert expand([str(frames)], "clips") == ([frames], "clips", [], [])
    found, _, notes, _ = expand([str(files)], "clips")
    assert found == [files / "clip.avi", frames]
    assert notes == [f"{files}: left out, an image beside clips: photo.png"]
    assert expand([str(files)])[0] == [files / "clip.avi", files / "photo.png", *sorted(frames.iterdir())]
    assert len(expand([str(frames)])[0]) == 12
    for name in ("b.mp4", ".hidden.avi", "notes.txt", "empty/notes.txt", "a/image_00001.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, _, notes, _ = expand([str(tmp_path)], "clips")
    assert found == [tmp_path / "b.mp4", tmp_path / "a"]
    assert notes == [f"{tmp_path}: left out, neither an image nor a video by its suffix: notes.txt, empty/notes.txt"]
    with pytest.raises(ValueError, match=r"empty: no clips in this folder .*; name videos, or folders of frames"):
        expand([str(tmp_path / "empty")], "clips")


def test_expand(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.jpg", "deeper/c.jpg"):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).touch()
    p = tmp_path / "p"
    found, _, notes, _ = expand([str(p)])
    assert found == [p / "a.png", p / "b.JPG", p / "deeper" / "c.jpg"]
    assert notes == [f"{p}: left out, neither an image nor a video by its suffix: notes.txt"]
    assert expand([str(p / "notes.txt"), str(p / "deeper")])[0] == [p / "notes.txt", p / "deeper" / "c.jpg"]
    with pytest.raises(ValueError, match="no such file"):
        expand([str(p), str(tmp_path / "q")])
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="no images in this folder"):
        expand([str(tmp_path / "bare")])


def test_a_folder_without_images_does_not_stop_the_others(tmp_path: Path) -> None:
    for name in ("bare/notes.txt", "good/a.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    found, _, _, failed = expand([tmp_path / "bare", tmp_path / "good"])
    assert found == [tmp_path / "good" / "a.png"]
    ((name, reason),) = failed
    assert name == str(tmp_path / "bare")
    assert "no images in this folder (neither an image nor a video by its suffix); name images" in reason
