"""Similarity of positions against a double loop, and over the images of a dataset."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import attnpool as ap
from attnpool.evaluation.similarity import feature_similarity, similarities, similarity


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def by_pairs(x: Tensor) -> float:
    """`(C, H, W)`: every pair of different positions, one after the other."""
    vectors = [x[:, r, c].tolist() for r in range(x.shape[1]) for c in range(x.shape[2])]
    total = 0.0
    for i, one in enumerate(vectors):
        for j, other in enumerate(vectors):
            if i != j:
                product = math.fsum(a * b for a, b in zip(one, other, strict=True))
                norms = math.sqrt(math.fsum(a * a for a in one) * math.fsum(b * b for b in other))
                total += product / norms if norms else 0.0
    return total / (len(vectors) * (len(vectors) - 1))


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 3), st.integers(2, 4), st.floats(0.001, 1000))
def test_against_a_double_loop(batch: int, channels: int, height: int, width: int, scale: float) -> None:
    x = scale * draw(batch, channels, height, width)
    expected = [by_pairs(one) for one in x]
    assert similarities(x).tolist() == pytest.approx(expected, abs=1e-9)
    assert similarity(x) == pytest.approx(sum(expected) / batch, abs=1e-9)
    assert similarities(x.float().contiguous(memory_format=torch.channels_last)).tolist() == pytest.approx(
        expected, abs=1e-5
    )


def test_what_can_be_said_beforehand() -> None:
    same = draw(2, 5, 1, 1).expand(-1, -1, 3, 4)
    assert similarity(same) == pytest.approx(1)
    opposite = torch.stack([draw(5), -draw(5)], 1)[None, :, None]
    assert similarity(opposite) == pytest.approx(-1)
    assert similarity(torch.eye(6).reshape(1, 6, 2, 3)) == 0
    assert similarity(torch.zeros(1, 5, 2, 2)) == 0
    lengths = torch.rand(1, 1, 3, 4) + 0.1
    assert similarity(draw(1, 5, 3, 4) * lengths) == pytest.approx(similarity(draw(1, 5, 3, 4)), abs=1e-6)
    assert similarities(draw(2, 3, 5, 2, 2)).shape == (2, 3)  # clips


def test_what_has_no_similarity() -> None:
    for shape in ((2, 5, 1, 1), (5, 4)):
        with pytest.raises(ValueError, match="no two positions"):
            similarity(torch.zeros(shape))
    with pytest.raises(ValueError, match="NaN or infinity"):
        similarity(torch.full((1, 5, 2, 2), torch.nan))


@pytest.fixture
def model() -> ap.Recognizer:
    backbone = ap.Backbone("mobilenetv3_small_050", "random")
    view = {"image_size": 96, "short_side": None, "max_width": None}
    return ap.Recognizer(backbone, classes=["a", "b"], pooling="average", preprocessing=view).train()


def test_average_over_a_dataset(world: Path, model: ap.Recognizer) -> None:
    _, val = ap.read(f"folder:{world}")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = feature_similarity(model, val, progress=False)
    assert found.images == len(val)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    values = []
    model.eval()
    for i in range(len(val)):
        batch = next(ap.data.load(val, ap.Preprocessing(**model.preprocessing), [[i]], seed=0, epoch=0, train=False))
        with torch.no_grad():
            values.append(by_pairs(model.backbone(model.normalize(batch.pixels))[0].double()))
    assert found.mean == pytest.approx(sum(values) / len(values), abs=1e-5)
    assert found.std == pytest.approx(float(torch.tensor(values).std(correction=0)), abs=1e-5)

    some = feature_similarity(model, val, limit=3, progress=False)
    assert some.mean == pytest.approx(sum(values[i * len(val) // 3] for i in range(3)) / 3, abs=1e-5)
    with pytest.raises(ValueError, match="limit is 0"):
        feature_similarity(model, val, limit=0)


def test_files_that_cannot_be_read(world: Path, model: ap.Recognizer, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "play")
    _, val = ap.read(f"folder:{tmp_path / 'play'}")
    files = [val.file(sample) for sample in val]
    files[0].write_bytes(b"no image")
    found = feature_similarity(model, val, progress=False)
    assert found.images == len(val) - 1
    assert [path for path, _ in found.failed] == [val.samples[0].path]
    for file in files:
        file.write_bytes(b"no image")
    with pytest.raises(ValueError, match="none of 14 images can be read"):
        feature_similarity(model, val, progress=False)
