"""Second-order pooling against the paper's formula, the sketch against its definition and the kernel it estimates."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnpool.pooling import BilinearPooling, CompactBilinearPooling, compact_bilinear


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


def sketch_by_definition(head: CompactBilinearPooling, x: Tensor) -> Tensor:
    """Every product of two channels, with the product of their signs, in the bin that is the sum of their bins."""
    out = torch.zeros(head.dim, dtype=x.dtype)
    for i, j in itertools.product(range(len(x)), repeat=2):
        at = (int(head.bins[0, i]) + int(head.bins[1, j])) % head.dim
        out[at] += head.signs[0, i] * head.signs[1, j] * x[i] * x[j]
    return out


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 20), st.integers(0, 5))
def test_sketch_is_a_count_sketch_of_all_pairs(channels: int, dim: int, seed: int) -> None:
    head = CompactBilinearPooling(channels, 2, dim=dim, hash_seed=seed).double().eval()
    x = draw(1, channels, 5)
    expected = torch.stack([sketch_by_definition(head, x[0, :, i]) for i in range(5)])
    torch.testing.assert_close(head.sketch(x)[0], expected)
    logits = torch.nn.functional.linear(expected.mean(0), head.weight, head.alpha)
    torch.testing.assert_close(head(x.transpose(1, 2)).logits[0], logits)


def test_sketch_without_collisions_is_the_kernel() -> None:
    head = CompactBilinearPooling(4, 2, dim=16).double()
    head.bins.copy_(torch.stack([torch.arange(4), 4 * torch.arange(4)]))
    x, y = draw(1, 4, 1, seed=1), draw(1, 4, 1, seed=2)
    torch.testing.assert_close((head.sketch(x) * head.sketch(y)).sum(), (x * y).sum() ** 2)


@pytest.mark.parametrize("dim", [8, 32])
def test_sketch_estimates_the_kernel_without_bias(dim: int) -> None:
    """Over many hashes the mean of psi(x).psi(y) is (x.y)^2 within four standard errors."""
    x, y = draw(1, 6, 1, seed=3), draw(1, 6, 1, seed=4)
    heads = [CompactBilinearPooling(6, 1, dim=dim, hash_seed=seed).double() for seed in range(1500)]
    estimates = torch.stack([(head.sketch(x) * head.sketch(y)).sum() for head in heads])
    kernel = (x * y).sum() ** 2
    error = estimates.std() / math.sqrt(len(heads))
    assert error > 0
    assert (estimates.mean() - kernel).abs() < 4 * error


def test_longer_sketches_are_closer() -> None:
    """The variance of the estimate falls as 1 / D."""
    x, y = draw(1, 6, 1, seed=3), draw(1, 6, 1, seed=4)

    def deviation(dim: int) -> Tensor:
        heads = [CompactBilinearPooling(6, 1, dim=dim, hash_seed=seed).double() for seed in range(300)]
        return torch.stack([(head.sketch(x) * head.sketch(y)).sum() for head in heads]).std()

    assert deviation(1024) < deviation(16) / 3  # 8 expected


def test_root_and_norm() -> None:
    x = draw(2, 5, 6)
    plain = CompactBilinearPooling(6, 3, dim=32).double().eval()
    z = plain.sketch(x.transpose(1, 2)).mean(1)
    root = z.sign() * z.abs().sqrt()
    for options, expected in (
        ({"signed_sqrt": True}, root),
        ({"l2": True}, z / z.norm(dim=1, keepdim=True)),
        ({"signed_sqrt": True, "l2": True}, root / root.norm(dim=1, keepdim=True)),
    ):
        head = CompactBilinearPooling(6, 3, dim=32, **options).double().eval()
        head.load_state_dict(plain.state_dict())
        with torch.no_grad():
            head.weight.copy_(draw(3, 32, seed=5))
        torch.testing.assert_close(head(x).logits, expected @ head.weight.T, rtol=1e-5, atol=1e-5)


def test_gradients_stay_finite_where_nothing_falls() -> None:
    """Bins that no channel falls into are 0, where the slope of a square root is infinite; so are all at features 0."""
    head = CompactBilinearPooling(3, 2, dim=64, signed_sqrt=True, l2=True)
    for x in (torch.zeros(1, 4, 3), draw(1, 4, 3).float()):
        x.requires_grad_()
        head(x).logits.sum().backward()
        assert torch.isfinite(x.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("images", [1, 2, 3, 5, 100])
def test_a_few_images_at_a_time_are_the_whole_batch(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of the batch is worked on at a time, and also with features that lie channel by channel."""
    dim, count = 33, 4
    monkeypatch.setitem(compact_bilinear.CHUNK_BYTES, "cpu", images * dim * count * 8 + 7)
    head = CompactBilinearPooling(6, 3, dim=dim).double()
    towards = draw(5, dim, seed=2)
    for x in (draw(5, 6, count), draw(5, count, 6).transpose(1, 2)):
        x.requires_grad_()
        whole = head.sketch(x).mean(1)
        torch.testing.assert_close(head.pooled(x), whole)
        ours, theirs = (torch.autograd.grad((z * towards).sum(), x)[0] for z in (head.pooled(x), whole))
        torch.testing.assert_close(ours, theirs)
        assert ours.stride() == x.stride()


def test_hashes_follow_from_their_seed_and_are_saved() -> None:
    first, again, other = (CompactBilinearPooling(6, 3, dim=32, hash_seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.bins, again.bins)
    assert torch.equal(first.signs, again.signs)
    assert not torch.equal(first.bins, other.bins)
    assert {"bins", "signs"} <= other.state_dict().keys()
    assert set(first.signs.unique().tolist()) == {-1.0, 1.0}
    with pytest.raises(ValueError, match="dim must be at least 1"):
        CompactBilinearPooling(6, 3, dim=0)


def test_half_precision_features() -> None:
    head = CompactBilinearPooling(6, 3, dim=32).eval()
    x = draw(2, 5, 6).float()
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(x.bfloat16()).logits
    exact = head(x).logits
    assert (logits.float() - exact).norm() <= 2**-6 * exact.norm()  # a few times the rounding of bfloat16
