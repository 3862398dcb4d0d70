"""Compact bilinear pooling: a sketch of all products of two channels, and a linear classifier on it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from attnpool.pooling.base import CLASSIFIER_STD, Maps, Pooled, PoolingHead, first_order_maps, positive_norms

# The signed square root is z / sqrt(|z| + this): its slope at 0 is finite, and rounding errors in empty bins stay
# small.
ROOT_EPS = 1e-8
# The size of the sketches that are computed at a time: what fits into a CPU's cache, and what keeps a GPU busy.
CHUNK_BYTES = {"cpu": 2**25, "other": 2**28}


class CompactBilinearPooling(PoolingHead):
    """Compact bilinear pooling: second-order pooling through a sketch of `dim` numbers, and a linear classifier.

    `psi(x)` is the Tensor Sketch of the products of all pairs of channels: two count sketches of x, each of which adds
    every channel with a random sign to a random bin, convolved. `psi(x) . psi(y)` has the expectation `(x . y)^2` over
    the hashes, so a linear classifier on `z = 1/N * sum_i psi(x_i)` approximates second-order pooling (Eq. 2):
    `score_k = w_k . z + alpha_k`. A convolution is a product of Fourier transforms, and the sum over positions can be
    taken before the inverse transform, so that one inverse transform per image is enough.

    The score is a sum over positions, with bottom-up map 1 and top-down map `w_k . psi(x_i) + alpha_k`. With
    `signed_sqrt` or `l2` entry d of z is divided by `sqrt(|z_d|)`, by the norm, or by both, and the top-down map is
    `sum_d w_kd psi_d(x_i) / n_d + alpha_k` with that divisor n_d. Then the maps are exact, given the image's own
    normaliser: the divisors are those of the whole image, and a share says what a position adds while they stay as they
    are, not how the score would change without the position.

    Args:
        in_channels: C.
        num_classes: K.
        dropout: probability of dropping an entry of the pooled features in training. The pooled features are the
            sketch.
        dim: length D of the sketch, 2048 in the paper's Table 2.
        signed_sqrt: whether every entry z of the pooled sketch is replaced by `sign(z) sqrt(|z|)`.
        l2: whether the pooled sketch is divided by its Euclidean norm, after the signed square root if there is one.
        hash_seed: seed of the sketch's random bins and signs. They are saved with the weights.

    Shapes: features `(B, C, H, W)` or `(B, N, C)`; see `Pooled` for the output, with P = 1.

    Raises:
        ValueError: the features have a wrong number of axes or channels, or `dim` is less than 1.

    Source: Gao et al., "Compact Bilinear Pooling", CVPR 2016, Algorithm 2; the paper's baseline, like its released
    code, uses neither the signed square root nor the norm.

    >>> head = CompactBilinearPooling(8, 3, dim=64)
    >>> out = head(torch.randn(2, 8, 7, 7), maps=True)
    >>> torch.allclose(out.combined.sum((-2, -1)), out.logits, atol=1e-5)
    True
    """

    bins: Tensor
    signs: Tensor

    learning_rates: ClassVar = {"adamw": 3e-4, "sgd": 1e-4}  # docs/second-order.md

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dropout: float = 0.0,
        dim: int = 2048,
        signed_sqrt: bool = False,
        l2: bool = False,
        hash_seed: int = 0,
    ) -> None:
        super().__init__(in_channels, num_classes, dropout=dropout)
        if dim < 1:
            raise ValueError(f"dim must be at least 1, not {dim}")
        self.dim = dim
        self.signed_sqrt = signed_sqrt
        self.l2 = l2
        generator = torch.Generator().manual_seed(hash_seed)
        self.register_buffer("bins", torch.randint(dim, (2, in_channels), generator=generator))
        self.register_buffer("signs", 2.0 * torch.randint(2, (2, in_channels), generator=generator) - 1)
        self.weight = nn.Parameter(torch.empty(num_classes, dim))
        self.alpha = nn.Parameter(torch.empty(num_classes))
        self.reset_parameters()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, dim={self.dim}, signed_sqrt={self.signed_sqrt}, l2={self.l2}"

    def learning_rate(self, optimizer: str) -> float:
        # The norm of a sketch is some hundred, so the classifier's inputs are smaller by that factor with `l2`.
        return {"adamw": 0.3, "sgd": 10.0}[optimizer] if self.l2 else super().learning_rate(optimizer)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.normal_(self.weight, std=CLASSIFIER_STD, generator=generator)
        nn.init.zeros_(self.alpha)

    def sketch(self, x: Tensor) -> Tensor:
        """The sketch `psi` of every position, `(B, C, N)` -> `(B, N, D)`."""
        return torch.fft.irfft(spectrum(tokens_of(x), self.bins, self.signs, self.dim), n=self.dim)

    def pooled(self, x: Tensor) -> Tensor:
        """The mean sketch z before the signed square root and the norm, `(B, C, N)` -> `(B, D)`."""
        tokens = tokens_of(x)
        if torch.compiler.is_compiling():  # the batch size may be symbolic there, so there can be no loop over images
            total = torch.fft.irfft(spectrum(tokens, self.bins, self.signs, self.dim).sum(1), n=self.dim)
        else:
            total = SketchSum.apply(tokens, self.bins, self.signs, self.dim)
        return total / x.shape[2]

    def forward(self, features: Tensor, *, maps: Maps = False) -> Pooled:
        x, grid = self.channels_first(features)
        if not maps:
            return Pooled(self.classify(self.pooled(x))[0])
        tokens, wanted = tokens_of(x), self.wanted(maps)
        # The spectra of a few images at a time give their scores and, by Parseval's theorem, their maps.
        compiling = torch.compiler.is_compiling()  # see `pooled`
        parts = (tokens,) if compiling else tokens.split(images_at_a_time(tokens, self.dim))
        logits, top_down = [], []
        for part in parts:
            spectra = spectrum(part, self.bins, self.signs, self.dim)
            scores, divisor = self.classify(torch.fft.irfft(spectra.sum(1), n=self.dim) / x.shape[2])
            weight = self.weight[wanted].to(part.dtype)
            weight = weight if divisor is None else weight / divisor.unsqueeze(1)
            products = torch.view_as_real(spectra).flatten(2) @ dual(weight).transpose(-2, -1)
            logits.append(scores)
            top_down.append(products.transpose(1, 2) + self.alpha[wanted][:, None])
        return first_order_maps(torch.cat(logits), torch.cat(top_down), grid)

    def classify(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits of pooled sketches `(B, D)`, and the divisors of their entries."""
        divisor = self.divisor(z)
        z = z if divisor is None else z / divisor
        return F.linear(F.dropout(z, self.dropout, self.training), self.weight, self.alpha), divisor

    def divisor(self, z: Tensor) -> Tensor | None:
        """What the entries of the pooled sketch `(B, D)` are divided by, `(B, D)` or `(B, 1)`; `None` for nothing."""
        root = (z.abs() + ROOT_EPS).sqrt() if self.signed_sqrt else None
        if not self.l2:
            return root
        norm = positive_norms(z if root is None else z / root, 1)
        return norm if root is None else norm * root


def tokens_of(x: Tensor) -> Tensor:
    """Features `(B, C, N)` as `(B, N, C)`, in single precision or better, which the Fourier transform needs."""
    tokens = x.transpose(1, 2)
    return tokens.float() if tokens.dtype in (torch.float16, torch.bfloat16) else tokens


def spectrum(tokens: Tensor, bins: Tensor, signs: Tensor, dim: int) -> Tensor:
    """The Fourier transform of the sketch of every position, `(B, N, C)` -> complex `(B, N, D // 2 + 1)`."""
    empty = tokens.new_zeros(tokens.shape[0], tokens.shape[1], dim)
    first, second = (
        torch.fft.rfft(empty.index_add(2, at, tokens * sign.to(tokens.dtype)))
        for at, sign in zip(bins, signs, strict=True)
    )
    return first * second


def dual(weight: Tensor) -> Tensor:
    """The numbers `(..., 2 (D // 2 + 1))` whose product with the real and imaginary parts of a spectrum is `w . z`.

    That is Parseval's theorem for the half of the spectrum of a real vector z of length D that `torch.fft.rfft`
    returns: all frequencies but the first, and the last if D is even, stand for two.
    """
    length = weight.shape[-1]
    transform = torch.view_as_real(torch.fft.rfft(weight))
    twice = torch.full_like(transform, 2.0 / length)
    twice[..., 0, :] = 1.0 / length
    if length % 2 == 0:
        twice[..., -1, :] = 1.0 / length
    return (transform * twice).flatten(-2)


class SketchSum(torch.autograd.Function):
    """The sum of the sketches of all positions, `(B, N, C)` -> `(B, D)`, a few images at a time.

    The sketches of a batch are many times as large as the features (at D = 8192 and C = 2048 each of the two count
    sketches is four times as large, and so is each transform), and most of the time would be spent on that memory. Here
    the count sketches of a few images are computed in one buffer. The backward pass keeps only the features and
    computes
    them again: psi is the circular convolution of both count sketches, so the gradient of one is the correlation of the
    other with the gradient of the sum.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, bins: Tensor, signs: Tensor, dim: int) -> Tensor:
        ctx.save_for_backward(tokens, bins, signs)
        ctx.dim = dim
        buffer = few_images(tokens, dim)
        sums = tokens.new_empty(tokens.shape[0], dim // 2 + 1, dtype=tokens.dtype.to_complex())
        for part, out in zip(tokens.split(len(buffer)), sums.split(len(buffer)), strict=True):
            first, second = (count_spectrum(part, at, sign, buffer) for at, sign in zip(bins, signs, strict=True))
            torch.sum(first.mul_(second), 1, out=out)
        return torch.fft.irfft(sums, n=dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tokens, bins, signs = ctx.saved_tensors
        buffer = few_images(tokens, ctx.dim)
        found = torch.empty_like(tokens)
        sums = torch.fft.rfft(grad).unsqueeze(1)
        for part, out, of_sum in zip(*(whole.split(len(buffer)) for whole in (tokens, found, sums)), strict=True):
            first, second = (count_spectrum(part, at, sign, buffer) for at, sign in zip(bins, signs, strict=True))
            for number, other in enumerate((second, first)):
                of_sketch = torch.fft.irfft(other.conj_physical_().mul_(of_sum), n=ctx.dim, out=buffer[: len(part)])
                of_part = of_sketch.gather(2, bins[number].expand(part.shape)) * signs[number].to(part.dtype)
                out.copy_(of_part) if number == 0 else out.add_(of_part)
        return found, None, None, None


def few_images(tokens: Tensor, dim: int) -> Tensor:
    """An empty buffer `(images, N, D)` for the sketches of the images that are processed at a time."""
    return tokens.new_empty(images_at_a_time(tokens, dim), tokens.shape[1], dim)


def images_at_a_time(tokens: Tensor, dim: int) -> int:
    """The number of images whose sketches are computed at a time, for tokens `(B, N, C)`."""
    size = CHUNK_BYTES["cpu" if tokens.device.type == "cpu" else "other"]
    return min(max(size // (tokens.shape[1] * dim * tokens.element_size()), 1), tokens.shape[0])


def count_spectrum(part: Tensor, at: Tensor, sign: Tensor, buffer: Tensor) -> Tensor:
    """The Fourier transform of a count sketch, `(b, N, C)` -> complex `(b, N, D // 2 + 1)`; overwrites the buffer."""
    return torch.fft.rfft(buffer[: len(part)].zero_().index_add_(2, at, part * sign.to(part.dtype)))
