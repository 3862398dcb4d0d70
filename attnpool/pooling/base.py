"""The output of every pooling, their base class, and operations that read features of any layout without a copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree

# Classifier weights start small, so that the first predictions are close to uniform whatever the feature scale is.
CLASSIFIER_STD = 0.001
# A smaller norm counts as this one, as in `torch.nn.functional.normalize`.
SMALLEST_NORM = 1e-12

# Which maps a forward pass returns: none, those of all classes or of the classes with these numbers, or from attention
# the bottom-up maps alone, which cost nothing.
Maps = bool | Literal["bottom_up"] | Sequence[int]


class Pooled(NamedTuple):
    """Scores, and the maps that add up to them.

    `combined.sum((-2, -1)) == logits` in eval mode (over the last axis alone for token input). Maps are `None`
    unless they were asked for, with `maps=True`, or with `maps=[3, 5]` for those of some classes: then K is their
    number in the shapes of maps (the logits are those of all classes), and the work is less by as much. Maps of clips
    are `(B, T, ...)`, and `combined` adds up over T, too.

    Attributes:
        logits: `(B, K)` class scores.
        top_down: `(B, P, K, H, W)` class-specific maps `t = X a + alpha` (Eq. 10).
        bottom_up: `(B, P, 1, H, W)` saliency `h = X b + beta`, or `(B, P, K, H, W)` if every class has its own. Its
            natural value is 1: average pooling is `h = 1`.
        combined: `(B, K, H, W)`, `(top_down * bottom_up).sum(1) / N` (Eq. 11, with the mean over positions).
        pose: `(B, 16, H, W)` joint heatmaps from heads that predict them, with or without `maps`.
    """

    logits: Tensor
    top_down: Tensor | None = None
    bottom_up: Tensor | None = None
    combined: Tensor | None = None
    pose: Tensor | None = None


# `torch.export.save` writes only registered types; its error message asks for this call.
_pytree._register_namedtuple(Pooled, serialized_type_name="attnpool.Pooled")


class PoolingHead(nn.Module):
    """Base class of the heads, which map features `(B, C, H, W)` or `(B, N, C)` to `Pooled`.

    The options of a head are the keyword arguments of its constructor. `Recognizer(pooling_options=...)`, flags,
    recipes and the table in the docs derive from them; the help of each is the first sentence of its entry in `Args`.

    Args:
        in_channels: C, channels of the features.
        num_classes: K.
        dropout: probability of dropping an entry of the pooled features in training.

    Attributes:
        learning_rates: the head's default peak learning rate on frozen, standardised features, for each optimizer
            ("adamw", "sgd").
        over_time: whether the head also takes clips `(B, T, C, H, W)` and pools all their positions together. Other
            heads score every frame by itself.
        linear: whether the logits are linear in the mean of the features, so that training on frozen features is
            logistic regression.
        released: the names of the parameters of the bottom-up map; the others are those of the classifier.
    """

    learning_rates: ClassVar[Mapping[str, float]]
    released: ClassVar[tuple[str, ...]] = ()
    over_time: bool = False
    linear: bool = False

    @property
    def departs(self) -> bool:
        """Whether the head is average pooling while the parameters `released` are as they start."""
        return False

    def released_parameters(self) -> list[nn.Parameter]:
        """The parameters of the bottom-up map."""
        return [parameter for name, parameter in self.named_parameters() if name in self.released]

    def departure(self, bottom_up: Tensor) -> Tensor:
        """How far bottom-up maps `(B, P, 1 or K, H, W)` are from those of average pooling; a scalar, 0 if they are not.

        Clips have the axis T after B.
        """
        raise AssertionError(f"{type(self).__name__} does not depart from average pooling")

    def __init__(self, in_channels: int, num_classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        if in_channels < 1 or num_classes < 1:
            raise ValueError(f"in_channels and num_classes must be at least 1, not {in_channels} and {num_classes}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {dropout}")
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.dropout = dropout

    @property
    def shares_work(self) -> bool:
        """Whether many heads `side_by_side` take hardly longer than one."""
        return self.linear

    def side_by_side(self, heads: Sequence[PoolingHead], features: Tensor) -> list[Pooled]:
        """The logits and bottom-up maps of several heads, which have the options of this one, for the same features."""
        return [head(features, maps="bottom_up" if self.departs else False) for head in heads]

    def extra_repr(self) -> str:
        return f"in_channels={self.in_channels}, num_classes={self.num_classes}, dropout={self.dropout}"

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws the initial weights, from `generator` if one is given."""
        raise AssertionError(f"{type(self).__name__} must define reset_parameters")

    def learning_rate(self, optimizer: str) -> float:
        """The default peak learning rate on frozen, standardised features, for "adamw" or "sgd"."""
        return self.learning_rates[optimizer]

    def wanted(self, maps: Maps) -> slice | list[int]:
        """The index of the classes whose maps are asked for.

        Raises:
            ValueError: there is no class of that number.
        """
        if isinstance(maps, bool | str):
            return slice(None)
        numbers = [int(number) for number in maps]
        if not all(0 <= number < self.num_classes for number in numbers):
            raise ValueError(f"maps is {numbers}; classes are numbered from 0 to {self.num_classes - 1}")
        return numbers

    def channels_first(self, features: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Views features as `(B, C, N)`, without a copy for NCHW, NHWC (channels_last) and tokens.

        Clips are copied unless their channels are contiguous in memory.

        Returns:
            The view, and the shape of the positions: `(H, W)`, `(N,)` for tokens, `(T, H, W)` for clips.

        Raises:
            ValueError: the features do not have 3 or 4 axes (or 5, with `over_time`), or not `in_channels` channels.
        """
        if features.ndim == 4:
            x, grid = features.flatten(2), tuple(features.shape[2:])
        elif features.ndim == 3:
            x, grid = features.transpose(1, 2), (features.shape[1],)
        elif features.ndim == 5 and self.over_time:
            x = features.movedim(2, -1)
            x, grid = x.flatten(1, 3).transpose(1, 2), tuple(x.shape[1:4])
        else:
            clips = ", or (B, T, C, H, W)" if self.over_time else ""
            raise ValueError(f"features must be (B, C, H, W) or (B, N, C){clips}, not of shape {tuple(features.shape)}")
        if x.shape[1] != self.in_channels:
            raise ValueError(
                f"features of shape {tuple(features.shape)} have {x.shape[1]} channels, this head was built for "
                f"{self.in_channels}: build it with in_channels={x.shape[1]}, or pass (B, C, H, W) or (B, N, C)"
            )
        if x.shape[2] == 0:
            raise ValueError(f"features of shape {tuple(features.shape)} have no positions to pool")
        return x, grid


def project(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Applies a linear map at every position, `(B, C, N)`, `(P, C)` -> `(B, P, N)`, without copying x.

    With contiguous channels (NHWC, tokens) this is one matrix product over all positions of the batch; otherwise it is
    one product per image.
    """
    if channels_contiguous(x):
        return F.linear(x.transpose(1, 2), weight, bias).transpose(1, 2)
    x, weight = cast(x, weight)
    maps = ProjectEach.forward(x, weight) if torch.compiler.is_exporting() else ProjectEach.apply(x, weight)
    return maps if bias is None else maps + bias[:, None]


class ProjectEach(torch.autograd.Function):
    """The product `X_i W^T` for every image, `(B, C, N)`, `(P, C)` -> `(B, P, N)`.

    Autograd would compute the gradient of the weights for every image, `(B, P, C)`, and then add them up, or copy the
    features into another layout. Here every image's product is added to one matrix.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return torch.bmm(weight.expand(x.shape[0], -1, -1), x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, dmaps: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            dx = torch.bmm(weight.t().expand(x.shape[0], -1, -1), dmaps)
        if ctx.needs_input_grad[1]:
            dweight = torch.addbmm(torch.zeros_like(weight), dmaps, x.transpose(1, 2))
        return dx, dweight


def weighted_mean(x: Tensor, maps: Tensor) -> Tensor:
    """Features averaged with weights, `(B, C, N)`, `(B, P, N)` -> `(B, P, C)`: `z_p = 1/N * sum_i h_pi x_i`."""
    maps = maps / x.shape[2]  # first, because sums over positions can exceed half precision
    if channels_contiguous(x):
        return torch.bmm(maps, x.transpose(1, 2))
    return torch.bmm(x, maps.transpose(1, 2)).transpose(1, 2)


def positive_norms(x: Tensor, dim: int) -> Tensor:
    """Euclidean norms along an axis, which keeps length 1; they can be divided by, also where they are 0."""
    return torch.linalg.vector_norm(x, dim=dim, keepdim=True).clamp_min(SMALLEST_NORM)


def cast(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Casts both to the data type of autocast, where it is on: custom autograd functions do not do so by themselves."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind) or x.dtype == torch.float64:  # autocast does not cast float64
        return x, weight
    dtype = torch.get_autocast_dtype(kind)
    return x.to(dtype), weight.to(dtype)


def channels_contiguous(x: Tensor) -> bool:
    """Whether the channels of a `(B, C, N)` view are contiguous in memory, as in NHWC and in tokens."""
    return x.stride(1) == 1


def on_grid(maps: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Gives maps `(B, ..., N)` the shape of the positions: `(B, ..., H, W)`, or `(B, ..., N)` for tokens.

    Maps of clips get the time axis after the batch axis, `(B, T, ..., H, W)`.
    """
    maps = maps.unflatten(-1, grid)
    return maps.movedim(-3, 1) if len(grid) == 3 else maps


def sum_of_terms(
    logits: Tensor, top_down: Tensor, bottom_up: Tensor, grid: tuple[int, ...], pose: Tensor | None = None
) -> Pooled:
    """The output with maps `(B, P, K, N)` and `(B, P, 1 or K, N)` of a score that is the mean of `sum_p t_p h_p`."""
    combined = (top_down * bottom_up).sum(1) / top_down.shape[-1]
    return Pooled(logits, on_grid(top_down, grid), on_grid(bottom_up, grid), on_grid(combined, grid), pose)


def rows(parameter: Tensor | None, wanted: slice | list[int]) -> Tensor | None:
    """The entries of the classes in a bias `(K,)`, if there is one."""
    return None if parameter is None else parameter[wanted]


def first_order_maps(logits: Tensor, top_down: Tensor, grid: tuple[int, ...]) -> Pooled:
    """The output with maps of a score that is the mean of `top_down (B, K, N)`, so that the bottom-up map is 1."""
    count = top_down.shape[2]
    top_down = on_grid(top_down, grid).unsqueeze(1)
    return Pooled(logits, top_down, torch.ones_like(top_down[:, :, :1]), top_down[:, 0] / count)
