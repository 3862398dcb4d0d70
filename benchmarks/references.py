"""What people use today for second-order pooling, written from the papers' equations, to be timed beside ours.

python benchmarks/references.py                    ratios on standard output; ours and theirs in turn in each round
python benchmarks/references.py --only covariance --rounds 15
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attnpool.pooling import CompactBilinearPooling, CovariancePooling


def covariance(x: Tensor) -> Tensor:
    """`X J X^T` with the centring matrix `J = (I - 1/N) / N` written out, `(B, C, N)` -> `(B, C, C)`."""
    count = x.shape[2]
    centring = torch.eye(count, dtype=x.dtype, device=x.device) / count - 1 / count**2
    return x.bmm(centring.expand(x.shape[0], -1, -1)).bmm(x.transpose(1, 2))


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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
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


def public_covariance(x: Tensor, iterations: int = 5) -> Tensor:
    """The steps of iSQRT-COV: `(B, C, N)` -> the upper triangle of the root, `(B, C (C + 1) / 2)`."""
    root = NewtonSchulzRoot.apply(covariance(x), iterations)
    size = x.shape[1]
    index = torch.ones(size, size, device=x.device).triu().flatten().nonzero()[:, 0]
    return root.flatten(1)[:, index]


def public_compact_bilinear(x: Tensor, bins: Tensor, signs: Tensor, dim: int) -> Tensor:
    """The usual order of compact bilinear pooling: back from the frequencies at every position, and only then summed.

    `(B, N, C)` -> `(B, D)`; bins and signs `(2, C)`. (Some implementations make the sketches by a product with a dense
    `C x D` matrix, which takes longer than this.)
    """
    spectra = []
    for at, sign in zip(bins, signs, strict=True):
        sketch = x.new_zeros(*x.shape[:2], dim).index_add(2, at, x * sign)
        spectra.append(torch.fft.rfft(sketch))
    return torch.fft.irfft(spectra[0] * spectra[1], n=dim).sum(1)


def interleaved(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each step, all in turn in every round, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, run in steps.items():
            start = time.perf_counter()
            run()
            if turn:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def passes(name: str, run: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Callable[[], object]]:
    """A forward pass without gradients, and one with the gradient of x."""

    def forward() -> None:
        with torch.no_grad():
            run(x)

    def both() -> None:
        (torch.autograd.grad(run(x).square().sum(), x))

    return {f"{name}, forward": forward, f"{name}, forward + backward": both}


def pairs(only: str, batch: int) -> dict[str, dict[str, Callable[[], object]]]:
    """Ours and the public form of each pooling, up to the pooled vector, on the same features."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    if only in ("covariance", "all"):
        x = torch.rand(batch, 256, 196, generator=generator).requires_grad_()
        ours = CovariancePooling(256, 2)
        found["covariance, C=256, 14x14"] = passes("ours", ours.pooled, x) | passes("public", public_covariance, x)
    if only in ("compact", "all"):
        x = torch.rand(batch, 196, 2048, generator=generator).requires_grad_()
        head = CompactBilinearPooling(2048, 2, dim=8192)
        found["compact bilinear, C=2048, 14x14, D=8192"] = passes(
            "ours", lambda x: head.pooled(x.transpose(1, 2)), x
        ) | passes("public", lambda x: public_compact_bilinear(x, head.bins, head.signs, 8192), x)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("covariance", "compact", "all"), default="all")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for title, steps in pairs(args.only, args.batch).items():
        found = interleaved(steps, args.rounds)
        print(f"{title}, B={args.batch}, {args.threads} threads, {args.rounds} rounds; milliseconds")
        for which in ("forward", "forward + backward"):
            ours, public = found[f"ours, {which}"], found[f"public, {which}"]
            print(f"  {which}: ours {ours:.1f}, public {public:.1f}, public / ours {public / ours:.2f}", flush=True)


if __name__ == "__main__":
    main()
