"""NetVLAD pooling: sums of deviations from learned cluster centres."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnpool.pooling.base import (
    CLASSIFIER_STD,
    Maps,
    Pooled,
    PoolingHead,
    positive_norms,
    project,
    sum_of_terms,
    weighted_mean,
)


class NetVLADPooling(PoolingHead):
    """NetVLAD: a linear classifier on sums of deviations from M learned centres, in clips over all their frames.

    `s_mi = softmax_m(w_m . x_i + b_m)` and `v_m = 1/N * sum_i s_mi (x_i - c_m)`. Every `v_m` is divided by its norm,
    then all of them together by their norm, and `score_k = sum_m A_km . v_m + alpha_k`. The sum is computed as
    `1/N * sum_i s_mi x_i - c_m mean_i(s_mi)`, so that no deviation is written out.

    The score is a sum over positions with P = M terms: bottom-up maps `s_mi` and top-down maps
    `A_km . (x_i - c_m) / n_m + alpha_k`, where n_m is the product of both norms (1 with `norms=False`); the s of a
    position add up to 1. So the maps are exact, given the image's own normaliser: the norms are those of the whole
    image, and a share says what a position adds while they stay as they are, not how the score would change without
    the position.

    Args:
        in_channels: C.
        num_classes: K.
        dropout: probability of dropping an entry of the pooled features in training. The pooled features are the
            deviations.
        clusters: number M of learned cluster centres, 64 in the paper.
        norms: whether the sum of each centre, and then all of them together, are divided by their Euclidean norm.

    Shapes: features `(B, C, H, W)`, `(B, N, C)` or `(B, T, C, H, W)`; see `Pooled` for the output, with P = M.
    Computing the maps of a class takes as many products as the assignment to centres does.

    Raises:
        ValueError: the features have a wrong number of axes or channels, or `clusters` is less than 1.

    Source: Arandjelovic et al., "NetVLAD", CVPR 2016; for sums over the frames of a clip: Girdhar et al., "ActionVLAD",
    CVPR 2017. ActionVLAD takes its centres from k-means; here they are drawn at random and learned.

    >>> head = NetVLADPooling(8, 3, clusters=4)
    >>> out = head(torch.randn(2, 8, 7, 7), maps=True)
    >>> torch.allclose(out.combined.sum((-2, -1)), out.logits, atol=1e-5)
    True
    """

    over_time = True
    learning_rates: ClassVar = {"adamw": 1e-2, "sgd": 3.0}  # docs/multi-query.md

    def __init__(
        self, in_channels: int, num_classes: int, *, dropout: float = 0.0, clusters: int = 64, norms: bool = True
    ) -> None:
        super().__init__(in_channels, num_classes, dropout=dropout)
        if clusters < 1:
            raise ValueError(f"clusters must be at least 1, not {clusters}")
        self.clusters = clusters
        self.norms = norms
        self.assign = nn.Parameter(torch.empty(clusters, in_channels))
        self.assign_bias = nn.Parameter(torch.empty(clusters))
        self.centres = nn.Parameter(torch.empty(clusters, in_channels))
        self.a = nn.Parameter(torch.empty(num_classes, clusters * in_channels))
        self.alpha = nn.Parameter(torch.empty(num_classes))
        self.reset_parameters()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, clusters={self.clusters}, norms={self.norms}"

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.normal_(self.assign, std=1 / math.sqrt(self.in_channels), generator=generator)
        nn.init.zeros_(self.assign_bias)
        nn.init.normal_(self.centres, std=1 / math.sqrt(self.in_channels), generator=generator)
        nn.init.normal_(self.a, std=CLASSIFIER_STD, generator=generator)
        nn.init.zeros_(self.alpha)

    def forward(self, features: Tensor, *, maps: Maps = False) -> Pooled:
        x, grid = self.channels_first(features)
        s = project(x, self.assign, self.assign_bias).softmax(1)
        v = weighted_mean(x, s) - s.mean(2).unsqueeze(2) * self.centres
        scale = inverse_norms(v) if self.norms else None
        v = v if scale is None else v * scale
        logits = F.linear(F.dropout(v.flatten(1), self.dropout, self.training), self.a, self.alpha)
        if not maps:
            return Pooled(logits)
        wanted = self.wanted(maps)
        a = self.a[wanted].unflatten(1, (self.clusters, -1)).transpose(0, 1)
        shift = -(a * self.centres[:, None]).sum(2)
        top_down = project(x, a.flatten(0, 1), shift.flatten()).unflatten(1, (self.clusters, -1))
        top_down = top_down if scale is None else top_down * scale.unsqueeze(2)
        return sum_of_terms(logits, top_down + self.alpha[wanted][:, None], s.unsqueeze(2), grid)


def inverse_norms(v: Tensor) -> Tensor:
    """Factors `(B, M, 1)` that divide every vector of `(B, M, C)` by its norm, then all together by theirs."""
    each = positive_norms(v, 2)
    return 1 / (each * positive_norms((v / each).flatten(1), 1).unsqueeze(2))
