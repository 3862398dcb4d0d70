"""The heads that ours are timed against compute what ours compute, given the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attnpool.experiments.benchmark.references import (
    AverageAndLinear,
    BothMaps,
    EfficientProbing,
    MapsFirst,
    UsualCompactBilinear,
    UsualCovariance,
)
from attnpool.pooling import (
    AttentionalPooling,
    AveragePooling,
    CompactBilinearPooling,
    CovariancePooling,
    PoolingHead,
)

C, K, SIDE = 12, 5, 4


def features(layout: str) -> Tensor:
    x = torch.randn(3, C, SIDE, SIDE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x.flatten(2).transpose(1, 2).contiguous() if layout == "tokens" else x


def average() -> tuple[PoolingHead, nn.Module, list[Tensor]]:
    ours, theirs = AveragePooling(C, K), AverageAndLinear(C, K)
    return ours, theirs, [theirs.linear.weight, theirs.linear.bias]


def maps_first() -> tuple[PoolingHead, nn.Module, list[Tensor]]:
    ours, theirs = AttentionalPooling(C, K), MapsFirst(C, K)
    t, h = theirs.top_down, theirs.bottom_up
    assert t.bias is not None
    assert h.bias is not None
    return ours, theirs, [t.weight, t.bias, h.weight, h.bias]


def covariance(dim: int) -> tuple[PoolingHead, nn.Module, list[Tensor]]:
    ours, theirs = CovariancePooling(C, K, channels=dim), UsualCovariance(C, K, dim)
    reduce = [] if theirs.reduce is None else [theirs.reduce.weight]
    return ours, theirs, [*reduce, theirs.linear.weight, theirs.linear.bias]


def compact() -> tuple[PoolingHead, nn.Module, list[Tensor]]:
    ours, theirs = CompactBilinearPooling(C, K, dim=32), UsualCompactBilinear(C, K, 32)
    return ours, theirs, [theirs.linear.weight, theirs.linear.bias]


PAIRS = {
    "average": average,
    "maps first": maps_first,
    "compact": compact,
    "covariance": lambda: covariance(C),
    "covariance, fewer channels": lambda: covariance(8),
}


@pytest.mark.parametrize("layout", ["NCHW", "tokens"])
@pytest.mark.parametrize("pair", PAIRS)
def test_the_same_scores_and_gradients(pair: str, layout: str) -> None:
    ours, theirs, weights = PAIRS[pair]()
    ours, theirs = ours.double(), theirs.double()
    generator = torch.Generator().manual_seed(1)
    names = list(dict(ours.named_parameters()))
    assert len(names) == len(weights)
    with torch.no_grad():
        for parameter, twin in zip(ours.parameters(), weights, strict=True):
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
            twin.copy_(parameter.reshape(twin.shape))
        if isinstance(ours, CompactBilinearPooling):
            assert isinstance(theirs, UsualCompactBilinear)
            theirs.bins.copy_(ours.bins)
            theirs.signs.copy_(ours.signs)
    x = features(layout).requires_grad_()
    mine, other = ours(x).logits, theirs(x)
    torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8)
    mine, other = (torch.autograd.grad(logits.square().sum(), x)[0] for logits in (mine, other))
    torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("layout", ["NCHW", "tokens"])
def test_both_maps_in_one_product(layout: str) -> None:
    ours, theirs = AttentionalPooling(C, K, per_class=True).double(), BothMaps(C, K).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        theirs.maps.weight.copy_(torch.cat([ours.a, ours.b])[:, :, None, None])
        assert theirs.maps.bias is not None
        assert ours.alpha is not None
        assert ours.beta is not None
        theirs.maps.bias.copy_(torch.cat([ours.alpha, ours.beta]))
    torch.testing.assert_close(ours(features(layout)).logits, theirs(features(layout)))


@pytest.mark.parametrize("layout", ["NCHW", "tokens"])
def test_efficient_probing_is_its_formula(layout: str) -> None:
    probe = EfficientProbing(C, K, 3).double()
    x = features(layout)
    tokens = x if layout == "tokens" else x.flatten(2).transpose(1, 2)
    for image, logits in zip(tokens, probe(x), strict=True):
        pooled = []
        for m, query in enumerate(probe.queries):
            weights = torch.exp(image @ query / C**0.5)
            values = image @ probe.values.weight[4 * m : 4 * m + 4].t()
            pooled.append((weights[:, None] * values).sum(0) / weights.sum())
        torch.testing.assert_close(logits, probe.linear(torch.cat(pooled)))
