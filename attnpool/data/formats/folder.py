"""`folder:DIR`: one folder of images per class, either directly in DIR or in DIR/train and DIR/val."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from attnpool.data.dataset import Dataset, Sample
from attnpool.data.decoding.contents import is_visible
from attnpool.data.decoding.image import IMAGE_SUFFIXES, is_image
from attnpool.data.formats.coco import FILE_NAME, POSES_NAME, Marks, read_marks
from attnpool.data.formats.entry import Format, ReadOptions
from attnpool.data.splits import choose

LAYOUT = "put the images in one folder per class, such as {}/drinking/photo.jpg"
NAMED = 5  # number of classes that a message names
# What parts of a dataset are called, in any spelling of capitals, with "set" behind or "seg" before.
PARTS = {"train": "train training", "val": "val valid validation dev eval", "test": "test testing"}
_PART = re.compile(r"(?:seg[_-])?(\w+?)(?:[_-]?set)?")


def read_folder(root: Path, options: ReadOptions) -> dict[str, Dataset]:
    """Reads a directory of class folders.

    The images are either in `DIR/train/CLASS/...` and `DIR/val/CLASS/...` (and optionally `DIR/test/CLASS/...`), or in
    `DIR/CLASS/...`, where a stratified part becomes val; `train/` without `val/` is divided in the same way. Usual
    other names of these three are known, see `PARTS`. Class
    folders are searched to any depth; hidden files and folders, and files without the suffix of an image, are left out.
    The classes are those of train, sorted by name. Keypoints and boxes come from `DIR/annotations.json` and
    `DIR/poses.json`, if they exist.

    Whether an image is in train or val depends only on `split_seed`, its path in DIR and the paths of its class: in
    every class the `round(val_fraction * n)` images (at least 1, at most n - 1) with the smallest hashes go to val.

    Args:
        root: DIR.
        options: all are used; with `test`, the split "test" is also returned if there is a `DIR/test`.

    Returns:
        "train" and "val", and possibly "test".

    Raises:
        ValueError: the directory is missing or has another layout, there are fewer than two classes, a class has too
            few images, val has a class that train does not have, or the annotation file is malformed. The message is
            one line with the fix.
    """
    if not 0 < options.val_fraction < 1:
        raise ValueError(f"val_fraction is {options.val_fraction}; give a number between 0 and 1, such as 0.25")
    if not root.is_dir():
        what = "is a file, not a directory" if root.exists() else "does not exist"
        raise ValueError(f"{root} {what}; give a directory: {LAYOUT.format('DIR')}")
    found = parts_of(root)
    others: Counter[str] = Counter()
    parts = {part: _files_by_class(root, folder, others) for part, folder in (found or {"all": ""}).items()}
    if not options.test:
        parts.pop("test", None)
    whole = parts.get("train") or parts.get("all") or {}
    left_out = [name for name, paths in whole.items() if name in options.left_out or len(paths) < options.min_per_class]
    if left_out and len(left_out) == len(whole):
        raise ValueError(f"{root}: no class has {options.min_per_class} images; use a smaller min_per_class")
    parts = {part: {c: paths for c, paths in files.items() if c not in left_out} for part, files in parts.items()}
    whole = parts.get("train") or parts.get("all") or {}
    _check_classes(root, whole, at_least=1 if "val" in parts else 2)
    for split in ("val", "test"):
        if strangers := sorted(c for c, files in parts.get(split, {}).items() if files and c not in whole):
            raise ValueError(
                f"{root / found[split]}: {len(strangers)} of its classes are not in train, the first is "
                f"{strangers[0]!r}; add images of it to train, or remove its folder"
            )
    if "val" not in parts:
        chosen = {c: choose(files, options.split_seed, options.val_fraction) for c, files in whole.items()}
        rest = {c: sorted(set(files) - set(chosen[c])) for c, files in whole.items()}
        parts = {"train": rest, "val": chosen} | {split: parts[split] for split in parts if split == "test"}
    if not any(parts["val"].values()):
        raise ValueError(
            f"{root / found['val']}: there are no images; {LAYOUT.format(found['val'])}, or remove the folder"
        )

    marks = read_marks(root)
    if marks and not marks.keys() & {path for files in parts.values() for paths in files.values() for path in paths}:
        there = [name for name in (FILE_NAME, POSES_NAME) if (root / name).exists()]
        raise ValueError(
            f"{root / ' and '.join(there)}: none of its {len(marks)} images is in {root}, the first is "
            f"{next(iter(marks))!r}; write file_name as the path in that folder, such as train/drinking/photo.jpg, or "
            "remove the file"
        )
    classes, notes = tuple(whole), _unused(root, others)
    return {
        split: Dataset(
            options.name,
            root,
            classes,
            _samples(classes, files, marks),
            "single",
            split,
            format=options.format,
            left_out=tuple(left_out),
            notes=notes,
        )
        for split, files in parts.items()
    }


def own_split(root: Path) -> bool:
    """Whether a folder has a part to train on and one to validate on."""
    try:
        return {"train", "val"} <= parts_of(root).keys()
    except ValueError:
        return False


FORMAT = Format(read_folder, own_split=own_split, every_file=True)


def parts_of(root: Path) -> dict[str, str]:
    """The folders of the parts "train", "val" and "test", where there is train; empty if the folders are classes.

    "train" may also be a class of photos of trains: then it holds images and not folders of classes.

    Raises:
        ValueError: the folders are neither parts nor classes, or there are images beside the parts.
    """
    top = _folders(root)
    inside = {name: set(_folders(root / name)) for name in top}
    parts: dict[str, str] = {}
    for name in top:
        part = part_called(name)
        if part in parts:
            raise ValueError(f"{root}: {parts[part]} and {name} are both names of {part}; rename one of them")
        if part:
            parts[part] = name
    if "train" in parts and ("val" in parts or inside[parts["train"]]):
        for name in sorted(set(top) - set(parts.values())):
            if extra := sum(is_image(root / path) for path in _walk(root, name)):
                raise ValueError(
                    f"{root / name}: holds {extra} images beside {parts['train']}; move them into a class of a part, "
                    "or out of the dataset"
                )
        # Some archives hold every part in two folders of its name.
        named = [(part, parts[part]) for part in PARTS if part in parts]
        return {part: f"{name}/{name}" if inside[name] == {name} else name for part, name in named}
    if top and set(top) == set(parts.values()) and any(inside.values()):
        raise ValueError(
            f"{root}: there is {' and '.join(sorted(top))}, but no train; add it, or give another directory"
        )
    for first, second in itertools.combinations(top, 2):
        if same := sorted(inside[first] & inside[second]):
            raise ValueError(
                f"{root}: {first} and {second} hold folders of the same names, such as {same[0]}, so they are no "
                "classes; call the parts of a dataset train, val and test, or put the images of a class into one folder"
            )
    return {}


def part_called(name: str) -> str:
    """The part of a dataset that a folder of this name is, "" for none: `Train`, `test_set`, `validation`."""
    found = _PART.fullmatch(name.lower())
    word = found[1] if found else ""
    return next((part for part, names in PARTS.items() if word in names.split()), "")


def _files_by_class(root: Path, part: str, others: Counter[str]) -> dict[str, list[str]]:
    """Class name -> its images, as paths relative to the root; both sorted by name.

    `others` counts the other files by their suffix.
    """
    if not (root / part).is_dir():
        raise ValueError(f"{root / part} is not a directory; {LAYOUT.format(part)}")
    prefix = f"{part}/" if part else ""
    found: dict[str, list[str]] = {}
    for name in _folders(root / part):
        paths = list(_walk(root, prefix + name))
        images = {path for path in paths if is_image(root / path)}
        found[name] = sorted(images)
        others.update(Path(path).suffix.lower() or "no suffix" for path in paths if path not in images)
    return found


def _check_classes(root: Path, files: Mapping[str, list[str]], at_least: int) -> None:
    if not any(files.values()):
        loose = sum(is_visible(path) and is_image(root / path) for path in os.listdir(root))
        if loose:
            raise ValueError(f"{root} holds {loose} images but no class folders; {LAYOUT.format('DIR')}")
        kinds = ", ".join(IMAGE_SUFFIXES)
        raise ValueError(f"{root} holds no images ({kinds}) in class folders; {LAYOUT.format('DIR')}")
    if len(files) < 2:
        raise ValueError(f"{root} holds a single class, {next(iter(files))!r}; two or more are needed: add a folder")
    small = [f"{name!r} ({len(paths)})" for name, paths in files.items() if len(paths) < at_least]
    if small:
        needed = "two images, one for train and one for val" if at_least == 2 else "an image for train"
        names = ", ".join(small[:NAMED]) + (f" and {len(small) - NAMED} more" if len(small) > NAMED else "")
        raise ValueError(
            f"{root}: every class needs {needed}; too few has {names}: add images, remove the folder, or leave such "
            f"classes out with min_per_class {at_least}"
        )


def _samples(
    classes: tuple[str, ...], files: Mapping[str, list[str]], marks: Mapping[str, Marks]
) -> tuple[Sample, ...]:
    samples = []
    for label, name in enumerate(classes):
        for path in files.get(name, ()):
            known = marks.get(path, Marks())
            samples.append(Sample(path, (label,), tuple(known.people), tuple(known.evidence), tuple(known.objects)))
    return tuple(samples)


def _unused(root: Path, others: Counter[str]) -> tuple[str, ...]:
    """A line that counts the files in the folders of classes that are no images by their suffix."""
    kinds = ", ".join(f"{count} x {suffix}" for suffix, count in sorted(others.items()))
    return (f"{root}: left out, no images by their suffix: {kinds}",) if kinds else ()


def _folders(root: Path) -> list[str]:
    return sorted(name for name, is_folder in _entries(root) if is_folder)


def _walk(root: Path, part: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields the files below `root/part` in order of name; it follows links, but not in circles."""
    here = os.path.realpath(root / part)
    if here in above:
        return
    for name, is_folder in sorted(_entries(root / part)):
        path = f"{part}/{name}" if part else name
        if is_folder:
            yield from _walk(root, path, (*above, here))
        else:
            yield path


def _entries(folder: Path) -> list[tuple[str, bool]]:
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.is_dir()) for entry in entries if is_visible(entry.name)]
    except OSError as error:
        raise ValueError(f"{folder}: cannot be listed ({(error.strerror or str(error)).lower()})") from error
    for name, is_folder in found:
        # Control characters, and bytes that are not UTF-8, would break logs and reports later.
        strange = any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in name)
        if strange and (is_folder or is_image(folder / name)):
            raise ValueError(f"{folder}: the name {name!r} holds characters that cannot be shown; rename it")
    return found
