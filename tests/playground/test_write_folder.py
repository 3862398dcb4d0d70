"""The world on disk: all of it or nothing, in the documented format."""

import json
from pathlib import Path

import pytest
from PIL import Image

from attnpool.keypoints.joints import MPII_JOINTS
from attnpool.playground import CLASSES, render
from attnpool.playground.write_folder import write_folder

SIZE = 96


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data") / "new" / "play"
    write_folder(directory, 60, 7, size=SIZE)
    return directory


def test_layout(world: Path) -> None:
    names = sorted(path.relative_to(world).as_posix() for path in world.rglob("*") if path.is_file())
    content = json.loads((world / "annotations.json").read_text())
    assert names == sorted([entry["file_name"] for entry in content["images"]] + ["annotations.json"])
    for part in ("train", "val"):
        assert {path.name for path in (world / part).iterdir()} == set(CLASSES)
    assert [path.name for path in world.parent.iterdir()] == ["play"]
    assert sum(name.startswith("val/") for name in names) == 14


def test_annotations(world: Path) -> None:
    content = json.loads((world / "annotations.json").read_text())
    person = content["categories"][0]
    assert person["name"] == "person"
    assert person["keypoints"] == list(MPII_JOINTS)
    assert all(1 <= a <= 16 and 1 <= b <= 16 for a, b in person["skeleton"])
    kinds = {category["id"]: category["name"] for category in content["categories"]}
    assert [entry["id"] for entry in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    for index, entry in enumerate(content["images"]):
        assert entry["file_name"].split("/")[1] == entry["label"]
        with Image.open(world / entry["file_name"]) as image:
            assert image.size == (entry["width"], entry["height"]) == (SIZE, SIZE)
        scene = render(7, index, size=SIZE)
        mine = [a for a in content["annotations"] if a["image_id"] == entry["id"]]
        people, things = [a for a in mine if a["category_id"] == 1], [a for a in mine if a["category_id"] != 1]
        assert [a["actor"] for a in people] == [figure.actor for figure in scene.people]
        assert [kinds[a["category_id"]] for a in things] == [thing.name for thing in scene.objects]
        for a in people:
            v = a["keypoints"][2::3]
            assert len(a["keypoints"]) == 48
            assert a["num_keypoints"] == sum(value > 0 for value in v)
            assert all(v[j] or a["keypoints"][3 * j : 3 * j + 3] == [0, 0, 0] for j in range(16))
        boxes = [a["bbox"] for a in mine if a.get("actor") or a.get("in_use")]
        assert scene.evidence == (min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[0] + b[2] for b in boxes),
                                  max(b[1] + b[3] for b in boxes))  # fmt: skip


def test_more_images_do_not_change_the_first(world: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_folder(tmp_path / "small", 28, 7, size=SIZE, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 28) for done in range(1, 29)]
    for path in (tmp_path / "small").rglob("*.jpg"):
        assert path.read_bytes() == (world / path.relative_to(tmp_path / "small")).read_bytes()


def test_the_same_world_again_is_left_alone(world: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*")}
    seen: list[tuple[int, int]] = []
    write_folder(world, 60, 7, size=SIZE, progress=lambda done, total: seen.append((done, total)))
    assert before == {path: path.stat().st_mtime_ns for path in world.rglob("*")}
    assert seen == [(60, 60)]
    with pytest.raises(ValueError, match="not empty"):
        write_folder(world, 60, 8, size=SIZE)


def test_refusals_leave_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, images, seed, fraction, reason in (
        ("mine", 28, 0, 0.25, "not empty"), ("file", 28, 0, 0.25, "is a file"), ("a", 27, 0, 0.25, "28 or more"),
        ("a", 28, -1, 0.25, "0 or more"), ("a", 28, 0, 1.0, "less than 1"), ("a", 28, 0, float("nan"), "less than 1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=reason) as caught:
            write_folder(tmp_path / name, images, seed, val_fraction=fraction, size=SIZE)
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine", "photo.txt"]


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    (tmp_path / "empty").mkdir()
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "empty", 28, 0, size=SIZE, progress=stop)
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]
    write_folder(tmp_path / "empty", 28, 0, size=SIZE, val_fraction=0)
    assert {path.name for path in (tmp_path / "empty").iterdir()} == {"train", "annotations.json"}
