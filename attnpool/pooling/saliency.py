"""Pooling with a given saliency map, which the paper's Diagnostics propose as a model that is only bottom-up."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from attnpool.pooling.base import Maps, Pooled, project, rows, sum_of_terms, weighted_mean
from attnpool.pooling.first_order import LinearHead

SALIENCIES = ("norm", "centre")
# The standard deviation of the Gaussian of "centre", as a fraction of the side: the weight at both ends of a side is
# 0.14 of the weight in the middle.
CENTRE_SIGMA = 0.25
# A map whose mean is not larger than this counts as 0 everywhere.
SMALLEST_MEAN = 1e-18


class SaliencyPooling(LinearHead):
    """Features averaged with a saliency map that is given, not learned, and a linear classifier (bottom-up only).

    `score_k = 1/N * sum_i h_i (x_i . a_k + alpha_k)` with a map h scaled to mean 1. This is Eq. 10 and 11 with an
    off-the-shelf bottom-up map. The paper's Diagnostics suggest it ("limit the spatial region that features are
    averaged over"), because a bottom-up map alone does not depend on the class and so gives no class scores; the paper
    reports that its experiments were not promising. With h = 1 it is `AveragePooling`.

    A recognizer is trained and evaluated with one of the maps that are computed from the features alone. A map of your
    own is an argument of `forward`, which only this head takes:
    `model.head(model.standardize(model.features(x)), saliency=maps)`; `ap.train` does not read such maps.

    Args:
        in_channels: C.
        num_classes: K.
        dropout: probability of dropping an entry of the pooled features in training.
        bias: whether the classifier has a bias `alpha`.
        saliency: map that weights the positions, the norm of the features or a Gaussian at the image's centre. "norm"
            is the Euclidean norm `|x_i|` of the features at a position (of standardised features, how far they are from
            the mean); "centre" is a Gaussian in the middle of the image with a standard deviation of a quarter of each
            side, the same for every image. `forward` takes other maps in its place.

    Shapes: features `(B, C, H, W)` or `(B, N, C)`; see `Pooled` for the output, with P = 1.

    Raises:
        ValueError: the features have a wrong number of axes or channels, `saliency` is unknown, a given map does not
            fit or has negative or infinite entries, or "centre" is used with tokens, whose places are not known.

    Source: Girdhar & Ramanan, "Attentional Pooling for Action Recognition", NIPS 2017, Sec. 4, Diagnostics.

    >>> head = SaliencyPooling(8, 3)
    >>> out = head(torch.randn(2, 8, 7, 7), maps=True, saliency=torch.rand(2, 240, 320))
    >>> out.bottom_up.shape
    torch.Size([2, 1, 1, 7, 7])
    """

    learning_rates: ClassVar = {"adamw": 1e-2, "sgd": 1e-1}  # docs/second-order.md

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        saliency: Literal["norm", "centre"] = "norm",
    ) -> None:
        super().__init__(in_channels, num_classes, dropout=dropout, bias=bias)
        if saliency not in SALIENCIES:
            raise ValueError(f"unknown saliency {saliency!r}: use one of {', '.join(SALIENCIES)}")
        self.saliency = saliency

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, saliency={self.saliency}"

    def forward(self, features: Tensor, *, maps: Maps = False, saliency: Tensor | None = None) -> Pooled:
        """Scores features.

        Args:
            features: `(B, C, H, W)` or `(B, N, C)`.
            maps: see `Pooled`; `bottom_up` is the map that was used.
            saliency: weights of the positions, 0 or more, in place of the head's own: `(B, N)`, or `(B, h, w)` of any
                size, which is averaged over the cells of the features' grid. Only proportions matter; a map of zeros
                counts as a map of ones.
        """
        x, grid = self.channels_first(features)
        if saliency is not None:
            h = given_map(saliency, x, grid)
        elif self.saliency == "norm":
            h = torch.linalg.vector_norm(x, dim=1, dtype=torch.promote_types(x.dtype, torch.float32))
        else:
            h = centre_map(x, grid)
        h = mean_one(h).unsqueeze(1).to(x.dtype)
        logits = self.classify(weighted_mean(x, h)[:, 0])
        if not maps:
            return Pooled(logits)
        wanted = self.wanted(maps)
        top_down = project(x, self.a[wanted], rows(self.alpha, wanted))
        return sum_of_terms(logits, top_down.unsqueeze(1), h.unsqueeze(1), grid)


def mean_one(h: Tensor) -> Tensor:
    """Scales non-negative maps `(B, N)` to mean 1; a map of zeros becomes a map of ones."""
    mean = h.mean(1, keepdim=True)
    empty = mean <= SMALLEST_MEAN
    return torch.where(empty, torch.ones_like(h), h / torch.where(empty, torch.ones_like(mean), mean))


def centre_map(x: Tensor, grid: tuple[int, ...]) -> Tensor:
    """A Gaussian in the middle of the last two axes of the grid, `(B, N)`."""
    if len(grid) < 2:
        raise ValueError(
            "tokens (B, N, C) do not say where the centre is: pass features as (B, C, H, W), or a map with saliency="
        )
    dtype = torch.promote_types(x.dtype, torch.float32)
    rows, columns = (bell(torch.arange(side, device=x.device, dtype=dtype), side) for side in grid[-2:])
    return (rows[:, None] * columns).expand(x.shape[0], *grid).flatten(1)


def bell(at: Tensor, side: int) -> Tensor:
    """A Gaussian at the centres of the cells `at` of a line of `side` cells."""
    return torch.exp(-(((at + 0.5) / side - 0.5) / CENTRE_SIGMA).square() / 2)


def given_map(saliency: Tensor, x: Tensor, grid: tuple[int, ...]) -> Tensor:
    """A given map on the grid of the features, `(B, N)`."""
    images, _, count = x.shape
    fits = saliency.ndim in (2, 3) and saliency.shape[0] == images and saliency.shape[1:].numel() > 0
    if not fits or (saliency.shape[1:].numel() != count and (saliency.ndim == 2 or len(grid) != 2)):
        wanted = f"({images}, {count})" + (f" or ({images}, h, w)" if len(grid) == 2 else "")
        raise ValueError(f"saliency is of shape {tuple(saliency.shape)}, these features take {wanted}")
    # Reading the values waits for the device and would break a compiled graph.
    if not torch.compiler.is_compiling() and not ((saliency >= 0) & saliency.isfinite()).all():
        raise ValueError("saliency has negative, infinite or NaN entries: pass finite numbers, 0 or more")
    h = saliency.to(x.device, torch.promote_types(x.dtype, torch.float32))
    if h.ndim == 3 and len(grid) == 2:
        h = F.adaptive_avg_pool2d(h, grid)
    return h.flatten(1)
