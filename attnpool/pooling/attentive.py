"""Attentive pooling: many learned queries, each of which pools channels of its own (efficient probing)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnpool.pooling.base import CLASSIFIER_STD, Pooled, PoolingHead, on_grid, project
from attnpool.pooling.fused import attend

# Queries start small and different: maps are nearly uniform, and equal queries would stay equal.
QUERY_STD = 0.02


class AttentivePooling(PoolingHead):
    """Multi-query softmax pooling: M maps over the positions, each of which pools its group of projected channels.

    `s_mi = softmax_i(q_m . x_i / sqrt(C))`, `z_m = sum_i s_mi x_i`, `u_m = V_m z_m` with D / M numbers, and
    `score_k = sum_m A_km . u_m + alpha_k`. The published form projects every position, `sum_i s_mi (V_m x_i)`, which
    is the same number; here M vectors an image are projected, not N.

    The score is a sum over positions with P = M terms: bottom-up maps `N s_mi`, top-down maps
    `A_km . V_m x_i + alpha_k / M`. At the start the maps are nearly uniform, that is, near average pooling.

    Args:
        in_channels: C.
        num_classes: K.
        dropout: probability of dropping an entry of the pooled values u in training.
        queries: M, 32 in the public code.
        dim: D, length of the values of all queries together, a multiple of `queries`; None for C, rounded up to one.

    Shapes: features `(B, C, H, W)` or `(B, N, C)`; see `Pooled` for the output, with P = M.

    Raises:
        ValueError: at a wrong number of axes or channels, if `queries` is less than 1, or `dim` no multiple of it.

    Source: Psomas et al., "Attention, Please! Revisiting Attentive Probing for Masked Image Modeling", 2025.

    >>> head = AttentivePooling(8, 3, queries=4)
    >>> out = head(torch.randn(2, 8, 7, 7), maps=True)
    >>> torch.allclose(out.combined.sum((-2, -1)), out.logits, atol=1e-5)
    True
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, dropout: float = 0.0, queries: int = 32, dim: int | None = None
    ) -> None:
        super().__init__(in_channels, num_classes, dropout=dropout)
        if queries < 1:
            raise ValueError(f"queries must be at least 1, not {queries}")
        if dim is not None and (dim < 1 or dim % queries):
            raise ValueError(f"dim is {dim}; give a multiple of queries, which is {queries}")
        self.queries = queries
        self.dim = math.ceil(in_channels / queries) * queries if dim is None else dim
        self.query = nn.Parameter(torch.empty(queries, in_channels))
        self.value = nn.Parameter(torch.empty(queries, self.dim // queries, in_channels))
        self.a = nn.Parameter(torch.empty(num_classes, self.dim))
        self.alpha = nn.Parameter(torch.empty(num_classes))
        self.reset_parameters()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, queries={self.queries}, dim={self.dim}"

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.normal_(self.query, std=QUERY_STD, generator=generator)
        nn.init.normal_(self.value, std=1 / math.sqrt(self.in_channels), generator=generator)
        nn.init.normal_(self.a, std=CLASSIFIER_STD, generator=generator)
        nn.init.zeros_(self.alpha)

    def forward(self, features: Tensor, *, maps: bool = False) -> Pooled:
        x, grid = self.channels_first(features)
        count = x.shape[2]
        h, z = attend(x, self.query / math.sqrt(self.in_channels), None, "softmax")
        u = torch.bmm(z.transpose(0, 1), self.value.transpose(1, 2)).transpose(0, 1).flatten(1)
        logits = F.linear(F.dropout(u, self.dropout, self.training), self.a, self.alpha)
        if not maps:
            return Pooled(logits)
        a = self.a.unflatten(1, (self.queries, -1)).transpose(0, 1)
        terms = project(x, torch.bmm(a, self.value).flatten(0, 1)).unflatten(1, (self.queries, self.num_classes))
        top_down = on_grid(terms + self.alpha[:, None] / self.queries, grid)
        bottom_up = on_grid(h.unsqueeze(2), grid)
        return Pooled(logits, top_down, bottom_up, (top_down * bottom_up).sum(1) / count)
