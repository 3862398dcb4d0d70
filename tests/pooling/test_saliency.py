"""Pooling under a saliency map against the formula, with maps from the features, from the centre and from outside."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnpool.pooling import AveragePooling, SaliencyPooling


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def head_of(channels: int = 6, classes: int = 4, **options: str) -> SaliencyPooling:
    head = SaliencyPooling(channels, classes, **options).double().eval()  # type: ignore[arg-type]
    with torch.no_grad():
        head.a.copy_(draw(classes, channels, seed=1))
        head.alpha.copy_(draw(classes, seed=2))  # type: ignore[union-attr]
    return head


def by_formula(head: SaliencyPooling, x: Tensor, h: np.ndarray) -> np.ndarray:
    """`1/N * sum_i h_i (x_i a_k + alpha_k)` with h scaled to mean 1; x `(B, C, H, W)`, h `(B, H, W)`."""
    features, a, alpha = x.flatten(2).numpy(), head.a.detach().numpy(), head.alpha.detach().numpy()  # type: ignore[union-attr]
    h = h.reshape(len(h), -1)
    h = h / h.mean(1, keepdims=True)
    return np.stack([np.mean(h[b] * (a @ features[b] + alpha[:, None]), axis=1) for b in range(len(x))])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.sampled_from(["norm", "centre", "given"]))
def test_is_the_formula(batch: int, height: int, width: int, kind: str) -> None:
    x = draw(batch, 6, height, width)
    head = head_of(saliency="centre" if kind == "centre" else "norm")
    rows, columns = np.mgrid[:height, :width]
    away = ((rows + 0.5) / height - 0.5) ** 2 + ((columns + 0.5) / width - 0.5) ** 2
    h = {
        "norm": np.sqrt((x.numpy() ** 2).sum(1)),
        "centre": np.repeat(np.exp(-away / (2 * 0.25**2))[None], batch, axis=0),
        "given": draw(batch, height, width, seed=4).abs().numpy(),
    }[kind]
    out = head(x, maps=True, saliency=torch.from_numpy(h) if kind == "given" else None)
    torch.testing.assert_close(out.logits, torch.from_numpy(by_formula(head, x, h)))
    torch.testing.assert_close(out.combined.sum((-2, -1)), out.logits, rtol=0, atol=1e-9)
    torch.testing.assert_close(out.bottom_up[:, 0, 0], torch.from_numpy(h / h.mean((1, 2), keepdims=True)))


def test_uniform_and_empty_maps_are_average_pooling() -> None:
    x = draw(2, 6, 3, 5)
    head = head_of()
    average = AveragePooling(6, 4).double().eval()
    average.load_state_dict(head.state_dict())
    expected = average(x, maps=True)
    for h in (torch.full((2, 3, 5), 0.3), torch.zeros(2, 3, 5), torch.zeros(2, 15), torch.full((2, 9, 9), 1e-30)):
        out = head(x, maps=True, saliency=h)
        torch.testing.assert_close(out.logits, expected.logits)
        torch.testing.assert_close(out.bottom_up, torch.ones_like(out.bottom_up))
        torch.testing.assert_close(out.combined, expected.combined)


def test_only_proportions_matter() -> None:
    x, h = draw(2, 6, 3, 5), draw(2, 3, 5, seed=3).abs()
    for scale in (1e-6, 255.0, 1e9):
        torch.testing.assert_close(head_of()(x, saliency=scale * h).logits, head_of()(x, saliency=h).logits)


def test_maps_of_any_size_are_averaged_over_cells() -> None:
    """An image of the features' grid magnified is the same map; one bright pixel counts in the cell that it is in."""
    x = draw(2, 6, 4, 5)
    head = head_of()
    h = draw(2, 4, 5, seed=3).abs()
    small = head(x, maps=True, saliency=h)
    for flat in (h.flatten(1), h.repeat_interleave(12, 1).repeat_interleave(7, 2)):
        torch.testing.assert_close(head(x, maps=True, saliency=flat).bottom_up, small.bottom_up)
    dot = torch.zeros(2, 40, 50)
    dot[:, 13, 49] = 2
    bottom_up = head(x, maps=True, saliency=dot).bottom_up
    assert bottom_up[0, 0, 0].argmax() == 1 * 5 + 4
    assert bottom_up[0, 0, 0].max() == 20
    coarse = head(x, maps=True, saliency=torch.tensor([[[1.0], [3.0]]] * 2)).bottom_up[0, 0, 0]
    torch.testing.assert_close(coarse, torch.tensor([[0.5], [0.5], [1.5], [1.5]]).double().expand(4, 5))


def test_given_maps_in_every_layout_and_whole_numbers() -> None:
    x, h = draw(2, 6, 3, 5), torch.randint(0, 255, (2, 3, 5), generator=torch.Generator().manual_seed(0))
    head = head_of()
    expected = head(x, saliency=h).logits
    tokens = x.flatten(2).transpose(1, 2)
    for features in (x.contiguous(memory_format=torch.channels_last), tokens, tokens.contiguous()):
        for saliency in (h, h.to(torch.uint8), h.flatten(1)):
            torch.testing.assert_close(head(features, saliency=saliency).logits, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_features_of_zeros(dtype: torch.dtype) -> None:
    head = head_of().to(dtype)
    for x in (torch.zeros(2, 6, 3, 3), torch.full((2, 6, 3, 3), 1e-25)):
        x = x.to(dtype).requires_grad_()
        out = head(x, maps=True)
        out.logits.sum().backward()
        torch.testing.assert_close(out.bottom_up, torch.ones_like(out.bottom_up))
        torch.testing.assert_close(out.logits, head.alpha.expand(2, -1))  # type: ignore[union-attr]
        assert torch.isfinite(x.grad).all()  # type: ignore[arg-type]


def test_centre_is_symmetric_and_needs_a_grid() -> None:
    head = head_of(saliency="centre")
    h = head(draw(2, 6, 7, 10), maps=True).bottom_up[:, 0, 0]
    torch.testing.assert_close(h, h.flip(1))
    torch.testing.assert_close(h, h.flip(2))
    assert torch.equal(h[0], h[1])
    assert h[0].argmax() in (3 * 10 + 4, 3 * 10 + 5)
    fine = head(draw(1, 6, 101, 101), maps=True).bottom_up[0, 0, 0]
    assert math.isclose(fine[50, 0] / fine[50, 50], math.exp(-((0.5 - 0.5 / 101) ** 2) / (2 * 0.25**2)))
    with pytest.raises(ValueError, match=r"pass features as \(B, C, H, W\), or a map"):
        head(draw(2, 12, 6))
    h = draw(2, 12, seed=1).abs()
    torch.testing.assert_close(head(draw(2, 12, 6), saliency=h).logits, head_of()(draw(2, 12, 6), saliency=h).logits)


def test_gradients_under_a_given_map_and_the_centre() -> None:
    h = draw(1, 3, 4, seed=5).abs()
    x = draw(1, 6, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: head_of()(x, maps=True, saliency=h).combined, x)
    assert torch.autograd.gradcheck(lambda x: head_of(saliency="centre")(x).logits, x)


def test_a_given_map_does_not_break_a_graph() -> None:
    torch._dynamo.reset()
    head, x, h = head_of(), draw(2, 6, 3, 4), draw(2, 30, 40, seed=5).abs()
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, maps=True, saliency=h), head(x, maps=True, saliency=h))


@pytest.mark.parametrize(
    ("saliency", "message"),
    [
        (torch.ones(3, 3, 4), r"take \(2, 12\) or \(2, h, w\)"),
        (torch.ones(2, 1, 3, 4), r"take \(2, 12\) or \(2, h, w\)"),
        (torch.ones(2, 11), r"take \(2, 12\) or \(2, h, w\)"),
        (torch.ones(2, 0, 5), r"take \(2, 12\) or \(2, h, w\)"),
        (torch.full((2, 3, 4), -0.1), "negative, infinite or NaN"),
        (torch.full((2, 3, 4), math.nan), "negative, infinite or NaN"),
        (torch.full((2, 12), math.inf), "negative, infinite or NaN"),
    ],
)
def test_maps_that_do_not_fit(saliency: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head_of()(draw(2, 6, 3, 4), saliency=saliency)


def test_maps_of_other_sizes_need_a_grid() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 6, 8\), these features take \(2, 12\)$"):
        head_of()(draw(2, 12, 6), saliency=torch.ones(2, 6, 8))
    with pytest.raises(ValueError, match="unknown saliency 'edges': use one of norm, centre"):
        SaliencyPooling(6, 4, saliency="edges")  # type: ignore[arg-type]
