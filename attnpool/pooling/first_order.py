"""First-order pooling: average (Eq. 1 and 12) or maximum over the positions, and a linear classifier."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnpool.pooling.base import (
    CLASSIFIER_STD,
    Maps,
    Pooled,
    PoolingHead,
    channels_contiguous,
    first_order_maps,
    project,
    rows,
)


class LinearHead(PoolingHead):
    """A head whose only parameters are a linear classifier `a (K, C)`, `alpha (K,)`.

    Args:
        in_channels: C.
        num_classes: K.
        dropout: probability of dropping an entry of the pooled features in training.
        bias: whether the classifier has a bias `alpha`.
    """

    def __init__(self, in_channels: int, num_classes: int, *, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__(in_channels, num_classes, dropout=dropout)
        self.a = nn.Parameter(torch.empty(num_classes, in_channels))
        self.alpha = nn.Parameter(torch.empty(num_classes)) if bias else None
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.normal_(self.a, std=CLASSIFIER_STD, generator=generator)
        if self.alpha is not None:
            nn.init.zeros_(self.alpha)

    def classify(self, pooled: Tensor) -> Tensor:
        return F.linear(F.dropout(pooled, self.dropout, self.training), self.a, self.alpha)


class AveragePooling(LinearHead):
    """Average pooling and a linear classifier, written as attention that is only top-down (Eq. 1 and 12).

    `score_k = 1/N * sum_i t_ki`, with `t_k = X a_k + alpha_k` and the bottom-up map `h = 1`. The top-down maps are the
    class activation maps of the network. (The paper sums over positions; here, as in its code, scores are means, so
    that they do not depend on the size of the image.)

    Args:
        in_channels: C.
        num_classes: K.
        dropout: probability of dropping an entry of the pooled features in training.
        bias: whether the classifier has a bias `alpha`.

    Shapes: features `(B, C, H, W)` or `(B, N, C)`; see `Pooled` for the output, with P = 1.

    Raises:
        ValueError: the features have a wrong number of axes or channels.

    Source: Girdhar & Ramanan, "Attentional Pooling for Action Recognition", NIPS 2017.

    >>> head = AveragePooling(8, 3)
    >>> out = head(torch.randn(2, 8, 7, 7), maps=True)
    >>> out.combined.shape
    torch.Size([2, 3, 7, 7])
    """

    learning_rates: ClassVar = {"adamw": 3e-2, "sgd": 1e-2}  # docs/study.md
    linear = True

    def forward(self, features: Tensor, *, maps: Maps = False) -> Pooled:
        x, grid = self.channels_first(features)
        logits = self.classify(x.mean(2))
        if not maps:
            return Pooled(logits)
        wanted = self.wanted(maps)
        return first_order_maps(logits, project(x, self.a[wanted], rows(self.alpha, wanted)), grid)


class MaxPooling(LinearHead):
    """Max pooling of every channel over the positions, and a linear classifier.

    `score_k = sum_c a_kc * max_i x_ic + alpha_k`. The score is still a sum over positions: channel c contributes at the
    position where it is largest (the first one in a tie). So `combined_ki = sum_{c: i = argmax_j x_jc} a_kc x_ic +
    alpha_k / N`, the bottom-up map is 1 and the top-down map is `N * combined`.

    Arguments, shapes and errors are those of `AveragePooling`. The paper names this alternative before Eq. 1.
    """

    learning_rates: ClassVar = {"adamw": 1e-2, "sgd": 1e-2}  # docs/study.md

    def forward(self, features: Tensor, *, maps: Maps = False) -> Pooled:
        x, grid = self.channels_first(features)
        if not maps:
            return Pooled(self.classify(x.amax(2)))
        pooled, where = first_maxima(x)
        logits, wanted = self.classify(pooled), self.wanted(maps)
        parts = pooled.unsqueeze(1) * self.a[wanted]  # (B, K, C): what channels add to classes, at their maximum
        empty = parts.new_zeros(*parts.shape[:2], x.shape[2])
        top_down = empty.scatter_add(2, where.unsqueeze(1).expand_as(parts), parts) * x.shape[2]
        if self.alpha is not None:
            top_down = top_down + self.alpha[wanted][:, None]
        return first_order_maps(logits, top_down, grid)


def first_maxima(x: Tensor) -> tuple[Tensor, Tensor]:
    """The maximum of every channel over the positions, and where it first is, `(B, C, N)` -> `(B, C)` twice."""
    if channels_contiguous(x):  # four times as fast there as `max`, and four times as slow elsewhere
        pooled, where = F.adaptive_max_pool2d(x.unsqueeze(2), 1, return_indices=True)
        return pooled.flatten(1), where.flatten(1)
    pooled, where = x.max(2)
    return pooled, where
