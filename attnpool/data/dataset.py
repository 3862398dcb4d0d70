"""Sample and Dataset: the files, labels and annotations of a dataset, before any pixel is decoded.

A reader (`folder.py`, `mpii.py`, ..., one file per format) turns a layout on disk into a `Dataset`; the rest of the
package uses only the `Dataset`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

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
        path: path of the image, the video or the folder of a clip's frames, relative to `Dataset.root`, with forward
            slashes; it is the sample's name.
        labels: indices into `Dataset.classes`: exactly one if the task is "single", any number if "multi"; none where
            labels are not public (MPII's test split).
        people: all persons with keypoints or a box.
        evidence: boxes that contain the evidence of the label (person with object), for pointing accuracy.
        objects: boxes of the objects that are in use, for pointing accuracy.
        ambiguous: classes for which annotators were not sure whether they are shown (HICO's 0); neither training nor
            metrics count them for this image.
        negatives: classes that annotators looked for and did not find (HICO's -1); `None` if that holds for all others.
            Classes in none of the three lists are unknown (HICO's NaN), and count as not shown unless a metric is
            defined otherwise.
        keypoints: OpenPose JSON, which is read together with the pixels: a file for an image, a folder with a file per
            frame for a clip, relative to `Dataset.root`; "" for none. A missing file means that nothing is known.
        group: what it belongs to, such as a video, which no split divides; "" if it stands for itself.
    """

    path: str
    labels: tuple[int, ...]
    people: tuple[Person, ...] = ()
    evidence: tuple[Box, ...] = ()
    objects: tuple[Box, ...] = ()
    ambiguous: tuple[int, ...] = ()
    negatives: tuple[int, ...] | None = None
    keypoints: str = ""
    group: str = ""


class Storage(Protocol):
    """Where samples are that are no files in a folder; each method takes the `path` of a sample."""

    def opened(self, path: str) -> AbstractContextManager[Path]:
        """The sample as a file, or a folder of frames, until the block ends."""

    def people(self, path: str, frame: int | None) -> list[Joints]:
        """The joints of the people in a frame of a clip, or in all frames."""

    def digest(self, path: str) -> str:
        """What tells the content of the sample from any other."""

    def size(self, path: str) -> tuple[int, int] | None:
        """Width and height of an image, or of a clip's first frame, upright; None if they are not known."""

    def block(self, path: str) -> int:
        """The number of the block in which it is. Samples of one block are best read together."""


@dataclass(frozen=True)
class Dataset:
    """A dataset, or one split of it: classes and samples.

    Attributes:
        name: the dataset as the user named it, such as "folder:photos".
        root: the directory that sample paths are relative to.
        classes: class names; the position in this tuple is the class number.
        samples: the samples, in a fixed order that depends only on names.
        task: "single" (exactly one class per image) or "multi" (any number).
        split: "train", "val", ... or "all".
        media: whether samples are images or clips.
        format: the key of `data.formats.READERS` that read it; "" for none.
        left_out: classes that were left out because they have too few samples.
        notes: what else the reader left out, a line for each kind.
        storage: where the samples are; None for files in `root`.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    task: Task = "single"
    split: str = "all"
    media: Literal["images", "clips"] = "images"
    format: str = ""
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    storage: Storage | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def file(self, sample: Sample) -> Path:
        """The path of a sample's file in `root`; a sample in a `storage` has none, see `opened`."""
        if self.storage is not None:
            raise ValueError(f"{self.name}: {sample.path} is no file of its own; use opened")
        return self.root / sample.path

    @contextmanager
    def opened(self, sample: Sample) -> Iterator[Path]:
        """The file of a sample, or the folder of its frames, which may be there only until the block ends."""
        if self.storage is None:
            yield self.file(sample)
        else:
            with self.storage.opened(sample.path) as file:
                yield file

    @property
    def blocks(self) -> list[int] | None:
        """For every sample the number of the block in which it is stored; None if each is a file of its own."""
        return None if self.storage is None else [self.storage.block(sample.path) for sample in self.samples]

    def sorted(self, samples: Iterable[Sample], split: str) -> Dataset:
        """A dataset of these samples in a fixed order: by block and path."""
        stored = self.storage

        def place(sample: Sample) -> tuple[int, str]:
            return 0 if stored is None else stored.block(sample.path), sample.path

        return replace(self, samples=tuple(sorted(samples, key=place)), split=split)

    def joined(self, other: Dataset, split: str) -> Dataset:
        """The samples of both parts of a dataset, each of them once."""
        known = {sample.path for sample in self.samples}
        more = tuple(sample for sample in other.samples if sample.path not in known)
        return replace(self, samples=self.samples + more, split=split)

    def without_people(self) -> Dataset:
        """The samples without joints and boxes of persons, so that a malformed file of them does no harm."""
        return replace(self, samples=tuple(replace(sample, people=(), keypoints="") for sample in self.samples))

    def select(self, paths: Iterable[str], split: str | None = None) -> Dataset:
        """The samples with these paths as a new dataset, in the order of this dataset.

        Raises:
            ValueError: a path is not in this dataset.
        """
        wanted = set(paths)
        chosen = tuple(sample for sample in self.samples if sample.path in wanted)
        if len(chosen) != len(wanted):
            missing = sorted(wanted - {sample.path for sample in chosen})
            raise ValueError(
                f"{self.name}: {len(missing)} of the listed files are not in it, such as {missing[0]}; add them again"
            )
        return replace(self, samples=chosen, split=split or self.split)
