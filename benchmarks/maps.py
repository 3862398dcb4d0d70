"""What maps cost: the forward pass of every head with and without them.

    python benchmarks/maps.py --json docs/benchmarks/maps.json --page docs/benchmarks/maps.md

All take turns, so that a busy machine slows all alike; a figure is the median over the rounds of the ratio to the same
head's forward pass without maps.
"""

from __future__ import annotations

import argparse
import json
import statistics
from functools import partial
from pathlib import Path

import torch

from attnpool import POOLINGS
from attnpool.evaluation.tables import markdown_table
from attnpool.experiments.benchmark.heads import LARGEST
from attnpool.experiments.benchmark.measure import interleaved, machine, ratio, torch_threads
from attnpool.progress import bar

BATCH, CHANNELS, SIDE = 32, 1280, 14
CPU = torch.device("cpu")
ASKED = {"one class": [0], "two classes": [0, 1], "all classes": True}
PAGE = """# What maps cost

Made by `python benchmarks/maps.py --json docs/benchmarks/maps.json --page docs/benchmarks/maps.md`. Forward pass
without gradients, {batch} images of {side} x {side} positions and {channels} channels, channels last, float32, on
one thread. Milliseconds without maps, and how many times as long it takes with them: `head(x, maps=[0])`,
`maps=[0, 1]` and `maps=True`. Medians of {rounds} rounds in which all take turns.

{tables}

Maps of all classes are K maps: where the scores come from pooled features, every position has to be classified, too.
So `maps=[3, 5]` returns the maps of the classes that are looked at, and the work is less by as much.
"""


def measure(classes: int, rounds: int) -> list[dict[str, float | str]]:
    x = torch.rand(BATCH, CHANNELS, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    found: list[dict[str, float | str]] = []
    names = [name for name in POOLINGS if name != "bilinear" or 4 * classes * CHANNELS**2 <= LARGEST]
    shown = bar(len(names), f"{classes} classes", "heads")
    for name in names:
        head = POOLINGS[name](CHANNELS, classes).eval()
        steps = {"none": partial(head, x)} | {asked: partial(head, x, maps=maps) for asked, maps in ASKED.items()}
        times = interleaved(steps, rounds, CPU)
        row: dict[str, float | str] = {"head": name, "ms": statistics.median(times["none"])}
        found.append(row | {asked: ratio(times[asked], times["none"]) for asked in ASKED})
        shown.update()
    shown.close()
    return found


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--classes", type=int, nargs="+", default=[14, 393])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--page", type=Path)
    args = parser.parse_args()
    with torch_threads(1):
        rows = {str(count): measure(count, args.rounds) for count in args.classes}
        results = {"rounds": args.rounds, "machine": machine(CPU), "classes": rows}
    tables = []
    for count, of_count in rows.items():
        cells = [[str(row["head"]), *(f"{row[name]:.1f}" for name in ("ms", *ASKED))] for row in of_count]
        table = "\n".join(markdown_table(["head", "ms", *ASKED], cells))
        tables.append(f"## {count} classes\n\n{table}")
    page = PAGE.format(batch=BATCH, side=SIDE, channels=CHANNELS, rounds=args.rounds, tables="\n\n".join(tables))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    if args.page:
        args.page.write_text(page, "utf-8")
    print(page)


if __name__ == "__main__":
    main()
