"""Time and memory of every head, forward and forward + backward, in every layout, beside what people use today."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from attnpool.evaluation.tables import markdown_table
from attnpool.experiments.arguments import command_line, require_positive
from attnpool.experiments.benchmark.heads import LAYOUTS, LIMITS, PASSES, REFERENCE, Entry, Sizes, catalogue, families
from attnpool.experiments.benchmark.measure import (
    choose_device,
    interleaved,
    machine,
    peak_memory,
    ratio,
    torch_threads,
)
from attnpool.experiments.benchmark.passes import COMPILED, make_features, passes
from attnpool.experiments.benchmark.report import Benchmark, require_free_names
from attnpool.progress import bar

QUICK = Sizes(2, 32, 4, 5)
ROUNDS, QUICK_ROUNDS = 7, 2


PAGE = """# Speed and memory of the heads

Made by `{command}`. {title}.
Medians of {rounds} rounds in which all heads take turns. In brackets: how many times average pooling + linear that is,
the median over the rounds. Backward goes to the features and to the parameters.
Machine: {machine}.

![Forward + backward of every head](pooling.png)

## Milliseconds a batch

{times}

## Most memory at one time, MiB

Besides the features and the weights: the peak of what PyTorch's allocator had given out during a pass. A backward pass
holds at least the gradient of the features.

{memory}
{left_out}{promised}
"K maps first" makes the class maps `t = X A + alpha` of all K classes, multiplies them with `h` and averages: the order
of the released code. `AttentionalPooling` pools first and classifies after, which is the same number (Eq. 6 and 8 of
the paper), and writes the gradient of the features once, as a product of low rank an image.
"""


@dataclass(frozen=True)
class PoolingBenchmark(Benchmark):
    """Time and memory of heads."""

    name: ClassVar[str] = "pooling"
    template: ClassVar[str] = PAGE
    promises: ClassVar[tuple[Sequence[str], str]] = (
        ("head", "against", "", "times, at most", "measured", "holds"),
        "lllrrl",
    )

    def find(self, head: str, layout: str, which: str) -> dict[str, Any] | None:
        """The figures of a head in one layout and pass."""
        for row in self.results["rows"]:
            if (row["head"], row["layout"], row["pass"]) == (head, layout, which):
                return row
        return None

    def table(self, value: Literal["ms", "peak_mib"]) -> str:
        """Markdown of a value, and in brackets how many times that of average pooling + linear it is."""
        columns = [(layout, which) for layout in self.results["layouts"] for which in PASSES]
        rows = []
        for name in dict.fromkeys(row["head"] for row in self.results["rows"]):
            cells = [name]
            for at in columns:
                row, base = self.find(name, *at), self.find(REFERENCE, *at)
                assert base is not None
                if row is None:  # a layout that it does not take
                    cells.append("–")
                    continue
                times = row["ratio"] if value == "ms" else row[value] / base[value]
                cells.append(f"{row[value]:.1f} ({times:.{1 if times < 100 else 0}f}x)")
            rows.append(cells)
        return "\n".join(markdown_table(["head", *(f"{layout} {which}" for layout, which in columns)], rows))

    def promise(self, limit: Mapping[str, Any]) -> list[str]:
        where = f"{limit['layout']} {limit['pass']}"
        return [limit["head"], limit["against"], where, f"{limit['most']:.2f}", f"{limit['measured']:.2f}"]

    def parts(self) -> list[str]:
        about = self.results
        return [
            f"{about['title']}; milliseconds (times {REFERENCE}), medians of {about['rounds']} rounds",
            self.table("ms"),
            f"Most memory at one time, MiB (times {REFERENCE})\n\n{self.table('peak_mib')}",
            "\n".join(f"{name}: left out, {reason}" for name, reason in about["left_out"].items()),
        ]

    def page_parts(self) -> Mapping[str, Any]:
        left_out = self.results["left_out"].items()
        return {
            "times": self.table("ms"),
            "memory": self.table("peak_mib"),
            "left_out": "".join(f"\n`{name}` is left out: {reason}.\n" for name, reason in left_out),
        }

    def plotted(self) -> tuple[dict[str, dict[str, float]], dict[str, bool], str]:
        rows = [row for row in self.results["rows"] if row["pass"] == PASSES[1]]
        values = {
            layout: {row["head"]: row["ratio"] for row in rows if row["layout"] == layout}
            for layout in self.results["layouts"]
        }
        return values, {row["head"]: row["ours"] for row in rows}, f"forward + backward, times {REFERENCE}"


def benchmark_pooling(
    *,
    heads: Sequence[str] = (),
    layouts: Sequence[Literal["NCHW", "NHWC", "tokens"]] = LAYOUTS,
    device: Literal["cpu", "cuda"] = "cpu",
    compile: Sequence[str] | None = None,
    quick: bool = False,
    rounds: int | None = None,
    threads: int | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> PoolingBenchmark:
    """Times every head, and measures the memory that it holds at one time.

    Average pooling + linear is always among the heads: the others are compared with it.

    Args:
        heads: heads to time: names of poolings, or timm for its attention poolings (default: all).
        layouts: memory layouts of the features.
        device: where the heads run.
        compile: heads that are also timed compiled by inductor; without a name all heads that are timed
            (default: none).
        quick: small sizes, only to see that it works.
        rounds: rounds in which all heads take turns (default: 7; with quick 2).
        threads: threads of PyTorch (default: as many as it uses by itself).
        out: folder for the figures, pooling.json, pooling.md and pooling.png (default: they are not written).
        progress: show a progress bar.

    Raises:
        ValueError: an unknown head or layout, no such device, or a number that is less than 1.
    """
    sizes = QUICK if quick else Sizes()
    turns = rounds if rounds is not None else QUICK_ROUNDS if quick else ROUNDS
    require_positive({"rounds": turns})
    for layout in layouts:
        if layout not in LAYOUTS:
            raise ValueError(f"layouts {layout}: there is no such layout; use some of {', '.join(LAYOUTS)}")
    require_free_names(out, PoolingBenchmark.name)
    entries, left_out = catalogue(sizes, tuple(heads))
    compiled = () if compile is None else tuple(compile or heads or families())
    faster = {entry.name for entry in catalogue(sizes, compiled)[0] if compiled}
    place = choose_device(device)
    rows: list[dict[str, Any]] = []
    limits: list[dict[str, Any]] = []
    with torch_threads(threads), torch.random.fork_rng([place] if device == "cuda" else []):
        torch.manual_seed(0)
        made = {entry.name: entry.build().to(place) for entry in entries}
        steps = sum(1 + (e.name in faster) for e in entries for layout in layouts if layout in e.layouts) * len(PASSES)
        with (
            bar(steps * (turns + 2), "benchmark", "passes", hidden=not progress) as shown,
            torch._dynamo.config.patch(recompile_limit=1000),  # variants and layouts of a head share its code
        ):
            for layout in layouts:
                features = make_features(sizes, layout).to(place).requires_grad_()
                there = [entry for entry in entries if layout in entry.layouts]
                timed = passes(there, made, features, faster)
                times = interleaved(
                    {f"{name}\n{which}": step for (name, which), step in timed.items()},
                    turns,
                    place,
                    progress=lambda: shown.update(1),
                )
                found = {at: times["\n".join(at)] for at in timed}
                for at, step in timed.items():
                    rows.append(figures(*at, layout, there, made, found, peak_memory(step, place)))
                    shown.update(1)
                if sizes == Sizes():
                    limits += held(layout, found)
        about = machine(place)
    arguments = {
        "quick": (quick, False),
        "rounds": (rounds, None),
        "threads": (threads, None),
        "heads": (heads, ()),
        "layouts": (layouts, LAYOUTS),
        "device": (device, "cpu"),
        "compile": (compile, None),
    }
    benchmark = PoolingBenchmark(
        {
            "title": str(sizes),
            "sizes": asdict(sizes),
            "rounds": turns,
            "layouts": list(layouts),
            "machine": about,
            "rows": rows,
            "left_out": left_out,
            "limits": limits,
        },
        command_line("benchmark pooling", arguments),
    )
    if out is not None:
        benchmark.save(Path(out))
    return benchmark


def figures(
    name: str,
    which: str,
    layout: str,
    entries: Sequence[Entry],
    made: dict[str, nn.Module],
    times: dict[tuple[str, str], list[float]],
    peak: int,
) -> dict[str, Any]:
    """One row of the results."""
    eager = name.removesuffix(COMPILED)
    (entry,) = (entry for entry in entries if entry.name == eager)
    return {
        "head": name,
        "family": entry.family,
        "ours": entry.ours,
        "parameters": sum(parameter.numel() for parameter in made[eager].parameters()),
        "layout": layout,
        "pass": which,
        "ms": statistics.median(times[name, which]),
        "ratio": ratio(times[name, which], times[REFERENCE, which]),
        "peak_mib": peak / 2**20,
    }


def held(layout: str, times: dict[tuple[str, str], list[float]]) -> list[dict[str, Any]]:
    """What was promised of heads that were timed, and what was measured."""
    found = []
    for limit in LIMITS:
        mine, theirs = times.get((limit.head, limit.which)), times.get((limit.against, limit.which))
        if limit.layout == layout and mine and theirs:
            measured = ratio(mine, theirs)
            found.append(
                {
                    "head": limit.head,
                    "against": limit.against,
                    "layout": layout,
                    "pass": limit.which,
                    "most": limit.most,
                    "measured": measured,
                    "holds": measured <= limit.most,
                }
            )
    return found
