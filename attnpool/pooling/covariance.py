"""Covariance pooling: the matrix square root of the features' covariance by Newton-Schulz iterations (iSQRT-COV)."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnpool.pooling.base import CLASSIFIER_STD, Maps, Pooled, PoolingHead, first_order_maps, project

# This is added to the trace, so that constant features have a finite root and gradient. It is small for standardised
# features, whose channels have a variance of about 1.
TRACE_EPS = 1e-12


class CovariancePooling(PoolingHead):
    """Covariance pooling: a linear classifier on the square root of the covariance matrix of the channels (iSQRT-COV).

    `y_i = R x_i` with d channels, `S = 1/N * sum_i (y_i - m) (y_i - m)^T` with the mean m over the positions, and
    `score_k = w_k . triu(S^(1/2)) + alpha_k`, where triu takes the upper triangle, `d (d + 1) / 2` numbers.
    Newton-Schulz iterations approximate the square root (Eq. 3-5): `A = S / tr S`, `Y = A`, `Z = I`, then `iterations`
    times `T = (3 I - Z Y) / 2`, `Y <- Y T`, `Z <- T Z`, and `S^(1/2) ~ sqrt(tr S) Y`. They consist of matrix products
    alone, which are computed in single precision or better, also under autocast. Large eigenvalues converge first; with
    the paper's 5 iterations the root of the smallest is still too small, which is part of the method.

    The maps are exact, given the image's own normaliser. The iterations keep `Y = A Z`, and with `v_i = (y_i - m) /
    sqrt(N tr S)` it is `A = sum_i v_i v_i^T`, so that `S^(1/2) ~ sqrt(tr S) sum_i v_i (Z v_i)^T`. Position i adds
    `sqrt(tr S) v_i^T W_k Z v_i + alpha_k / N` to the score, where W_k is the symmetric matrix with the weights `w_k`.
    The mean m, the trace and Z belong to the whole image: the share says what a position adds while these stay as they
    are, not how the score would change without the position, because then they would change too.

    Args:
        in_channels: C.
        num_classes: K.
        dropout: probability of dropping an entry of the pooled features in training. The pooled features are the
            triangle.
        channels: number d of channels to which a learned linear map R reduces the features, if they have more. (In the
            paper batch norm and ReLU follow it. Here the features are standardised.)
        iterations: Newton-Schulz iterations for the matrix square root, 5 in the paper.

    Shapes: features `(B, C, H, W)` or `(B, N, C)`; see `Pooled` for the output, with P = 1 and a bottom-up map of 1.
    Computing maps takes an intermediate tensor of `B * N * K * d` numbers. Constant features, and a single position,
    have covariance 0 and the score `alpha`.

    Raises:
        ValueError: the features have a wrong number of axes or channels, or `channels` or `iterations` is less than 1.

    Source: Li et al., "Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square Root
    Normalization", CVPR 2018.

    >>> head = CovariancePooling(8, 3)
    >>> out = head(torch.randn(2, 8, 7, 7), maps=True)
    >>> torch.allclose(out.combined.sum((-2, -1)), out.logits, atol=1e-5)
    True
    """

    triangle: Tensor

    learning_rates: ClassVar = {"adamw": 1e-3, "sgd": 1e-1}  # docs/second-order.md

    def __init__(
        self, in_channels: int, num_classes: int, *, dropout: float = 0.0, channels: int = 256, iterations: int = 5
    ) -> None:
        super().__init__(in_channels, num_classes, dropout=dropout)
        if channels < 1 or iterations < 1:
            raise ValueError(f"channels and iterations must be at least 1, not {channels} and {iterations}")
        self.channels = min(channels, in_channels)
        self.iterations = iterations
        self.reduce = nn.Parameter(torch.empty(channels, in_channels)) if in_channels > channels else None
        row, column = torch.triu_indices(self.channels, self.channels)
        self.register_buffer("triangle", row * self.channels + column, persistent=False)
        self.weight = nn.Parameter(torch.empty(num_classes, len(row)))
        self.alpha = nn.Parameter(torch.empty(num_classes))
        self.reset_parameters()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, channels={self.channels}, iterations={self.iterations}"

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        if self.reduce is not None:  # this scale keeps the variance of a channel
            nn.init.normal_(self.reduce, std=1 / math.sqrt(self.in_channels), generator=generator)
        nn.init.normal_(self.weight, std=CLASSIFIER_STD, generator=generator)
        nn.init.zeros_(self.alpha)

    def root(self, x: Tensor) -> Root:
        """The square root of the covariance of features `(B, C, N)`, in single precision or better."""
        y = x if self.reduce is None else project(x, self.reduce)
        with torch.autocast(x.device.type, enabled=False):
            y = y.float() if y.dtype in (torch.float16, torch.bfloat16) else y
            y = y - y.mean(2, keepdim=True)
            trace = y.square().sum((1, 2), keepdim=True) / x.shape[2] + TRACE_EPS
            y = y / (trace * x.shape[2]).sqrt()  # so that y y^T is S / tr S
            return Root(y, trace.sqrt(), *newton_schulz(torch.bmm(y, y.transpose(1, 2)), self.iterations))

    def pooled(self, x: Tensor) -> Tensor:
        """The upper triangle of the square root, `(B, C, N)` -> `(B, d (d + 1) / 2)`."""
        return self.upper(self.root(x))

    def upper(self, root: Root) -> Tensor:
        return root.y.flatten(1).index_select(1, self.triangle) * root.scale[:, 0]

    def forward(self, features: Tensor, *, maps: Maps = False) -> Pooled:
        x, grid = self.channels_first(features)
        root = self.root(x)
        pooled = self.upper(root).to(self.weight.dtype)
        logits = F.linear(F.dropout(pooled, self.dropout, self.training), self.weight, self.alpha)
        if not maps:
            return Pooled(logits)
        wanted = self.wanted(maps)
        with torch.autocast(x.device.type, enabled=False):
            weight = self.symmetric_weight(wanted).to(root.v.dtype)
            mapped = project(torch.bmm(root.z(), root.v), weight.flatten(0, 1)).unflatten(1, (-1, self.channels))
            shares = (mapped * root.v.unsqueeze(1)).sum(2) * root.scale
            return first_order_maps(logits, shares * x.shape[2] + self.alpha[wanted][:, None].to(shares.dtype), grid)

    def symmetric_weight(self, wanted: slice | list[int]) -> Tensor:
        """The weights of classes as symmetric matrices with the same scores, `(K, d, d)`."""
        weight = self.weight[wanted]
        upper = weight.new_zeros(len(weight), self.channels**2).index_copy(1, self.triangle, weight)
        upper = upper.unflatten(1, (self.channels, self.channels))
        return (upper + upper.transpose(1, 2)) / 2


class Root(NamedTuple):
    """The square root of a covariance, `scale * y`, and what it is a sum of: `y = v v^T (z_factor z_before)`.

    Attributes:
        v: `(B, d, N)`, the centred features, scaled so that `v v^T` has trace 1.
        scale: `(B, 1, 1)`, the square root of the trace.
        y: `(B, d, d)`, the square root of `v v^T`.
        z_factor, z_before: `(B, d, d)`, the last two factors of Z; the second is `None` after a single iteration.
    """

    v: Tensor
    scale: Tensor
    y: Tensor
    z_factor: Tensor
    z_before: Tensor | None

    def z(self) -> Tensor:
        """Z with `y = v v^T Z`, which only maps need."""
        return self.z_factor if self.z_before is None else torch.bmm(self.z_factor, self.z_before)


def newton_schulz(matrix: Tensor, iterations: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """The approximate square roots Y of symmetric matrices A `(B, D, D)` with eigenvalues from 0 to 1.

    The first iteration starts from `Z = I`, and the last does not compute a new Z, so that 5 iterations take 12
    products.

    Returns:
        Y, and the two factors T and Z of the last Z, with `Y = A T Z`; the second is `None` after one iteration.
    """
    y, z = matrix, None
    identity = 1.5 * torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    middle = identity
    for step in range(iterations):
        if step:
            z = middle if z is None else torch.bmm(middle, z)
        middle = identity - 0.5 * y if z is None else torch.baddbmm(identity, z, y, alpha=-0.5)
        y = torch.bmm(y, middle)
    return y, middle, z
