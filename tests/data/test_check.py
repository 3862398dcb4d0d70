from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnpool.data import check
from attnpool.keypoints import MPII_JOINTS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, name in enumerate(f"{part}/{c}/{i}.jpg" for part in ("train", "val") for c in "ab" for i in range(3)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng([number]).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / name)
    return tmp_path


def test_a_clean_dataset(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = check(f"folder:{root}")
    assert found.images == {"train": {"a": 3, "b": 3}, "val": {"a": 3, "b": 3}}
    assert (found.unusable, found.duplicates, found.outside, found.ignored) == ((), (), (), {})
    assert "12 of 12 images can be used" in str(found)
    assert capsys.readouterr().err == ""
    assert check(f"folder:{root}", progress=True) == found
    assert "12/12" in capsys.readouterr().err


def test_everything_that_can_be_wrong(root: Path) -> None:
    whole = (root / "train/a/0.jpg").read_bytes()
    (root / "train/a/0.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "val/b/2.jpg").write_bytes(b"")
    (root / "val/a/0.jpg").write_bytes(b"")  # equal to the other, but neither is an image
    shutil.copy(root / "train/a/1.jpg", root / "val/a/copy.jpg")
    shutil.copy(root / "train/b/1.jpg", root / "train/a/copy.jpg")
    shutil.copy(root / "train/b/2.jpg", root / "train/b/harmless.jpg")
    for name in ("notes.txt", "train/list.txt", "train/clip.MP4", ".hidden", "train/a/.x.jpg"):
        (root / name).write_text("text")
    (root / "test/a").mkdir(parents=True)
    shutil.copy(root / "train/a/2.jpg", root / "test/a/0.jpg")
    found = check(f"folder:{root}")
    assert dict(found.unusable).keys() == {"train/a/0.jpg", "val/a/0.jpg", "val/b/2.jpg"}
    assert "truncated" in dict(found.unusable)["train/a/0.jpg"]
    assert dict(found.unusable)["val/b/2.jpg"] == "the file is empty"
    assert set(found.duplicates) == {
        ("train/a/1.jpg", "val/a/copy.jpg"),
        ("train/a/2.jpg", "test/a/0.jpg"),
        ("train/a/copy.jpg", "train/b/1.jpg"),
    }
    assert found.ignored == {".jpg": 1, ".mp4": 1, ".txt": 2, "no suffix": 1}
    assert found.images["test"] == {"a": 1, "b": 0}
    text = str(found)
    assert "cannot be used: 3" in text
    assert "train/a/1.jpg = val/a/copy.jpg" in text
    assert "13 of 16 images can be used" in text


def test_annotations_are_counted_and_held_against_the_image(root: Path) -> None:
    def person(number: int, x: float) -> dict[str, object]:
        keypoints = [v for j in range(16) for v in (x + j, 10 + j, 2 if j < 10 else 0)]
        box = [x, 10, 12, 15]
        return {"id": number, "image_id": number, "category_id": 1, "bbox": box, "keypoints": keypoints, "actor": True}

    annotations = {
        "images": [{"id": 1, "file_name": "train/a/0.jpg"}, {"id": 2, "file_name": "val/b/1.jpg"}],
        "categories": [{"id": 1, "name": "person", "keypoints": MPII_JOINTS}, {"id": 2, "name": "mug"}],
        "annotations": [
            person(1, 5),
            person(2, 500),
            {"id": 3, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "in_use": True},
        ],
    }
    (root / "annotations.json").write_text(json.dumps(annotations))
    found = check(f"folder:{root}")
    assert (found.people, found.joints, found.evidence, found.objects) == (2, 20, 2, 1)
    assert found.outside == ("val/b/1.jpg",)
    assert found.ignored == {}
    assert "val/b/1.jpg" in str(found)


def test_json(root: Path) -> None:
    (root / "val/b/2.jpg").write_bytes(b"")
    value = json.loads(json.dumps(check(f"folder:{root}").to_json()))
    assert value["unusable"] == [{"file": "val/b/2.jpg", "reason": "the file is empty"}]
    assert value["images"]["train"] == {"a": 3, "b": 3}
    assert value["classes"] == ["a", "b"]
    assert value["source"] == f"folder:{root}"


def test_many_classes_are_summed_up(tmp_path: Path) -> None:
    for k in range(45):
        for i in range(2 if k == 30 else 3):
            path = tmp_path / f"class {k}" / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (2, 2), (k, i, 0)).save(path)
    found = check(f"folder:{tmp_path}")
    lines = str(found).splitlines()
    assert len(lines) < 40
    assert any(line.startswith("class 30 ") for line in lines)
    assert "(25 classes with more images are not shown)" in lines
    assert len(found.images["train"]) == 45


def test_files_behind_a_linked_class_are_counted(tmp_path: Path) -> None:
    for name in ("elsewhere/x.jpg", "elsewhere/y.jpg", "ds/b/x.jpg", "ds/b/y.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    (tmp_path / "elsewhere" / "notes.txt").write_text("text")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "ds")
    (tmp_path / "ds" / "a").symlink_to(tmp_path / "elsewhere")
    assert check(f"folder:{tmp_path / 'ds'}").ignored == {".txt": 1}
