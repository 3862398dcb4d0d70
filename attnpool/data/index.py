"""Sample and Index: what a dataset is, before any pixel is decoded.

A reader (`folder.py`, later one file a format) turns a layout on disk into an `Index`; everything else in the
package sees datasets only as an `Index`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Box = tuple[float, float, float, float]
Task = Literal["single", "multi"]


@dataclass(frozen=True)
class Person:
    """One person in a picture, in pixels of the upright picture (after the EXIF rotation).

    Attributes:
        joints: 16 entries `(x, y)` in the order of `attnpool.pose.MPII_JOINTS`; `None` where there is no label.
        box: `(x1, y1, x2, y2)`, or `None`.
    """

    joints: tuple[tuple[float, float] | None, ...] = ()
    box: Box | None = None


@dataclass(frozen=True)
class Sample:
    """One picture and what is known about it.

    Attributes:
        path: the file, relative to `Index.root`, with forward slashes; it is the sample's name.
        labels: indices into `Index.classes`: exactly one if the task is "single", any number if "multi".
        people: everybody with keypoints or a box.
        evidence: the boxes in which the evidence of the label lies (person with object), for pointing accuracy.
        objects: boxes of the objects that are in use, for pointing accuracy.
    """

    path: str
    labels: tuple[int, ...]
    people: tuple[Person, ...] = ()
    evidence: tuple[Box, ...] = ()
    objects: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Index:
    """A dataset, or one part of it: classes and samples.

    Attributes:
        name: what the user typed, such as "folder:photos".
        root: the directory that sample paths are relative to.
        classes: class names; the position in this tuple is the class number.
        samples: in a fixed order that depends on names alone.
        task: "single" (exactly one class an image) or "multi" (any number).
        split: "train", "val", ... or "all".
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    task: Task = "single"
    split: str = "all"

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def file(self, sample: Sample) -> Path:
        """The path of a sample's file on disk."""
        return self.root / sample.path

    def select(self, paths: Iterable[str], split: str | None = None) -> Index:
        """The samples with these paths, in this index's own order, as a new index.

        Raises:
            ValueError: a path is not in this index.
        """
        wanted = set(paths)
        chosen = tuple(sample for sample in self.samples if sample.path in wanted)
        if len(chosen) != len(wanted):
            missing = sorted(wanted - {sample.path for sample in chosen})
            raise ValueError(f"{self.name}: {len(missing)} files of the list are not there, the first is {missing[0]}")
        return replace(self, samples=chosen, split=split or self.split)
