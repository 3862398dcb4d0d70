"""Sample and Dataset: what a dataset is, before any pixel is decoded.

A reader (`folder.py`, `mpii.py`, ... one file a format) turns a layout on disk into a `Dataset`; everything else in the
package sees datasets only as a `Dataset`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from attnpool.keypoints.joints import Box, Joints

Task = Literal["single", "multi"]


@dataclass(frozen=True)
class Person:
    """One person in an image, in pixels of the upright image (after the EXIF rotation).

    Attributes:
        joints: 16 entries `(x, y)` in the order of `attnpool.keypoints.MPII_JOINTS`; `None` where there is no label.
        box: `(x1, y1, x2, y2)`, or `None`.
    """

    joints: Joints = ()
    box: Box | None = None


@dataclass(frozen=True)
class Sample:
    """One image or clip and what is known about it.

    Attributes:
        path: the image, the video or the folder of a clip's frames, relative to `Dataset.root`, with forward slashes;
            it is the sample's name.
        labels: indices into `Dataset.classes`: exactly one if the task is "single", any number if "multi"; none where
            labels are not public (MPII's test part).
        people: everybody with keypoints or a box.
        evidence: the boxes in which the evidence of the label lies (person with object), for pointing accuracy.
        objects: boxes of the objects that are in use, for pointing accuracy.
        ambiguous: classes of which annotators could not say whether they are shown (HICO's 0); neither training nor
            scores count them for this image.
        negatives: classes that were looked for and are not there (HICO's -1); `None` where that is true of all others.
            What is in none of the three lists is unknown (HICO's NaN), and counts as not there unless the score's
            definition says otherwise.
        keypoints: OpenPose JSON read when the pixels are: a file for an image, a folder with a file a frame for a
            clip, relative to `Dataset.root`; "" for none. A file that is not there means that nothing is known.
    """

    path: str
    labels: tuple[int, ...]
    people: tuple[Person, ...] = ()
    evidence: tuple[Box, ...] = ()
    objects: tuple[Box, ...] = ()
    ambiguous: tuple[int, ...] = ()
    negatives: tuple[int, ...] | None = None
    keypoints: str = ""


@dataclass(frozen=True)
class Dataset:
    """A dataset, or one part of it: classes and samples.

    Attributes:
        name: what the user typed, such as "folder:photos".
        root: the directory that sample paths are relative to.
        classes: class names; the position in this tuple is the class number.
        samples: in a fixed order that depends on names alone.
        task: "single" (exactly one class an image) or "multi" (any number).
        split: "train", "val", ... or "all".
        media: whether samples are images or clips.
        format: the key of `data.formats.READERS` that read it; "" for none.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    task: Task = "single"
    split: str = "all"
    media: Literal["images", "clips"] = "images"
    format: str = ""

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def file(self, sample: Sample) -> Path:
        """The path of a sample's file on disk."""
        return self.root / sample.path

    def select(self, paths: Iterable[str], split: str | None = None) -> Dataset:
        """The samples with these paths, in this dataset's own order, as a new dataset.

        Raises:
            ValueError: a path is not in this dataset.
        """
        wanted = set(paths)
        chosen = tuple(sample for sample in self.samples if sample.path in wanted)
        if len(chosen) != len(wanted):
            missing = sorted(wanted - {sample.path for sample in chosen})
            raise ValueError(f"{self.name}: {len(missing)} files of the list are not there, the first is {missing[0]}")
        return replace(self, samples=chosen, split=split or self.split)
