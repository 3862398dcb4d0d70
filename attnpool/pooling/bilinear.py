"""Bilinear pooling: all products of two channels, with a full weight matrix per class (Eq. 2 and 9)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnpool.pooling.base import CLASSIFIER_STD, Maps, Pooled, PoolingHead, first_order_maps, project


class BilinearPooling(PoolingHead):
    """Second-order pooling with a full matrix per class (Eq. 2 and 9); attentional pooling is its low-rank form.

    `score_k = 1/N * Tr(X^T X W_k^T) + alpha_k = 1/N * sum_i x_i^T W_k x_i + alpha_k`. The score is a sum over
    positions: the bottom-up map is 1, the top-down map `t_ki = x_i^T W_k x_i + alpha_k`. It has `K * C^2` weights, 31
    million for 24 classes on 1280 channels and 1.6 billion for the paper's 393 on 2048, which is why the paper
    restricts the rank. (There is no linear term, so this head cannot start as average pooling; it starts near 0.)

    Args:
        in_channels: C.
        num_classes: K.
        dropout: probability of dropping an entry of the pooled features in training. The pooled features are
            `X^T X / N`.
        bias: whether the classifier has a bias `alpha`.

    Shapes: features `(B, C, H, W)` or `(B, N, C)`; see `Pooled` for the output, with P = 1. Computing maps takes an
    intermediate tensor of `B * N * K * C` numbers, and K times as long as the scores.

    Raises:
        ValueError: the features have a wrong number of axes or channels.

    Source: Girdhar & Ramanan, "Attentional Pooling for Action Recognition", NIPS 2017, Sec. 3; Lin et al., "Bilinear
    CNN Models", ICCV 2015.

    >>> head = BilinearPooling(8, 3)
    >>> out = head(torch.randn(2, 8, 7, 7), maps=True)
    >>> torch.allclose(out.combined.sum((-2, -1)), out.logits, atol=1e-5)
    True
    """

    learning_rates: ClassVar = {"adamw": 3e-5, "sgd": 1e-4}  # docs/second-order.md

    def __init__(self, in_channels: int, num_classes: int, *, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__(in_channels, num_classes, dropout=dropout)
        self.weight = nn.Parameter(torch.empty(num_classes, in_channels, in_channels))
        self.alpha = nn.Parameter(torch.empty(num_classes)) if bias else None
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        # A score is a sum over C^2 products.
        nn.init.normal_(self.weight, std=CLASSIFIER_STD / math.sqrt(self.in_channels), generator=generator)
        if self.alpha is not None:
            nn.init.zeros_(self.alpha)

    def forward(self, features: Tensor, *, maps: Maps = False) -> Pooled:
        x, grid = self.channels_first(features)
        second = torch.bmm(x / x.shape[2], x.transpose(1, 2))  # divided first: sums can exceed half precision
        logits = F.linear(F.dropout(second.flatten(1), self.dropout, self.training), self.weight.flatten(1), self.alpha)
        if not maps:
            return Pooled(logits)
        wanted = self.wanted(maps)
        mapped = project(x, self.weight[wanted].flatten(0, 1)).unflatten(1, (-1, self.in_channels))
        top_down = (mapped * x.unsqueeze(1)).sum(2)
        if self.alpha is not None:
            top_down = top_down + self.alpha[wanted][:, None]
        return first_order_maps(logits, top_down, grid)
