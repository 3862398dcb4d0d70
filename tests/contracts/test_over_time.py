"""Heads that pool clips as wholes: sums, layouts, order, one frame, gradients, compile, export."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from attnpool.pooling import POOLINGS, Pooled, PoolingHead

HEADS: list[tuple[str, dict[str, Any]]] = [
    ("multi_query", {"queries": 3, "positions": True}),
    ("multi_query", {"queries": 1, "dim": 4, "positions": True}),
    ("netvlad", {"clusters": 3, "norms": False}),
    ("netvlad", {"clusters": 3}),
]


def make(key: str, options: dict[str, Any]) -> PoolingHead:
    """In eval mode and float64, away from its start."""
    head = POOLINGS[key](6, 4, **options).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return head


def clips(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def close(ours: Pooled, theirs: Pooled) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_who_pools_over_time() -> None:
    assert {key for key in POOLINGS if POOLINGS[key](6, 4).over_time} == {"netvlad"}
    assert make("multi_query", {"positions": True}).over_time
    for key in POOLINGS:
        if key != "netvlad":
            with pytest.raises(ValueError, match=r"\(B, C, H, W\) or \(B, N, C\), not of shape \(2, 3, 6, 2, 2\)"):
                POOLINGS[key](6, 4)(torch.zeros(2, 3, 6, 2, 2))
    with pytest.raises(ValueError, match=r"or \(B, T, C, H, W\), not of shape"):
        POOLINGS["netvlad"](6, 4)(torch.zeros(2, 2, 3, 6, 2, 2))
    with pytest.raises(ValueError, match="have no positions"):
        POOLINGS["netvlad"](6, 4)(torch.zeros(2, 0, 6, 2, 2))


@pytest.mark.parametrize(("key", "options"), HEADS)
@pytest.mark.parametrize("shape", [(2, 3, 6, 2, 4), (1, 5, 6, 1, 1), (3, 1, 6, 2, 2)])
def test_maps_add_up_over_the_clip(key: str, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    head, x = make(key, options), clips(*shape)
    batch, length, _, *grid = shape
    out = head(x, maps=True)
    terms = options.get("queries", options.get("clusters"))
    assert out.top_down.shape == (batch, length, terms, 4, *grid)
    assert out.bottom_up.shape == (batch, length, terms, 1, *grid)
    assert out.combined.shape == (batch, length, 4, *grid)
    torch.testing.assert_close(out.combined.sum((1, 3, 4)), out.logits, rtol=0, atol=1e-9)
    product = (out.top_down * out.bottom_up).sum(2) / (length * grid[0] * grid[1])
    torch.testing.assert_close(out.combined, product, rtol=0, atol=1e-12)
    if key == "multi_query":
        torch.testing.assert_close(out.bottom_up.mean((1, 4, 5)), torch.ones(batch, terms, 1).double())


@pytest.mark.parametrize(("key", "options"), HEADS)
def test_layouts(key: str, options: dict[str, Any]) -> None:
    head, x = make(key, options), clips(2, 3, 6, 2, 4)
    last = x.movedim(2, -1).contiguous().movedim(-1, 2)
    assert last.stride() != x.stride()
    assert head.channels_first(last)[0].data_ptr() == last.data_ptr()  # no copy
    close(head(last, maps=True), head(x, maps=True))
    assert torch.equal(head(x).logits, head(x, maps=True).logits)


@pytest.mark.parametrize(("key", "options"), HEADS)
def test_an_image_is_a_clip_of_one_frame(key: str, options: dict[str, Any]) -> None:
    head, x = make(key, options), clips(2, 6, 3, 4)
    image, clip = head(x, maps=True), head(x[:, None], maps=True)
    close(image, Pooled(clip.logits, *(None if maps is None else maps[:, 0] for maps in clip[1:])))


@given(st.permutations(range(4)), st.integers(0, 2**16))
def test_order_counts_only_with_positions(order: list[int], seed: int) -> None:
    """Also for a head that has learned nothing of places."""
    x = torch.randn(2, 4, 6, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for key, options in HEADS:
        head = make(key, options)
        difference = (head(x[:, order]).logits - head(x).logits).abs().max()
        if key == "netvlad" or order == sorted(order):
            assert difference < 1e-10
        else:
            assert difference > 1e-4
    head = make("multi_query", {"queries": 3, "positions": True})
    torch.nn.init.zeros_(head.place)
    assert (head(x[:, order]).logits - head(x).logits).abs().max() < 1e-10


def test_positions_against_loops() -> None:
    """`softmax_i(q . x_i / sqrt(C) + d . f_i)`, f_i of the middle of the cell along time, height and width."""
    head, x = make("multi_query", {"queries": 2, "dim": 4, "positions": True}), clips(1, 3, 6, 2, 5)
    query, value, a, alpha, place = (parameter.detach().numpy() for parameter in head.parameters())
    cells = [(t, i, j) for t in range(3) for i in range(2) for j in range(5)]
    u = [[(at + 0.5) / side for at, side in zip(cell, (3, 2, 5), strict=True)] for cell in cells]
    f = np.array([[np.cos(np.pi * k * axis) for axis in where for k in (1, 2, 3, 4)] for where in u])
    features = np.array([x[0, t, :, i, j].numpy() for t, i, j in cells])
    pooled = []
    for m in range(2):
        weights = np.exp(features @ query[m] / np.sqrt(6) + f @ place[m])
        pooled.append(value[m] @ (weights / weights.sum() @ features))
    np.testing.assert_allclose(head(x).logits[0].detach().numpy(), a @ np.concatenate(pooled) + alpha, atol=1e-10)


def test_places_need_a_grid() -> None:
    with pytest.raises(ValueError, match="or leave out positions"):
        make("multi_query", {"positions": True})(torch.zeros(2, 9, 6).double())


@pytest.mark.parametrize(("key", "options"), HEADS)
def test_gradients(key: str, options: dict[str, Any]) -> None:
    head = make(key, options)
    names, values = zip(*head.named_parameters(), strict=True)

    def run(x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        out = torch.func.functional_call(head, dict(zip(names, parameters, strict=True)), (x,), {"maps": True})
        return tuple(found for found in (out.logits, out.combined) if found is not None)

    x = clips(1, 2, 6, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *values), fast_mode=True)


@pytest.mark.parametrize(("key", "options"), [HEADS[0], HEADS[-1]])
def test_compile_and_export(key: str, options: dict[str, Any]) -> None:
    """The exported program takes clips of other lengths and sizes."""
    head = make(key, options)
    torch._dynamo.reset()
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    x = clips(2, 3, 6, 2, 4).requires_grad_()
    out, expected = compiled(x, maps=True), head(x, maps=True)
    close(out, expected)
    ours, theirs = (torch.autograd.grad(found.logits.square().sum(), x)[0] for found in (out, expected))
    torch.testing.assert_close(ours, theirs)

    dim = torch.export.Dim
    free = {"features": {0: dim("batch"), 1: dim("time"), 3: dim("height"), 4: dim("width")}, "maps": None}
    program = torch.export.export(head, (x.detach(),), {"maps": True}, dynamic_shapes=free)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    other = clips(3, 5, 6, 4, 2)
    close(torch.export.load(file).module()(other, maps=True), head(other, maps=True))


def test_positions_learn_what_comes_first() -> None:
    """Two classes of clips that have the same frames in opposite orders."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 8, 1, 1, generator=generator)
    forth = torch.stack([first, first, second, second])
    x = torch.stack([forth, forth.flip(0)] * 8) + 0.3 * torch.randn(16, 4, 8, 2, 2, generator=generator)
    labels = torch.arange(16) % 2
    right = {}
    for positions in (True, False):
        torch.manual_seed(0)
        head = POOLINGS["multi_query"](8, 2, queries=2, positions=positions)
        optimizer = torch.optim.AdamW(head.parameters(), lr=0.03)

        def score(clips: Tensor, head: PoolingHead = head) -> Tensor:
            if head.over_time:
                return head(clips).logits
            return head(clips.flatten(0, 1)).logits.unflatten(0, (-1, clips.shape[1])).mean(1)

        for _ in range(60):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(score(x), labels).backward()
            optimizer.step()
        fresh = torch.stack([forth, forth.flip(0)] * 20) + 0.3 * torch.randn(40, 4, 8, 2, 2, generator=generator)
        right[positions] = (score(fresh).argmax(1) == torch.arange(40) % 2).float().mean().item()
    assert right[True] == 1
    assert right[False] < 0.75
