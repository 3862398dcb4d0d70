"""Copies of an image are found, whatever became of them, and other images are not."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import attnpool
from PIL import Image, ImageEnhance

from attnpool.data import check, read, read_image
from attnpool.data import near_duplicates as module
from attnpool.data.near_duplicates import near, signature, signatures


def scene(seed: int) -> Image.Image:
    coarse = np.random.default_rng([8, seed]).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC)


def compressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=20)
    return Image.open(buffer)


CHANGES = {
    "nothing": lambda image: image,
    "compressed": compressed,
    "half as large": lambda image: image.resize((160, 120)),
    "another shape": lambda image: image.resize((200, 200)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "without colour": lambda image: image.convert("L"),
    "cut at the border": lambda image: image.crop((3, 3, 317, 237)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found(change: str) -> None:
    known = {str(seed): signature(scene(seed)) for seed in range(60)}
    others = {str(seed): signature(CHANGES[change](scene(seed))) for seed in range(0, 60, 7)}
    found = near(known, others)  # type: ignore[arg-type]
    assert found == [(str(seed), str(seed)) for seed in range(0, 60, 7)]


def test_other_images_are_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither among many, which are compared in parts; flat ones have no signature at all."""
    monkeypatch.setattr(module, "ROWS", 7)
    known = {str(seed): signature(scene(seed)) for seed in range(100)}
    others = {str(seed): signature(scene(seed)) for seed in range(100, 200)} | {"copy": signature(scene(50))}
    assert near(known, others) == [("copy", "50")]  # type: ignore[arg-type]
    assert near(known, {}) == near({}, others) == []  # type: ignore[arg-type]
    assert signature(Image.new("RGB", (90, 60), "white")) is None


def test_a_turned_image_is_another() -> None:
    assert near({"a": signature(scene(1))}, {"b": signature(scene(1).rotate(180))}) == []  # type: ignore[dict-item]


def test_check_and_train_say_so(photos: Path, tmp_path: Path) -> None:
    """Of near-duplicates on both sides of the split; equal files are listed apart."""
    source = f"folder:{photos}"
    assert not check(source).near_duplicates
    train, val = read(source)
    copied, equal = train.file(train.samples[0]), train.file(train.samples[1])
    read_image(copied).resize((75, 61)).save(val.file(val.samples[0]), quality=50)
    shutil.copy(equal, val.file(val.samples[1]))
    found = check(source)
    assert found.near_duplicates == ((val.samples[0].path, train.samples[0].path),)
    assert found.duplicates == ((train.samples[1].path, val.samples[1].path),)
    words = f"{val.samples[0].path} is nearly {train.samples[0].path}"
    assert words in str(found)
    command = ("train", source, "--out", tmp_path / "run", "--pooling", "average", "--epochs", 1, "--image-size", 32)
    note = f"2 of {len(val)} images of val are nearly images of train, such as {val.samples[0].path} and"
    assert any(note in line for line in attnpool(*command).messages)
    assert attnpool(*command).messages == [], "a finished run is not looked at again"


def test_files_that_cannot_be_read_are_passed_over(photos: Path) -> None:
    train, _ = read(f"folder:{photos}")
    train.file(train.samples[0]).write_bytes(b"none")
    assert signatures(train).keys() == {sample.path for sample in train.samples[1:]}
