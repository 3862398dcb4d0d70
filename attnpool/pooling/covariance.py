"""Covariance pooling: the matrix square root of the features' covariance by Newton-Schulz iterations (iSQRT-COV)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnpool.pooling.base import CLASSIFIER_STD, Pooled, PoolingHead, project

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

    There are no maps. The score is not a sum over positions: what a position adds to the square root (and to a
    deviation from the mean) depends on all the others, so no share of the score belongs to it.

    Args:
        in_channels: C.
        num_classes: K.
        dropout: probability of dropping an entry of the pooled features in training. The pooled features are the
            triangle.
        channels: number d of channels to which a learned linear map R reduces the features, if they have more. (In the
            paper batch norm and ReLU follow it. Here the features are standardised.)
        iterations: Newton-Schulz iterations for the matrix square root, 5 in the paper.

    Shapes: features `(B, C, H, W)` or `(B, N, C)`; see `Pooled` for the output, which has only the logits.
    Constant features, and a single position, have covariance 0 and the score `alpha`.

    Raises:
        ValueError: the features have a wrong number of axes or channels, or `channels` or `iterations` is less than 1.

    Source: Li et al., "Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square Root
    Normalization", CVPR 2018.

    >>> CovariancePooling(8, 3)(torch.randn(2, 8, 7, 7)).logits.shape
    torch.Size([2, 3])
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

    def pooled(self, x: Tensor) -> Tensor:
        """The upper triangle of the square root, `(B, C, N)` -> `(B, d (d + 1) / 2)`, in single precision or better."""
        y = x if self.reduce is None else project(x, self.reduce)
        with torch.autocast(x.device.type, enabled=False):
            y = y.float() if y.dtype in (torch.float16, torch.bfloat16) else y
            y = y - y.mean(2, keepdim=True)
            trace = y.square().sum((1, 2), keepdim=True) / x.shape[2] + TRACE_EPS
            y = y / (trace * x.shape[2]).sqrt()  # so that y y^T is S / tr S
            root = newton_schulz(torch.bmm(y, y.transpose(1, 2)), self.iterations)
            return root.flatten(1).index_select(1, self.triangle) * trace[:, 0].sqrt()

    def forward(self, features: Tensor, *, maps: bool = False) -> Pooled:
        x, _ = self.channels_first(features)
        pooled = self.pooled(x).to(self.weight.dtype)
        return Pooled(F.linear(F.dropout(pooled, self.dropout, self.training), self.weight, self.alpha))


def newton_schulz(matrix: Tensor, iterations: int) -> Tensor:
    """The approximate square roots of symmetric matrices `(B, D, D)` with eigenvalues from 0 to 1.

    The first iteration starts from `Z = I`, and the last does not need a new Z, so that 5 iterations take 12 products.
    """
    y, z = matrix, None
    identity = 1.5 * torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    for step in range(iterations):
        middle = identity - 0.5 * y if z is None else torch.baddbmm(identity, z, y, alpha=-0.5)
        y = torch.bmm(y, middle)
        if step < iterations - 1:
            z = middle if z is None else torch.bmm(middle, z)
    return y
