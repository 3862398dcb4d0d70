"""Second-order pooling up to the pooled vector, without a classifier, beside what people use today.

python benchmarks/references.py                    ratios on standard output; ours and theirs in turn in each round
python benchmarks/references.py --only covariance --rounds 15
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from attnpool.benchmark.measure import interleaved
from attnpool.benchmark.references import usual_root, usual_sketch
from attnpool.pooling import CompactBilinearPooling, CovariancePooling


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
        found["covariance, C=256, 14x14"] = passes("ours", ours.pooled, x) | passes("public", usual_root, x)
    if only in ("compact", "all"):
        x = torch.rand(batch, 196, 2048, generator=generator).requires_grad_()
        head = CompactBilinearPooling(2048, 2, dim=8192)
        found["compact bilinear, C=2048, 14x14, D=8192"] = passes(
            "ours", lambda x: head.pooled(x.transpose(1, 2)), x
        ) | passes("public", lambda x: usual_sketch(x, head.bins, head.signs, 8192), x)
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
        times = interleaved(steps, args.rounds, torch.device("cpu"))
        found = {name: statistics.median(values) for name, values in times.items()}
        print(f"{title}, B={args.batch}, {args.threads} threads, {args.rounds} rounds; milliseconds")
        for which in ("forward", "forward + backward"):
            ours, public = found[f"ours, {which}"], found[f"public, {which}"]
            print(f"  {which}: ours {ours:.1f}, public {public:.1f}, public / ours {public / ours:.2f}", flush=True)


if __name__ == "__main__":
    main()
