"""Covariance pooling against eigenvalues, against the paper's iterations in numpy, and where there is no covariance."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnpool.pooling import CovariancePooling


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def head_of(in_channels: int, classes: int = 3, **options: int) -> CovariancePooling:
    head = CovariancePooling(in_channels, classes, **options).double().eval()
    head.reset_parameters(torch.Generator().manual_seed(1))
    return head


def covariances(tokens: Tensor) -> np.ndarray:
    return np.stack([np.atleast_2d(np.cov(image.T, bias=True)) for image in tokens.numpy()])


def iterated(matrix: np.ndarray, iterations: int) -> np.ndarray:
    """Eq. 3 to 5 of the paper, one image, every product written out."""
    identity = np.eye(len(matrix))
    y, z = matrix / np.trace(matrix), identity
    for _ in range(iterations):
        y, z = 0.5 * y @ (3 * identity - z @ y), 0.5 * (3 * identity - z @ y) @ z
    return y * np.sqrt(np.trace(matrix))


def upper(matrices: np.ndarray) -> Tensor:
    row, column = np.triu_indices(matrices.shape[-1])
    return torch.tensor(matrices[:, row, column])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 7), st.integers(2, 9), st.integers(1, 8))
def test_is_what_the_iterations_give(batch: int, channels: int, count: int, iterations: int) -> None:
    """Also with fewer positions than channels, where the covariance has no full rank."""
    tokens = draw(batch, count, channels)
    head = head_of(channels, iterations=iterations)
    expected = upper(np.stack([iterated(matrix, iterations) for matrix in covariances(tokens)]))
    torch.testing.assert_close(head.pooled(tokens.transpose(1, 2)), expected, rtol=1e-8, atol=1e-9)
    logits = expected @ head.weight.T + head.alpha
    torch.testing.assert_close(head(tokens).logits, logits, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("channels", "count"), [(5, 40), (6, 4)])
def test_converges_to_the_root_of_the_eigenvalues(channels: int, count: int) -> None:
    tokens = draw(2, count, channels)
    values, vectors = np.linalg.eigh(covariances(tokens))
    values[values < 1e-12] = 0  # with fewer positions than channels: rounding, whose root would be 1e-8
    root = upper((vectors * np.sqrt(values)[:, None]) @ vectors.transpose(0, 2, 1))
    errors = [
        float((head_of(channels, iterations=steps).pooled(tokens.transpose(1, 2)) - root).abs().max().detach())
        for steps in (1, 3, 5, 8, 20)
    ]
    assert errors[0] > 0.1
    for before, after in pairwise(errors[:4]):
        assert after < before / 2
    assert max(errors[3:]) < 1e-9  # they fall no further: what is left is rounding


def test_reduction_comes_before_the_covariance() -> None:
    head = head_of(9, channels=4)
    tokens = draw(2, 12, 9)
    assert head.reduce is not None
    expected = upper(np.stack([iterated(matrix, 5) for matrix in covariances((tokens @ head.reduce.T).detach())]))
    torch.testing.assert_close(head.pooled(tokens.transpose(1, 2)), expected, rtol=1e-8, atol=1e-9)
    assert head.weight.shape == (3, 10)


def test_a_position_adds_its_product_with_the_inverse_root() -> None:
    """`sqrt(tr S) v (A^(-1/2) v)^T` for every position, by eigenvalues, weighted as the upper triangle is."""
    head, tokens = head_of(4, iterations=25), draw(2, 30, 4)
    out = head(tokens, maps=True)
    row, column = np.triu_indices(4)
    for b, matrix in enumerate(covariances(tokens)):
        values, vectors = np.linalg.eigh(matrix)
        inverse = (vectors / np.sqrt(values)) @ vectors.T  # of S: the traces cancel
        centred = tokens[b].numpy() - tokens[b].numpy().mean(0)
        for i, y in enumerate(centred):
            share = np.outer(y, inverse @ y) / len(centred)
            share = (share + share.T) / 2
            expected = share[row, column] @ head.weight.detach().numpy().T + head.alpha.detach().numpy() / len(centred)
            np.testing.assert_allclose(out.combined[b, :, i].detach().numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("channels", "options", "kept"), [(300, {}, 256), (256, {}, 256), (5, {}, 5), (9, {"channels": 4}, 4)]
)
def test_only_more_channels_than_asked_for_are_reduced(channels: int, options: dict[str, int], kept: int) -> None:
    head = CovariancePooling(channels, 2, **options)
    assert head.channels == kept
    assert (head.reduce is None) == (channels == kept)
    assert head.weight.shape == (2, kept * (kept + 1) // 2)


def test_scale_and_mean() -> None:
    """The root grows as the features do, and their mean is no part of it."""
    head = head_of(6, channels=4)
    x = draw(2, 6, 10)
    base = head.pooled(x)
    for scale in (1e-3, 7.0, 1e4):
        torch.testing.assert_close(head.pooled(scale * x + draw(6, 1, seed=3)), scale * base, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["zeros", "constant", "one position", "one position differs", "one channel"])
def test_finite_where_there_is_no_covariance(kind: str, dtype: torch.dtype) -> None:
    """Of nothing (alpha is the score), of rank 1, and of a single channel."""
    x = {
        "zeros": torch.zeros(1, 9, 5),
        "constant": torch.full((1, 9, 5), 3.3),
        "one position": draw(1, 1, 5),
        "one position differs": torch.cat([torch.zeros(1, 8, 5), torch.ones(1, 1, 5)], 1),
        "one channel": draw(1, 9, 5) * torch.tensor([1.0, 0, 0, 0, 0]),
    }[kind].to(dtype)
    head = head_of(5, iterations=9).to(dtype)
    x.requires_grad_()
    pooled = head.pooled(x.transpose(1, 2))
    (gradient,) = torch.autograd.grad(pooled.sum(), x)
    assert torch.isfinite(pooled).all()
    assert torch.isfinite(gradient).all()
    if kind in ("zeros", "constant", "one position"):
        torch.testing.assert_close(pooled, torch.zeros_like(pooled), rtol=0, atol=1e-4)
    else:
        assert pooled.abs().max() > 0.1


def test_features_of_a_network_in_single_precision() -> None:
    """More channels than positions and many iterations, where Z grows: single precision follows double."""
    x = draw(2, 256, 196).relu()
    for iterations in (5, 12):
        head = head_of(256, iterations=iterations)
        exact = head.pooled(x)
        single = head.float().pooled(x.float()).double()
        assert (single - exact).abs().max() < 1e-3 * exact.abs().max()


def test_iterations_are_done_in_single_precision_under_autocast() -> None:
    x = draw(2, 12, 40).float()
    tokens = x.transpose(1, 2)
    head = head_of(12).float()
    exact = head.pooled(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head.pooled(x), exact)  # nothing comes before them
        rounded = head.pooled(x.bfloat16())
        logits = head(tokens).logits
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, head.pooled(x.bfloat16().float()))
    exact = head(tokens).logits
    for found in (logits, head.bfloat16()(tokens.bfloat16()).logits):
        assert (found.float() - exact).norm() <= 2**-6 * exact.norm()  # a few times the rounding of bfloat16


def test_gradient_through_the_reduction_and_many_iterations() -> None:
    head = head_of(5, channels=3, iterations=8)
    assert head.reduce is not None

    def pooled(x: Tensor, reduce: Tensor) -> Tensor:
        return torch.func.functional_call(head, {"reduce": reduce}, (x,)).logits

    assert torch.autograd.gradcheck(pooled, (draw(2, 7, 5).requires_grad_(), head.reduce.detach().requires_grad_()))


@pytest.mark.parametrize("options", [{"channels": 0}, {"iterations": 0}])
def test_wrong_options(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="channels and iterations must be at least 1"):
        CovariancePooling(5, 2, **options)
