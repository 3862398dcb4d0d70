"""Labels a dataset with the joints that a pose estimator finds."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from attnpool.data.dataset import Dataset, Sample
from attnpool.data.decoding.image import Unreadable, read_image
from attnpool.data.decoding.video import read_clip
from attnpool.data.formats import READERS
from attnpool.data.pose_store import Store, open_store
from attnpool.data.reading import read_splits
from attnpool.keypoints.detections import Estimator
from attnpool.keypoints.estimators import build_estimator
from attnpool.progress import bar

SPLITS = ("all", "train", "val", "test")
LISTED = 10  # number of unreadable files that the text lists
AT_ONCE = 256  # number of frames of a clip that are in memory at a time


@dataclass
class PoseLabels:
    """The result of `label_pose`.

    Attributes:
        source: the dataset.
        estimator: the estimator and its version.
        out: the folder that was written to.
        labelled: number of images, or frames of clips, on which the estimator was run.
        known: number of images or clips that already had all of their labels.
        people: number of persons found.
        joints: number of joints found.
        empty: number of images or frames in which nobody was found.
        failed: `(path, reason)` of images or clips that cannot be read.
    """

    source: str
    estimator: str
    out: str
    labelled: int = 0
    known: int = 0
    people: int = 0
    joints: int = 0
    empty: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        failed = [{"file": path, "reason": reason} for path, reason in self.failed]
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"failed": failed}

    def __str__(self) -> str:
        lines = [f"cannot be read: {path} ({reason})" for path, reason in self.failed[:LISTED]]
        if len(self.failed) > LISTED:
            lines.append(f"and {len(self.failed) - LISTED} more, see --json")
        lines += [
            f"{self.out}: {self.labelled} labelled by {self.estimator}",
            f"{self.people} people with {self.joints} joints; nobody in {self.empty}",
            f"{self.known} had labels already, {len(self.failed)} cannot be read",
        ]
        return "\n".join(lines)


def label_pose(
    source: str | Path,
    estimator: Literal["keypointrcnn", "mediapipe"] = "keypointrcnn",
    *,
    weights: str | Path | None = None,
    python: str | Path | None = None,
    min_score: float = 0.5,
    short_side: int | None = None,
    out: str | Path | None = None,
    split: Literal["all", "train", "val", "test"] = "all",
    every: int = 1,
    overwrite: bool = False,
    progress: bool = False,
) -> PoseLabels:
    """Finds people and their joints in every image or clip of a dataset, and stores them where its reader finds them.

    For a folder of images that is `poses.json` in the folder, for published datasets OpenPose JSON in `keypoints/`.
    Labels made by hand are never changed. Images that have labels are left out, so the same call continues where it
    was interrupted.

    Args:
        source: dataset to label, as FORMAT:PATH, such as folder:photos.
        estimator: pose estimator, keypointrcnn, which finds everybody in an image, or mediapipe, which is faster and
            finds one person.
        weights: weights of keypointrcnn, pretrained or a .pth or .safetensors file (default: pretrained).
        python: Python interpreter of an environment with mediapipe, for that estimator (default: this one).
        min_score: least score of a person and of a joint that is kept, from 0 to 1.
        short_side: short side in pixels to which images are resized for keypointrcnn (default: 800).
        out: folder to write to, in the layout of the dataset (default: the dataset's own folder).
        split: split of the dataset to label.
        every: distance between labelled frames of a clip; 1 labels every frame.
        overwrite: label images again that an earlier call labelled; labels from elsewhere are always kept.
        progress: show a progress bar with the time left.

    Raises:
        ValueError: the dataset or an option cannot be used, or the estimator cannot be set up; the message is one line
            with the fix.
        OSError: a file cannot be written, or the estimator's process died. Finished labels are kept.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
    if every < 1:
        raise ValueError(f"every is {every}; give at least 1")
    splits = read_splits(source, test=True)
    if READERS[splits["train"].format].sealed:
        raise ValueError(f"{source}: joints cannot be added; label what it was written from, and write it again")
    if split not in ("all", *splits):
        raise ValueError(f"{source} has no split {split!r}: use one of all, {', '.join(splits)}")
    parts = splits.values() if split == "all" else [splits[split]]
    samples = list({sample.path: sample for part in parts for sample in part}.values())  # val and test may be the same
    dataset = next(iter(parts))
    base = dataset.root if out is None else Path(out)
    finder = build_estimator(estimator, weights=weights, python=python, min_score=min_score, short_side=short_side)
    with contextlib.closing(finder):
        by = f"{finder.name}, min_score {min_score:g}" + (f", short_side {short_side}" if short_side else "")
        store = open_store(dataset, base, by=by, overwrite=overwrite)
        store.begin(samples)
        done = PoseLabels(str(source), by, str(base))
        _label(dataset, samples, store, finder, every, done, progress)
        store.finish()
    return done


def _label(
    dataset: Dataset,
    samples: Sequence[Sample],
    store: Store,
    finder: Estimator,
    every: int,
    done: PoseLabels,
    show: bool,
) -> None:
    clips = dataset.media == "clips"
    # Which frames of a clip are unlabelled is known only when it is read.
    todo = [sample for sample in samples if clips or store.missing(sample, [None])]
    done.known = len(samples) - len(todo)
    with bar(len(samples), "pose", "clips" if clips else "images", done=done.known, hidden=not show) as shown:
        for sample in todo:
            try:
                if clips:
                    _label_clip(dataset, sample, store, finder, every, done)
                else:
                    with dataset.opened(sample) as file:
                        image = read_image(file)
                    _find(sample, None, image, store, finder, done)
            except Unreadable as error:
                done.failed.append((sample.path, error.reason))
            shown.update(1)


def _label_clip(
    dataset: Dataset, sample: Sample, store: Store, finder: Estimator, every: int, done: PoseLabels
) -> None:
    def missing(count: int) -> list[int]:
        return [frame for frame in store.missing(sample, range(0, count, every)) if frame is not None]

    before, left = done.labelled, AT_ONCE + 1
    while left > AT_ONCE:
        with dataset.opened(sample) as file:
            count, images, _ = read_clip(file, lambda count: missing(count)[:AT_ONCE])
        frames = missing(count)
        left = len(frames)
        for frame, image in zip(frames[:AT_ONCE], images, strict=True):
            _find(sample, frame, image, store, finder, done)
    done.known += done.labelled == before


def _find(
    sample: Sample, frame: int | None, image: Image.Image, store: Store, finder: Estimator, done: PoseLabels
) -> None:
    people = finder(image)
    store.add(sample, frame, image.size, people)
    done.labelled += 1
    done.people += len(people)
    done.joints += sum(joint is not None for person in people for joint in person.joints)
    done.empty += not people
