"""The world itself: the same image for the same numbers, balanced classes, annotations that agree with the pixels."""

import subprocess
import sys
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnpool.keypoints.joints import MPII_FLIP
from attnpool.playground import CLASSES, render
from attnpool.playground.actions import ACTIONS
from attnpool.playground.body import FOREARM, MIRROR, SHIN, THIGH, UPPER_ARM, Build, View, bend, mirrored, solve
from attnpool.playground.compose import label_of
from attnpool.playground.write_folder import is_validation

numbers = st.integers(0, 10_000)


def test_classes_are_names_of_folders() -> None:
    assert len(CLASSES) == 14 == len(set(CLASSES))
    assert all(name == name.lower().strip() and name.replace(" ", "").isalpha() for name in CLASSES)


@pytest.mark.parametrize("index", [0, 5, 17])
def test_same_numbers_same_image(index: int) -> None:
    first = render(3, index)
    for other in (4, 1):
        render(3, other)
    again = render(3, index)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.label == again.label
    assert first.objects == again.objects
    assert all((a.joints == b.joints).all() for a, b in zip(first.people, again.people, strict=True))
    assert render(4, index).image.tobytes() != first.image.tobytes()


def test_same_image_in_another_process() -> None:
    program = "import zlib; from attnpool.playground import render; print(zlib.crc32(render(9, 2).image.tobytes()))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(answer) == zlib.crc32(render(9, 2).image.tobytes())


@given(seed=numbers, images=st.integers(1, 200))
def test_classes_are_balanced_whatever_the_number(seed: int, images: int) -> None:
    counts = Counter(label_of(seed, index) for index in range(images))
    assert max(counts.values()) - min(counts.get(name, 0) for name in CLASSES) <= 1


@given(seed=numbers, images=st.integers(28, 400), percent=st.integers(1, 99))
def test_validation_part_is_stratified(seed: int, images: int, percent: int) -> None:
    val = [index for index in range(images) if is_validation(index, percent / 100)]
    counts = Counter(label_of(seed, index) for index in val)
    assert set(counts) == set(CLASSES)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert {label_of(seed, index) for index in range(images) if index not in set(val)} == set(CLASSES)
    # Whole blocks of 14 go to val, and the first never does.
    assert abs(len(val) - (images - 14) * percent / 100) <= 14


@settings(max_examples=25, deadline=None)
@given(seed=numbers, index=st.integers(0, 100_000))
def test_annotations_agree_with_the_image(seed: int, index: int) -> None:
    scene = render(seed, index, size=224)
    assert scene.image.size == (224, 224)
    assert scene.image.mode == "RGB"
    assert [person.actor for person in scene.people].count(True) == 1
    assert [thing.in_use for thing in scene.objects].count(True) == 1
    used = next(thing for thing in scene.objects if thing.in_use)
    assert used.name in scene.label
    assert 1 <= len(scene.people) <= 3
    for person in scene.people:
        assert person.joints.shape == (16, 2)
        assert set(person.visible.tolist()) <= {0, 1, 2}
        inside = ((person.joints >= 0) & (person.joints < 224)).all(axis=1)
        assert (inside == (person.visible > 0)).all()
        x1, y1, x2, y2 = person.box
        for x, y in person.joints[person.visible == 2]:
            assert x1 - 1 <= x <= x2 + 1
            assert y1 - 1 <= y <= y2 + 1
    actor = next(person for person in scene.people if person.actor)
    assert (actor.visible == 2).sum() >= 6
    for x1, y1, x2, y2 in [thing.box for thing in scene.objects] + [person.box for person in scene.people]:
        assert 0 <= x1 < x2 <= 224
        assert 0 <= y1 < y2 <= 224
    assert all(a <= b for a, b in zip(scene.evidence[:2], used.box[:2], strict=True))
    assert all(a >= b for a, b in zip(scene.evidence[2:], used.box[2:], strict=True))


def test_neither_presence_nor_person_count_gives_the_class_away() -> None:
    unused, kinds = Counter[str](), 0
    for index in range(56):
        scene = render(1, index, size=128)
        names = {thing.name for thing in scene.objects if not thing.in_use}
        unused.update(names)
        kinds += len(names)
    assert len(unused) == 9
    assert min(unused.values()) >= 6
    assert kinds / 56 >= 2.5


def test_the_thing_in_use_is_seen_and_small() -> None:
    for index in range(42):
        scene = render(2, index)
        used = next(thing for thing in scene.objects if thing.in_use)
        share = max(used.box[2] - used.box[0], used.box[3] - used.box[1]) / 448
        assert used.area >= 60, (index, scene.label)
        if used.name in ("mug", "phone"):
            assert 0.025 < share < 0.11, (index, scene.label, share)


@given(phase=st.floats(0, 1), seed=numbers, name=st.sampled_from(CLASSES))
def test_bones_keep_their_lengths(phase: float, seed: int, name: str) -> None:
    body = solve(ACTIONS[name](phase, np.random.default_rng(seed)).pose, Build())
    legs = ((0, 1, SHIN), (1, 2, THIGH), (3, 4, THIGH), (4, 5, SHIN))
    arms = ((10, 11, FOREARM), (11, 12, UPPER_ARM), (13, 14, UPPER_ARM), (14, 15, FOREARM))
    for a, b, length in legs + arms:
        assert np.linalg.norm(body.joints[a] - body.joints[b]) == pytest.approx(length, abs=1e-9)
    assert body.joints[9, 1] > body.joints[8, 1] > body.joints[7, 1] > body.joints[6, 1]
    twice = mirrored(mirrored(body))
    assert twice.joints == pytest.approx(body.joints)
    assert twice.head_axes == pytest.approx(body.head_axes)


@pytest.mark.parametrize("name", CLASSES)
def test_a_pose_moves_smoothly_with_the_phase(name: str) -> None:
    joints = [solve(ACTIONS[name](t, np.random.default_rng(0)).pose, Build()).joints for t in np.linspace(0, 1, 101)]
    steps = np.abs(np.diff(np.stack(joints), axis=0)).max(axis=(1, 2))
    assert steps.max() < 0.05
    assert steps.sum() > 0.01


def test_mirror_agrees_with_the_package() -> None:
    assert tuple(MPII_FLIP) == MIRROR


def test_view_of_a_person_facing_us() -> None:
    seen = View(100.0, 200.0, 150.0, 0.0).project(np.array([[0.1, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.2]]))
    assert seen[0, 0] == pytest.approx(115)  # the person's left is on our right
    assert seen[1, 1] < 60  # up
    assert seen[2, 2] > 0.1  # what is before the person is nearer to us


def test_bend_reaches_or_points() -> None:
    elbow, hand = bend(np.zeros(3), np.array([0.2, 0.0, 0.0]), 0.165, 0.14, (0.0, -1.0, 0.0))
    assert hand == pytest.approx([0.2, 0, 0])
    assert elbow[1] < 0
    _, far = bend(np.zeros(3), np.array([5.0, 0.0, 0.0]), 0.165, 0.14, (0.0, -1.0, 0.0))
    assert far[0] == pytest.approx(0.305, rel=1e-2)
    bend(np.zeros(3), np.zeros(3), 0.165, 0.14, (0.0, -1.0, 0.0))


@pytest.mark.parametrize(("seed", "index", "size"), [(-1, 0, 448), (0, -1, 448), (0, 0, 10), (0, 0, 100_000)])
def test_numbers_out_of_range(seed: int, index: int, size: int) -> None:
    with pytest.raises(ValueError, match=r"must be 0 or more|64 to 4096"):
        render(seed, index, size=size)


@pytest.mark.parametrize("size", [64, 97, 640])
def test_other_sizes(size: int) -> None:
    assert render(5, 3, size=size).image.size == (size, size)
