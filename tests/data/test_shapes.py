"""The shapes that headers promise are those of the views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from attnpool.data import Dataset, Preprocessing, Sample, eval_view, read_image, shapes

AWKWARD = Path(__file__).parents[3] / "shared" / "real" / "awkward"


def dataset_of(root: Path, names: list[str]) -> Dataset:
    return Dataset("folder:x", root, ("a", "b"), tuple(Sample(name, (0,)) for name in names))


def test_shapes_of_turned_and_unreadable_images(tmp_path: Path) -> None:
    noise = Image.fromarray(np.zeros((100, 300, 3), np.uint8))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        noise.save(tmp_path / f"{orientation}.jpg", exif=exif)
    (tmp_path / "9.jpg").write_text("not an image")
    names = [f"{i}.jpg" for i in range(1, 11)]  # the last is missing
    options = Preprocessing(image_size=224, view="whole")
    found = shapes(dataset_of(tmp_path, names), options)
    wide, tall = (128, 352), (352, 128)
    assert found == [wide] * 4 + [tall] * 4 + [(224, 224)] * 2
    assert shapes(dataset_of(tmp_path, names), Preprocessing()) is None


@pytest.mark.skipif(not AWKWARD.exists(), reason="the real images are not here")
def test_shapes_of_awkward_images() -> None:
    """Of every image that can be read."""
    options = Preprocessing(image_size=224, view="whole")
    names = sorted(path.name for path in AWKWARD.iterdir() if path.suffix != ".tsv")
    found = shapes(dataset_of(AWKWARD, names), options)
    assert found is not None
    checked = 0
    for name, shape in zip(names, found, strict=True):
        try:
            image = read_image(AWKWARD / name)
        except ValueError:
            continue
        assert tuple(eval_view(image, options).pixels.shape[1:]) == shape, name
        checked += 1
    assert checked > 50
