"""Features of different backbones on one scale, so that one learning rate suits all."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """Per-channel standardisation of features with fixed statistics: `(x - mean) / std`, on axis 1.

    Features of different backbones differ in scale by orders of magnitude; with this one learning rate suits all, and
    a head on a frozen backbone converges in fewer steps. Fitted once on training features (`features.statistics`).
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Sets the statistics; a channel that never varies is centred and otherwise left as it is."""
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(std > 1e-6, 1 / std.clamp_min(1e-6), 1.0))

    def forward(self, x: Tensor) -> Tensor:
        # x * s + (-m s) in one pass over the features
        return torch.addcmul((-self.mean * self.scale)[:, None, None], x, self.scale[:, None, None])
