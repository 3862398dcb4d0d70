"""`hmdb51:ROOT`, `hmdb51-2:ROOT`, `hmdb51-3:ROOT`: the clips of HMDB51 as published, in its three official splits."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

from attnpool.data.dataset import Dataset, Sample
from attnpool.data.formats.entry import Format, ReadOptions
from attnpool.data.formats.published import KEYPOINTS, Malformed, file_name, need_folder, need_some, places, read_list

CLIP_FOLDERS = ("", "videos", "hmdb51_org", "frames", "jpegs")
LIST_FOLDERS = (
    "",
    "splits",
    "testTrainMulti_7030_splits",
    "test_train_splits",
    "test_train_splits/testTrainMulti_7030_splits",
    "hmdb51_splits",
)

Names = dict[str, None]  # an ordered set

_SUFFIX = ".avi"
_LIST = re.compile(r"(?P<name>.+)_test_split(?P<number>[123])\.txt")
_SPLITS = {"0": "unused", "1": "train", "2": "val"}


def read_hmdb51(root: Path, options: ReadOptions, number: int = 1) -> dict[str, Dataset]:
    """Reads HMDB51: clips of 51 actions, as `.avi` files or as folders of frames.

    Classes are sorted by name. The official splits have two parts, and "val" is the test part: hold out a part of train
    (`hold_out`) to choose hyper-parameters. Clips that a split does not use (0 in its lists) are left out.
    `Sample.path` is the `.avi` file, or the folder of its frames if there is no such file. If there is a folder for the
    authors' keypoints, samples refer to its files, which are read with the frames.

    Args:
        root: the directory with a folder of clips for each class, and the lists `CLASS_test_split{1,2,3}.txt`; see
            docs/datasets.md.
        options: with `test`, "val" is also returned as "test".
        number: number of the split, 1 to 3.

    Returns:
        "train" and "val", and possibly "test", which is the same dataset as "val".

    Raises:
        ValueError: lists are missing or malformed, a class has a list and no folder or a folder and no list, or there
            are no clips at all; the message is one line.
    """
    need_folder(root, "a folder of clips for each class, and the lists CLASS_test_split1.txt")
    lists = _lists(root, number)
    folders = {base: dict.fromkeys(_folders(root / base)) for base in CLIP_FOLDERS}
    _compare(root, number, lists, folders)
    keypoints = {label: _folders(root / KEYPOINTS / label) for label in _folders(root / KEYPOINTS)}
    parts: dict[str, list[Sample]] = {"train": [], "val": [], "unused": []}
    for label, (class_name, path) in enumerate(sorted(lists.items())):
        places_of = _clips(root, class_name, folders)
        for clip, split in _entries(path).items():
            stem = clip[: -len(_SUFFIX)]
            flat = next((f"{base}/{stem}" for base in ("frames", "jpegs") if stem in folders[base]), "")
            where = places_of.get(clip) or places_of.get(stem) or flat or _expected(places_of, class_name, clip)
            known = f"{KEYPOINTS}/{class_name}/{stem}" if class_name in keypoints else ""
            parts[split].append(Sample(where, (label,), keypoints=known))
    classes = tuple(sorted(lists))
    splits = {}
    for split, official in (("train", "train"), ("val", "test")):
        if not parts[split]:
            raise ValueError(f"{root}: no list of split {number} names a clip for {official}; get the lists again")
        samples = tuple(parts[split])
        splits[split] = Dataset(options.name, root, classes, samples, "single", official, "clips", options.format)
    need_some([splits["train"], splits["val"]], "", "unpack hmdb51_org.rar, and what is in it, there")
    return splits | ({"test": splits["val"]} if options.test else {})


def keypoint_place(dataset: Dataset, sample: Sample) -> str:
    """`keypoints/CLASS/NAME` for the clip `CLASS/NAME.avi` or the folder of its frames."""
    name = sample.path.rpartition("/")[2]
    stem = name[: -len(_SUFFIX)] if name.lower().endswith(_SUFFIX) else name
    return sample.keypoints or f"{KEYPOINTS}/{dataset.classes[sample.labels[0]]}/{stem}"


FORMAT = Format(read_hmdb51, keypoint_place=keypoint_place)
FORMAT_2 = replace(FORMAT, read=partial(read_hmdb51, number=2))
FORMAT_3 = replace(FORMAT, read=partial(read_hmdb51, number=3))


def _lists(root: Path, number: int) -> dict[str, Path]:
    """Class -> its list; all lists are from the first folder that has any."""
    for folder in LIST_FOLDERS:
        matches = filter(None, map(_LIST.fullmatch, _names(root / folder)))
        found = {match["name"]: root / folder / match[0] for match in matches if match["number"] == str(number)}
        if len(found) > 1:
            return found
        if found:
            raise ValueError(
                f"{root / folder}: there is one list of split {number}, of {next(iter(found))}; "
                "two or more classes are needed: get the lists of all of them"
            )
    raise ValueError(
        f"{root}: there are no lists such as wave_test_split{number}.txt (looked in {places(LIST_FOLDERS)}); "
        "get test_train_splits.rar from HMDB51's page and unpack it there"
    )


def _compare(root: Path, number: int, lists: dict[str, Path], folders: dict[str, Names]) -> None:
    """Raises ValueError unless every list has a folder of clips, and every folder of clips has a list."""
    there = {label for labels in folders.values() for label in labels}
    if there & lists.keys() and (absent := sorted(lists.keys() - there)):
        raise ValueError(
            f"{root}: {len(absent)} of {len(lists)} classes have a list and no folder of clips, the first is "
            f"{absent[0]!r}; add its folder, or remove its lists"
        )
    for base, labels in folders.items():
        for label in labels:
            if label not in lists and any(name.lower().endswith(_SUFFIX) for name in _names(root / base / label)):
                raise ValueError(
                    f"{root / base / label}: a folder of clips without a list {label}_test_split{number}.txt; add the "
                    "list, or remove the folder"
                )


def _entries(path: Path) -> dict[str, str]:
    """Clip -> "train", "val" or "unused", in the order of the list."""
    found: dict[str, str] = {}
    for line, entry in read_list(path):
        clip, _, part = entry.rpartition(" ")
        clip = clip.rstrip()
        try:
            if part not in _SPLITS or not clip.lower().endswith(_SUFFIX):
                raise Malformed(f"{entry!r} is not a name.avi and 0, 1 or 2")
            file_name(clip, "the clip")
            if clip in found:
                raise Malformed(f"{clip!r} is also in an earlier line")
        except Malformed as error:
            raise ValueError(f"{path}: line {line}: {error}; correct the list") from None
        found[clip] = _SPLITS[part]
    if not found:
        raise ValueError(f"{path}: the list is empty; get it again")
    return found


def _clips(root: Path, label: str, folders: dict[str, Names]) -> dict[str, str]:
    """The files in a class's folders: name -> path relative to the root, in the first folder that has the name."""
    found: dict[str, str] = {}
    for base in CLIP_FOLDERS:
        if label in folders[base]:
            folder = f"{base}/{label}" if base else label
            for name in _names(root / folder):
                found.setdefault(name, f"{folder}/{name}")
    return found


def _expected(found: dict[str, str], label: str, clip: str) -> str:
    """The path at which a missing clip is expected: beside the others of its class."""
    folder = next(iter(found.values()), f"{label}/{clip}").rpartition("/")[0]
    return f"{folder}/{clip}"


def _names(folder: Path) -> list[str]:
    """The sorted names in a folder that are not hidden; none if the folder does not exist."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ValueError(f"{folder}: cannot be listed ({(error.strerror or str(error)).lower()})") from error


def _folders(folder: Path) -> list[str]:
    return [name for name in _names(folder) if (folder / name).is_dir()]
