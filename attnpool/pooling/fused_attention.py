"""Attention with a backward pass of its own, which reads the features twice and writes their gradient once.

Autograd would compute the gradient of the features as a sum of two tensors of their size, in another memory layout. For
every image it is one low-rank product, so it is computed as one here, in the memory layout of the features.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from attnpool.pooling.base import cast, channels_contiguous

Activation = Literal["relu", "sigmoid", "softmax"]


def attend(x: Tensor, b: Tensor, beta: Tensor | None, activation: Activation | None) -> tuple[Tensor, Tensor]:
    """Bottom-up maps and the features pooled with them: `h = act(X b + beta)`, `z_p = 1/N * sum_i h_pi x_i` (Eq. 6).

    Args:
        x: features `(B, C, N)`, a view of any layout.
        b: `(P, C)`.
        beta: `(P,)`, or `(P, N)` with a bias for every position, or None.
        activation: see `AttentionalPooling`.

    Returns:
        `h (B, P, N)` and `z (B, P, C)`. Both can be differentiated any number of times.
    """
    x, b = cast(x, b)
    if beta is not None:
        beta = (beta if beta.ndim == 2 else beta[:, None]).to(b.dtype)
    if torch.compiler.is_exporting():  # an exported program needs no gradients
        return Attend.forward(x, b, beta, activation)
    return Attend.apply(x, b, beta, activation)


class Attend(torch.autograd.Function):
    """The autograd function behind `attend`.

    With `ds = act'(dh + X dz / N)` the gradient of an image's features is `[h, ds] [dz / N; b]`. Every product is one
    of an image's features with a few rows, so that features of any layout are read without a copy.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, b: Tensor, beta: Tensor | None, activation: Activation | None) -> tuple[Tensor, Tensor]:
        s = torch.bmm(b.expand(x.shape[0], -1, -1), x)
        h = activate(s if beta is None else s + beta, activation).to(s.dtype)
        return h, torch.bmm(h, x.transpose(1, 2)) / x.shape[2]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, b, beta, ctx.activation = inputs
        ctx.everywhere = beta is not None and beta.shape[1] == x.shape[2]
        ctx.save_for_backward(x, b, output[0])

    @staticmethod
    def backward(ctx: Any, dh: Tensor, dz: Tensor) -> tuple[Tensor | None, ...]:
        x, b, h = ctx.saved_tensors
        dz = dz.contiguous() / x.shape[2]  # (strided, it would be multiplied image by image)
        ds = slope(dh + torch.bmm(dz, x), h, ctx.activation)
        dx = db = dbeta = None
        if ctx.needs_input_grad[0]:
            maps, rows = torch.cat([h, ds], 1), torch.cat([dz, b.expand(len(dz), -1, -1)], 1)
            if channels_contiguous(x):
                dx = torch.bmm(maps.transpose(1, 2), rows).transpose(1, 2)
            else:
                dx = torch.bmm(rows.transpose(1, 2), maps)
        if ctx.needs_input_grad[1]:
            db = torch.bmm(ds, x.transpose(1, 2)).sum(0)
        if ctx.needs_input_grad[2]:
            dbeta = ds.sum(0) if ctx.everywhere else ds.sum((0, 2)).unsqueeze(1)
        return dx, db, dbeta, None


def activate(maps: Tensor, activation: Activation | None) -> Tensor:
    """Applies a bottom-up activation, scaled so that a map without preferences is 1 everywhere."""
    if activation is None:
        return maps
    if activation == "relu":
        return F.relu(maps)
    if activation == "sigmoid":
        return 2 * torch.sigmoid(maps)
    return torch.softmax(maps, -1) * maps.shape[-1]


def slope(dh: Tensor, h: Tensor, activation: Activation | None) -> Tensor:
    """The gradient of the input of `activate`, from the gradient `dh` of its result `h (..., N)`."""
    if activation is None:
        return dh
    if activation == "relu":
        return dh * (h > 0)
    if activation == "sigmoid":
        return dh * h * (1 - h / 2)
    return h * (dh - (h * dh).mean(-1, keepdim=True))
