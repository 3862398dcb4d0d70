"""`folder:DIR`: one folder of images or clips per class, either directly in DIR or in DIR/train and DIR/val."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path

from attnpool.data.dataset import Dataset, Sample
from attnpool.data.decoding.contents import VIDEO_SUFFIXES, Media, is_media
from attnpool.data.decoding.image import IMAGE_SUFFIXES
from attnpool.data.formats.class_files import (
    ClassFiles,
    class_order,
    entries,
    folders,
    holds_frames,
    look_through,
    notes_of,
    one_name,
    samples_in,
    told_apart,
    walk,
)
from attnpool.data.formats.coco import FILE_NAME, POSES_NAME, Marks, read_marks
from attnpool.data.formats.entry import Format, ReadOptions
from attnpool.data.groups import group_of
from attnpool.data.splits import choose, choose_groups

KEYPOINTS = ".keypoints"
LAYOUT = "put the images in one folder per class, such as {}/drinking/photo.jpg"
NAMED = 5  # number of classes that a message names
# What parts of a dataset are called, in any spelling of capitals, with "set" behind or "seg" before.
PARTS = {"train": "train training", "val": "val valid validation dev eval", "test": "test testing"}
_PART = re.compile(r"(?:seg[_-])?(\w+?)(?:[_-]?set)?")


def read_folder(root: Path, options: ReadOptions) -> dict[str, Dataset]:
    """Reads a directory of class folders.

    The images or clips are either in `DIR/train/CLASS/...` and `DIR/val/CLASS/...` (and optionally
    `DIR/test/CLASS/...`), or in `DIR/CLASS/...`, where a stratified part becomes val; `train/` without `val/` is
    divided in the same way. Usual other names of these three are known, see `PARTS`. If DIR holds one folder alone,
    that is taken for DIR. Class folders are searched to any depth; hidden files and folders, and files that are no
    images or videos, are left out. Whether the classes hold images or clips says `class_files.told_apart`.

    The classes are those of train, sorted by name, numbers by their value. Keypoints and boxes of images come from
    `DIR/annotations.json` and `DIR/poses.json`, joints of clips from `DIR/.keypoints/`, if they exist.

    Whether an image is in train or val depends only on `split_seed`, its path in DIR and the paths of its class: in
    every class the `round(val_fraction * n)` images (at least 1, at most n - 1) with the smallest hashes go to val.
    With `group_by` whole groups do, see `splits.choose_groups`.

    Args:
        root: DIR.
        options: all are used; with `test`, the split "test" is also returned if there is a `DIR/test`.

    Returns:
        "train" and "val", and possibly "test".

    Raises:
        ValueError: the directory is missing or has another layout, there are fewer than two classes, a class has too
            few images, val has a class that train does not have, there are images beside videos, or the annotation file
            is malformed. The message is one line with the fix.
    """
    if not root.is_dir():
        what = "is a file, not a directory" if root.exists() else "does not exist"
        raise ValueError(f"{root} {what}; give a directory: {LAYOUT.format('DIR')}")
    root, found = layout_of(root)
    there = {part: _files_by_class(root, folder) for part, folder in (found or {"all": ""}).items()}
    every = [files for classes in there.values() for files in classes.values()]
    media = told_apart(root, every)
    parts = {
        part: {name: samples_in(files, media) for name, files in classes.items()} for part, classes in there.items()
    }
    if not options.test:
        parts.pop("test", None)
    whole = parts.get("train") or parts.get("all") or {}
    left_out = [name for name, paths in whole.items() if name in options.left_out or len(paths) < options.min_per_class]
    if left_out and len(left_out) == len(whole):
        raise ValueError(f"{root}: no class has {options.min_per_class} {media}; use a smaller min_per_class")
    parts = {part: {c: paths for c, paths in files.items() if c not in left_out} for part, files in parts.items()}
    whole = parts.get("train") or parts.get("all") or {}
    _check_classes(root, whole, media, at_least=1 if "val" in parts else 2)
    for split in ("val", "test"):
        if strangers := sorted(c for c, files in parts.get(split, {}).items() if files and c not in whole):
            raise ValueError(
                f"{root / found[split]}: {len(strangers)} of its classes are not in train, the first is "
                f"{strangers[0]!r}; add {media} of it to train, or remove its folder"
            )
    if "val" not in parts:
        chosen = chosen_for_val(root, whole, options)
        rest = {c: sorted(set(files) - set(chosen[c])) for c, files in whole.items()}
        parts = {"train": rest, "val": chosen} | {split: parts[split] for split in parts if split == "test"}
    if not any(parts["val"].values()):
        raise ValueError(
            f"{root / found['val']}: there are no {media}; {LAYOUT.format(found['val'])}, or remove the folder"
        )

    marks = _marks(root, {path for files in parts.values() for paths in files.values() for path in paths}, media)
    classes, notes = tuple(whole), notes_of(root, every, media)
    return {
        split: Dataset(
            options.name,
            root,
            classes,
            _samples(root, classes, files, marks, media),
            "single",
            split,
            media,
            format=options.format,
            left_out=tuple(left_out),
            notes=notes,
        )
        for split, files in parts.items()
    }


def chosen_for_val(root: Path, files: Mapping[str, list[str]], options: ReadOptions) -> dict[str, list[str]]:
    """What of every class becomes val, in whole groups if there are any.

    Raises:
        ValueError: a class is all of one group.
    """
    if not options.group_by:
        return {c: choose(paths, options.split_seed, options.val_fraction) for c, paths in files.items()}
    by = options.group_by
    samples = {path: (c, group_of(path, by)) for c, paths in files.items() for path in paths}
    try:
        held = choose_groups(samples, options.split_seed, options.val_fraction)
    except ValueError as error:
        raise ValueError(f"{root}: group_by {by}: {error}; use another, or add some of another group") from error
    return {c: [path for path in paths if path in held] for c, paths in files.items()}


def own_split(root: Path) -> bool:
    """Whether a folder has a part to train on and one to validate on."""
    try:
        return {"train", "val"} <= layout_of(root)[1].keys()
    except ValueError:
        return False


def keypoint_place(dataset: Dataset, sample: Sample) -> str:
    """`.keypoints/PATH` for a clip, hidden so that it is no class; images have `poses.json`."""
    return f"{KEYPOINTS}/{sample.path}" if dataset.media == "clips" else ""


FORMAT = Format(read_folder, own_split=own_split, keypoint_place=keypoint_place, every_file=True)


def layout_of(root: Path) -> tuple[Path, dict[str, str]]:
    """The folder that holds the parts or classes, and its parts, see `parts_of`: `root`, or the one folder in it.

    Raises:
        ValueError: from `parts_of`.
    """
    place = root
    while place.is_dir():
        top = folders(place)
        if len(top) > 1 and place != root:
            return place, parts_of(place)
        if len(top) != 1 or part_called(top[0]) or (place / FILE_NAME).exists() or _loose(place):
            break
        place = place / top[0]
    return root, parts_of(root)


def _loose(folder: Path) -> list[str]:
    """The images and videos that lie in a folder itself."""
    return [name for name, is_folder in entries(folder) if not is_folder and is_media(folder / name)]


def parts_of(root: Path) -> dict[str, str]:
    """The folders of the parts "train", "val" and "test", where there is train; empty if the folders are classes.

    "train" may also be a class of photos of trains: then it holds images and not folders of classes.

    Raises:
        ValueError: the folders are neither parts nor classes, or there are images beside the parts.
    """
    top = folders(root)
    inside = {name: set(folders(root / name)) for name in top}
    parts: dict[str, str] = {}
    for name in top:
        part = part_called(name)
        if part in parts:
            raise ValueError(f"{root}: {parts[part]} and {name} are both names of {part}; rename one of them")
        if part:
            parts[part] = name
    if "train" in parts and ("val" in parts or inside[parts["train"]]):
        for name in sorted(set(top) - set(parts.values())):
            if extra := sum(is_media(root / path) for path in walk(root, name)):
                raise ValueError(
                    f"{root / name}: holds {extra} images or clips beside {parts['train']}; move them into a class "
                    "of a part, or out of the dataset"
                )
        # Some archives hold every part in two folders of its name.
        named = [(part, parts[part]) for part in PARTS if part in parts]
        return {part: f"{name}/{name}" if inside[name] == {name} else name for part, name in named}
    if top and set(top) == set(parts.values()) and any(inside.values()):
        raise ValueError(
            f"{root}: there is {' and '.join(sorted(top))}, but no train; add it, or give another directory"
        )
    for first, second in itertools.combinations(top, 2):
        same = sorted(inside[first] & inside[second])
        # Some clips of two classes may be called alike, but hardly all of one of them.
        all_of_one = len(same) == min(len(inside[first]), len(inside[second]))
        if same and (all_of_one or not all(holds_frames(root, f"{first}/{name}") for name in same)):
            fix = (
                "call the parts of a dataset train, val and test, or put the images of a class into one folder; "
                "folders of frames need names of their own"
            )
            if len(holding := [name for name in top if any(is_media(root / path) for path in walk(root, name))]) == 1:
                fix = f"the images are in {holding[0]}: give folder:{root / holding[0]}"
            raise ValueError(
                f"{root}: {first} and {second} hold folders of the same names, such as {same[0]}, so they are no "
                f"classes; {fix}"
            )
    return {}


def part_called(name: str) -> str:
    """The part of a dataset that a folder of this name is, "" for none: `Train`, `test_set`, `validation`."""
    found = _PART.fullmatch(name.lower())
    word = found[1] if found else ""
    return next((part for part, names in PARTS.items() if word in names.split()), "")


def _files_by_class(root: Path, part: str) -> dict[str, ClassFiles]:
    """Class name -> what its folder holds, in the order of the classes."""
    if not (root / part).is_dir():
        raise ValueError(f"{root / part} is not a directory; {LAYOUT.format(part)}")
    found: dict[str, ClassFiles] = {}
    for name in sorted(folders(root / part), key=class_order):
        known = found.setdefault(one_name(name), ClassFiles())
        known.add(look_through(root, f"{part}/{name}" if part else name))
    return found


def _check_classes(root: Path, files: Mapping[str, list[str]], media: Media, at_least: int) -> None:
    if not any(files.values()):
        if loose := _loose(root):
            raise ValueError(f"{root} holds {len(loose)} images or clips but no class folders; {LAYOUT.format('DIR')}")
        kinds = ", ".join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
        raise ValueError(f"{root} holds no images or clips ({kinds}) in class folders; {LAYOUT.format('DIR')}")
    if len(files) < 2:
        raise ValueError(f"{root} holds a single class, {next(iter(files))!r}; two or more are needed: add a folder")
    small = [f"{name!r} ({len(paths)})" for name, paths in files.items() if len(paths) < at_least]
    if small:
        one = "an image" if media == "images" else "a clip"
        needed = f"two {media}, one for train and one for val" if at_least == 2 else f"{one} for train"
        names = ", ".join(small[:NAMED]) + (f" and {len(small) - NAMED} more" if len(small) > NAMED else "")
        raise ValueError(
            f"{root}: every class needs {needed}; too few has {names}: add {media}, remove the folder, or leave such "
            f"classes out with min_per_class {at_least}"
        )


def _marks(root: Path, paths: set[str], media: Media) -> dict[str, Marks]:
    """What the annotation files say, by path, whichever way the accents in names are written.

    Raises:
        ValueError: they are malformed, say nothing of these paths, or of clips, which they are not for.
    """
    marks = read_marks(root)
    if not marks:
        return {}
    where = root / " and ".join(name for name in (FILE_NAME, POSES_NAME) if (root / name).exists())
    if media == "clips":
        raise ValueError(f"{where}: is for images, and {root} holds clips; move it away, and label them with pose")
    here = {one_name(path): path for path in paths}
    found = {here[one_name(name)]: known for name, known in marks.items() if one_name(name) in here}
    if not found:
        raise ValueError(
            f"{where}: none of its {len(marks)} images is in {root}, the first is {next(iter(marks))!r}; write "
            "file_name as the path in that folder, such as train/drinking/photo.jpg, or remove the file"
        )
    return found


def _samples(
    root: Path, classes: tuple[str, ...], files: Mapping[str, list[str]], marks: Mapping[str, Marks], media: Media
) -> tuple[Sample, ...]:
    keypoints = media == "clips" and (root / KEYPOINTS).is_dir()
    samples = []
    for label, name in enumerate(classes):
        for path in files.get(name, ()):
            known = marks.get(path, Marks())
            people, evidence, objects = tuple(known.people), tuple(known.evidence), tuple(known.objects)
            place = f"{KEYPOINTS}/{path}" if keypoints else ""
            samples.append(Sample(path, (label,), people, evidence, objects, keypoints=place))
    return tuple(samples)
