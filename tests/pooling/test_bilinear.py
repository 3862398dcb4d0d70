"""Second-order pooling with a matrix for every class, against the paper's formulas."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnpool.pooling import BilinearPooling


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 7), st.integers(1, 4))
def test_bilinear_is_the_trace(batch: int, channels: int, count: int, classes: int) -> None:
    """Eq. 9, word by word: Tr(X^T X W^T) / N + alpha; and Eq. 2 a position: x^T W x."""
    head = BilinearPooling(channels, classes).double().eval()
    with torch.no_grad():
        head.weight.copy_(draw(classes, channels, channels, seed=1))
        head.alpha.copy_(draw(classes, seed=2))  # type: ignore[union-attr]
    features = draw(batch, count, channels)
    out = head(features, maps=True)
    for b, k in itertools.product(range(batch), range(classes)):
        x, w, alpha = features[b], head.weight[k], head.alpha[k]  # type: ignore[index]
        torch.testing.assert_close(out.logits[b, k], torch.trace(x.T @ x @ w.T) / count + alpha)
        for i in range(count):
            torch.testing.assert_close(out.top_down[b, 0, k, i], x[i] @ w @ x[i] + alpha)
            torch.testing.assert_close(out.combined[b, k, i], (x[i] @ w @ x[i] + alpha) / count)


def test_bilinear_of_rank_one_is_attention() -> None:
    """With W_k = a_k b^T it is the product of the paper's two maps (Eq. 8)."""
    a, b, x = draw(3, 5, seed=1), draw(5, seed=2), draw(2, 8, 5)
    head = BilinearPooling(5, 3, bias=False).double()
    with torch.no_grad():
        head.weight.copy_(a[:, :, None] * b)
    expected = ((x @ a.T) * (x @ b)[..., None]).mean(1)
    torch.testing.assert_close(head(x).logits, expected)
