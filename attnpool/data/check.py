"""`check` reads every file of a dataset, so that problems are found before hours of training."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from attnpool.data.check_report import MISSING, Check, Part
from attnpool.data.dataset import Dataset, Sample
from attnpool.data.decoding.contents import VIDEO_SUFFIXES, frame_files
from attnpool.data.decoding.image import IMAGE_SUFFIXES, Unreadable, decode, only_first, quiet
from attnpool.data.decoding.video import probe
from attnpool.data.formats import READERS
from attnpool.data.formats.coco import FILE_NAME, POSES_NAME
from attnpool.data.formats.openpose import read_openpose
from attnpool.data.groups import note_on_names
from attnpool.data.near_duplicates import near, signature
from attnpool.data.people import keypoint_files
from attnpool.data.reading import read_splits
from attnpool.keypoints.joints import Joints
from attnpool.progress import bar


def check(
    source: str | Path,
    *,
    split_seed: int | None = None,
    val_fraction: float | None = None,
    min_per_class: int | None = None,
    group_by: str | None = None,
    progress: bool = False,
) -> Check:
    """Reads every image or clip of a dataset, its test split included, and lists the files that cannot be used.

    Args:
        source: dataset to check, as FORMAT:PATH, such as folder:photos.
        split_seed: seed of the split into train and val, for a dataset without a split of its own (default: 0).
        val_fraction: fraction of every class that becomes val, for a dataset without a split of its own (default:
            0.25).
        min_per_class: number of images to train on below which a class is left out, for a folder of classes.
        group_by: what belongs together, so that no split divides it, video (names but for the number at their end),
            parent (the folder) or a regular expression on the path.
        progress: show a progress bar.

    Raises:
        ValueError: the dataset itself cannot be read, see `read_splits`. Images that cannot be read are only listed.
    """
    read = read_splits(
        source, split_seed=split_seed, val_fraction=val_fraction, min_per_class=min_per_class, group_by=group_by
    )
    splits = _once(read)
    entries = [(split, dataset, sample) for split, dataset in splits.items() for sample in dataset]
    first = next(iter(splits.values()))
    same: dict[bytes, list[tuple[str, Sample]]] = {}
    seen: dict[str, list[_Look]] = {split: [] for split in splits}
    # Threads are enough, because Pillow and libav release the interpreter lock while they decode.
    with (
        quiet(),
        ThreadPoolExecutor(2) as pool,
        bar(len(entries), "check", first.media, hidden=not progress) as shown,
    ):
        looks = pool.map(lambda entry: _look(entry[1], entry[2]), entries)
        try:
            for (split, _, sample), look in zip(entries, looks, strict=True):
                seen[split].append(look)
                if not look.problem:
                    same.setdefault(look.digest, []).append((split, sample))
                shown.update(1)
        finally:
            pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for the remaining files

    every = [look for looks in seen.values() for look in looks]
    used = {path for _, _, sample in entries for path in (sample.path, sample.keypoints) if path}
    return Check(
        source=str(source),
        media=first.media,
        classes=first.classes,
        images={split: _per_class(dataset) for split, dataset in splits.items()},
        parts={split: _part(dataset, seen[split]) for split, dataset in splits.items()},
        unusable=tuple((look.path, look.problem) for look in every if look.problem),
        damaged=tuple((look.path, look.damage) for look in every if look.damage),
        keypoints=tuple(problem for look in every for problem in look.keypoints),
        duplicates=tuple(
            tuple(sample.path for _, sample in group)
            for group in same.values()
            if len({(split, sample.labels) for split, sample in group}) > 1
        ),
        near_duplicates=_near_duplicates(seen),
        outside=tuple(look.path for look in every if look.outside),
        ignored=_ignored(first.root, used, first.left_out, only_media=not READERS[first.format].every_file),
        left_out=first.left_out,
        read_as=(*filter(_is_new, first.notes), *([] if group_by else note_on_names(read))),
        people=sum(look.people for look in every),
        joints=sum(look.joints for look in every),
        evidence=sum(bool(sample.evidence) for _, _, sample in entries),
        objects=sum(len(sample.objects) for _, _, sample in entries),
    )


def _is_new(note: str) -> bool:
    """Whether a note of the reader says more than the list of ignored files."""
    return "by their suffix" not in note


def _near_duplicates(seen: Mapping[str, list[_Look]]) -> tuple[tuple[str, str], ...]:
    """Images outside of train that are nearly, but not exactly, images of train."""
    exact = {look.digest for look in seen["train"]}
    known = {look.path: look.signature for look in seen["train"] if look.signature is not None}
    found = []
    for split, looks in seen.items():
        others = [] if split == "train" else [look for look in looks if look.digest not in exact]
        found += near(known, {look.path: look.signature for look in others if look.signature is not None})
    return tuple(found)


def _once(splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """The splits without those that are the same dataset as an earlier one, such as a test split that is also val."""
    kept: dict[str, Dataset] = {}
    for split, dataset in splits.items():
        if not any(dataset is other for other in kept.values()):
            kept[split] = dataset
    return kept


@dataclass
class _Look:
    """The findings about one sample's file and keypoints."""

    path: str
    digest: bytes = b""
    signature: np.ndarray | None = None
    problem: str = ""
    damage: str = ""
    frames: int = 0
    outside: bool = False
    people: int = 0
    joints: int = 0
    keypoints: list[tuple[str, str]] = field(default_factory=list)


def _look(dataset: Dataset, sample: Sample) -> _Look:
    look = _Look(sample.path)
    points = _count_people(dataset, sample, look)
    try:
        with dataset.opened(sample) as file:
            if not file.exists():
                look.problem = MISSING
                return look
            if dataset.media == "clips":
                clip = probe(file)
                width, height, look.frames, look.damage = clip.width, clip.height, clip.frames, clip.problem
                files = frame_files(file) if file.is_dir() else [file]
            else:
                image = decode(file)
                width, height = image.size
                look.signature = signature(image)
                look.damage = only_first(file)
                files = [file]
            look.digest = _digest(files)
    except Unreadable as error:
        look.problem = error.reason
        return look
    look.outside = _outside(sample, points, width, height)
    return look


def _count_people(dataset: Dataset, sample: Sample, look: _Look) -> list[tuple[float, float]]:
    """Counts the people of a sample, also those in its keypoint files, and returns all their joints."""
    bodies: list[Joints] = [person.joints for person in sample.people]
    if sample.keypoints and dataset.storage:
        bodies += dataset.storage.people(sample.path, None)
    for name in keypoint_files(dataset, sample):
        try:
            bodies += read_openpose(dataset.root / name)
        except ValueError as error:
            look.keypoints.append((name, str(error).removeprefix(f"{dataset.root / name}: ")))
    points = [joint for joints in bodies for joint in joints if joint is not None]
    look.people, look.joints = len(bodies), len(points)
    return points


def _digest(files: Iterable[Path]) -> bytes:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.digest()


def _outside(sample: Sample, joints: Iterable[tuple[float, float]], width: int, height: int) -> bool:
    """Whether joints or boxes lie outside the image.

    Boxes of annotators often end a little beyond the border, and so do the joints of a body that is cut off. For the
    boxes of persons, which may be estimated from a scale, only the centre is checked.
    """
    slack_x, slack_y = max(2.0, 0.1 * width), max(2.0, 0.1 * height)
    corners = [corner for x1, y1, x2, y2 in (*sample.evidence, *sample.objects) for corner in ((x1, y1), (x2, y2))]
    boxes = [person.box for person in sample.people if person.box is not None]
    middles = [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in boxes]
    return any(
        not (-slack_x <= x <= width + slack_x and -slack_y <= y <= height + slack_y)
        for x, y in [*corners, *middles, *joints]
    )


def _part(dataset: Dataset, looks: list[_Look]) -> Part:
    missing = sum(look.problem == MISSING for look in looks)
    return Part(
        samples=len(dataset),
        classes=len({label for sample in dataset for label in sample.labels}),
        labels=sum(len(sample.labels) for sample in dataset),
        ambiguous=sum(len(sample.ambiguous) for sample in dataset),
        frames=sum(look.frames for look in looks),
        people=sum(look.people for look in looks),
        joints=sum(look.joints for look in looks),
        missing=missing,
        broken=sum(bool(look.problem) for look in looks) - missing,
    )


def _ignored(root: Path, used: set[str], left_out: Sequence[str], *, only_media: bool) -> dict[str, int]:
    """Counts, by suffix, the files (hidden ones too) that are neither samples nor annotations.

    Args:
        root: root of the dataset.
        used: paths of samples and keypoints; all files in such a folder are used.
        left_out: names of folders of classes that are left out, whose files are not counted.
        only_media: whether to count only images and videos.
    """
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):  # as readers do, but not in circles
        place = os.path.realpath(folder)
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        place_in = Path(folder).relative_to(root)
        if place_in.as_posix() in used or set(place_in.parts[:2]) & set(left_out):
            continue
        for name in names:
            path = Path(folder, name)
            suffix = path.suffix.lower() if path.suffix.isascii() else "other"
            known = path.relative_to(root).as_posix() in used or path in (root / FILE_NAME, root / POSES_NAME)
            if not known and not (only_media and suffix not in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)):
                counts[suffix] += 1
    return {suffix or "no suffix": count for suffix, count in sorted(counts.items())}


def _per_class(dataset: Dataset) -> dict[str, int]:
    counts = Counter(label for sample in dataset for label in sample.labels)
    return {name: counts[label] for label, name in enumerate(dataset.classes)}
