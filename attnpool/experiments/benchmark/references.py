"""What people use today, written from the papers' equations and in their usual order, to be timed beside ours."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def tokens(features: Tensor) -> Tensor:
    """`(B, C, H, W)` or `(B, N, C)` as `(B, N, C)`."""
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features


class AverageAndLinear(nn.Module):
    """What a network ends with: mean over positions, `nn.Linear`."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features.mean(1) if features.ndim == 3 else features.mean((2, 3)))


class MapsFirst(nn.Module):
    """Rank-1 attention in the order of the released code: K top-down maps, times the saliency, averaged."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.top_down = nn.Conv2d(channels, classes, 1)
        self.bottom_up = nn.Conv2d(channels, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        if features.ndim == 4:
            return (self.top_down(features) * self.bottom_up(features)).mean((2, 3))
        t, h = (F.linear(features, part.weight.flatten(1), part.bias) for part in (self.top_down, self.bottom_up))
        return (t * h).mean(1)


class BothMaps(nn.Module):
    """Per-class attention whose 2 K maps come from one product with `[A|B]`."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(channels, 2 * classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        if features.ndim == 4:
            t, h = self.maps(features).chunk(2, 1)
            return (t * h).mean((2, 3))
        t, h = F.linear(features, self.maps.weight.flatten(1), self.maps.bias).chunk(2, 2)
        return (t * h).mean(1)


class UsualCompactBilinear(nn.Module):
    """Compact bilinear pooling in the usual order: back from the frequencies at every position, and only then summed.

    (Some implementations make the sketches by a product with a dense `C x D` matrix, which takes longer than this.)
    """

    bins: Tensor
    signs: Tensor

    def __init__(self, channels: int, classes: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("bins", torch.randint(dim, (2, channels), generator=generator))
        self.register_buffer("signs", 2.0 * torch.randint(2, (2, channels), generator=generator) - 1)
        self.linear = nn.Linear(dim, classes)

    def forward(self, features: Tensor) -> Tensor:
        x = tokens(features)
        return self.linear(usual_sketch(x, self.bins, self.signs, self.dim) / x.shape[1])


def usual_sketch(x: Tensor, bins: Tensor, signs: Tensor, dim: int) -> Tensor:
    """The sum of all positions' sketches, `(B, N, C)` -> `(B, D)`; bins and signs `(2, C)`."""
    empty = x.new_zeros(*x.shape[:2], dim)
    first, second = (torch.fft.rfft(empty.index_add(2, at, x * sign)) for at, sign in zip(bins, signs, strict=True))
    return torch.fft.irfft(first * second, n=dim).sum(1)


class UsualCovariance(nn.Module):
    """The steps of the public iSQRT-COV: 1x1 convolution, `X J X^T`, root, upper triangle, `nn.Linear`."""

    def __init__(self, channels: int, classes: int, dim: int, iterations: int = 5) -> None:
        super().__init__()
        self.iterations = iterations
        self.dim = min(dim, channels)
        self.reduce = nn.Conv2d(channels, dim, 1, bias=False) if channels > dim else None
        self.linear = nn.Linear(self.dim * (self.dim + 1) // 2, classes)

    def forward(self, features: Tensor) -> Tensor:
        if self.reduce is None:
            x = tokens(features).transpose(1, 2)
        elif features.ndim == 4:
            x = self.reduce(features).flatten(2)
        else:
            x = F.linear(features, self.reduce.weight.flatten(1)).transpose(1, 2)
        return self.linear(usual_root(x, self.iterations))


def usual_root(x: Tensor, iterations: int = 5) -> Tensor:
    """`(B, C, N)` -> the upper triangle of the root of `X J X^T`, `J = (I - 1/N) / N`, `(B, C (C + 1) / 2)`."""
    count, size = x.shape[2], x.shape[1]
    centring = torch.eye(count, dtype=x.dtype, device=x.device) / count - 1 / count**2
    covariance = x.bmm(centring.expand(x.shape[0], -1, -1)).bmm(x.transpose(1, 2))
    root = NewtonSchulzRoot.apply(covariance, iterations)
    index = torch.ones(size, size, device=x.device).triu().flatten().nonzero()[:, 0]
    return root.flatten(1)[:, index]


class NewtonSchulzRoot(torch.autograd.Function):
    """Square root of covariances with the gradient worked out by hand (iSQRT-COV, Eq. 3-5 and 8-12).

    Every product is a `bmm`, the identity is expanded to the batch; what the forward pass keeps is Y and Z of every
    iteration, from which the backward pass makes the products again.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, iterations: int) -> Tensor:
        size = matrix.shape[1]
        triple = 3 * torch.eye(size, dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
        trace = (matrix * triple / 3).sum((1, 2))[:, None, None]
        normal = matrix / trace
        middle = 0.5 * (triple - normal)
        ys, zs = [normal.bmm(middle)], [middle]
        for _ in range(1, iterations - 1):
            middle = 0.5 * (triple - zs[-1].bmm(ys[-1]))
            ys.append(ys[-1].bmm(middle))
            zs.append(middle.bmm(zs[-1]))
        last = 0.5 * ys[-1].bmm(triple - zs[-1].bmm(ys[-1]))
        ctx.save_for_backward(matrix, normal, trace, last, *ys, *zs)
        return last * trace.sqrt()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        matrix, normal, trace, last, *kept = ctx.saved_tensors
        ys, zs = kept[: len(kept) // 2], kept[len(kept) // 2 :]
        size = matrix.shape[1]
        triple = 3 * torch.eye(size, dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
        of_trace = (grad * last).sum((1, 2))[:, None, None] / (2 * trace.sqrt())
        grad = grad * trace.sqrt()
        y, z = ys[-1], zs[-1]
        of_y = 0.5 * (grad.bmm(triple - y.bmm(z)) - z.bmm(y).bmm(grad))
        of_z = -0.5 * y.bmm(grad).bmm(y)
        for y, z in zip(ys[-2::-1], zs[-2::-1], strict=True):
            right = triple - y.bmm(z)
            left = z.bmm(y)
            of_y, of_z = (
                0.5 * (of_y.bmm(right) - z.bmm(of_z).bmm(z) - left.bmm(of_y)),
                0.5 * (right.bmm(of_z) - y.bmm(of_y).bmm(y) - of_z.bmm(left)),
            )
        of_normal = 0.5 * (of_y.bmm(triple - normal) - of_z - normal.bmm(of_y))
        of_normal = of_normal.transpose(1, 2)
        inner = (of_normal * matrix).sum((1, 2))[:, None, None]
        return of_normal / trace + (of_trace - inner / trace**2) * triple / 3, None


class EfficientProbing(nn.Module):
    """Multi-query pooling in its reference form: all positions are projected, then each query pools its channels.

    `a_m = softmax_i(x_i . q_m / sqrt(C))`, `v_i = V x_i`, `z = [sum_i a_mi v_i[group m]]_m`, `score = W z + w`.
    """

    def __init__(self, channels: int, classes: int, queries: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, channels) / channels**0.5)
        self.values = nn.Linear(channels, channels, bias=False)
        self.linear = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        x = tokens(features)
        attention = torch.softmax(torch.matmul(x, self.queries.t()) / x.shape[2] ** 0.5, 1)  # (B, N, M)
        values = self.values(x).unflatten(2, (self.queries.shape[0], -1))  # (B, N, M, C / M)
        return self.linear(torch.einsum("bnm,bnmc->bmc", attention, values).flatten(1))


class TimmPooling(nn.Module):
    """An attention pool of timm's and `nn.Linear`.

    Args:
        kind: "latent" (a learned query, as in SigLIP), "2d" (as in CLIP's ResNets) or "rotary" (its relative with
            rotary positions); the last two take feature maps alone.
    """

    def __init__(self, channels: int, classes: int, side: int, kind: str) -> None:
        super().__init__()
        from timm.layers import AttentionPool2d, AttentionPoolLatent, RotAttentionPool2d

        self.of_tokens = kind == "latent"
        self.pool: nn.Module
        if self.of_tokens:
            self.pool = AttentionPoolLatent(channels, num_heads=max(channels // 64, 1))
        elif kind == "2d":
            self.pool = AttentionPool2d(channels, feat_size=side, head_dim=min(channels, 64))
        else:
            self.pool = RotAttentionPool2d(channels, ref_feat_size=side, head_dim=min(channels, 64))
        self.linear = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(self.pool(tokens(features) if self.of_tokens else features))
