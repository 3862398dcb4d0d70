"""A world in MPII's format, read with scipy alone, as the many scripts for the real file do."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from attnpool.data import read
from attnpool.playground import CLASSES, render
from attnpool.playground.write_mpii import CATEGORIES, part_of, stem_of, write_mpii

SIZE, IMAGES, SEED = 96, 56, 4


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data") / "mpii"
    write_mpii(directory, IMAGES, SEED, size=SIZE)
    return directory


@pytest.fixture(scope="module")
def release(world: Path) -> Any:
    return loadmat(world / "mpii_human_pose_v1_u12_1.mat")["RELEASE"]


def stems(world: Path, part: str) -> list[str]:
    return (world / f"images_mpii_{part}.txt").read_text().split("\n")[:-1]


def test_layout(world: Path, release: Any) -> None:
    images = {path.name for path in (world / "images").iterdir()}
    parts = {part: stems(world, part) for part in ("train", "val", "test")}
    assert {part: len(names) for part, names in parts.items()} == {"train": 28, "val": 14, "test": 14}
    assert {f"{stem}.jpg" for names in parts.values() for stem in names} == images
    assert all(stem.isdigit() and len(stem) == 9 for names in parts.values() for stem in names)
    assert release.shape == (1, 1)
    assert release.dtype.names == ("annolist", "img_train", "version", "single_person", "act", "video_list")
    annolist = release["annolist"][0, 0]
    assert annolist.shape == (1, IMAGES)
    assert annolist.dtype.names == ("image", "annorect", "frame_sec", "vididx")
    assert {annolist["image"][0, i]["name"][0, 0][0] for i in range(IMAGES)} == images
    assert release["act"][0, 0].shape == (IMAGES, 1)
    for name in images:
        with Image.open(world / "images" / name) as image:
            assert image.size == (SIZE, SIZE)


def test_actions(world: Path, release: Any) -> None:
    act, annolist, trained = release["act"][0, 0], release["annolist"][0, 0], release["img_train"][0, 0]
    hidden = set(stems(world, "test"))
    ids: dict[str, set[int]] = {}
    for i in range(IMAGES):
        stem = annolist["image"][0, i]["name"][0, 0][0].removesuffix(".jpg")
        name, number = act["act_name"][i, 0], int(act["act_id"][i, 0][0, 0])
        assert trained[0, i] == (stem not in hidden)
        if stem in hidden:
            assert (name.size, act["cat_name"][i, 0].size, number) == (0, 0, -1)
        else:
            ids.setdefault(name[0], set()).add(number)
            assert act["cat_name"][i, 0][0] == CATEGORIES[name[0]]
    assert set(ids) == set(CLASSES)
    assert max(map(len, ids.values())) == 2  # several act_id share a name
    assert len(set().union(*ids.values())) == sum(map(len, ids.values()))


def test_people(release: Any) -> None:
    annolist = release["annolist"][0, 0]
    where = {stem_of(SEED, index): index for index in range(IMAGES)}
    odd = Counter[str]()
    for i in range(IMAGES):
        index = where[annolist["image"][0, i]["name"][0, 0][0].removesuffix(".jpg")]
        scene, rects = render(SEED, index, size=SIZE), annolist["annorect"][0, i]
        people = sorted(scene.people, key=lambda person: not person.actor)
        if part_of(index) == "test":
            assert rects.size == 0 or rects.dtype.names == ("scale", "objpos")
            odd["nobody"] += rects.size == 0
        else:
            assert rects.dtype.names == ("x1", "y1", "x2", "y2", "annopoints", "scale", "objpos")
        if rects.size == 0:
            continue
        assert rects.shape == (1, len(people))
        for rect, person in zip(rects[0], people, strict=True):
            assert rect["scale"][0, 0] * 200 == pytest.approx(person.scale, abs=0.01)
            centre = [rect["objpos"][name][0, 0][0, 0] for name in "xy"]
            assert centre == pytest.approx(person.joints[[6, 7]].mean(axis=0) + 0.5, abs=0.51)
            if part_of(index) == "test":
                continue
            assert rect["x1"][0, 0] <= person.joints[[8, 9], 0].mean() + 1
            assert rect["y2"][0, 0] >= rect["y1"][0, 0]
            if rect["annopoints"].size == 0:
                assert not person.actor
                odd["no points"] += 1
                continue
            points = rect["annopoints"]["point"][0, 0]
            ids = [int(points["id"][0, j][0, 0]) for j in range(points.shape[1])]
            assert ids == np.flatnonzero(person.visible).tolist()
            odd["joints missing"] += len(ids) < 16
            for j, joint in enumerate(ids):
                place = [points["x"][0, j][0, 0], points["y"][0, j][0, 0]]
                assert place == pytest.approx(person.joints[joint] + 0.5, abs=0.01)  # counted from 1
                seen = points["is_visible"][0, j]
                assert seen.size == 0 if joint in (8, 9) else seen[0, 0] == (person.visible[joint] == 2)
    assert min(odd["nobody"], odd["no points"], odd["joints missing"]) >= 1


def test_the_reader_agrees(world: Path) -> None:
    train, val = read(f"mpii:{world}")
    where = {f"images/{stem_of(SEED, index)}.jpg": index for index in range(IMAGES)}
    assert (len(train), len(val), set(train.classes)) == (28, 14, set(CLASSES))
    for part in (train, val):
        for sample in part:
            scene = render(SEED, where[sample.path], size=SIZE)
            assert part.classes[sample.labels[0]] == scene.label
            assert len(sample.people) == len(scene.people)
            actor = next(person for person in scene.people if person.actor)
            for mine, joint, v in zip(sample.people[0].joints, actor.joints, actor.visible, strict=True):
                assert (mine is None) == (v == 0)
                assert mine is None or mine == pytest.approx(joint, abs=0.01)


def test_the_same_images_as_in_folders(world: Path, tmp_path: Path) -> None:
    for index in (0, 20, 55):
        render(SEED, index, size=SIZE).image.save(tmp_path / "a.jpg", quality=90)
        assert (tmp_path / "a.jpg").read_bytes() == (world / "images" / f"{stem_of(SEED, index)}.jpg").read_bytes()


def test_stems_are_different() -> None:
    assert len({stem_of(3, index) for index in range(20_000)}) == 20_000


def test_the_evidence_comes_along(world: Path) -> None:
    """MPII's own files do not say where the evidence is; the annotations beside them do, for scores of pointing."""
    train, val = read(f"mpii:{world}")
    scenes = [render(SEED, i, size=SIZE) for i in range(IMAGES)]
    truth = {f"images/{stem_of(SEED, i)}.jpg": scene for i, scene in enumerate(scenes)}
    for sample in (*train, *val):
        scene = truth[sample.path]
        assert sample.evidence == (pytest.approx(scene.evidence),)
        assert sorted(sample.objects) == sorted(pytest.approx(it.box) for it in scene.objects if it.in_use)
