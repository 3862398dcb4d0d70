"""Which samples belong together: the images of one video, burst or person, which no split may divide."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from attnpool.data.dataset import Dataset

# What cameras and programs call every image.
GENERIC = frozenset(
    {"img", "dsc", "dscn", "dscf", "pxl", "mvi", "vid", "image", "images", "photo", "picture", "pic", "frame", "file"}
)
_SERIES = re.compile(r"(.*?[^\W\d_].*?)[\s_.()-]*\d+[\s)]*")


def group_of(path: str, by: str) -> str:
    """The group of a sample.

    Args:
        path: its path.
        by: "video": the name without the number at its end, so that vidA_0001.jpg and vidA_0002.jpg are of vidA, in
            whatever folder they lie; "parent": the folder; or a regular expression, whose first group (or all of it) is
            searched for in the path. A sample of which nothing is left is a group of its own.

    Raises:
        ValueError: the regular expression is malformed.
    """
    place = PurePosixPath(path)
    if by == "parent":
        return place.parent.as_posix()
    if by == "video":
        return in_series(path) or path
    try:
        found = re.search(by, path)
    except re.error as error:
        raise ValueError(
            f"group_by {by!r} is no regular expression ({error}); use video, parent or such an expression"
        ) from error
    return (found[1] if found.re.groups else found[0]) or path if found else path


def in_series(path: str) -> str:
    """The name of a file without the number at its end; "" if it has none, or nothing else."""
    found = _SERIES.fullmatch(PurePosixPath(path).stem)
    return found[1] if found else ""


def with_groups(dataset: Dataset, by: str) -> Dataset:
    """A dataset whose samples know their groups, see `group_of`."""
    samples = tuple(replace(sample, group=group_of(sample.path, by)) for sample in dataset)
    return replace(dataset, samples=samples)


def require_groups(paths: Mapping[str, str], by: str) -> None:
    """Raises ValueError if groups (path -> group) are all of one sample, so that they change nothing."""
    if len(set(paths.values())) == len(paths):
        first = next(iter(paths))
        raise ValueError(
            f"group_by {by}: no two samples belong together, such as {first}; use another, or leave it out"
        )


def divided(splits: Mapping[str, Dataset], group: Callable[[str], str]) -> tuple[int, tuple[str, str]]:
    """How many samples of val have a group that train has, too, and an example `(of val, of train)`."""
    known: dict[str, str] = {}
    for sample in splits["train"]:
        known.setdefault(group(sample.path), sample.path)
    found = [(sample.path, known[name]) for sample in splits["val"] if (name := group(sample.path)) in known and name]
    return len(found), (found[0] if found else ("", ""))


def note_on_names(splits: Mapping[str, Dataset]) -> list[str]:
    """What is to be said if names such as vidA_0001 and vidA_0002 stand on both sides of the split.

    Names of cameras (IMG_0001) and of classes (drinking_0001) are no series: there must be two series of two samples or
    more in a class, in the mean.
    """
    sizes: Counter[tuple[int, str]] = Counter()
    for sample in (*splits["train"], *splits["val"]):
        name = in_series(sample.path)
        if sample.labels and name and name.lower() not in GENERIC:
            sizes[sample.labels[0], name] += 1
    if len(sizes) < 2 * len(splits["train"].classes) or sum(sizes.values()) < 2 * len(sizes):
        return []
    val = splits["val"]
    count, (of_val, of_train) = divided(splits, in_series)
    said = f"{count} of {len(val)} {val.media} of val are named as some of train are, such as {of_val} and {of_train}"
    return (
        [f"{said}; if they are of one video or person, scores look too good unless they are grouped"] if count else []
    )
