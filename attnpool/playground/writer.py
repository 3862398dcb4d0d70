"""Writing a world to disk as a folder dataset: class folders of train and val, and a COCO-style annotation file."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from attnpool.playground.compose import CLASSES, label_of
from attnpool.playground.objects import KINDS
from attnpool.playground.scene import Box, Scene, render
from attnpool.pose.joints import MPII_JOINTS

DESCRIPTION = "attnpool playground: a generated world of people doing things with objects"
# Raised whenever the same seed gives other pictures or annotations than before.
VERSION = 1
# Pairs of MPII's joints joined by a bone, counted from 0.
BONES = (
    (0, 1),
    (1, 2),
    (2, 6),
    (3, 6),
    (3, 4),
    (4, 5),
    (6, 7),
    (7, 8),
    (8, 9),
    (10, 11),
    (11, 12),
    (12, 7),
    (13, 7),
    (13, 14),
    (14, 15),
)
QUALITY = 90


def is_validation(index: int, val_fraction: float) -> bool:
    """Whether picture `index` belongs to val: whole blocks of K pictures do, the second and then evenly spaced ones.

    A block holds every class once, so both parts stay balanced and no picture's part depends on how many there are.
    """
    block = index // len(CLASSES)
    share = Fraction(val_fraction).limit_denominator(10_000)
    return block >= 1 and (block - 1) * share // 1 != (block - 2) * share // 1


def file_name(seed: int, index: int, val_fraction: float) -> str:
    """Where a picture lies below the dataset's root."""
    part = "val" if is_validation(index, val_fraction) else "train"
    return f"{part}/{label_of(seed, index)}/{index:05d}.jpg"


def write_folder(
    directory: Path,
    images: int,
    seed: int,
    *,
    size: int = 448,
    val_fraction: float = 0.25,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write pictures 0 .. images-1 of the world `seed` below `directory`, all of them or nothing.

    `train/<class>/NNNNN.jpg`, `val/<class>/NNNNN.jpg` and `annotations.json` (COCO-style: people with MPII's 16
    joints and `actor`, things with `in_use`). A directory that already holds exactly this world is left as it is.

    Args:
        directory: where to; must not exist, be empty, or hold this very world.
        images: how many, at least two for each class.
        seed: the world, at least 0.
        size: width and height of each picture in pixels.
        val_fraction: share of the validation part, 0 (none) to less than 1.
        progress: called with (pictures done, pictures in all).

    Raises:
        ValueError: numbers out of range, or a directory that holds something else.
        OSError: the disk refused; nothing is left behind.
    """
    directory = Path(directory)
    if images < 2 * len(CLASSES):
        raise ValueError(f"{images} images are too few for {len(CLASSES)} classes: ask for {2 * len(CLASSES)} or more")
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction {val_fraction}: must be 0 or more and less than 1, such as 0.25")
    if seed < 0:
        raise ValueError(f"seed {seed}: must be 0 or more")
    info = {
        "description": DESCRIPTION,
        "version": VERSION,
        "seed": seed,
        "images": images,
        "size": size,
        "val_fraction": val_fraction,
    }
    directory = directory.absolute()
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file: choose another directory")
    if directory.is_dir() and any(directory.iterdir()):
        if not _holds(directory, info):
            raise ValueError(
                f"{directory} is not empty and holds something else: choose another directory or remove it"
            )
        if progress is not None:
            progress(images, images)
        return
    if directory.is_symlink():
        directory = directory.resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".partial", dir=directory.parent))
    try:
        # A directory of its own inside, as mkdtemp's is closed to other users and keeps that when renamed.
        world = staging / "world"
        world.mkdir()
        _write(world, info, progress)
        if directory.is_dir():
            directory.rmdir()
        os.replace(world, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _holds(directory: Path, info: dict[str, Any]) -> bool:
    """Whether this very world has been written there already, with every file still in place."""
    try:
        known = json.loads((directory / "annotations.json").read_text(encoding="utf-8"))
        return known["info"] == info and all((directory / entry["file_name"]).is_file() for entry in known["images"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(world: Path, info: dict[str, Any], progress: Callable[[int, int], None] | None) -> None:
    images, annotations = [], list[dict[str, Any]]()
    count = int(info["images"])
    for index in range(count):
        scene = render(info["seed"], index, size=info["size"])
        name = file_name(info["seed"], index, info["val_fraction"])
        (world / name).parent.mkdir(parents=True, exist_ok=True)
        scene.image.save(world / name, quality=QUALITY)
        images.append(
            {
                "id": index + 1,
                "file_name": name,
                "width": scene.image.width,
                "height": scene.image.height,
                "label": scene.label,
            }
        )
        for entry in annotate(scene):
            annotations.append({"id": len(annotations) + 1, "image_id": index + 1, **entry})
        if progress is not None:
            progress(index + 1, count)
    skeleton = [[a + 1, b + 1] for a, b in BONES]
    person = {"id": 1, "name": "person", "keypoints": list(MPII_JOINTS), "skeleton": skeleton}
    categories = [person] + [{"id": number, "name": kind} for number, kind in enumerate(KINDS, start=2)]
    content = {"info": info, "images": images, "categories": categories, "annotations": annotations}
    (world / "annotations.json").write_text(json.dumps(content), encoding="utf-8")


def annotate(scene: Scene) -> list[dict[str, Any]]:
    """A scene's people and things as COCO annotations, without ids; joints outside the picture are 0, 0, 0."""
    entries: list[dict[str, Any]] = []
    for person in scene.people:
        keypoints: list[float] = []
        for (x, y), v in zip(person.joints, person.visible, strict=True):
            keypoints += [round(float(x), 2), round(float(y), 2), int(v)] if v else [0, 0, 0]
        entries.append(
            {
                "category_id": 1,
                "bbox": _bbox(person.box),
                "area": person.area,
                "iscrowd": 0,
                "keypoints": keypoints,
                "num_keypoints": int((person.visible > 0).sum()),
                "actor": person.actor,
            }
        )
    for thing in scene.objects:
        entries.append(
            {
                "category_id": KINDS.index(thing.name) + 2,
                "bbox": _bbox(thing.box),
                "area": thing.area,
                "iscrowd": 0,
                "in_use": thing.in_use,
            }
        )
    return entries


def _bbox(box: Box) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]
