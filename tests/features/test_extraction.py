"""Features on disk: equal to the backbone's, shared by content, and whole whatever interrupts their making."""

from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import attnpool as ap
from attnpool.backbones.backbone import Backbone
from attnpool.data import Dataset, Person, Preprocessing, Sample, load
from attnpool.features import extraction as module
from attnpool.features.extraction import extract
from attnpool.features.features import Features, statistics
from attnpool.keypoints.joints import MPII_FLIP

VIEW = {"image_size": 64, "short_side": None, "max_width": None}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone("lite0", frozen=True)


@pytest.fixture
def images(tmp_path: Path) -> Dataset:
    """Seven images of noise, of different sizes."""
    rng = np.random.default_rng(0)
    for i in range(7):
        noise = rng.integers(0, 256, (70 + 5 * i, 90 - 3 * i, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{i}.png")
    samples = tuple(Sample(f"{i}.png", (i % 2,)) for i in range(7))
    return Dataset("folder:x", tmp_path, ("a", "b"), samples)


def model(backbone: Backbone, **more: object) -> ap.Recognizer:
    return ap.Recognizer(backbone, classes=["a", "b"], pooling="average", preprocessing={**VIEW, **more})


def get(backbone: Backbone, dataset: Dataset, cache: Path, **more: object) -> Features:
    return extract(model(backbone, **more), dataset, cache=cache, progress=False)


def test_equal_to_the_backbone(backbone: Backbone, images: Dataset, tmp_path: Path) -> None:
    found = get(backbone, images, tmp_path / "cache")
    (batch,) = load(images, Preprocessing(**VIEW), [range(7)], seed=0, epoch=0, train=False)
    with torch.inference_mode():
        expected = backbone(model(backbone).normalize(batch.pixels))
    assert torch.allclose(found.batch(range(7)), expected, atol=4e-3 * float(expected.abs().max()))
    assert found.batch([3, 1]).equal(found.batch(range(7))[[3, 1]])
    assert found.batch([0]).is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(found.matrices, batch.matrices)


def test_shared_by_content(
    backbone: Backbone, images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part, another folder and a copy need nothing new; a changed image and another size do."""
    cache = tmp_path / "cache"
    whole = get(backbone, images, cache)
    computed: list[int] = []
    original = module.compute

    def counting(model, images, *rest, **more):  # type: ignore[no-untyped-def]
        computed.append(len(images[2]))
        return original(model, images, *rest, **more)

    monkeypatch.setattr(module, "compute", counting)
    part = get(backbone, images.select(["2.png", "5.png"]), cache)
    assert part.batch([0, 1]).equal(whole.batch([2, 5]))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copy(tmp_path / "3.png", moved / "renamed.png")
    other = Dataset("folder:y", moved, ("a", "b"), (Sample("renamed.png", (1,)),))
    assert get(backbone, other, cache).batch([0]).equal(whole.batch([3]))
    assert computed == []
    Image.new("RGB", (80, 80), "red").save(tmp_path / "3.png")
    assert not get(backbone, images, cache).batch([3]).equal(whole.batch([3]))
    assert computed == [1]
    assert get(backbone, images, cache, image_size=96).stores[0].shape[1:3] == (3, 3)
    assert computed == [1, 7]


def test_further_views_are_those_of_mirrored_and_enlarged_images(
    backbone: Backbone, images: Dataset, tmp_path: Path
) -> None:
    """Held against files that Pillow mirrored and cut; rows, boxes and joints are of the view."""
    (tmp_path / "other").mkdir()
    box = (10.0, 20.0, 30.0, 60.0)
    joints = tuple((10.0 + j, 20.0) for j in range(16))
    square = Image.open(tmp_path / "0.png").convert("RGB").crop((0, 0, 70, 70)).resize((80, 80))
    square.save(tmp_path / "s.png")
    square.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "other" / "mirrored.png")
    square.crop((8, 8, 72, 72)).save(tmp_path / "other" / "middle.png")
    sample = Sample("s.png", (0,), people=(Person(joints=joints, box=box),))
    dataset = Dataset("folder:x", tmp_path, ("a", "b"), (sample,))
    found = extract(model(backbone), dataset, crops=2, flip=True, cache=tmp_path / "cache", progress=False)
    assert [view.mirrored for view in found.views] == [False, True, False, True]
    names = ("s.png", "other/mirrored.png", "other/middle.png")
    for name, view in zip(names, found.views, strict=False):
        plain = get(backbone, Dataset("folder:y", tmp_path, ("a", "b"), (Sample(name, (0,)),)), tmp_path / "second")
        assert torch.allclose(view.batch([0]), plain.batch([0]), atol=0.02 * float(plain.batch([0]).abs().max())), name
    scale = 64 / 80
    assert found.boxes(0) == [pytest.approx(tuple(scale * value for value in box))]
    assert found.others[0].boxes(0) == [pytest.approx((64 - scale * 30, scale * 20, 64 - scale * 10, scale * 60))]
    assert found.others[1].boxes(0) == [pytest.approx((2, 12, 22, 52))]  # of the middle, which is not resized
    ((person,),) = found.others[0].people(0)
    assert person == tuple(pytest.approx((64 - scale * (10 + MPII_FLIP[j]), scale * 20)) for j in range(16))
    averaged = found.averaged
    assert [view.batch([0]).shape[-2:] for view in averaged.views] == [(1, 1)] * 4
    assert torch.allclose(averaged.others[1].batch([0])[0, :, 0, 0], found.others[1].batch([0]).mean((-2, -1))[0])


def test_statistics_are_of_all_views(backbone: Backbone, images: Dataset, tmp_path: Path) -> None:
    """A channel that is dead in the first view may be alive in another, which its scale must know of."""
    found = extract(model(backbone), images, crops=2, flip=True, cache=tmp_path / "cache", progress=False)
    each = torch.cat([view.batch(range(7)) for view in found.views]).double().movedim(1, -1).flatten(0, -2)
    mean, std = statistics(found)
    torch.testing.assert_close(mean.double(), each.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(std.double(), each.std(0, unbiased=False), atol=1e-4, rtol=1e-3)


def test_a_file_that_is_lost_between_two_views_is_lost_for_all(
    backbone: Backbone, images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = module.compute

    def losing(*given, mirrored):  # type: ignore[no-untyped-def]
        if mirrored:
            (tmp_path / "3.png").unlink()
        return original(*given, mirrored=mirrored)

    monkeypatch.setattr(module, "compute", losing)
    found = extract(model(backbone), images, flip=True, cache=tmp_path / "cache", progress=False)
    assert [len(view) for view in found.views] == [6, 6]
    assert [path for path, _ in found.failed] == ["3.png"]
    assert found.select(["2.png", "4.png"], "train").others[0].batch([1]).equal(found.others[0].batch([3]))


def test_another_backbone_has_another_store(backbone: Backbone, images: Dataset, tmp_path: Path) -> None:
    get(backbone, images, tmp_path / "cache")
    other = Backbone("lite0", frozen=True)
    with torch.no_grad():
        other.net.conv_stem.weight += 0.01
    get(other, images, tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 2


@pytest.mark.parametrize("damage", ["half a row", "another byte", "half a line"])
def test_interruption(backbone: Backbone, images: Dataset, tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "cache"
    first = images.select([f"{i}.png" for i in range(4)])
    get(backbone, first, cache)
    (lines,), (rows,) = cache.rglob("*.jsonl"), cache.rglob("*.f16")
    if damage == "half a line":
        lines.write_bytes(lines.read_bytes()[:-10])
    elif damage == "half a row":
        rows.write_bytes(rows.read_bytes()[:-100])
    else:
        rows.write_bytes(rows.read_bytes()[:100] + b"\1" + rows.read_bytes()[101:])
    found = get(backbone, images, cache)
    clean = get(backbone, images, tmp_path / "clean")
    # Batches of other sizes may round the last half-precision digit differently.
    assert torch.allclose(found.batch(range(7)), clean.batch(range(7)), atol=0.01)
    assert found.shapes is None
    assert len(found.stores) == 2


def test_two_work_side_by_side(
    backbone: Backbone, images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each computes what the other does not, and both have all of it in the end."""
    both = threading.Barrier(2, timeout=60)
    computed: list[int] = []
    original = module.compute

    def together(model, images, *rest, **more):  # type: ignore[no-untyped-def]
        both.wait()  # neither waits before it has claimed its images
        computed.append(len(images[2]))
        return original(model, images, *rest, **more)

    monkeypatch.setattr(module, "compute", together)
    parts = [images.select([f"{i}.png" for i in numbers]) for numbers in (range(5), range(2, 7))]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda part: get(backbone, part, tmp_path / "cache"), parts)
    assert sorted(computed) == [2, 5]
    monkeypatch.undo()
    clean = get(backbone, images, tmp_path / "clean").batch(range(7))
    # Batches of other sizes may round the last half-precision digit differently.
    assert torch.allclose(first.batch(range(5)), clean[:5], atol=0.01)
    assert torch.allclose(second.batch(range(5)), clean[2:], atol=0.01)


def test_unreadable_and_copies(backbone: Backbone, images: Dataset, tmp_path: Path) -> None:
    """Unreadable files are named, whether they are missing, broken, or copies of a broken one; copies share a row."""
    (tmp_path / "0.png").write_bytes((tmp_path / "0.png").read_bytes()[:200])
    shutil.copy(tmp_path / "0.png", tmp_path / "1.png")
    shutil.copy(tmp_path / "5.png", tmp_path / "4.png")
    (tmp_path / "2.png").unlink()
    found = get(backbone, images, tmp_path / "cache")
    assert [path for path, _ in found.failed] == ["0.png", "1.png", "2.png"]
    assert all(reason for _, reason in found.failed)
    assert [sample.path for sample in found.dataset] == ["3.png", "4.png", "5.png", "6.png"]
    assert found.rows[1].tolist() == found.rows[2].tolist()
    assert [path for path, _ in found.select(["0.png", "3.png"], "val").failed] == ["0.png"]
    with pytest.raises(ValueError, match="none of its 1 images can be read"):
        get(backbone, images.select(["0.png"]), tmp_path / "cache")


def test_a_pipe_is_not_waited_for(backbone: Backbone, images: Dataset, tmp_path: Path) -> None:
    (tmp_path / "1.png").unlink()
    os.mkfifo(tmp_path / "1.png")
    found = get(backbone, images, tmp_path / "cache")
    assert len(found) == 6
    assert found.failed == (("1.png", "not a file"),)


def test_statistics_and_averages(backbone: Backbone, images: Dataset, tmp_path: Path) -> None:
    found = get(backbone, images, tmp_path / "cache")
    x = found.batch(range(7)).double().permute(1, 0, 2, 3).flatten(1)
    mean, std = statistics(found)
    assert torch.allclose(mean.double(), x.mean(1), atol=1e-6)
    assert torch.allclose(std.double(), x.std(1, unbiased=False), atol=1e-6)
    averaged = found.averaged
    assert averaged.batch([4, 2])[:, :, 0, 0].allclose(found.batch([4, 2]).mean((2, 3)), atol=1e-6)
    assert averaged.stores[0].shape[1:3] == (1, 1)


def test_trained_backbone_has_no_cache(images: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="freeze_backbone=True"):
        get(Backbone("lite0"), images, tmp_path)


def test_no_room(backbone: Backbone, images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little space is said before the work; nothing that was not computed counts."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: replace_free(usage, 1000))
    with pytest.raises(OSError, match="folder on another disk as cache"):
        get(backbone, images, tmp_path / "cache")
    monkeypatch.undo()
    assert len(get(backbone, images, tmp_path / "cache")) == 7


def replace_free(usage: object, free: int) -> object:
    return usage._replace(free=free)  # type: ignore[attr-defined]


def test_boxes_follow_the_view(backbone: Backbone, tmp_path: Path) -> None:
    Image.new("RGB", (200, 100)).save(tmp_path / "wide.png")
    joints = ((100.0, 50.0), *[None] * 15)
    sample = Sample("wide.png", (0,), (ap.data.Person(joints),), ((90.0, 40.0, 110.0, 60.0),))
    found = get(backbone, Dataset("folder:x", tmp_path, ("a", "b"), (sample,)), tmp_path / "cache")
    (everybody,) = found.people(0)
    assert everybody[0][0] == pytest.approx((32, 32))
    assert found.evidence(0)[0] == pytest.approx((25.6, 25.6, 38.4, 38.4))
    assert found.objects(0) == []
    assert replace(found, failed=()).failed == ()
