"""A world in HICO's format, read with scipy and json alone, and its labels decided anew from the scenes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from attnpool.data import read
from attnpool.keypoints.joints import OPENPOSE_JOINTS
from attnpool.playground import CLASSES
from attnpool.playground.compose import label_of
from attnpool.playground.crowd import compose_crowd
from attnpool.playground.scene import Scene, draw
from attnpool.playground.write_hico import INTERACTIONS, labels, write_hico

SIZE, IMAGES, SEED = 128, 56, 2


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data") / "hico"
    write_hico(directory, IMAGES, SEED, size=SIZE)
    return directory


@pytest.fixture(scope="module")
def anno(world: Path) -> dict[str, Any]:
    return dict(loadmat(world / "anno.mat"))


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Scene, dict[str, float]]]:
    """In the order of the images: train, then test, which is the second block of 14."""
    found = []
    for index in [*range(14), *range(28, IMAGES), *range(14, 28)]:
        plan, phases = compose_crowd(SEED, index, SIZE)
        found.append((draw(plan), phases))
    return found


def test_layout(world: Path, anno: dict[str, Any]) -> None:
    for part, count in (("train", 42), ("test", 14)):
        names = [cell[0][0] for cell in anno[f"list_{part}"]]
        assert names == [f"HICO_{part}2015_{number:08d}.jpg" for number in range(1, count + 1)]
        assert sorted(path.name for path in (world / "images" / f"{part}2015").iterdir()) == names
        keypoints = sorted(path.stem for path in (world / "keypoints" / f"{part}2015").iterdir())
        assert keypoints == [name.removesuffix(".jpg") for name in names]
        assert anno[f"anno_{part}"].shape == (23, count)
        assert anno[f"anno_{part}"].dtype == np.float64
    actions = anno["list_action"]
    assert actions.shape == (23, 1)
    assert actions.dtype.names == ("nname", "vname", "vname_ing")
    pairs = [(row[0]["nname"][0], row[0]["vname"][0]) for row in actions]
    assert pairs == sorted(pairs) == [(it.object, it.verb) for it in INTERACTIONS]
    assert sum(verb == "no_interaction" for _, verb in pairs) == 9
    assert {it.action for it in INTERACTIONS} == {*CLASSES, ""}


def test_labels_follow_from_what_is_seen(anno: dict[str, Any], scenes: list[tuple[Scene, dict[str, float]]]) -> None:
    table = np.concatenate([anno["anno_train"], anno["anno_test"]], axis=1)
    for column, (scene, phases) in zip(table.T, scenes, strict=True):
        idle = {thing.name for thing in scene.objects if not thing.in_use}
        in_use = {thing.name for thing in scene.objects if thing.in_use}
        for it, value in zip(INTERACTIONS, column, strict=True):
            if it.object not in idle | in_use:
                assert np.isnan(value) or (value == 0 and it.action in phases)
            elif it.verb == "no_interaction":
                assert (it.object in idle) == (value >= 0)
                assert (value == 1) == (it.object in idle - in_use)
            else:
                assert not np.isnan(value)
                assert value in ((0, 1) if it.action in phases else (0, -1))
    shares = [(table == value).mean() for value in (1, 0, -1)] + [np.isnan(table).mean()]
    assert min(shares) > 0.01
    acts = [row for row, it in enumerate(INTERACTIONS) if it.action]
    assert ((table[acts] == 1).sum(axis=0) == 2).mean() > 0.3  # two actors who do different things
    assert ((table == 1).sum(axis=1) > 0).all()


def test_each_block_shows_every_action(scenes: list[tuple[Scene, dict[str, float]]]) -> None:
    for index, (_, phases) in zip([*range(14), *range(28, IMAGES), *range(14, 28)], scenes, strict=True):
        assert label_of(SEED, index) in phases
        assert len(phases) in (1, 2)


def test_ambiguous_moments() -> None:
    plan, phases = compose_crowd(SEED, 0, SIZE)
    scene = draw(plan)
    row = {it.action: number for number, it in enumerate(INTERACTIONS) if it.action}
    nothing = Scene(scene.image, scene.label, scene.people, [])
    found = labels(nothing, phases)
    assert (found[[row[name] for name in phases]] == 0).all()  # the thing in use cannot be seen
    assert np.isnan(np.delete(found, [row[name] for name in phases])).all()
    for index in range(60):
        plan, phases = compose_crowd(9, index, SIZE)
        if "catching a ball" in phases and "throwing a ball" not in phases:
            scene = draw(plan)
            late, early = (
                labels(scene, phases | {"catching a ball": 0.9}),
                labels(scene, phases | {"catching a ball": 0.1}),
            )
            assert (late[row["throwing a ball"]], early[row["throwing a ball"]]) == (0, -1)
            assert late[row["kicking a ball"]] in (-1, 1)
            return
    pytest.fail("nobody catches a ball")


def test_keypoints_are_those_of_openpose(world: Path, scenes: list[tuple[Scene, dict[str, float]]]) -> None:
    paths = sorted((world / "keypoints" / "train2015").iterdir()) + sorted((world / "keypoints" / "test2015").iterdir())
    noses = 0
    for path, (scene, _) in zip(paths, scenes, strict=True):
        bodies = [np.reshape(body["joints"], (18, 3)) for body in json.loads(path.read_text())["bodies"]]
        clear = [person for person in scene.people if (person.visible == 2).sum() >= 5]
        assert len(clear) <= len(bodies) <= len(scene.people)
        for joints in bodies:
            assert ((joints[:, 2] > 0) == (joints[:, :2] > 0).any(axis=1)).all()
            assert (joints[:, :2] < SIZE).all()
            # The right wrist of one of the people, MPII's joint 10, stands in the fifth place.
            wrist = joints[OPENPOSE_JOINTS.index("right_wrist")]
            if wrist[2]:
                assert min(np.abs(person.joints[10] - wrist[:2]).max() for person in scene.people) < 0.01
            nose, neck = joints[0], joints[1]
            if nose[2] and neck[2]:
                noses += 1
                assert nose[1] < neck[1]
    assert noses > 30


def test_right_eye_is_on_the_left_of_a_face(scenes: list[tuple[Scene, dict[str, float]]]) -> None:
    """In the image, as the face looks at us."""
    seen = 0
    for scene, _ in scenes:
        for person in scene.people:
            if (person.face_visible[1:3] == 2).all():
                seen += 1
                assert person.face[1, 0] < person.face[2, 0]
    assert seen > 10


def test_the_reader_agrees(world: Path, anno: dict[str, Any]) -> None:
    train, val = read(f"hico:{world}")
    for part, table in ((train, anno["anno_train"]), (val, anno["anno_test"])):
        assert len(part.classes) == 23
        for sample, column in zip(part, table.T, strict=True):
            assert sample.labels == tuple(np.flatnonzero(column == 1))
            assert sample.ambiguous == tuple(np.flatnonzero(column == 0))
            assert sample.negatives == tuple(np.flatnonzero(column == -1))
            assert (world / sample.keypoints).is_file()


def test_truth(world: Path, scenes: list[tuple[Scene, dict[str, float]]]) -> None:
    content = json.loads((world / "annotations.json").read_text())
    known = {entry["file_name"]: entry for entry in content["images"]}
    for number, (_, phases) in enumerate(scenes[:42], start=1):
        name = f"images/train2015/HICO_train2015_{number:08d}.jpg"
        assert known[name]["label"] == sorted(phases)
        mine = [a for a in content["annotations"] if a["image_id"] == known[name]["id"]]
        assert sum(bool(a.get("actor")) for a in mine) <= len(phases)
        with Image.open(world / name) as image:
            assert image.size == (SIZE, SIZE)
