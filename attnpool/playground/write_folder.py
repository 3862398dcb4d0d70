"""Writes a world as a folder dataset: class folders in train and val, and a COCO-style annotation file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from attnpool.playground.annotation import DESCRIPTION, VERSION, Annotations
from attnpool.playground.compose import CLASSES, label_of
from attnpool.playground.scene import check_size, render
from attnpool.playground.staging import Progress, make_world

QUALITY = 90


def is_validation(index: int, val_fraction: float) -> bool:
    """Whether image `index` belongs to val, which consists of whole blocks of K images: the second, then evenly spaced.

    A block has every class once, so both splits are balanced, and the split of an image does not depend on their
    number.
    """
    block = index // len(CLASSES)
    share = Fraction(val_fraction).limit_denominator(10_000)
    return block >= 1 and (block - 1) * share // 1 != (block - 2) * share // 1


def file_name(seed: int, index: int, val_fraction: float) -> str:
    """The path of an image below the dataset's root."""
    part = "val" if is_validation(index, val_fraction) else "train"
    return f"{part}/{label_of(seed, index)}/{index:05d}.jpg"


def check_numbers(count: int, seed: int, *, blocks: int = 2, size: int | None = None, what: str = "images") -> None:
    """Raises ValueError for fewer than `blocks` images or clips per class, a negative seed or an impossible size."""
    least = blocks * len(CLASSES)
    if count < least:
        raise ValueError(f"{count} {what} are too few for {len(CLASSES)} classes: ask for {least} or more")
    if seed < 0:
        raise ValueError(f"seed {seed}: must be 0 or more")
    if size is not None:
        check_size(size)


def write_folder(
    directory: Path,
    images: int,
    seed: int,
    *,
    size: int = 448,
    val_fraction: float = 0.25,
    progress: Progress | None = None,
) -> None:
    """Writes images 0 .. images-1 of the world `seed` below `directory`, either all of them or none.

    The files are `train/<class>/NNNNN.jpg`, `val/<class>/NNNNN.jpg` and `annotations.json` (COCO-style: people with
    MPII's 16 joints and `actor`, things with `in_use`). A directory that already holds exactly this world is not
    changed.

    Args:
        directory: folder to write, which must be new or empty, or hold exactly this world already.
        images: number of images, at least two per class.
        seed: seed of the world, at least 0.
        size: width and height of each image in pixels.
        val_fraction: fraction of images in val, from 0 (none) to less than 1.
        progress: function that is called with (images done, total images).

    Raises:
        ValueError: a number is out of range, or the directory holds something else.
        OSError: the files cannot be written; nothing is left behind.
    """
    check_numbers(images, seed)
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction {val_fraction}: must be 0 or more and less than 1, such as 0.25")
    info: dict[str, Any] = {
        "description": DESCRIPTION,
        "version": VERSION,
        "seed": seed,
        "images": images,
        "size": size,
        "val_fraction": val_fraction,
    }

    def fill(world: Path) -> None:
        known = Annotations()
        for index in range(images):
            scene = render(seed, index, size=size)
            name = file_name(seed, index, val_fraction)
            (world / name).parent.mkdir(parents=True, exist_ok=True)
            scene.image.save(world / name, quality=QUALITY)
            known.add(name, scene, scene.label)
            if progress is not None:
                progress(index + 1, images)
        known.write(world, info)

    make_world(directory, info, images, fill, progress)
