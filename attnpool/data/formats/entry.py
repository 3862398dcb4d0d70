"""What the rest of the package knows of a format: one `Format` each, which stands with its reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attnpool.data.dataset import Dataset, Sample


@dataclass(frozen=True)
class ReadOptions:
    """What is asked of a reader beside the folder.

    Attributes:
        name: what the user typed, for `Dataset.name`.
        format: the key of `READERS`, for `Dataset.format`.
        test: whether the split "test" is wanted, if there is one.
        split_seed: of the split into train and val, where the dataset does not come with one.
        val_fraction: the part of every class that becomes val in such a split.
    """

    name: str
    format: str
    test: bool = True
    split_seed: int = 0
    val_fraction: float = 0.25


def always(root: Path) -> bool:
    """Published datasets come with their split, whatever lies on the disk."""
    return True


@dataclass(frozen=True)
class Format:
    """How a format is read, and what differs between formats after that.

    Attributes:
        read: `(root, options)` -> "train" and "val", and "test" if it is wanted and there is one. A test part that is
            also val is the same object. ValueError if something is missing or malformed: one line with the fix.
        own_split: whether the dataset in a folder comes with its own split, so that a seed would change nothing.
        keypoint_place: where the joints of a sample that an estimator found belong as OpenPose's JSON, so that the
            reader finds them: a file for an image, a folder for a clip, relative to the root. `None`: they belong
            into `annotations.json`.
        image_numbers: `Sample.path` -> the number of the image on the benchmark's test server, counted from 1; `None`
            if it has no server.
        every_file: whether all files in the folder are meant to be samples, so that `check` names every other file
            and not only images and videos.
    """

    read: Callable[[Path, ReadOptions], dict[str, Dataset]]
    own_split: Callable[[Path], bool] = always
    keypoint_place: Callable[[Dataset, Sample], str] | None = None
    image_numbers: Callable[[Path], dict[str, int]] | None = None
    every_file: bool = False
