"""Multi-query pooling: many learned queries, each of which pools channels of its own (efficient probing)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnpool.pooling.base import CLASSIFIER_STD, Pooled, PoolingHead, project, sum_of_terms
from attnpool.pooling.fused_attention import attend

# Queries start small and different: maps are nearly uniform, and equal queries would stay equal.
QUERY_STD = 0.02
# Cosines along each axis from which a query's preference for places is made: the first sets one end against the other,
# the last tells quarters apart.
WAVES = 4


class MultiQueryPooling(PoolingHead):
    """Multi-query softmax pooling: M maps over the positions, each of which pools its group of projected channels.

    `s_mi = softmax_i(q_m . x_i / sqrt(C))`, `z_m = sum_i s_mi x_i`, `u_m = V_m z_m` with D / M numbers, and
    `score_k = sum_m A_km . u_m + alpha_k`. The published form projects every position, `sum_i s_mi (V_m x_i)`, which
    is the same number; here M vectors an image are projected, not N.

    The score is a sum over positions with P = M terms: bottom-up maps `N s_mi`, top-down maps
    `A_km . V_m x_i + alpha_k / M`. At the start the maps are nearly uniform, that is, near average pooling.

    With `positions` a query also prefers places, `s_mi = softmax_i(q_m . x_i / sqrt(C) + d_m . f_i)`, where f_i are
    cosines of where and when position i is (see `waves`); `d = 0` at the start. It then pools a clip as one, over
    T x H x W, so that the order of the frames counts. Without `positions` order means nothing to the softmax, and a
    clip's frames are scored one by one, as by the other heads. The values are those of the features alone.

    Args:
        in_channels: C.
        num_classes: K.
        dropout: probability of dropping an entry of the pooled features in training. These are the values u.
        queries: number M of queries, each of which has a softmax map and values of its own; 32 in the public code.
        dim: length D of the values of all queries together, a multiple of queries (default: as many as channels).
        positions: whether queries also look at where and when, over a clip as a whole.

    Shapes: features `(B, C, H, W)` or `(B, N, C)`, with `positions` `(B, C, H, W)` or `(B, T, C, H, W)` of any size; an
    image is a clip of one frame. See `Pooled` for the output, with P = M.

    Raises:
        ValueError: at a wrong number of axes or channels, if `queries` is less than 1, or `dim` no multiple of it; for
            tokens with `positions`.

    Source: Psomas et al., "Attention, Please! Revisiting Attentive Probing for Masked Image Modeling", 2025.

    >>> head = MultiQueryPooling(8, 3, queries=4)
    >>> out = head(torch.randn(2, 8, 7, 7), maps=True)
    >>> torch.allclose(out.combined.sum((-2, -1)), out.logits, atol=1e-5)
    True
    """

    learning_rates: ClassVar = {"adamw": 3e-3, "sgd": 1e-1}  # docs/multi-query.md

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dropout: float = 0.0,
        queries: int = 32,
        dim: int | None = None,
        positions: bool = False,
    ) -> None:
        super().__init__(in_channels, num_classes, dropout=dropout)
        if queries < 1:
            raise ValueError(f"queries must be at least 1, not {queries}")
        if dim is not None and (dim < 1 or dim % queries):
            raise ValueError(f"dim is {dim}; give a multiple of queries, which is {queries}")
        self.queries = queries
        self.dim = math.ceil(in_channels / queries) * queries if dim is None else dim
        self.positions = self.over_time = positions
        self.query = nn.Parameter(torch.empty(queries, in_channels))
        self.value = nn.Parameter(torch.empty(queries, self.dim // queries, in_channels))
        self.a = nn.Parameter(torch.empty(num_classes, self.dim))
        self.alpha = nn.Parameter(torch.empty(num_classes))
        if positions:
            self.place = nn.Parameter(torch.empty(queries, 3 * WAVES))  # d
        self.reset_parameters()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, queries={self.queries}, dim={self.dim}, positions={self.positions}"

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.normal_(self.query, std=QUERY_STD, generator=generator)
        nn.init.normal_(self.value, std=1 / math.sqrt(self.in_channels), generator=generator)
        nn.init.normal_(self.a, std=CLASSIFIER_STD, generator=generator)
        nn.init.zeros_(self.alpha)
        if self.positions:
            nn.init.zeros_(self.place)

    def forward(self, features: Tensor, *, maps: bool = False) -> Pooled:
        x, grid = self.channels_first(features)
        places = self.place @ waves(grid, x).to(self.place.dtype) if self.positions else None
        h, z = attend(x, self.query / math.sqrt(self.in_channels), places, "softmax")
        u = torch.bmm(z.transpose(0, 1), self.value.transpose(1, 2)).transpose(0, 1).flatten(1)
        logits = F.linear(F.dropout(u, self.dropout, self.training), self.a, self.alpha)
        if not maps:
            return Pooled(logits)
        a = self.a.unflatten(1, (self.queries, -1)).transpose(0, 1)
        terms = project(x, torch.bmm(a, self.value).flatten(0, 1)).unflatten(1, (self.queries, self.num_classes))
        return sum_of_terms(logits, terms + self.alpha[:, None] / self.queries, h.unsqueeze(2), grid)


def waves(grid: tuple[int, ...], x: Tensor) -> Tensor:
    """Cosines of every position's place along time, height and width, `(12, N)`: `cos(pi k u)`, k = 1..4.

    u is the middle of the cell, from 0 to 1 along each axis, so grids of different sizes agree on what is where. On an
    axis of one cell the cosines are constants, to which a softmax is blind.

    Args:
        grid: `(H, W)` or `(T, H, W)`.
        x: whose device is used, and data type, if it is not shorter than float32.
    """
    if len(grid) < 2:
        raise ValueError(
            "tokens (B, N, C) do not say where a position is: pass features as (B, C, H, W) or (B, T, C, H, W), "
            "or leave out positions"
        )
    dtype = torch.promote_types(x.dtype, torch.float32)
    whole = (1, *grid)[-3:]
    orders = torch.arange(1, WAVES + 1, dtype=dtype, device=x.device)
    found = []
    for axis, length in enumerate(whole):
        middles = (torch.arange(length, dtype=dtype, device=x.device) + 0.5) / length
        along = torch.cos(math.pi * orders[:, None] * middles)
        around = [1, 1, 1]
        around[axis] = length
        found.append(along.view(WAVES, *around).expand(WAVES, *whole))
    return torch.cat(found).flatten(1)
