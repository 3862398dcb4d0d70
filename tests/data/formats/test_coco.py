from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from attnpool.data import read_all
from attnpool.data.formats.coco import read_annotations
from attnpool.keypoints import COCO_JOINTS, MPII_JOINTS


def content() -> dict[str, Any]:
    keypoints = [value for j in range(16) for value in (10.5 + j, 20.0 + j, 0 if j == 3 else 1 + j % 2)]
    return {
        "info": {"description": "a test"},
        "images": [
            {"id": 1, "file_name": "a/1.jpg", "width": 100, "height": 80, "label": "a"},
            {"id": 2, "file_name": "b/1.jpg", "width": 100, "height": 80, "label": "b"},
        ],
        "categories": [
            {"id": 1, "name": "person", "keypoints": list(MPII_JOINTS), "skeleton": [[1, 2]]},
            {"id": 2, "name": "mug"},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [10, 20, 30, 40],
                "iscrowd": 0,
                "keypoints": keypoints,
                "num_keypoints": 15,
                "actor": True,
            },
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [35.5, 10, 20, 15], "iscrowd": 0, "in_use": True},
            {"id": 3, "image_id": 1, "category_id": 2, "bbox": [70, 0, 5, 5], "iscrowd": 0, "in_use": False},
            {"id": 4, "image_id": 1, "category_id": 1, "bbox": [60, 5, 9, 50], "actor": False},
            {"id": 5, "image_id": 1, "category_id": 1, "bbox": [0, 0, 99, 9], "iscrowd": 1},
        ],
    }


def write(root: Path, value: Any) -> Path:
    file = root / "annotations.json"
    file.write_text(json.dumps(value))
    return file


def test_people_objects_and_evidence(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (100, 80)).save(tmp_path / name)
    write(tmp_path, content())
    first, *others = read_all(f"folder:{tmp_path}")
    assert first.path == "a/1.jpg"
    assert len(first.people) == 2
    actor, bystander = first.people
    assert actor.box == (10, 20, 40, 60)
    assert actor.joints[0] == (10.5, 20.0)
    assert actor.joints[15] == (25.5, 35.0)
    assert [j for j in range(16) if actor.joints[j] is None] == [3]
    assert bystander.box == (60, 5, 69, 55)
    assert bystander.joints == ()
    assert first.objects == ((35.5, 10, 55.5, 25),)
    assert first.evidence == ((10, 10, 55.5, 60),)
    assert all(not (sample.people or sample.objects or sample.evidence) for sample in others)


def test_plain_coco(tmp_path: Path) -> None:
    value = content()
    value["categories"][0]["keypoints"] = list(COCO_JOINTS)
    value["annotations"] = value["annotations"][:2]
    person, mug = value["annotations"]
    person["keypoints"] = [v for j in range(17) for v in ((0, 0, 0) if j == 15 else (j, 2 * j, 2))]
    del person["actor"], mug["in_use"]
    marks = read_annotations(write(tmp_path, value))["a/1.jpg"]
    assert (marks.evidence, marks.objects) == ([], [])
    joints = dict(zip(MPII_JOINTS, marks.people[0].joints, strict=True))
    assert {name for name, joint in joints.items() if joint is None} == {"pelvis", "thorax", "upper_neck", "left_ankle"}
    assert joints["head_top"] == (0, 0)
    assert joints["right_wrist"] == (10, 20)


def test_names_are_compared_as_paths(tmp_path: Path) -> None:
    value = content()
    value["images"][0]["file_name"] = ".\\a\\1.jpg"
    assert read_annotations(write(tmp_path, value))["a/1.jpg"].people


def test_coco_writes_zeros_for_no_box(tmp_path: Path) -> None:
    value = content()
    value["annotations"][0]["bbox"] = [0, 0, 0, 0]
    marks = read_annotations(write(tmp_path, value))["a/1.jpg"]
    assert marks.people[0].box is None
    assert marks.people[0].joints
    assert marks.evidence == marks.objects


def change(*path: str | int, to: Any) -> Callable[[dict[str, Any]], Any]:
    def apply(value: dict[str, Any]) -> Any:
        inner: Any = value
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = to
        return value

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda value: [], "no list of 'images'"),
        (lambda value: None, "no list of 'images'"),
        (change("images", to={}), "no list of 'images'"),
        (change("annotations", to=None), "no list of 'annotations'"),
        (change("categories", to=3), "no list of 'categories'"),
        (change("images", 0, to=7), "an entry of 'images' is not an object with an id"),
        (change("images", 0, "id", to=[1]), "an entry of 'images' is not an object with an id"),
        (change("images", 0, "id", to=2), "id 2 occurs twice in 'images'"),
        (change("images", 0, to={"id": 9}), "an image has no file_name"),
        (change("images", 0, "file_name", to=5), "file_name 5 is not a name"),
        (change("images", 0, "file_name", to="b/1.jpg"), "file_name 'b/1.jpg' occurs twice"),
        (change("annotations", 0, "image_id", to=77), "annotation 1: there is no image 77"),
        (change("annotations", 0, "image_id", to={}), "annotation 1: there is no image {}"),
        (change("annotations", 0, "category_id", to="mug"), "annotation 1: there is no category 'mug'"),
        (change("annotations", 1, to={"id": 2}), "annotation 2 has no image_id"),
        (change("annotations", 1, "bbox", to=[1, 2, 3]), "the bbox of annotation 2 is not 4 finite numbers"),
        (change("annotations", 1, "bbox", to=[1, 2, float("nan"), 3]), "is not 4 finite numbers"),
        (change("annotations", 1, "bbox", to=[1, 2, 10**400, 3]), "is not 4 finite numbers"),
        (change("annotations", 1, "bbox", to=[1, 2, "3", 3]), "is not 4 finite numbers"),
        (change("annotations", 1, "bbox", to=[1, 2, -3, 3]), "the bbox of annotation 2 has a negative size"),
        (change("annotations", 0, "keypoints", to=[1, 2]), "the keypoints of annotation 1 is not 48 finite numbers"),
        (change("annotations", 1, "keypoints", to=[1, 2, 2]), "category 'mug' does not list their names"),
        (change("categories", 0, "keypoints", to=[1]), "category 'person' does not list their names"),
    ],
)
def test_malformed(tmp_path: Path, spoil: Callable[[Any], Any], message: str) -> None:
    file = write(tmp_path, spoil(copy.deepcopy(content())))
    with pytest.raises(
        ValueError, match=rf"^{re.escape(str(file))}: .*{re.escape(message)}.*; correct the file"
    ) as caught:
        read_annotations(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe\xff", b"[" * 100_000, b'{"images": [1,]}'])
def test_not_json(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "annotations.json"
    file.write_bytes(raw)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(file))}: .*; correct the file or remove it$"):
        read_annotations(file)


def test_a_directory_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "annotations.json").mkdir()
    with pytest.raises(ValueError, match="is a directory; correct"):
        read_annotations(tmp_path / "annotations.json")
