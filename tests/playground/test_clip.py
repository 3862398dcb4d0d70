"""Clips: the same for the same numbers, smooth movement through the frame, annotations that agree with the pixels."""

import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpool.playground import CLASSES
from attnpool.playground.body import View
from attnpool.playground.clip import HEIGHT, STAGE, WIDTH, Frame, compose_clip, render_clip
from attnpool.playground.compose import label_of
from attnpool.playground.motion import Performer, random_camera

FRAMES = 24


@pytest.fixture(scope="module")
def clips() -> list[list[Frame]]:
    return [list(render_clip(compose_clip(3, index, FRAMES))) for index in range(14)]


def test_same_numbers_same_clip(clips: list[list[Frame]]) -> None:
    again = list(render_clip(compose_clip(3, 5, FRAMES)))
    assert [zlib.crc32(frame.image) for frame in again] == [zlib.crc32(frame.image) for frame in clips[5]]
    assert again[7].things == clips[5][7].things
    assert all((a.joints == b.joints).all() for a, b in zip(again[9].people, clips[5][9].people, strict=True))
    other = next(render_clip(compose_clip(4, 5, FRAMES)))
    assert other.image.tobytes() != clips[5][0].image.tobytes()


def test_a_block_shows_every_class() -> None:
    assert {compose_clip(3, index, 2).label for index in range(14, 28)} == set(CLASSES)
    assert [compose_clip(8, index, 2).label for index in range(5)] == [label_of(8, index) for index in range(5)]


def test_annotations_agree_with_the_frames(clips: list[list[Frame]]) -> None:
    for frames in clips:
        assert len(frames) == FRAMES
        for frame in frames:
            assert frame.image.shape == (HEIGHT, WIDTH, 3)
            assert frame.image.dtype == np.uint8
            assert sum(person.actor for person in frame.people) <= 1
            for person in frame.people:
                inside = ((person.joints >= 0) & (person.joints < (WIDTH, HEIGHT))).all(axis=1)
                assert not person.visible[~inside].any()
                x1, y1, x2, y2 = person.box
                for x, y in person.joints[person.visible == 2]:
                    assert x1 - 2 <= x <= x2 + 2
                    assert y1 - 2 <= y <= y2 + 2
            for box in [person.box for person in frame.people] + [thing.box for thing in frame.things]:
                assert 0 <= box[0] < box[2] <= WIDTH
                assert 0 <= box[1] < box[3] <= HEIGHT


def test_actor_and_thing_are_seen_in_the_middle(clips: list[list[Frame]]) -> None:
    for index, frames in enumerate(clips):
        middle = frames[FRAMES // 2]
        actor = next(person for person in middle.people if person.actor)
        assert actor.label == label_of(3, index) == middle.things[0].label
        assert (actor.visible == 2).sum() >= 6


def test_people_move_through_the_frame_and_smoothly(clips: list[list[Frame]]) -> None:
    paths = []
    for frames in clips:
        actors = [next((person for person in frame.people if person.actor), None) for frame in frames]
        paths.append([actor.joints[6] for actor in actors if actor is not None])
        for before, after in pairwise(actors):
            if before is not None and after is not None:
                # The fastest hand covers a fifth of the body's height between two frames.
                assert np.abs(after.joints - before.joints).max() < 0.2 * before.scale + 8
    ranges = [float(np.ptp(np.array(path)[:, 0])) for path in paths]
    assert np.median(ranges) > 12
    assert max(ranges) > 50
    places = np.array([path[len(path) // 2][0] for path in paths]) / WIDTH
    assert np.ptp(places) > 0.4  # not always in the middle


def test_what_stands_still_is_the_same_in_all_frames(clips: list[list[Frame]]) -> None:
    """With a camera on a tripod, only people and their shadows change."""
    index = next(
        index
        for index in range(14, 200)
        if (camera := compose_clip(3, index, 3).camera).shake == 0 and camera.pan == (0.0, 0.0)
    )
    clip = compose_clip(3, index, 3)
    first, _, last = (frame.image.astype(int) for frame in render_clip(clip))
    change = np.abs(first - last).max(axis=2)
    assert (change <= 8 * clip.noise + 2).mean() > 0.6


@given(time=st.floats(-2, 2), seed=st.integers(0, 500), x=st.floats(0, STAGE), y=st.floats(0, STAGE))
def test_the_camera_never_looks_past_the_stage(time: float, seed: int, x: float, y: float) -> None:
    camera = random_camera((WIDTH, HEIGHT), (x, y), STAGE, 0.5, 1.3, np.random.default_rng(seed))
    corners = np.array([[0, 0, 1], [WIDTH, 0, 1], [0, HEIGHT, 1], [WIDTH, HEIGHT, 1]]) @ camera.matrix(time, STAGE).T
    assert corners.min() >= 0
    assert corners.max() <= STAGE


@pytest.mark.parametrize("label", CLASSES)
def test_a_person_stays_the_same_throughout(label: str) -> None:
    performer = Performer(label, (1, 2, 3), View(100, 200, 150, 0.5), False, 1.0, 1.2, 0.3)
    first, later = performer.acting(-0.5), performer.acting(0.3)
    assert (first.wear, first.look, first.left_handed) == (later.wear, later.look, later.left_handed)
    assert not np.array_equal(first.body.joints, later.body.joints)
    phases = [performer.phase(time) for time in np.linspace(0, 1.2, 50)]
    assert min(phases) < 0.1
    assert max(phases) > 0.9


def test_a_walker_goes_where_he_faces() -> None:
    place = compose_clip(0, 0, 2).plan.place
    for heading, sign in ((1.2, 1), (-1.2, -1)):
        performer = Performer("", (1,), View(270, 450, 150, heading), True, 1.0, 1.2, 0.0)
        before, after = performer.view(-0.5, place), performer.view(0.5, place)
        assert (after.x - before.x) * sign > 40
        assert after.scale > before.scale  # heading is less than a right angle: nearer, lower, larger
        assert after.y > before.y
