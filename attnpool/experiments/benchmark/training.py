"""Images a second of whole training steps, and of a head on cached features, against a plain timm + PyTorch loop."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from attnpool.experiments.benchmark.measure import interleaved, machine, machine_line, ratio, threads
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
from attnpool.explain.plots import ratio_plot
from attnpool.files import write_bytes, write_json, write_text
from attnpool.progress import bar

PLAIN = "plain timm + PyTorch loop"
OURS = "attnpool, whole network"
FROZEN = "attnpool, head on a frozen backbone, no cache"
CACHED = "attnpool, head on cached features"
HEAD = "the head alone, forward + backward"
# Promises: parts of a step's time, and multiples of images a second.
MOST_OF_STEP, LEAST_OF_PLAIN, LEAST_OF_BACKBONE = 0.02, 0.97, 50.0


QUICK = TrainingSizes("resnet18", 32, 4, 5)


@dataclass(frozen=True)
class TrainingBenchmark:
    """The figures; `results` is what is written to training.json."""

    results: dict[str, Any]

    def table(self) -> str:
        """Markdown, a line for each way of training."""
        lines = ["| | milliseconds a step | images/s | times the plain loop |", "|---|---:|---:|---:|"]
        for row in self.results["rows"]:
            lines.append(f"| {row['name']} | {row['ms']:.1f} | {row['images_per_s']:.1f} | {row['ratio']:.2f} |")
        return "\n".join(lines)

    def limits(self) -> str:
        """Markdown of what was promised and what was measured; "" for sizes of which nothing was promised."""
        lines = ["| | promised | measured | holds |", "|---|---:|---:|---|"]
        for item in self.results["limits"]:
            sign = "at most" if item["most"] else "at least"
            holds = "yes" if item["holds"] else "no"
            lines.append(f"| {item['what']} | {sign} {item['limit']:g} | {item['measured']:.4g} | {holds} |")
        return "\n".join(lines) if len(lines) > 2 else ""

    def text(self) -> str:
        """What the command prints."""
        about = self.results
        head = f"{about['title']}; medians of {about['rounds']} rounds"
        return "\n\n".join(part for part in (head, self.table(), self.limits()) if part)

    def page(self, command: str) -> str:
        """The page of the documentation."""
        about = self.results
        return PAGE.format(
            command=command,
            title=about["title"],
            rounds=about["rounds"],
            machine=machine_line(about["machine"]),
            feature_shape=" x ".join(str(length) for length in about["feature_shape"]),
            table=self.table(),
            promised=f"\n## What was promised\n\n{self.limits()}\n" if self.limits() else "",
            cached_steps=CACHED_STEPS,
            pooling=about["pooling"],
        )

    def save(self, out: Path, command: str) -> None:
        """Writes training.json, training.png and training.md."""
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "training.json", self.results)
        write_text(out / "training.md", self.page(command))
        write_bytes(out / "training.png", self.plot())

    def plot(self) -> bytes:
        """A PNG: images a second of each way, as times of the plain loop."""
        rows = [row for row in self.results["rows"] if row["name"] != HEAD]
        ours = {row["name"]: row["name"] != PLAIN for row in rows}
        values = {"images/s": {row["name"]: row["ratio"] for row in rows}}
        return ratio_plot(values, ours, f"images a second, times {PLAIN}")


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
- *Cached features*: the steps of `attnpool train` on features of the store ({feature_shape} half-precision numbers a
  image, memory-mapped), reading included; the mean of {cached_steps} steps a round.
- *The head alone*: forward and backward of the head, gradients of the features included.
{promised}"""


def benchmark_training(
    *,
    sizes: TrainingSizes | None = None,
    pooling: str = "attentional",
    rounds: int = 5,
    thread_count: int | None = None,
    progress: bool = True,
) -> TrainingBenchmark:
    """Times steps of training through a backbone and on cached features, beside a plain loop.

    Args:
        sizes: what is trained; ResNet-50 at 224 px and batch 32 by default.
        pooling: a key of POOLINGS.
        rounds: in which all ways take turns.
        thread_count: of PyTorch; as many as it uses by default.
        progress: show a progress bar.

    Raises:
        ValueError: an unknown backbone or pooling, or a number that is less than 1.
    """
    sizes = sizes or TrainingSizes()
    for name, value in (("--rounds", rounds), ("--batch-size", sizes.batch), ("--image-size", sizes.image_size)):
        if value < 1:
            raise ValueError(f"{name} is {value}; give at least 1")
    if sizes.classes < 2:
        raise ValueError(f"--classes is {sizes.classes}; give at least 2")
    cuda = [torch.device("cuda")] if torch.cuda.is_available() else []
    with threads(thread_count), torch.random.fork_rng(cuda), tempfile.TemporaryDirectory() as folder:
        trained, frozen = (recognizer(sizes, pooling, fixed) for fixed in (False, True))
        batch = images(sizes)
        dataset = dataset_of(sizes, rounds)
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
        with bar(len(steps) * (rounds + 1), "benchmark", "steps", hidden=not progress) as shown:
            times = interleaved(steps, rounds, ours.device, progress=lambda: shown.update(1))
        about = machine(ours.device)
        for name in (CACHED, HEAD):
            times[name] = [value / CACHED_STEPS for value in times[name]]
        del cached, steps  # the store's memory map, before its folder goes
    return TrainingBenchmark(
        {
            "title": str(sizes),
            "sizes": asdict(sizes),
            "pooling": pooling,
            "feature_shape": list(shape),
            "rounds": rounds,
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
        }
    )


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
