"""`mpii:ROOT`: MPII Human Pose with its activities as published, in the split of the paper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from attnpool.data.dataset import Dataset, Person, Sample
from attnpool.data.decoding.matlab import MatFile, read_mat
from attnpool.data.formats.coco import with_evidence
from attnpool.data.formats.entry import Format, ReadOptions
from attnpool.data.formats.published import (
    KEYPOINTS,
    Malformed,
    file_name,
    find,
    need_folder,
    need_some,
    no_repeats,
    number,
    places,
    read_list,
    record,
    records,
    text,
)
from attnpool.keypoints.joints import MPII_JOINTS, Box, Joint

MAT = "mpii_human_pose_v1_u12_1.mat"
MAT_FOLDERS = ("", "mpii_human_pose_v1_u12_2", "mpii_human_pose_v1_u12_1", "annotations")
LIST = "images_mpii_{}.txt"
LIST_FOLDERS = ("", "lists", "splits")
HEIGHT = 200.0  # height in pixels of a person of scale 1
# MATLAB counts pixels from 1, and 1 is the centre of the first pixel; here that centre is at 0.5.
SHIFT = -0.5


def read_mpii(root: Path, options: ReadOptions) -> dict[str, Dataset]:
    """Reads MPII: images, their activity, and the 16 joints of all persons.

    The class is `act_name`. Classes are numbered by first occurrence in the order of `annolist` over train and val (393
    of them in the published lists), and samples have the order of `annolist`, too. A joint is labelled if neither its x
    nor its y is negative, whether it is visible or not. A person's box is the square around `objpos` whose side is the
    person's height, 200 `scale` pixels; it is not clipped to the image. Pixels count from 1 in the file. MPII does not
    say where the evidence is; an `annotations.json` beside it may, such as the playground's.

    Args:
        root: the directory with `mpii_human_pose_v1_u12_1.mat`, the lists `images_mpii_{train,val,test}.txt` and
            `images/`; see docs/datasets.md.
        options: with `test`, the split "test" is also returned if its list exists; its samples have no labels.

    Returns:
        "train" and "val", and possibly "test".

    Raises:
        ValueError: a file is missing or malformed, a list names an image that the annotations do not have, the lists
            overlap, val has a class that train does not have, or there are no images at all. The message is one line.
    """
    need_folder(root, f"{MAT}, {LIST.format('{train,val}')} and images/")
    path = _find_mat(root)
    lists = {split: _find_list(root, split) for split in ("train", "val")}
    if options.test and (optional := find(root, LIST_FOLDERS, _list_names("test"))):
        lists["test"] = optional
    stems = {split: _stems(path) for split, path in lists.items()}
    try:
        parts, classes = _samples(read_mat(path, ["RELEASE"]), lists, stems)
    except Malformed as error:
        raise ValueError(f"{path}: {error}; get the file again") from None
    if (root / KEYPOINTS).is_dir():
        parts = {split: [_with_estimated(sample) for sample in samples] for split, samples in parts.items()}
    splits = {
        split: Dataset(options.name, root, classes, tuple(samples), "single", split, format=options.format)
        for split, samples in parts.items()
    }
    trained = {sample.labels for sample in splits["train"]}
    for sample in splits["val"]:
        if sample.labels not in trained:
            stray = classes[sample.labels[0]]
            raise ValueError(f"{lists['val']}: no image in train shows {stray!r}, as {sample.path} does; correct it")
    if len(classes) < 2:
        raise ValueError(f"{lists['train']}: all images show {classes[0]!r}; two or more classes are needed")
    get = "get mpii_human_pose_v1.tar.gz from MPII's page and unpack it there"
    need_some([splits["train"], splits["val"]], "images", get)
    return {split: with_evidence(dataset) for split, dataset in splits.items()}


def annolist_ids(root: Path) -> dict[str, int]:
    """The position of every image in `RELEASE.annolist`, counted from 1, by `Sample.path`.

    Raises:
        ValueError: the annotations are missing or malformed; the message is one line.
    """
    path = _find_mat(root)
    try:
        release = record(read_mat(path, ["RELEASE"]).tree.get("RELEASE"), "RELEASE")
        names = _names(records(release.get("annolist"), "annolist"))
    except Malformed as error:
        raise ValueError(f"{path}: {error}; get the file again") from None
    return {f"images/{name}": i for i, name in enumerate(names, start=1)}


def keypoint_place(dataset: Dataset, sample: Sample) -> str:
    """`keypoints/NAME.json` for `images/NAME.jpg`."""
    return f"{KEYPOINTS}/{Path(sample.path).stem}.json"


FORMAT = Format(read_mpii, keypoint_place=keypoint_place, image_numbers=annolist_ids)


def _find_mat(root: Path) -> Path:
    path = find(root, MAT_FOLDERS, [MAT])
    if path is None:
        raise ValueError(
            f"{root}: there is no {MAT} (looked in {places(MAT_FOLDERS)}); "
            "get mpii_human_pose_v1_u12_2.zip from MPII's page and unpack it there"
        )
    return path


def _names(images: list[dict[str, Any]]) -> list[str]:
    names = [
        file_name(text(record(image.get("image"), f"annolist({i}).image").get("name"), f"annolist({i})"), "image")
        for i, image in enumerate(images, start=1)
    ]
    no_repeats(names, "annolist")
    return names


def _with_estimated(sample: Sample) -> Sample:
    """Gives a sample without labelled persons, such as those of test, the joints that `attnpool pose` found."""
    if any(person.joints for person in sample.people):
        return sample
    return replace(sample, keypoints=f"{KEYPOINTS}/{Path(sample.path).stem}.json")


def _list_names(split: str) -> list[str]:
    return [LIST.format(split), LIST.format(split) + ".gz"]


def _find_list(root: Path, split: str) -> Path:
    path = find(root, LIST_FOLDERS, _list_names(split))
    if path is None:
        raise ValueError(
            f"{root}: there is no {LIST.format(split)}, also not as .gz (looked in {places(LIST_FOLDERS)}); copy the "
            "lists there from src/data/mpii/lists of github.com/rohitgirdhar/AttentionalPoolingAction, the paper's code"
        )
    return path


def _stems(path: Path) -> dict[str, int]:
    """Names of images without .jpg -> their line number."""
    found: dict[str, int] = {}
    for line, entry in read_list(path):
        stem = entry.removesuffix(".jpg")
        if stem in found:
            raise ValueError(f"{path}: lines {found[stem]} and {line} both name {stem!r}; correct the list")
        found[stem] = line
    if not found:
        raise ValueError(f"{path}: the list is empty; get it again")
    return found


def _samples(
    content: MatFile, lists: dict[str, Path], stems: dict[str, dict[str, int]]
) -> tuple[dict[str, list[Sample]], tuple[str, ...]]:
    release = record(content.tree.get("RELEASE"), "RELEASE")
    images, activities = records(release.get("annolist"), "annolist"), records(release.get("act"), "act")
    if not images or len(images) != len(activities):
        raise Malformed(f"RELEASE has {len(images)} images in annolist and {len(activities)} in act")
    names = _names(images)
    splits: dict[str, str] = {}
    for split, wanted in stems.items():
        if both := sorted(splits.keys() & wanted.keys()):
            other = lists[splits[both[0]]].name
            raise ValueError(f"{lists[split]}: {both[0]!r} is also in {other}; correct the lists")
        splits |= dict.fromkeys(wanted, split)
    parts: dict[str, list[Sample]] = {split: [] for split in stems}
    classes: dict[str, int] = {}
    for i, (image, activity, name) in enumerate(zip(images, activities, names, strict=True), start=1):
        split = splits.pop(name.removesuffix(".jpg"), "")
        if not split:
            continue
        labels: tuple[int, ...] = ()
        if split != "test":
            shown = text(activity.get("act_name"), f"act({i}).act_name")
            if not shown:
                raise Malformed(f"{name} has no act_name, but is in {lists[split].name}")
            labels = (classes.setdefault(shown, len(classes)),)
        rects = records(image.get("annorect"), f"annolist({i}).annorect")
        people = [_person(rect, f"annolist({i}).annorect({r})") for r, rect in enumerate(rects, start=1)]
        known = tuple(person for person in people if person.joints or person.box)
        parts[split].append(Sample(f"images/{name}", labels, known))
    for stem, split in splits.items():  # the remaining ones were not in annolist
        where = f"{lists[split]}: line {stems[split][stem]}"
        raise ValueError(f"{where}: {content.path.name} has no image {stem!r}; correct the list, or get both again")
    return parts, tuple(classes)


def _person(rect: dict[str, Any], where: str) -> Person:
    joints: list[Joint] = [None] * len(MPII_JOINTS)
    for point in records(record(rect.get("annopoints"), f"{where}.annopoints").get("point"), f"{where} point"):
        position = number(point.get("id"), f"{where} point.id")
        x, y = number(point.get("x"), f"{where} point.x"), number(point.get("y"), f"{where} point.y")
        if position is None or x is None or y is None:
            continue
        if position not in range(len(joints)):
            raise Malformed(f"{where} has a joint {position:g}; MPII's are 0 to {len(joints) - 1}")
        if x >= 0 and y >= 0:
            joints[int(position)] = (x + SHIFT, y + SHIFT)
    return Person(tuple(joints) if any(joints) else (), _box(rect, where))


def _box(rect: dict[str, Any], where: str) -> Box | None:
    middle = record(rect.get("objpos"), f"{where}.objpos")
    x, y = number(middle.get("x"), f"{where}.objpos.x"), number(middle.get("y"), f"{where}.objpos.y")
    scale = number(rect.get("scale"), f"{where}.scale")
    if x is None or y is None or scale is None or scale <= 0:
        return None
    x, y, half = x + SHIFT, y + SHIFT, HEIGHT * scale / 2
    return (x - half, y - half, x + half, y + half)
