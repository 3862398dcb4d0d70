"""The persons in an image or a frame of a clip, from the dataset or from the keypoint file of the sample."""

from __future__ import annotations

import os
from collections.abc import Sequence

from attnpool.data.dataset import Dataset, Sample
from attnpool.data.decoding.image import Unreadable
from attnpool.data.formats.openpose import frame_file, read_openpose
from attnpool.keypoints.joints import Box, Joints


class UnreadableKeypoints(Unreadable):
    """The error for a malformed keypoint file; its sample is left out like one whose pixels cannot be read."""

    kind = "keypoints"


def people_of(dataset: Dataset, sample: Sample, frame: int | None = None) -> list[Joints]:
    """The 16 joints of every person, in pixels of the image or frame.

    Args:
        dataset: the dataset.
        sample: one of its samples.
        frame: number of the frame in a clip, counted from 0; None for images.

    Raises:
        UnreadableKeypoints: (a ValueError) the keypoint file is malformed, so that the persons are not known.
    """
    joints: list[Joints] = [person.joints for person in sample.people if person.joints]
    if sample.keypoints and dataset.storage and frame is not None:
        return joints + dataset.storage.people(sample.path, frame)
    if sample.keypoints:
        name = sample.keypoints if frame is None else frame_file(sample.keypoints, frame)
        path = dataset.root / name
        try:
            joints += read_openpose(path)
        except ValueError as error:
            problem = str(error).removeprefix(f"{path}: ").partition("; correct the file")[0]
            raise UnreadableKeypoints(path, f"keypoint file {name}: {problem}") from error
    return joints


def keypoint_files(dataset: Dataset, sample: Sample) -> list[str]:
    """The keypoint files of a sample: one for an image, those that there are of the frames of a clip."""
    if not sample.keypoints or dataset.media != "clips":
        return [sample.keypoints] if sample.keypoints else []
    folder = dataset.root / sample.keypoints
    if not folder.is_dir():
        return []
    return [f"{sample.keypoints}/{name}" for name in sorted(os.listdir(folder)) if name.endswith(".json")]


def person_boxes(sample: Sample, joints: Sequence[Joints]) -> list[Box]:
    """A box for every person in an image: the annotated box, or else the extent of the joints.

    Args:
        sample: the image.
        joints: joints of all persons, from `people_of`; the first ones belong to the sample's own persons with joints.
    """
    own = [person.box for person in sample.people if person.joints]
    boxes = [person.box for person in sample.people if not person.joints]
    boxes += [box or _extent(person) for box, person in zip([*own, *[None] * len(joints)], joints, strict=False)]
    return [box for box in boxes if box is not None]


def _extent(joints: Joints) -> Box | None:
    points = [joint for joint in joints if joint is not None]
    if len(points) < 2:
        return None
    x, y = zip(*points, strict=True)
    return (min(x), min(y), max(x), max(y))
