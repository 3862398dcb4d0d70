"""Images a second of whole training steps, and of a head on cached features, against a plain timm + PyTorch loop."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from attnpool.evaluation.tables import markdown_table
from attnpool.experiments.arguments import command_line, require_positive
from attnpool.experiments.benchmark.measure import interleaved, machine, ratio, torch_threads
from attnpool.experiments.benchmark.report import Benchmark, require_free_names
from attnpool.experiments.benchmark.steps import (
    CACHED_STEPS,
    Repeated,
    TrainingSizes,
    dataset_of,
    head_step,
    images,
    plain_step,
    recognizer,
    repeated,
    stepper,
    stored,
    trainer,
)
from attnpool.progress import bar

PLAIN = "plain timm + PyTorch loop"
OURS = "attnpool, whole network"
FROZEN = "attnpool, head on a frozen backbone, no cache"
CACHED = "attnpool, head on cached features"
HEAD = "the head alone, forward + backward"
# Promises: parts of a step's time, and multiples of images a second.
MOST_OF_STEP, LEAST_OF_PLAIN, LEAST_OF_BACKBONE = 0.02, 0.97, 50.0


QUICK = TrainingSizes("resnet18", 32, 4, 5)
ROUNDS, QUICK_ROUNDS = 5, 2

PAGE = """# Speed of training

Made by `{command}`. {title}; random weights, which take the same time as trained ones.
Medians of {rounds} rounds in which all ways take a step in turn; the multiples are medians over the rounds.
Machine: {machine}.

![Images a second](training.png)

{table}

- *Plain*: `timm.create_model(...)`, cross-entropy, AdamW, the same batch of pixels, normalised in each step.
- *Whole network*: the steps of `attnpool train --no-freeze-backbone --pooling {pooling}`, everything that its loop does
  included, but for reading images: both loops have them in memory.
- *Frozen backbone, no cache*: the same with a backbone that is only run forward.
- *Cached features*: the steps of `attnpool train` on features of the store ({feature_shape} half-precision numbers an
  image, memory-mapped), reading included; the mean of {cached_steps} steps a round.
- *The head alone*: forward and backward of the head, gradients of the features included.
{promised}"""


@dataclass(frozen=True)
class TrainingBenchmark(Benchmark):
    """Speed of ways to train."""

    name: ClassVar[str] = "training"
    template: ClassVar[str] = PAGE
    promises: ClassVar[tuple[Sequence[str], str]] = (("", "promised", "measured", "holds"), "lrrl")

    def table(self) -> str:
        """Markdown, a line for each way of training."""
        header = ["", "milliseconds a step", "images/s", "times the plain loop"]
        rows = [
            [row["name"], f"{row['ms']:.1f}", f"{row['images_per_s']:.1f}", f"{row['ratio']:.2f}"]
            for row in self.results["rows"]
        ]
        return "\n".join(markdown_table(header, rows))

    def promise(self, limit: Mapping[str, Any]) -> list[str]:
        sign = "at most" if limit["most"] else "at least"
        return [limit["what"], f"{sign} {limit['limit']:g}", f"{limit['measured']:.4g}"]

    def parts(self) -> list[str]:
        about = self.results
        return [f"{about['title']}; medians of {about['rounds']} rounds", self.table()]

    def page_parts(self) -> Mapping[str, Any]:
        return {
            "feature_shape": " x ".join(str(length) for length in self.results["feature_shape"]),
            "table": self.table(),
            "cached_steps": CACHED_STEPS,
            "pooling": self.results["pooling"],
        }

    def plotted(self) -> tuple[dict[str, dict[str, float]], dict[str, bool], str]:
        rows = [row for row in self.results["rows"] if row["name"] != HEAD]
        values = {"images/s": {row["name"]: row["ratio"] for row in rows}}
        return values, {row["name"]: row["name"] != PLAIN for row in rows}, f"images a second, times {PLAIN}"


def benchmark_training(
    *,
    backbone: str | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    pooling: str = "attentional",
    quick: bool = False,
    rounds: int | None = None,
    threads: int | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> TrainingBenchmark:
    """Times steps of training through a backbone and on cached features, beside a plain timm + PyTorch loop.

    Args:
        backbone: network of timm that is trained, with random weights (default: resnet50; with quick resnet18).
        image_size: side of the images in pixels (default: 224; with quick 32).
        batch_size: images a step (default: 32; with quick 4).
        pooling: name of the pooling at the end of the network.
        quick: small sizes, only to see that it works.
        rounds: rounds in which all ways of training take turns (default: 5; with quick 2).
        threads: threads of PyTorch (default: as many as it uses by itself).
        out: folder for the figures, training.json, training.md and training.png (default: they are not written).
        progress: show a progress bar.

    Raises:
        ValueError: an unknown backbone or pooling, or a number that is less than 1.
    """
    usual = QUICK if quick else TrainingSizes()
    sizes = TrainingSizes(
        usual.backbone if backbone is None else backbone,
        usual.image_size if image_size is None else image_size,
        usual.batch if batch_size is None else batch_size,
        usual.classes,
    )
    require_free_names(out, TrainingBenchmark.name)
    turns = rounds if rounds is not None else QUICK_ROUNDS if quick else ROUNDS
    require_positive({"rounds": turns, "batch_size": sizes.batch, "image_size": sizes.image_size})
    cuda = [torch.device("cuda")] if torch.cuda.is_available() else []
    with torch_threads(threads), torch.random.fork_rng(cuda), tempfile.TemporaryDirectory() as folder:
        trained, frozen = (recognizer(sizes, pooling, fixed) for fixed in (False, True))
        batch = images(sizes)
        dataset = dataset_of(sizes, turns)
        kept = Repeated(dataset, batch)
        ours = trainer(trained, kept, Path(folder) / "ours", sizes)
        through = trainer(frozen, kept, Path(folder) / "through", sizes)
        with torch.no_grad():
            shape = tuple(frozen.features(frozen.normalize(batch.inputs[:1].to(ours.device))).shape[1:])
        cached = trainer(
            recognizer(sizes, pooling, True), stored(dataset, shape, Path(folder)), Path(folder) / "c", sizes
        )
        plain = plain_step(sizes, batch, trained, ours.device)
        steps = {
            PLAIN: plain,
            OURS: stepper(ours),
            FROZEN: stepper(through),
            CACHED: repeated(stepper(cached), CACHED_STEPS),
            HEAD: repeated(head_step(trained, shape, sizes.batch, ours.device), CACHED_STEPS),
        }
        with bar(len(steps) * (turns + 1), "benchmark", "steps", hidden=not progress) as shown:
            times = interleaved(steps, turns, ours.device, progress=lambda: shown.update(1))
        about = machine(ours.device)
        for name in (CACHED, HEAD):
            times[name] = [value / CACHED_STEPS for value in times[name]]
        del cached, steps  # the store's memory map, before its folder goes
    arguments = {
        "quick": (quick, False),
        "rounds": (rounds, None),
        "threads": (threads, None),
        "backbone": (backbone, None),
        "image_size": (image_size, None),
        "batch_size": (batch_size, None),
        "pooling": (pooling, "attentional"),
    }
    found = TrainingBenchmark(
        {
            "title": str(sizes),
            "sizes": asdict(sizes),
            "pooling": pooling,
            "feature_shape": list(shape),
            "rounds": turns,
            "machine": about,
            "rows": [
                {
                    "name": name,
                    "ms": statistics.median(values),
                    "images_per_s": 1e3 * sizes.batch / statistics.median(values),
                    "ratio": ratio(times[PLAIN], values),
                }
                for name, values in times.items()
            ],
            "limits": limits(times) if sizes == TrainingSizes() else [],
        },
        command_line("benchmark training", arguments),
    )
    if out is not None:
        found.save(Path(out))
    return found


def limits(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """What was promised of a training step, and what was measured."""
    part = ratio(times[HEAD], times[OURS])
    speed, gain = ratio(times[PLAIN], times[OURS]), ratio(times[OURS], times[CACHED])
    return [
        limit("part of a step's time that the head takes", part, MOST_OF_STEP, True),
        limit("images/s, times the plain loop", speed, LEAST_OF_PLAIN, False),
        limit("images/s on cached features, times those through the backbone", gain, LEAST_OF_BACKBONE, False),
    ]


def limit(what: str, measured: float, value: float, most: bool) -> dict[str, Any]:
    """A promise and what became of it."""
    holds = measured <= value if most else measured >= value
    return {"what": what, "limit": value, "most": most, "measured": measured, "holds": holds}
