"""Multi-query pooling against the published order, which projects every position."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attnpool.pooling import MultiQueryPooling


def reference(head: MultiQueryPooling, tokens: Tensor) -> Tensor:
    """Values of all positions first, `(B, N, D)`, then every query pools its group of channels."""
    maps = (tokens @ head.query.t() / tokens.shape[2] ** 0.5).softmax(1)
    values = (tokens @ head.value.flatten(0, 1).t()).unflatten(2, (head.queries, -1))
    return torch.einsum("bnm,bnmd->bmd", maps, values).flatten(1) @ head.a.t() + head.alpha


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("queries", "dim"), [(1, None), (8, 32), (32, None)])
def test_pooling_first_is_the_same_number(dtype: torch.dtype, bound: float, queries: int, dim: int | None) -> None:
    torch.manual_seed(0)
    head = MultiQueryPooling(64, 10, queries=queries, dim=dim).to(dtype)
    with torch.no_grad():
        head.query.normal_()  # maps with peaks
        head.a.normal_(std=0.1)
    tokens = torch.randn(3, 49, 64, dtype=dtype, requires_grad=True)
    ours, theirs = head(tokens).logits, reference(head, tokens)
    assert theirs.detach().std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=bound)
    sources = [tokens, *head.parameters()]
    found, expected = (torch.autograd.grad(out.square().sum(), sources) for out in (ours, theirs))
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= bound * max(1, other.abs().max())


def test_queries_start_nearly_uniform_and_do_not_stay_equal() -> None:
    torch.manual_seed(0)
    head = MultiQueryPooling(16, 3, queries=4)
    x = torch.randn(8, 16, 5, 5)
    maps = head(x, maps=True).bottom_up
    assert (maps - 1).abs().max() < 0.2
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(x).logits, torch.arange(8) % 3).backward()
        optimizer.step()
    assert torch.linalg.matrix_rank(head.query.detach()) == 4


@pytest.mark.parametrize(("channels", "dim"), [(6, 8), (8, 8), (9, 12)])
def test_values_are_as_long_as_the_features_rounded_up(channels: int, dim: int) -> None:
    assert MultiQueryPooling(channels, 3, queries=4).dim == dim


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="queries must be at least 1"):
        MultiQueryPooling(8, 3, queries=0)
    for dim in (6, 0, -4):
        with pytest.raises(ValueError, match="give a multiple of queries, which is 4"):
            MultiQueryPooling(8, 3, queries=4, dim=dim)
