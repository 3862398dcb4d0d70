"""`quickstart`: three poolings compared on a generated world, with real ImageNet features and no network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attnpool.backbones.backbone import Backbone
from attnpool.data import Dataset, read, read_image
from attnpool.evaluation.evaluate import Evaluation, evaluate
from attnpool.evaluation.predict import predict
from attnpool.evaluation.tables import spread, text_table
from attnpool.experiments.arguments import command_line, require_seeds
from attnpool.experiments.pages import Results
from attnpool.explain.explain import explain
from attnpool.explain.overlay import grid
from attnpool.explain.plots import comparison_plot
from attnpool.explain.png import png
from attnpool.explain.report import write_report
from attnpool.files import claim, write_bytes, write_json
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import Run
from attnpool.playground import write_playground
from attnpool.training.config import TrainOptions
from attnpool.training.train import train

HEADS = ("average", "attentional", "pose")
TITLES = {
    "average": "Average pooling",
    "attentional": "Attentional pooling, rank 1",
    "pose": "Pose-regularised attentional pooling",
}
SCORES = ("mAP", "accuracy", "pointing")
WORLD_SEED = 1
IMAGES = 840
SEEDS = (0, 1, 2)
IMAGE_SIZE = 448
SHOWN = 4  # images in each grid of the report


class Quickstart(Results):
    """What `quickstart` found: `results` is the content of results.json, `str()` the same to read."""

    def __str__(self) -> str:
        seeds = self.results["seeds"]
        over = f"mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else "one seed"
        rows = [
            [TITLES.get(head, head), *(spread([100 * value for value in values[key]]) for key in SCORES)]
            for head, values in self.results["heads"].items()
        ]
        lines = text_table(["pooling", *SCORES], rows)
        return "\n".join([*lines, f"in percent, {over}; report: {self.out / 'report.html'}"])


def quickstart(
    *,
    out: str | Path,
    images: int = IMAGES,
    epochs: int | None = None,
    seeds: Sequence[int] = SEEDS,
    image_size: int = IMAGE_SIZE,
    cache: str | Path | None = None,
    progress: bool = True,
) -> Quickstart:
    """Makes a playground world, trains three heads on frozen ImageNet features of it, and writes a report.

    One world; the seeds vary the head's start, the order and dropout. The heads are trained with the defaults of
    `train`. What an earlier, interrupted call has done is not done again.

    Args:
        out: folder of the world, the runs, results.json and report.html.
        images: images of the world, a quarter of them for validation.
        epochs: epochs of each of the trainings (default: 30, or as many as give 400 updates).
        seeds: seeds of the trainings.
        image_size: side of the images and of the network's input, in pixels.
        cache: folder of features (default: $ATTNPOOL_CACHE or the user's cache).
        progress: show progress bars.

    Raises:
        ValueError: the options cannot be used, or `out` holds something else.
        OSError: the disk is full.
    """
    started = time.monotonic()
    out, cache = Path(out), None if cache is None else Path(cache)
    require_seeds(seeds)
    trainings = {seed: TrainOptions(epochs=epochs, seed=seed) for seed in seeds}  # refused before the long work
    claim(out, "a quickstart")
    world = out / "world"
    if not world.exists():
        write_playground(world, images=images, seed=WORLD_SEED, size=image_size, progress=progress)
    train_part, val = read(f"folder:{world}")
    if len(train_part) + len(val) != images:
        raise ValueError(
            f"{world}: holds {len(train_part) + len(val)} images, not {images}; remove it, or use another folder as out"
        )
    backbone = Backbone("lite0", frozen=True)
    runs: dict[str, list[Run]] = {}
    found: dict[str, list[Evaluation]] = {}
    for head in HEADS:
        for seed in seeds:
            model = Recognizer(
                backbone,
                classes=train_part.classes,
                pooling=head,
                preprocessing={"image_size": image_size, "short_side": None, "max_width": None},
                seed=seed,
            )
            run = train(
                model,
                train_part,
                val,
                out=out / "runs" / f"{head}-{seed}",
                options=trainings[seed],
                cache=cache,
                progress=progress,
            )
            runs.setdefault(head, []).append(run)
            found.setdefault(head, []).append(evaluate(run, val, cache=cache))
    results = {
        "seeds": list(seeds),
        "heads": {
            head: {
                "mAP": [e.scores.mAP for e in evaluations],
                "accuracy": [e.scores.accuracy for e in evaluations],
                "pointing": [e.pointing for e in evaluations],
            }
            for head, evaluations in found.items()
        },
        "images": {"train": len(train_part), "val": len(val)},
        "seconds": round(time.monotonic() - started, 1),
    }
    per_class = {
        head: np.array([[row["AP"] for row in e.scores.per_class] for e in es], dtype=float)
        for head, es in found.items()
    }
    panels = []
    for head in ("attentional", "pose"):
        drawn = png(sheet(runs[head][0].model, val))
        write_bytes(out / f"maps-{head}.png", drawn)
        panels.append((f"{TITLES[head]}: bottom-up, top-down and combined maps", drawn))
    arguments = {
        "out": (out, None),
        "images": (images, IMAGES),
        "epochs": (epochs, None),
        "image_size": (image_size, IMAGE_SIZE),
        "seeds": (seeds, SEEDS),
    }
    write_report(
        out / "report.html",
        results,
        title="attnpool quickstart",
        intro=(
            f"{len(train_part.classes)} actions in a generated world, {len(train_part)} images to train on and "
            f"{len(val)} to validate, at {image_size} px. The backbone is EfficientNet-Lite0 with ImageNet weights, "
            f"frozen; only the head is trained, {runs['average'][0].about['recipe']['epochs']} epochs."
        ),
        plots=[("Average precision of each class", comparison_plot(per_class, train_part.classes))],
        panels=panels,
        command=command_line("quickstart", arguments),
    )
    write_json(out / "results.json", results)
    return Quickstart(out, results)


def sheet(model: Recognizer, val: Dataset) -> Any:
    """Panels of validation images drawn at random, not picked: the best class beside the true one or the second."""
    drawn = np.random.default_rng(0).choice(len(val), size=min(SHOWN, len(val)), replace=False)
    panels = []
    for i in sorted(drawn.tolist()):
        sample = val.samples[i]
        path = val.file(sample)
        (prediction,) = predict(model, [path], top=len(model.classes), maps=True)
        ranked = [model.classes.index(label) for label, _ in prediction.scores]
        true = sample.labels[0]
        chosen = true if ranked[0] != true else ranked[1]
        panels.append(explain(prediction, model, read_image(path), chosen=chosen, title=f"true: {model.classes[true]}"))
    return grid(panels)
