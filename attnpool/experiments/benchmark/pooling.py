"""Time and memory of every head, forward and forward + backward, in every layout, beside what people use today."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attnpool.experiments.benchmark.heads import LAYOUTS, LIMITS, PASSES, REFERENCE, Entry, Sizes, catalogue
from attnpool.experiments.benchmark.measure import (
    choose_device,
    interleaved,
    machine,
    machine_line,
    peak_memory,
    ratio,
    threads,
)
from attnpool.experiments.benchmark.passes import COMPILED, make_features, passes
from attnpool.experiments.paper.table_text import piped
from attnpool.explain.plots import ratio_plot
from attnpool.files import write_bytes, write_json, write_text
from attnpool.progress import bar

QUICK = Sizes(2, 32, 4, 5)


@dataclass(frozen=True)
class PoolingBenchmark:
    """The figures; `results` is what is written to pooling.json."""

    results: dict[str, Any]

    def find(self, head: str, layout: str, which: str) -> dict[str, Any] | None:
        """The figures of a head in one layout and pass."""
        for row in self.results["rows"]:
            if (row["head"], row["layout"], row["pass"]) == (head, layout, which):
                return row
        return None

    def table(self, value: str) -> str:
        """Markdown of a value, "ms" or "peak_mib", and in brackets how many times average pooling + linear it is."""
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
        return "\n".join(piped(["head", *(f"{layout} {which}" for layout, which in columns)], rows))

    def limits(self) -> str:
        """Markdown of what was promised and what was measured; "" if nothing that was promised was measured."""
        lines = [
            f"| {item['head']} | {item['against']} | {item['layout']} {item['pass']} | {item['most']:.2f} | "
            f"{item['measured']:.2f} | {'yes' if item['holds'] else 'no'} |"
            for item in self.results["limits"]
        ]
        head = ["| head | against | | times, at most | measured | holds |", "|---|---|---|---:|---:|---|"]
        return "\n".join(head + lines) if lines else ""

    def text(self) -> str:
        """What the command prints."""
        left_out = [f"{name}: left out, {reason}" for name, reason in self.results["left_out"].items()]
        about = self.results
        head = f"{about['title']}; milliseconds (times {REFERENCE}), medians of {about['rounds']} rounds"
        memory = f"Most memory at one time, MiB (times {REFERENCE})\n\n{self.table('peak_mib')}"
        return "\n\n".join(
            part for part in (head, self.table("ms"), memory, "\n".join(left_out), self.limits()) if part
        )

    def page(self, command: str) -> str:
        """The page of the documentation."""
        left_out = "".join(f"\n`{name}` is left out: {reason}.\n" for name, reason in self.results["left_out"].items())
        promised = f"\n## What was promised\n\n{self.limits()}\n" if self.limits() else ""
        return PAGE.format(
            command=command,
            title=self.results["title"],
            rounds=self.results["rounds"],
            machine=machine_line(self.results["machine"]),
            times=self.table("ms"),
            memory=self.table("peak_mib"),
            left_out=left_out,
            promised=promised,
        )

    def save(self, out: Path, command: str) -> None:
        """Writes pooling.json, pooling.png and pooling.md."""
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "pooling.json", self.results)
        write_text(out / "pooling.md", self.page(command))
        write_bytes(out / "pooling.png", self.plot())

    def plot(self) -> bytes:
        """A PNG: forward + backward of every head, as times of average pooling + linear."""
        rows = [row for row in self.results["rows"] if row["pass"] == PASSES[1]]
        heads = {row["head"]: row["ours"] for row in rows}
        values = {
            layout: {row["head"]: row["ratio"] for row in rows if row["layout"] == layout}
            for layout in self.results["layouts"]
        }
        return ratio_plot(values, heads, f"forward + backward, times {REFERENCE}")


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


def benchmark_pooling(
    *,
    sizes: Sizes | None = None,
    rounds: int = 7,
    thread_count: int | None = None,
    heads: Sequence[str] = (),
    layouts: Sequence[str] = LAYOUTS,
    device: str = "cpu",
    compiled: Sequence[str] = (),
    progress: bool = True,
) -> PoolingBenchmark:
    """Times every head, and measures the memory that it holds at one time.

    Args:
        sizes: of the features; those of the issue by default.
        rounds: in which all heads take turns.
        thread_count: of PyTorch; as many as it uses by default.
        heads: keys of POOLINGS, or "timm"; all by default. Average pooling + linear is always there.
        layouts: of the features, some of "NCHW", "NHWC" and "tokens".
        device: "cpu" or "cuda".
        compiled: those of the heads that are also timed compiled by inductor.
        progress: show a progress bar.

    Raises:
        ValueError: an unknown head or layout, no such device, or a number that is less than 1.
    """
    sizes = sizes or Sizes()
    if rounds < 1:
        raise ValueError(f"--rounds is {rounds}; give at least 1")
    for layout in layouts:
        if layout not in LAYOUTS:
            raise ValueError(f"--layouts {layout}: there is no such layout; use some of {', '.join(LAYOUTS)}")
    entries, left_out = catalogue(sizes, tuple(heads))
    faster = {entry.name for entry in catalogue(sizes, tuple(compiled))[0] if compiled}
    place = choose_device(device)
    rows: list[dict[str, Any]] = []
    limits: list[dict[str, Any]] = []
    with threads(thread_count), torch.random.fork_rng([place] if device == "cuda" else []):
        torch.manual_seed(0)
        made = {entry.name: entry.build().to(place) for entry in entries}
        steps = sum(1 + (e.name in faster) for e in entries for layout in layouts if layout in e.layouts) * len(PASSES)
        with (
            bar(steps * (rounds + 2), "benchmark", "passes", hidden=not progress) as shown,
            torch._dynamo.config.patch(recompile_limit=1000),  # variants and layouts of a head share its code
        ):
            for layout in layouts:
                features = make_features(sizes, layout).to(place).requires_grad_()
                there = [entry for entry in entries if layout in entry.layouts]
                timed = passes(there, made, features, faster)
                times = interleaved(
                    {f"{name}\n{which}": step for (name, which), step in timed.items()},
                    rounds,
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
    return PoolingBenchmark(
        {
            "title": str(sizes),
            "sizes": asdict(sizes),
            "rounds": rounds,
            "layouts": list(layouts),
            "machine": about,
            "rows": rows,
            "left_out": left_out,
            "limits": limits,
        }
    )


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
