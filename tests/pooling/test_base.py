"""What all heads share: how features of any layout are seen, and linear maps of them with their own gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attnpool.pooling import AveragePooling, BilinearPooling, NetVLADPooling
from attnpool.pooling.base import on_grid, project, weighted_mean


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_features_are_seen_without_a_copy() -> None:
    head, x = AveragePooling(4, 2), draw(2, 4, 3, 5)
    tokens = draw(2, 15, 4)
    for features in (x, x.contiguous(memory_format=torch.channels_last), tokens):
        seen, grid = head.channels_first(features)
        assert seen.shape == (2, 4, 15)
        assert grid == ((15,) if features is tokens else (3, 5))
        assert seen.data_ptr() == features.data_ptr()
    clips = draw(2, 3, 4, 2, 5)
    seen, grid = NetVLADPooling(4, 2, clusters=2).channels_first(clips)
    assert grid == (3, 2, 5)
    for t in range(3):
        assert torch.equal(seen.unflatten(2, grid)[:, :, t], clips[:, t])
    assert torch.equal(on_grid(seen, grid), clips)


@pytest.mark.parametrize("last", [False, True], ids=["channels apart", "channels contiguous"])
def test_linear_maps_and_weighted_means(last: bool) -> None:
    """Against sums written out, with first and second derivatives by finite differences."""
    x = draw(2, 3, 4)
    if last:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    weight, bias, maps = draw(2, 3, seed=1), draw(2, seed=2), draw(2, 2, 4, seed=3)
    torch.testing.assert_close(project(x, weight, bias), torch.einsum("bcn,pc->bpn", x, weight) + bias[:, None])
    torch.testing.assert_close(weighted_mean(x, maps), torch.einsum("bcn,bpn->bpc", x, maps) / 4)
    sources = [source.requires_grad_() for source in (x, weight, bias)]
    assert torch.autograd.gradcheck(project, sources)
    assert torch.autograd.gradgradcheck(project, sources)


def test_means_of_large_values_in_half_precision() -> None:
    """A sum over positions would be beyond 65504, the largest number of half precision, and its mean is not."""
    x = torch.full((1, 4, 400), 300.0, dtype=torch.float16)
    maps = torch.ones(1, 1, 400, dtype=torch.float16)
    mean = torch.full((1, 1, 4), 300.0, dtype=torch.float16)
    torch.testing.assert_close(weighted_mean(x, maps), mean, rtol=0.01, atol=0)
    head = BilinearPooling(4, 2).half()
    with torch.no_grad():
        head.weight.fill_(1e-3)
    scores = head(x.div(3).unflatten(2, (20, 20))).logits
    torch.testing.assert_close(scores, torch.full((1, 2), 160.0, dtype=torch.float16), rtol=0.02, atol=0)
