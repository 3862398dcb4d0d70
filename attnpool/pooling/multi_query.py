"""Multi-query pooling (efficient probing): many learned queries, each of which pools its own group of channels."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnpool.pooling.base import CLASSIFIER_STD, Maps, Pooled, PoolingHead, project, sum_of_terms
from attnpool.pooling.fused_attention import attend

# Queries start small, so that maps are nearly uniform, and different, because equal queries would stay equal.
QUERY_STD = 0.02
# The number of cosines along each axis by which a query prefers places: the first one contrasts the two ends of the
# axis, the last one distinguishes its quarters.
WAVES = 4


class MultiQueryPooling(PoolingHead):
    """Multi-query softmax pooling: M maps over the positions, each of which pools a group of projected channels.

    `s_mi = softmax_i(q_m . x_i / sqrt(C))`, `z_m = sum_i s_mi x_i`, `u_m = V_m z_m` with D / M numbers, and
    `score_k = sum_m A_km . u_m + alpha_k`. The published form projects every position, `sum_i s_mi (V_m x_i)`, which
    is the same number; here M vectors per image are projected, not N.

    The score is a sum over positions with P = M terms: bottom-up maps `N s_mi`, top-down maps
    `A_km . V_m x_i + alpha_k / M`. At the start the maps are nearly uniform, that is, near average pooling.

    With `positions` a query also depends on the place, `s_mi = softmax_i(q_m . x_i / sqrt(C) + d_m . f_i)`, where f_i
    are cosines of the place of position i in the image and in time (see `waves`); d starts at 0. The head then pools a
    clip as a whole, over T x H x W, so that the order of the frames matters. Without `positions` the softmax ignores
    the order, and the frames of a clip are scored one by one, as by the other heads. The values never depend on the
    place.

    Args:
        in_channels: C.
        num_classes: K.
        dropout: probability of dropping an entry of the pooled features in training. The pooled features are the
            values u.
        queries: number M of queries, each of which has a softmax map and values of its own; 32 in the public code.
        dim: length D of the values of all queries together, a multiple of queries (default: the number of channels,
            rounded up to one).
        positions: whether queries also depend on the place of a position in the image and in time; clips are then
            pooled as a whole.

    Shapes: features `(B, C, H, W)` or `(B, N, C)`; with `positions`, `(B, C, H, W)` or `(B, T, C, H, W)` of any size,
    where an image is a clip of one frame. See `Pooled` for the output, with P = M.

    Raises:
        ValueError: the features have a wrong number of axes or channels, or are tokens although `positions` is set;
            `queries` is less than 1, or `dim` is not a multiple of it.

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

    def forward(self, features: Tensor, *, maps: Maps = False) -> Pooled:
        x, grid = self.channels_first(features)
        places = self.place @ waves(grid, x).to(self.place.dtype) if self.positions else None
        h, z = attend(x, self.query / math.sqrt(self.in_channels), places, "softmax")
        u = torch.bmm(z.transpose(0, 1), self.value.transpose(1, 2)).transpose(0, 1).flatten(1)
        logits = F.linear(F.dropout(u, self.dropout, self.training), self.a, self.alpha)
        if not maps:
            return Pooled(logits)
        wanted = self.wanted(maps)
        a = self.a[wanted].unflatten(1, (self.queries, -1)).transpose(0, 1)
        terms = project(x, torch.bmm(a, self.value).flatten(0, 1)).unflatten(1, (self.queries, -1))
        return sum_of_terms(logits, terms + self.alpha[wanted][:, None] / self.queries, h.unsqueeze(2), grid)


def waves(grid: tuple[int, ...], x: Tensor) -> Tensor:
    """Cosines of the place of every position along time, height and width, `(12, N)`: `cos(pi k u)`, k = 1..4.

    u is the centre of the cell, from 0 to 1 along each axis, so that grids of different sizes agree on places. On an
    axis of one cell the cosines are constants, which do not change a softmax.

    Args:
        grid: `(H, W)` or `(T, H, W)`.
        x: tensor whose device is used, and whose data type, if that is float32 or better.
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
