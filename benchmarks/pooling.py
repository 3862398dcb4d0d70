"""Time of every head, forward and forward + backward, against average pooling + linear and the K-channel-map order.

    python benchmarks/pooling.py                       a table on standard output
    python benchmarks/pooling.py --json out.json       the same as JSON
    python benchmarks/pooling.py --markdown page.md    the page of docs/benchmarks

All heads run in turn within each round and the median over rounds is reported, so that a busy machine slows all of them
alike; every figure is to be read against average pooling + linear of the same run. Backward is to the features
and to the parameters.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnpool.pooling import AttentionalPooling, AveragePooling, MaxPooling, PoseRegularizedPooling

LAYOUTS = ("NCHW", "NHWC", "tokens")
REFERENCE = "average pooling + linear (plain torch)"
PASSES = ("forward", "forward + backward")


@dataclass(frozen=True)
class Sizes:
    """B, C, the side of the map and K."""

    batch: int = 32
    channels: int = 2048
    side: int = 14
    classes: int = 393

    def __str__(self) -> str:
        return f"B={self.batch}, C={self.channels}, {self.side}x{self.side} positions, K={self.classes}, float32"


class Plain(nn.Module):
    """What a network ends with today: mean over positions, `nn.Linear`."""

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


def heads(sizes: Sizes) -> dict[str, nn.Module]:
    c, k = sizes.channels, sizes.classes
    return {
        REFERENCE: Plain(c, k),
        "average": AveragePooling(c, k),
        "max": MaxPooling(c, k),
        "attentional, rank 1": AttentionalPooling(c, k),
        "attentional, rank 1, softmax": AttentionalPooling(c, k, activation="softmax"),
        "attentional, rank 2": AttentionalPooling(c, k, rank=2),
        "attentional, rank 5": AttentionalPooling(c, k, rank=5),
        "attentional, rank 1, K maps first (released order)": MapsFirst(c, k),
        "attentional, rank 1, per class": AttentionalPooling(c, k, per_class=True),
        "pose": PoseRegularizedPooling(c, k),
    }


def make_features(sizes: Sizes, layout: str) -> Tensor:
    x = torch.rand(sizes.batch, sizes.channels, sizes.side, sizes.side, generator=torch.Generator().manual_seed(0))
    if layout == "NHWC":
        return x.contiguous(memory_format=torch.channels_last)
    return x.flatten(2).transpose(1, 2).contiguous() if layout == "tokens" else x


def step(head: nn.Module, features: Tensor, backward: bool) -> Callable[[], None]:
    """One pass; gradients are made anew each time, as after `zero_grad()`."""
    parameters = list(head.parameters())

    def forward() -> None:
        with torch.no_grad():
            head(features)

    def both() -> None:
        out = head(features)
        logits = out if isinstance(out, Tensor) else out.logits
        loss = logits.sum() if isinstance(out, Tensor) or out.pose is None else logits.sum() + out.pose.sum()
        torch.autograd.grad(loss, [features, *parameters])

    return both if backward else forward


def measure(sizes: Sizes, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Median milliseconds by head, layout and pass."""
    made = heads(sizes)
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in made}
    for layout in LAYOUTS:
        features = make_features(sizes, layout).requires_grad_()
        steps = {
            (name, which): step(head, features, which != PASSES[0]) for name, head in made.items() for which in PASSES
        }
        times: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
        for turn in range(rounds + 1):  # the first is for warming up
            for key, run in steps.items():
                start = time.perf_counter()
                run()
                if turn:
                    times[key].append(1e3 * (time.perf_counter() - start))
        print(f"{layout}: {rounds} rounds done", file=sys.stderr)
        for (name, which), values in times.items():
            found[name].setdefault(layout, {})[which] = statistics.median(values)
    return found


def machine() -> dict[str, object]:
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "architecture": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown: milliseconds, and in brackets how many times average pooling + linear that is."""
    lines = [
        "| head | " + " | ".join(f"{layout} {which}" for layout in LAYOUTS for which in PASSES) + " |",
        "|---|" + "---:|" * (len(LAYOUTS) * len(PASSES)),
    ]
    for name, layouts in found.items():
        cells = []
        for layout in LAYOUTS:
            for which in PASSES:
                value, base = layouts[layout][which], found[REFERENCE][layout][which]
                cells.append(f"{value:.1f} ({value / base:.1f}x)")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


PAGE = """# Time of the heads

Made by `{command}`. Medians of {rounds} interleaved rounds, in milliseconds a batch; in brackets, how many times
average pooling + linear that is.
{sizes}. Backward goes to the features and to the parameters.
Machine: {cores} cores ({architecture}, {instructions}), {threads} threads, torch {torch}, Python {python}.

{table}

"K maps first" makes the class maps `t = X A + alpha` of all K classes, multiplies them with `h` and averages: the order
of the released code. `AttentionalPooling` pools first and classifies after, which is the same number (Eq. 6 and 8 of
the paper).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--markdown", type=Path, help="write a page with the table to this file")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="small sizes, only to see that it works")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes = Sizes(2, 32, 4, 5) if options.quick else Sizes()
    found = measure(sizes, options.rounds)
    print(f"{sizes}, {options.threads} threads, milliseconds (times average pooling + linear)\n\n{table(found)}")
    if options.json:
        result = {"sizes": asdict(sizes), "rounds": options.rounds, "machine": machine(), "milliseconds": found}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        command = "python " + " ".join(sys.argv)
        page = PAGE.format(command=command, rounds=options.rounds, sizes=sizes, table=table(found), **machine())
        options.markdown.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
