"""Attentional pooling (Method 1): low-rank second-order pooling as bottom-up times top-down attention, Eq. 3-11."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnpool.pooling.base import (
    CLASSIFIER_STD,
    Maps,
    Pooled,
    PoolingHead,
    channels_contiguous,
    on_grid,
    project,
    sum_of_terms,
    weighted_mean,
)
from attnpool.pooling.fused_attention import Activation, activate, attend

ACTIVATIONS = ("relu", "sigmoid", "softmax")
INITS = ("average", "official")
DROPOUTS = ("pooled", "positions")

# The released code draws all weights of the head from N(0, 0.001).
OFFICIAL_STD = 0.001
# Terms 2..P start as small random maps that differ: large enough to move apart, small against the first map's 1.
EXTRA_TERM_STD = 0.01


# More terms than channels are of use only with an activation, and then in small numbers.
USEFUL_RANK = 64


class AttentionalPooling(PoolingHead):
    """Attentional pooling: a bottom-up saliency map times a top-down class map, summed over positions (Eq. 10, 11).

    `score_k = 1/N * sum_p sum_i h_pi * t_pki`, `h_p = act(X b_p + beta_p)`, `t_pk = X a_pk + alpha_pk`: second-order
    pooling `Tr(X^T X W_k^T)` (Eq. 9) with `W_k = sum_p a_pk b_p^T` of rank P. Training never computes a map with K
    channels: with `z_p = 1/N * sum_i h_pi x_i`, `score = sum_p A_p z_p + alpha_p mean(h_p)` is the same number (Eq. 6).

    With `hidden` the saliency is that of a two-layer network, `h_p = act(relu(X W_1 + b_1) b_p + beta_p)`, as in Sec.
    3.2, but without joints to predict. Classes are still scored on the features themselves.

    Args:
        in_channels: C.
        num_classes: K.
        dropout: probability of dropping an entry of the pooled features in training. See `dropout_on`.
        rank: rank P of the attention, the number of pairs of a bottom-up and a top-down map.
        per_class: whether every class has its own bottom-up map `h_pk`. Training then computes maps with K channels.
        activation: function applied to the bottom-up map (default: none, as in the paper). "relu" is `max(s, 0)`;
            "sigmoid" is `2 sigmoid(s)`, so that its middle is 1; "softmax" is taken over the positions and scaled by N,
            so that the map has mean 1.
        hidden: number of channels of a hidden layer between the features and the bottom-up map, 0 for none. With none
            the map is linear in the features, as in Method 1 of the paper.
        bias: whether the maps have biases `alpha` and `beta`. (A softmax does not change with `beta`, so it has none.)
        init: whether the weights start as average pooling or as in the released code. With "average" the first term has
            `b = 0` and `h = 1`; terms 2..P have `a = 0` and small random `b`, which differ so that they do not stay
            equal. With "official" the weights are drawn from N(0, 0.001) and the biases are 0.
        dropout_on: what dropout drops, channels of the pooled features or single entries of the features at each
            position. "positions" is what the released code does, with 0.8; it drops entries of what enters `t`.

    Shapes: features `(B, C, H, W)` or `(B, N, C)`; see `Pooled` for the output.

    Raises:
        ValueError: an option has an unknown value, the features have a wrong number of axes or channels, or
            `init="average"` is given without biases, so that the map cannot start at 1.

    Source: Girdhar & Ramanan, "Attentional Pooling for Action Recognition", NIPS 2017, Sec. 3.1.

    >>> head = AttentionalPooling(8, 3, rank=2)
    >>> out = head(torch.randn(2, 8, 7, 7), maps=True)
    >>> torch.allclose(out.combined.sum((-2, -1)), out.logits, atol=1e-5)
    True
    """

    learning_rates: ClassVar = {"adamw": 3e-3, "sgd": 1e-2}  # docs/study.md
    released: ClassVar = ("b", "beta", "mlp_weight", "mlp_bias")

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dropout: float = 0.0,
        rank: int = 1,
        per_class: bool = False,
        activation: Activation | None = None,
        hidden: int = 0,
        bias: bool = True,
        init: Literal["average", "official"] = "average",
        dropout_on: Literal["pooled", "positions"] = "pooled",
    ) -> None:
        super().__init__(in_channels, num_classes, dropout=dropout)
        if not 1 <= rank <= max(in_channels, USEFUL_RANK):
            most = max(in_channels, USEFUL_RANK)
            raise ValueError(f"rank must be from 1 to {most} for {in_channels} channels, not {rank}")
        if hidden < 0:
            raise ValueError(f"hidden must be 0 (no hidden layer) or more, not {hidden}")
        if activation is not None and activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}: use None, {', '.join(ACTIVATIONS)}")
        if init not in INITS:
            raise ValueError(f"unknown init {init!r}: use one of {', '.join(INITS)}")
        if dropout_on not in DROPOUTS:
            raise ValueError(f"unknown dropout_on {dropout_on!r}: use one of {', '.join(DROPOUTS)}")
        if init == "average" and not bias and activation in (None, "relu"):
            raise ValueError("without biases the bottom-up map cannot start at 1: use bias=True or init='official'")
        self.rank = rank
        self.per_class = per_class
        self.activation = activation
        self.hidden = hidden
        self.init = init
        self.dropout_on = dropout_on
        attended = rank * num_classes if per_class else rank
        self.a = nn.Parameter(torch.empty(rank * num_classes, in_channels))
        self.alpha = nn.Parameter(torch.empty(rank * num_classes)) if bias else None
        if hidden:
            self.mlp_weight = nn.Parameter(torch.empty(hidden, in_channels))
            self.mlp_bias = nn.Parameter(torch.empty(hidden))
        self.b = nn.Parameter(torch.empty(attended, hidden or in_channels))
        self.beta = nn.Parameter(torch.empty(attended)) if bias and activation != "softmax" else None
        self.reset_parameters()

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, rank={self.rank}, per_class={self.per_class}, activation={self.activation}, "
            f"hidden={self.hidden}, dropout_on={self.dropout_on}, init={self.init}"
        )

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        average = self.init == "average"
        nn.init.normal_(self.a, std=CLASSIFIER_STD if average else OFFICIAL_STD, generator=generator)
        if self.hidden:
            self.reset_hidden(generator)
        nn.init.normal_(self.b, std=EXTRA_TERM_STD if average else OFFICIAL_STD, generator=generator)
        for bias in (self.alpha, self.beta):
            if bias is not None:
                nn.init.zeros_(bias)
        if average:
            first = self.b.shape[0] // self.rank  # rows of the first term
            with torch.no_grad():
                self.a[self.num_classes :] = 0
                self.b[:first] = 0
                if self.beta is not None and self.activation in (None, "relu"):
                    self.beta[:first] = 1

    def reset_hidden(self, generator: torch.Generator | None) -> None:
        """Draws the weights of the hidden layer."""
        self.reset_hidden_weight(self.mlp_weight, generator)
        nn.init.zeros_(self.mlp_bias)

    def reset_hidden_weight(self, weight: Tensor, generator: torch.Generator | None) -> None:
        if self.init == "average":
            nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
        else:
            nn.init.normal_(weight, std=OFFICIAL_STD, generator=generator)

    @property
    def departs(self) -> bool:
        return self.init == "average"

    def departure(self, bottom_up: Tensor) -> Tensor:
        """The mean over images and positions of `sum_p (h_p - c_p)^2`, and over the classes if each has its maps.

        `c` is where the maps start: 1, and 0 for the terms 2..P of a linear map, which start as nothing.
        """
        centre = torch.ones(self.rank, 1, 1, 1, dtype=bottom_up.dtype, device=bottom_up.device)
        if self.activation in (None, "relu"):
            centre[1:] = 0
        return (bottom_up - centre).square().mean((-3, -2, -1)).sum(-1).mean()

    @property
    def shares_work(self) -> bool:
        return not (self.hidden or self.per_class or (self.dropout and self.dropout_on == "positions"))

    def side_by_side(self, heads: Sequence[PoolingHead], features: Tensor) -> list[Pooled]:
        if not self.shares_work:
            return super().side_by_side(heads, features)
        x, grid = self.channels_first(features)
        same = [head for head in heads if isinstance(head, AttentionalPooling)]
        b: list[Tensor] = [head.b for head in same]
        beta: list[Tensor] = [head.beta for head in same if head.beta is not None]
        h, z = attend(x, torch.cat(b), torch.cat(beta) if beta else None, self.activation)
        parts = (part.unflatten(1, (len(same), self.rank)).unbind(1) for part in (z, h))
        return [
            Pooled(
                classify(F.dropout(z_of, head.dropout, head.training), h_of, head.a, head.alpha),
                bottom_up=on_grid(h_of.unsqueeze(2), grid),
            )
            for head, z_of, h_of in zip(same, *parts, strict=True)
        ]

    def forward(self, features: Tensor, *, maps: Maps = False) -> Pooled:
        x, grid = self.channels_first(features)
        return self.attended(x, self.salient(x), grid, maps)

    def salient(self, x: Tensor) -> Tensor:
        """What the bottom-up map is linear in, apart from its activation: the features or the hidden layer."""
        return F.relu(project(x, self.mlp_weight, self.mlp_bias)) if self.hidden else x

    def attended(self, x: Tensor, salient: Tensor, grid: tuple[int, ...], maps: Maps) -> Pooled:
        """The scores of features `(B, C, N)`, given what `salient` returns for them."""
        logits, h = self.score_per_class(x, salient) if self.per_class else self.score(x, salient)
        if not maps:
            return Pooled(logits)
        h = h.unflatten(1, (self.rank, -1))
        if maps == "bottom_up":
            return Pooled(logits, bottom_up=on_grid(h, grid))
        wanted = self.wanted(maps)
        a, alpha = self.of_classes(self.a, wanted), None if self.alpha is None else self.of_classes(self.alpha, wanted)
        top_down = project(x, a, alpha).unflatten(1, (self.rank, -1))
        return sum_of_terms(logits, top_down, h[:, :, wanted] if self.per_class else h, grid)

    def of_classes(self, parameter: Tensor, wanted: slice | list[int]) -> Tensor:
        """The rows of some classes in a parameter `(P K, ...)`, for every term."""
        return parameter.unflatten(0, (self.rank, -1))[:, wanted].flatten(0, 1)

    def score(self, x: Tensor, salient: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and bottom-up maps `(B, P, N)` of class-agnostic attention: features are pooled first (Eq. 6)."""
        drops_positions = self.dropout_on == "positions" and bool(self.dropout) and self.training
        if self.hidden or drops_positions:
            h = activate(project(salient, self.b, self.beta), self.activation)
            z = weighted_mean(F.dropout(x, self.dropout) if drops_positions else x, h)
        else:
            h, z = attend(x, self.b, self.beta, self.activation)
        if self.dropout_on == "pooled":
            z = F.dropout(z, self.dropout, self.training)
        return classify(z, h, self.a, self.alpha), h

    def score_per_class(self, x: Tensor, salient: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and bottom-up maps `(B, P*K, N)` of attention per class, by multiplying the maps (Eq. 8)."""
        dropping = bool(self.dropout) and self.training
        if not (self.hidden or dropping):  # one matrix product computes both maps
            bias = None
            if self.alpha is not None:
                bias = torch.cat([self.alpha, torch.zeros_like(self.alpha) if self.beta is None else self.beta])
            t, s = halves(project(x, torch.cat([self.a, self.b]), bias))
        else:
            # A mask shared by all positions drops whole channels, as dropout of the pooled features does.
            drop = F.dropout if self.dropout_on == "positions" else F.dropout1d
            t = project(drop(x, self.dropout, self.training), self.a, self.alpha)
            s = project(salient, self.b, self.beta)
        h = activate(s, self.activation)
        scores = (t * h).sum(2) / x.shape[2]  # (`mean` would write out a gradient as large as t)
        return scores.unflatten(1, (self.rank, self.num_classes)).sum(1), h


def add_terms(z: Tensor, a: Tensor) -> Tensor:
    """`sum_p A_p z_p`, `(B, P, C)`, `(P, K, C)` -> `(B, K)`, without a copy of the weights or of their gradient."""
    return torch.bmm(a, z.permute(1, 2, 0)).sum(0).t()


def halves(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Splits maps `(B, 2Q, N)` into two of `(B, Q, N)`, whose gradients are joined in the memory layout of `maps`."""
    if channels_contiguous(maps):
        first, second = maps.transpose(1, 2).chunk(2, 2)
        return first.transpose(1, 2), second.transpose(1, 2)
    first, second = maps.chunk(2, 1)
    return first, second


def classify(z: Tensor, h: Tensor, a: Tensor, alpha: Tensor | None) -> Tensor:
    """`sum_p A_p z_p + alpha_p mean(h_p)`: `(B, P, C)`, `(B, P, N)`, `(P*K, C)`, `(P*K,)` -> `(B, K)`."""
    rank = z.shape[1]
    logits = F.linear(z[:, 0], a) if rank == 1 else add_terms(z, a.unflatten(0, (rank, -1)))
    return logits if alpha is None else logits + h.mean(2) @ alpha.unflatten(0, (rank, -1))
