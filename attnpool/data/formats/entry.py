"""`Format`: the properties of a format that the rest of the package uses. Each is defined beside its reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attnpool.data.dataset import Dataset, Sample


@dataclass(frozen=True)
class ReadOptions:
    """The arguments of a reader besides the folder.

    Attributes:
        name: the dataset as the user named it, for `Dataset.name`.
        format: the key of `READERS`, for `Dataset.format`.
        test: whether to read the split "test", if there is one.
        split_seed: seed of the split into train and val, for a dataset without a split of its own.
        val_fraction: fraction of every class that becomes val in such a split.
        min_per_class: number of samples to train on below which a class is left out, 0 to leave none out.
        left_out: classes that are left out, because they were when a run was trained.
        group_by: what samples belong together by, see `groups.group_of`; "" if each stands for itself.

    Raises:
        ValueError: the fraction is none.
    """

    name: str
    format: str
    test: bool = True
    split_seed: int = 0
    val_fraction: float = 0.25
    min_per_class: int = 0
    left_out: tuple[str, ...] = ()
    group_by: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise ValueError(f"val_fraction is {self.val_fraction}; give a number between 0 and 1, such as 0.25")


def always(root: Path) -> bool:
    """Returns True: published datasets always have a split of their own."""
    return True


@dataclass(frozen=True)
class Format:
    """The reader of a format, and its properties that the rest of the package needs.

    Attributes:
        read: `(root, options)` -> "train" and "val", and "test" if it is requested and exists. A test split that is
            also val is the same object. It raises ValueError if something is missing or malformed, in one line with the
            fix.
        own_split: whether the dataset in a folder has a split of its own, so that a seed would change nothing.
        keypoint_place: where the joints that an estimator found in a sample are stored as OpenPose JSON, so that the
            reader finds them: a file for an image, a folder for a clip, relative to the root. `None`, or "" for a
            sample, if they are stored in `poses.json`.
        image_numbers: `Sample.path` -> the number of the image on the benchmark's test server, counted from 1; `None`
            if the benchmark has no server.
        every_file: whether all files in the folder should be samples, so that `check` lists every other file and not
            only images and videos; such a reader can also leave out classes.
        sealed: whether the data were written once from other data, so that joints cannot be added to them.
    """

    read: Callable[[Path, ReadOptions], dict[str, Dataset]]
    own_split: Callable[[Path], bool] = always
    keypoint_place: Callable[[Dataset, Sample], str] | None = None
    image_numbers: Callable[[Path], dict[str, int]] | None = None
    every_file: bool = False
    sealed: bool = False
