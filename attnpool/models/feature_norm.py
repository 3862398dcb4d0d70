"""Normalisation of features to a common scale for all backbones, so that one learning rate suits all of them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """Per-channel standardisation of features with fixed statistics: `(x - mean) / std`, on axis 1.

    The scales of different backbones' features differ by orders of magnitude. Standardised, one learning rate suits all
    of them, and a head on a frozen backbone converges in fewer steps. The statistics are fitted once, on training
    features (`features.statistics`).
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Sets the statistics; a constant channel is centred but not scaled."""
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(std > 1e-6, 1 / std.clamp_min(1e-6), 1.0))

    def forward(self, x: Tensor) -> Tensor:
        # x * s + (-m s) in one pass over the features
        return torch.addcmul((-self.mean * self.scale)[:, None, None], x, self.scale[:, None, None])


class PooledNorm(nn.Module):
    """Normalises features by the statistics of their average, image by image: `(x_i - m) / s`, on axis 1.

    `m` and `s` are the mean and the standard deviation `sqrt(var + eps)` over the channels of `z = 1/N * sum_i x_i`.
    The average of the output is the layer norm of z, so average pooling of the output replaces a layer norm of averaged
    features. There are no parameters: those of a layer norm become part of the classifier.
    """

    eps: Tensor

    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        self.register_buffer("eps", torch.tensor(eps))

    def forward(self, x: Tensor) -> Tensor:
        average = x.mean((2, 3), keepdim=True)
        scale = (average.var(1, keepdim=True, unbiased=False) + self.eps).rsqrt()
        # x * s + (-m s) in one pass over the features
        return torch.addcmul(-average.mean(1, keepdim=True) * scale, x, scale)


def make(kind: bool | Literal["pooled"], channels: int) -> nn.Module:
    """The normalisation between backbone and head: `Standardize` (True), `PooledNorm` ("pooled") or none (False)."""
    if kind == "pooled":
        return PooledNorm()
    return Standardize(channels) if kind else nn.Identity()


def kind_of(module: nn.Module) -> bool | Literal["pooled"]:
    """The `kind` from which `make` makes a module like this one."""
    return "pooled" if isinstance(module, PooledNorm) else isinstance(module, Standardize)
