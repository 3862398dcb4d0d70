"""mediapipe for real, in the environment that `make test` sets up for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from estimating import PYTHON, photo
from PIL import Image, ImageOps

from attnpool.keypoints import MPII_FLIP, MPII_JOINTS
from attnpool.keypoints.blazepose import MediaPipe

# Where one sees them in the photo. What one sees of a shoulder is its outline, the joint lies further inside.
SEEN = {"head_top": (272, 235), "right_shoulder": (85, 415), "left_shoulder": (465, 415)}
TOLERANCE = {"head_top": 20, "right_shoulder": 40, "left_shoulder": 40}


@pytest.fixture(scope="module")
def mediapipe() -> Iterator[MediaPipe]:
    estimator = MediaPipe(PYTHON)
    yield estimator
    estimator.close()


def test_a_real_person(mediapipe: MediaPipe) -> None:
    (person,) = mediapipe(photo())
    joints = dict(zip(MPII_JOINTS, person.joints, strict=True))
    for name, place in SEEN.items():
        joint = joints[name]
        assert joint is not None
        assert np.hypot(joint[0] - place[0], joint[1] - place[1]) < TOLERANCE[name], (name, joint)
    # the hips are below the image's edge, and the set has no pelvis, thorax or neck
    assert {name for name, joint in joints.items() if joint} <= {*SEEN, "right_elbow", "left_elbow"}
    assert [score > 0.5 for score in person.scores] == [joint is not None for joint in person.joints]
    assert person.score == pytest.approx(np.mean([score for score in person.scores if score]))
    assert person.box is None
    assert mediapipe.name == "mediapipe 0.10.14"


def test_a_mirror_image_exchanges_sides(mediapipe: MediaPipe) -> None:
    (person,), (mirrored,) = mediapipe(photo()), mediapipe(ImageOps.mirror(photo()))
    for j, joint in enumerate(mirrored.joints):
        other = person.joints[MPII_FLIP[j]]
        assert (joint is None) == (other is None)
        if joint is not None and other is not None:
            assert np.hypot(512 - joint[0] - other[0], joint[1] - other[1]) < 20


def test_pixels_are_those_of_the_image_whatever_its_size(mediapipe: MediaPipe) -> None:
    """The photo at two thirds, on a wide canvas of an odd size."""
    small = photo().resize((341, 400))
    wide = Image.new("RGB", (801, 457), "grey")
    wide.paste(small, (300, 40))
    (person,), (moved,) = mediapipe(photo()), mediapipe(wide)
    for j, joint in enumerate(person.joints):
        if joint is not None:
            found = moved.joints[j]
            assert found is not None
            assert (
                np.hypot(found[0] - 300 - joint[0] * 2 / 3, found[1] - 40 - joint[1] * 2 / 3)
                < TOLERANCE[MPII_JOINTS[j]]
            )


def test_nobody(mediapipe: MediaPipe) -> None:
    assert mediapipe(Image.new("RGB", (64, 48), "white")) == []
    assert mediapipe(Image.new("RGB", (1, 1))) == []


def test_a_higher_score_asks_for_more() -> None:
    estimator = MediaPipe(PYTHON, min_score=0.05)
    try:
        (person,) = estimator(photo())
        low = [joint for joint in person.joints if joint]
    finally:
        estimator.close()
    assert len(low) >= 3
    assert all(0 <= x < 512 and 0 <= y < 600 for x, y in low)  # elbows and hips are outside


@pytest.mark.parametrize(
    ("python", "words"),
    [
        (None, "mediapipe is not installed here"),
        ("no/such/python", "no such file"),
        (sys.executable, "No module named 'mediapipe'"),
        ("/bin/false", "exit code 1"),
        ("/bin/echo", "does not start"),
    ],
)
def test_an_environment_without_it(python: str | None, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        MediaPipe(python)
    assert words in str(caught.value)
    assert "give the interpreter of an environment" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_wrong_scores(score: float) -> None:
    with pytest.raises(ValueError, match="min_score"):
        MediaPipe(PYTHON, min_score=score)


def test_a_process_that_died_is_said(tmp_path: Path) -> None:
    estimator = MediaPipe(PYTHON)
    estimator.child.process.kill()
    with pytest.raises(OSError, match="died"):
        estimator(photo())
    estimator.close()
    estimator.close()
