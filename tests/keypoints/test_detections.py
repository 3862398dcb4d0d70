"""A person from an estimator's joints: MPII's order, what is certain and inside of the image, and the mean score."""

from __future__ import annotations

import pytest

from attnpool.keypoints.detections import check_score, estimate, first_line
from attnpool.keypoints.joints import MPII_JOINTS


def test_joints_come_in_mpiis_order() -> None:
    names = ["left_wrist", "right_ankle", "left_knee", "right_knee"]
    found = [(5, 6, 0.9), (1, 2, 0.5), (3, 4, 0.2), (99, 4, 0.9)]  # certain, certain, uncertain, outside
    person = estimate(names, found, (10, 10), 0.3)
    assert person is not None
    expected = {"right_ankle": (1, 2), "left_wrist": (5, 6)}
    assert dict(zip(MPII_JOINTS, person.joints, strict=True)) == {name: expected.get(name) for name in MPII_JOINTS}
    scores = {"right_ankle": 0.5, "left_wrist": 0.9}
    assert person.scores == tuple(scores.get(name, 0) for name in MPII_JOINTS)
    assert person.score == pytest.approx(0.7)
    own = estimate(names, found, (10, 10), 0.3, score=0.1, box=(0, 0, 9, 9))
    assert own is not None
    assert (own.score, own.box, own.joints) == (0.1, (0, 0, 9, 9), person.joints)


def test_nobody() -> None:
    assert estimate(["left_wrist"], [(5, 6, 0.2)], (10, 10), 0.3) is None
    assert estimate(["left_wrist"], [(5, 6, 0.0)], (10, 10), 0.0) is None
    assert estimate(["left_eye"], [(5, 6, 0.9)], (10, 10), 0.3) is None  # no joint of MPII's


def test_scores_and_errors() -> None:
    for value in (0, 0.5, 1):
        check_score(value)
    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="min_score is"):
            check_score(value)
    assert first_line(OSError("\n  no room\nat all")) == "no room"
    assert first_line(OSError()) == "OSError"
