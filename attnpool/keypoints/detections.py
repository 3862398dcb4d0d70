"""A person that a pose estimator found, and what all pose estimators share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from attnpool.keypoints.joints import Box, Joint, Joints, joint_mapping


@dataclass(frozen=True)
class Estimate:
    """One person found in an image.

    Attributes:
        joints: 16 entries `(x, y)` in the order of `MPII_JOINTS`, in pixels of the image; `None` where a joint was
            not found, or found outside the image.
        scores: confidence of each of the 16 joints, from 0 to 1; 0 where there is none.
        score: confidence of the person, from 0 to 1.
        box: `(x1, y1, x2, y2)`, or `None` if the estimator gives none.
    """

    joints: Joints
    scores: tuple[float, ...]
    score: float
    box: Box | None = None


class Estimator(Protocol):
    """A pose estimator; `name` identifies it and its version, and `close()` frees its resources."""

    name: str

    def __call__(self, image: Image.Image) -> list[Estimate]: ...

    def close(self) -> None: ...


def estimate(
    names: Sequence[str],
    found: Sequence[Sequence[float]],
    size: tuple[int, int],
    min_score: float,
    score: float | None = None,
    box: Box | None = None,
) -> Estimate | None:
    """Builds a person with MPII's joints from `(x, y, score)` of named joints; `None` if no joint is left.

    A person without a score gets the mean score of its joints.
    """
    width, height = size
    joints: list[Joint] = []
    scores: list[float] = []
    for position in joint_mapping(names):
        x, y, certainty = (0.0, 0.0, 0.0) if position is None else found[position]
        usable = certainty >= min_score and certainty > 0 and 0 <= x < width and 0 <= y < height
        joints.append((x, y) if position is not None and usable else None)
        scores.append(certainty if joints[-1] else 0.0)
    certain = [value for value in scores if value > 0]
    if not certain:
        return None
    return Estimate(tuple(joints), tuple(scores), sum(certain) / len(certain) if score is None else score, box)


def check_score(min_score: float) -> None:
    """Raises ValueError if `min_score` is not between 0 and 1."""
    if not 0 <= min_score <= 1:
        raise ValueError(f"min_score is {min_score}; give a number from 0 to 1, such as 0.5")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
