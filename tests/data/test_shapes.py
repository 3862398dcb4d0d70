"""The shapes that headers promise are those of the views."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import write_clip
from PIL import ExifTags, Image

from attnpool.data import Dataset, Preprocessing, Sample, eval_view, read_image, shapes
from attnpool.data.clips import read_views

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


def test_all_frames_of_a_clip_have_the_shape_of_its_first(tmp_path: Path) -> None:
    """Also of a folder whose frames differ, and whatever frames are drawn."""
    for name, sizes in (("wide", [(300, 100)] * 3), ("mixed", [(100, 300), (300, 100), (200, 200)])):
        (tmp_path / name).mkdir()
        for i, size in enumerate(sizes):
            Image.new("RGB", size, (255, 255, 255)).save(tmp_path / name / f"{i}.png")
    write_clip(tmp_path / "tall.mp4", [Image.new("RGB", (120, 320))] * 3)
    (tmp_path / "broken.mp4").write_text("not a video")
    names = ["wide", "mixed", "tall.mp4", "broken.mp4"]
    dataset = replace(dataset_of(tmp_path, names), media="clips")
    options = Preprocessing(image_size=224, view="whole", frames=2)
    found = shapes(dataset, options)
    assert found == [(128, 352), (352, 128), (352, 128), (224, 224)]
    for name, shape in zip(names[:3], found, strict=False):
        for rng in (None, np.random.default_rng(0)):
            clip = read_views(tmp_path / name, options, places=rng, rng=rng)
            assert {tuple(view.pixels.shape[1:]) for view in clip.views} == {shape}
    clip = read_views(tmp_path / "mixed", replace(options, frames=3), crops=1)
    assert clip.numbers == [0, 1, 2]
    second = clip.views[1]  # 300 x 100 in the middle of 128 x 352
    x1, y1, x2, y2 = second.boxes([(0, 0, 300, 100)])[0]
    assert (x1, x2) == pytest.approx((0, 128))
    assert y2 - y1 == pytest.approx(43)
    assert (second.pixels[:, int(y1) + 1 : int(y2) - 1] == 255).all()


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
