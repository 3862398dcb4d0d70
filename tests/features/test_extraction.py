"""Features on disk: equal to the backbone's, shared by content, and whole whatever interrupts their making."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import attnpool as ap
from attnpool.backbones.backbone import Backbone
from attnpool.data import Dataset, Preprocessing, Sample, load
from attnpool.features import extraction as module
from attnpool.features.extraction import Features, extract, statistics
from attnpool.features.store import FeatureStore

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

    def counting(model, dataset, store, todo, *rest):  # type: ignore[no-untyped-def]
        computed.append(len(todo))
        return original(model, dataset, store, todo, *rest)

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


def test_another_backbone_has_another_store(backbone: Backbone, images: Dataset, tmp_path: Path) -> None:
    get(backbone, images, tmp_path / "cache")
    other = Backbone("lite0", frozen=True)
    with torch.no_grad():
        other.net.conv_stem.weight += 0.01
    get(other, images, tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 2


@pytest.mark.parametrize("damage", ["half a row", "a row without its line", "half a line"])
def test_interruption(backbone: Backbone, images: Dataset, tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "cache"
    first = images.select([f"{i}.png" for i in range(4)])
    get(backbone, first, cache)
    (folder,) = (cache / "features").iterdir()
    row = FeatureStore(folder).array()[0].nbytes
    if damage == "half a line":
        text = (folder / "rows.jsonl").read_bytes()
        (folder / "rows.jsonl").write_bytes(text[:-10])
    else:
        with (folder / "features.f16").open("ab") as file:
            file.write(b"\1" * (row // 2 if damage == "half a row" else row))
    found = get(backbone, images, cache)
    clean = get(backbone, images, tmp_path / "clean")
    # Batches of other sizes may round the last half-precision digit differently.
    assert torch.allclose(found.batch(range(7)), clean.batch(range(7)), atol=0.01)
    assert FeatureStore(folder).array().shape[0] == 7


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
