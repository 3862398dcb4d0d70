"""Keypoint files as OpenPose would write them, but without its mistakes, in the JSON of the paper's authors."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from attnpool.keypoints.joints import MPII_JOINTS, OPENPOSE_JOINTS
from attnpool.playground.raster import Array
from attnpool.playground.scene import Figure

# Scores of a joint by its visibility: not found, found although it is hidden, visible.
SCORES = (0.0, 0.35, 0.9)
# OpenPose guesses hidden joints, but not those of a person who is hardly visible.
FEWEST_JOINTS = 4

_FACE = ("nose", "right_eye", "left_eye", "right_ear", "left_ear")


def detections(person: Figure) -> tuple[Array, Array]:
    """OpenPose's joints in pixels (18, 2) and their visibility (18,), as in `Figure`.

    The neck is midway between the shoulders, as in OpenPose's training data.
    """
    right, left = MPII_JOINTS.index("right_shoulder"), MPII_JOINTS.index("left_shoulder")
    neck = (person.joints[right] + person.joints[left]) / 2
    visible = min(person.visible[right], person.visible[left])
    places = {name: (person.joints[j], person.visible[j]) for j, name in enumerate(MPII_JOINTS)}
    places |= {name: (person.face[j], person.face_visible[j]) for j, name in enumerate(_FACE)}
    places["neck"] = (neck, visible)
    points, seen = zip(*(places[name] for name in OPENPOSE_JOINTS), strict=True)
    return np.array(points), np.array(seen)


def body(points: Array, visible: Array) -> list[float]:
    """The joints as 54 numbers x, y, score; joints that are not found are 0, 0, 0."""
    numbers: list[float] = []
    for (x, y), v in zip(points, visible, strict=True):
        numbers += [round(float(x), 2), round(float(y), 2), SCORES[int(v)]] if v else [0.0, 0.0, 0.0]
    return numbers


def write_bodies(path: Path, people: Iterable[tuple[Array, Array]]) -> None:
    """Writes the people of an image or frame, without those who have hardly a visible joint."""
    bodies = [{"joints": body(*person)} for person in people if (person[1] == 2).sum() >= FEWEST_JOINTS]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"bodies": bodies}), encoding="utf-8")
