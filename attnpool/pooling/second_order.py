"""Second-order pooling: every product of two channels, in full (Eq. 2 and 9) or as a compact sketch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnpool.pooling.base import CLASSIFIER_STD, Pooled, PoolingHead, on_grid, project

# The signed square root is z / sqrt(|z| + this): its slope at 0 stays finite, and rounding of empty bins stays small.
ROOT_EPS = 1e-8


class BilinearPooling(PoolingHead):
    """Second-order pooling with a full matrix a class (Eq. 2 and 9), of which attentional pooling is the low-rank form.

    `score_k = 1/N * Tr(X^T X W_k^T) + alpha_k = 1/N * sum_i x_i^T W_k x_i + alpha_k`. The score is a sum over
    positions: the bottom-up map is 1, the top-down map `t_ki = x_i^T W_k x_i + alpha_k`. It has `K * C^2` weights, 31
    million for 24 classes on 1280 channels and 1.6 billion for the paper's 393 on 2048, which is why the paper
    restricts the rank. (There is no linear term, so this head cannot start as average pooling; it starts near 0.)

    Args:
        in_channels: C.
        num_classes: K.
        dropout: probability of dropping an entry of `X^T X / N` in training.
        bias: whether there is `alpha`.

    Shapes: features `(B, C, H, W)` or `(B, N, C)`; see `Pooled` for the output, with P = 1. Maps take `B * N * K * C`
    numbers on the way.

    Raises:
        ValueError: at a wrong number of axes or channels.

    Source: Girdhar & Ramanan, "Attentional Pooling for Action Recognition", NIPS 2017, Sec. 3; Lin et al., "Bilinear
    CNN Models", ICCV 2015.

    >>> head = BilinearPooling(8, 3)
    >>> out = head(torch.randn(2, 8, 7, 7), maps=True)
    >>> torch.allclose(out.combined.sum((-2, -1)), out.logits, atol=1e-5)
    True
    """

    def __init__(self, in_channels: int, num_classes: int, *, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__(in_channels, num_classes, dropout=dropout)
        self.weight = nn.Parameter(torch.empty(num_classes, in_channels, in_channels))
        self.alpha = nn.Parameter(torch.empty(num_classes)) if bias else None
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        # Products of C^2 pairs add up in a score.
        nn.init.normal_(self.weight, std=CLASSIFIER_STD / math.sqrt(self.in_channels), generator=generator)
        if self.alpha is not None:
            nn.init.zeros_(self.alpha)

    def forward(self, features: Tensor, *, maps: bool = False) -> Pooled:
        x, grid = self.channels_first(features)
        second = torch.bmm(x, x.transpose(1, 2)) / x.shape[2]
        logits = F.linear(F.dropout(second.flatten(1), self.dropout, self.training), self.weight.flatten(1), self.alpha)
        if not maps:
            return Pooled(logits)
        mapped = project(x, self.weight.flatten(0, 1)).unflatten(1, (self.num_classes, self.in_channels))
        top_down = (mapped * x.unsqueeze(1)).sum(2)
        if self.alpha is not None:
            top_down = top_down + self.alpha[:, None]
        return first_order_maps(logits, top_down, grid)


class CompactBilinearPooling(PoolingHead):
    """Compact bilinear pooling: second-order pooling through a sketch of `dim` numbers, and a linear classifier.

    `psi(x)` is the Tensor Sketch of the products of all pairs of channels: two count sketches of x, each of which adds
    every channel with a random sign to a random bin, convolved. `psi(x) . psi(y)` has the expectation `(x . y)^2` over
    the hashes, so a linear classifier on `z = 1/N * sum_i psi(x_i)` approximates second-order pooling (Eq. 2):
    `score_k = w_k . z + alpha_k`. A convolution is a product of Fourier transforms and the sum over positions can be
    taken before the inverse transform, so there is one of these an image and not one a position.

    Without options the score is a sum over positions: bottom-up map 1, top-down map `w_k . psi(x_i) + alpha_k`. With
    `signed_sqrt` or `l2` it is none, because what a position adds to the score depends on what the others have added
    to z; then there are no maps.

    Args:
        in_channels: C.
        num_classes: K.
        dropout: probability of dropping an entry of the pooled sketch in training.
        dim: D, length of the sketch; 2048 in the paper's Table 2.
        signed_sqrt: replace every entry of z by `sign(z) sqrt(|z|)`.
        l2: divide z by its norm (after the root).
        hash_seed: of the bins and signs, which are saved with the weights.

    Shapes: features `(B, C, H, W)` or `(B, N, C)`; see `Pooled` for the output, with P = 1.

    Raises:
        ValueError: at a wrong number of axes or channels, or a sketch without entries.

    Source: Gao et al., "Compact Bilinear Pooling", CVPR 2016, Algorithm 2; the paper's baseline has neither root nor
    norm, as its released code.

    >>> head = CompactBilinearPooling(8, 3, dim=64)
    >>> out = head(torch.randn(2, 8, 7, 7), maps=True)
    >>> torch.allclose(out.combined.sum((-2, -1)), out.logits, atol=1e-5)
    True
    """

    bins: Tensor
    signs: Tensor

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

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.normal_(self.weight, std=CLASSIFIER_STD, generator=generator)
        nn.init.zeros_(self.alpha)

    def spectrum(self, x: Tensor) -> Tensor:
        """Fourier transform of the sketch of every position, `(B, C, N)` -> complex `(B, N, D // 2 + 1)`."""
        tokens = x.transpose(1, 2)
        if tokens.dtype in (torch.float16, torch.bfloat16):  # there are no transforms of these
            tokens = tokens.float()
        empty = tokens.new_zeros(tokens.shape[0], tokens.shape[1], self.dim)
        first, second = (
            torch.fft.rfft(empty.index_add(2, bins, tokens * signs.to(tokens.dtype)))
            for bins, signs in zip(self.bins, self.signs, strict=True)
        )
        return first * second

    def sketch(self, x: Tensor) -> Tensor:
        """`psi` of every position, `(B, C, N)` -> `(B, N, D)`."""
        return torch.fft.irfft(self.spectrum(x), n=self.dim)

    def forward(self, features: Tensor, *, maps: bool = False) -> Pooled:
        x, grid = self.channels_first(features)
        z = torch.fft.irfft(self.spectrum(x).sum(1), n=self.dim) / x.shape[2]
        if self.signed_sqrt:
            z = z / (z.abs() + ROOT_EPS).sqrt()
        if self.l2:
            z = F.normalize(z)
        logits = F.linear(F.dropout(z, self.dropout, self.training), self.weight, self.alpha)
        if not maps or self.signed_sqrt or self.l2:
            return Pooled(logits)
        return first_order_maps(logits, project(self.sketch(x).transpose(1, 2), self.weight, self.alpha), grid)


def first_order_maps(logits: Tensor, top_down: Tensor, grid: tuple[int, ...]) -> Pooled:
    """The maps of a score that is the mean of `top_down (B, K, N)`: the bottom-up map is 1."""
    count = top_down.shape[2]
    top_down = on_grid(top_down, grid).unsqueeze(1)
    return Pooled(logits, top_down, torch.ones_like(top_down[:, :, :1]), top_down[:, 0] / count)
