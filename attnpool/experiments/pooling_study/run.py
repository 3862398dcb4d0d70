"""`reproduce poolings`: chooses a learning rate for every pooling, trains it with several seeds, measures its cost."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from attnpool.backbones.backbone import Backbone
from attnpool.data import Dataset, hold_out, read
from attnpool.evaluation.evaluate import summarize
from attnpool.evaluation.inference import Outputs, score_source
from attnpool.experiments.arguments import require_seeds, weight_files
from attnpool.experiments.benchmark.measure import interleaved, machine, ratio
from attnpool.experiments.benchmark.passes import one_pass
from attnpool.experiments.pages import Results
from attnpool.experiments.pooling_study.rows import DROPOUTS, Row, choose_rows, in_order, next_rate
from attnpool.experiments.pooling_study.table import entries_of, plotted, result_page, summary
from attnpool.explain.plots import study_plot
from attnpool.features.batches import CachedFeatures
from attnpool.features.extraction import extract
from attnpool.files import write_bytes, write_json, write_text
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import Run
from attnpool.playground.write_folder import write_folder
from attnpool.progress import bar
from attnpool.training.checkpoint import require_same
from attnpool.training.config import Options
from attnpool.training.losses import classification_loss
from attnpool.training.recipe import fit

NAME = "poolings"
IMAGES = 840
VAL = 0.4  # part of the world: images that are only scored cost little
WORLD_SEED = 3
EPOCHS = 6
IMAGE_SIZE = 448
SEEDS = (0, 1, 2)
CHOOSING_SEED = 10
HELD_OUT = 0.2
AVERAGE = {"pooling": "average"}
ROUNDS, BATCH = 9, 32  # of measuring what a head costs


class Study(Results):
    """What `poolings` found: `results` is the content of poolings.json, `str()` the table to read."""

    def __str__(self) -> str:
        return summary(self.results) + f"\n\n{self.out / (NAME + '.md')}, {self.out / (NAME + '.png')}"


def poolings(
    *,
    out: str | Path | None = None,
    data: str | None = None,
    images: int | None = None,
    rows: Sequence[str] = (),
    seeds: Sequence[int] = SEEDS,
    backbone: str = "lite0",
    weights: Sequence[str] = (),
    epochs: int = EPOCHS,
    image_size: int = IMAGE_SIZE,
    workers: int = 0,
    cache: str | Path | None = None,
    progress: bool = True,
) -> Study:
    """Compares poolings on frozen features of one dataset, each without and with dropout of 0.8.

    The learning rate of a row is the best on a fifth held out of the training part (one seed); where it lies at the end
    of the row's grid, the grid is continued. With it the row is trained on all of the training part, once a seed, and
    scored on the validation part, which nothing was chosen on. What an earlier, interrupted call has done is not done
    again. Writes `poolings.json`, `poolings.md`, `poolings.png` and `runs/` in `out`; the runs that rates were chosen
    with are removed once they are scored.

    Args:
        out: folder for the runs, poolings.json, poolings.md and poolings.png (default: runs/poolings).
        data: dataset to compare poolings on, such as folder:DIR (default: a playground, which is made).
        images: images of the playground that is made without data (default: 840).
        rows: rows of the table, see docs/poolings.md (default: the usual ones).
        seeds: seeds of the trainings that are scored.
        backbone: network that gives the features; it stays frozen.
        weights: BACKBONE=FILE for weights of the backbone that are neither installed nor on timm's hub.
        epochs: epochs of every training.
        image_size: side of the network's input, and of the playground's images, in pixels.
        workers: processes that decode images; they change nothing but the speed.
        cache: folder of features (default: $ATTNPOOL_CACHE or the user's cache).
        progress: show progress bars.

    Raises:
        ValueError: options or data that cannot be used, or a folder that holds a study of something else.
    """
    chosen = choose_rows(rows)
    require_seeds(seeds)
    if data is not None and images is not None:
        raise ValueError("images is the size of the playground that is made without data: leave one of them out")
    folder = Path("runs", NAME) if out is None else Path(out)
    source = weights_of(backbone, weights)
    settings: dict[str, Any] = {"data": data or "playground", "backbone": backbone, "weights": source}
    settings |= {"epochs": epochs, "image_size": image_size} | ({} if data else {"images": images or IMAGES})
    common = {"backbone": backbone, "weights": source, "epochs": epochs, "image_size": image_size}
    for seed in seeds:  # refused before the long work
        Options.of(common | {"seed": seed, "workers": workers})
    results = begin(folder, settings, seeds)
    network = Backbone(backbone, source, frozen=True)
    place = data or f"folder:{folder / 'data' / 'world'}"
    if data is None:
        with bar(settings["images"], "playground", "images", hidden=not progress) as shown:
            write_folder(
                folder / "data" / "world",
                settings["images"],
                WORLD_SEED,
                size=image_size,
                val_fraction=VAL,
                progress=lambda done, _: shown.update(done - shown.n),
            )
    train, val = read(place)
    kept = None if cache is None else Path(cache)
    study = Trainings(folder, results, common | {"workers": workers}, (train, val), network, kept, progress)
    study.run(chosen, seeds)
    return Study(folder, results)


def weights_of(backbone: str, words: Sequence[str]) -> str:
    """The file of the backbone's weights among words such as `lite0=FILE`, or "pretrained".

    Raises:
        ValueError: a word is malformed, or is about another backbone.
    """
    files = weight_files(words)
    for name, file in files.items():
        if name != backbone:
            raise ValueError(f"weights {name}={file}: the backbone is {backbone}")
    return str(files.get(backbone, "pretrained"))


def begin(folder: Path, settings: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
    """What an earlier call left in the folder, or the beginning of it.

    Raises:
        ValueError: the folder holds a study with other settings.
    """
    results: dict[str, Any] = {"rows": {}, "costs": {}}
    try:
        found = json.loads((folder / f"{NAME}.json").read_text(encoding="utf-8"))
        before, results["rows"], results["costs"] = found["settings"], found["rows"], found["costs"]
    except (OSError, ValueError, KeyError, TypeError):  # the finished runs are still there, and are scored again
        before = settings
    require_same(folder, before, settings)
    return {"study": NAME, "settings": dict(settings), "seeds": list(seeds), "complete": False} | results


class Trainings:
    """The trainings of a study; they write what they find into `results`."""

    def __init__(
        self,
        folder: Path,
        results: dict[str, Any],
        common: dict[str, Any],
        data: tuple[Dataset, Dataset],
        backbone: Backbone,
        cache: Path | None,
        progress: bool,
    ) -> None:
        self.folder, self.results, self.common, self.cache, self.progress = folder, results, common, cache, progress
        self.backbone = backbone
        self.train, self.val = data
        self.fitted, self.tuned = hold_out(self.train, HELD_OUT)
        if not len(self.tuned):
            raise ValueError(f"{self.train.name}: no class has two images in train, so no rate can be chosen")
        self.results |= {
            "images": {"train": len(self.train), "held out": len(self.tuned), "val": len(self.val)},
            "held out": [sample.path for sample in self.tuned],
            "classes": len(self.train.classes),
            "keypoints": any(sample.people or sample.keypoints for sample in self.train),
        }

    def run(self, rows: Mapping[str, Row], seeds: Sequence[int]) -> None:
        """Does all that has not been done yet."""
        for name, row in rows.items():
            for dropout in DROPOUTS:
                entry = self.results["rows"].setdefault(f"{name}, {dropout:g}", {})
                entry |= {"row": name, "title": row.title, "dropout": dropout, "grid": list(row.rates)}
                entry["tried"], entry["trainings"] = entry.get("tried", {}), entry.get("trainings", {})
        self.results["rows"] = in_order(self.results["rows"])
        total = len(rows) * len(DROPOUTS) * len(seeds) + sum(len(row.rates) for row in rows.values()) * len(DROPOUTS)
        with bar(total, NAME, "trainings", hidden=not self.progress) as shown:
            for name, row in rows.items():
                for dropout in DROPOUTS:
                    self.one(row, self.results["rows"][f"{name}, {dropout:g}"], seeds, shown)
                if name not in self.results["costs"]:
                    self.results["costs"][name] = {"cost": self.cost(row), "machine": machine(torch.device("cpu"))}
                    self.keep()
        self.results["complete"] = True
        self.keep()
        write_bytes(self.folder / f"{NAME}.png", study_plot(*plotted(self.results)))

    def one(self, row: Row, entry: dict[str, Any], seeds: Sequence[int], shown: Any) -> None:
        """Chooses the rate of a row with one dropout, and trains and scores it with every seed."""
        tried: dict[str, float] = entry["tried"]
        shown.total += sum(float(rate) not in row.rates for rate in tried)
        shown.update(len(tried))
        while (rate := next_rate(row.rates, {float(key): value for key, value in tried.items()})) is not None:
            run = self.fit(row, entry, (self.fitted, self.tuned), rate, CHOOSING_SEED)
            tried[f"{rate:g}"] = finite(run.about["results"]["history"][-1]["mAP"])
            self.keep()
            shutil.rmtree(run.folder)
            shown.total += rate not in row.rates
            shown.update(1)
        entry["lr"] = float(max(tried, key=lambda key: tried[key]))
        for seed in seeds:
            if str(seed) not in entry["trainings"]:
                run = self.fit(row, entry, (self.train, self.val), entry["lr"], seed)
                entry["trainings"][str(seed)] = self.measure(run)
                entry["parameters"] = sum(weight.numel() for weight in run.model.head.parameters())
                self.keep()
            shown.update(1)

    def fit(self, row: Row, entry: Mapping[str, Any], parts: tuple[Dataset, Dataset], rate: float, seed: int) -> Run:
        """One training, as `attnpool train` does it."""
        values = self.common | row.options | {"lr": rate, "seed": seed, "dropout": entry["dropout"] or None}
        part = "" if parts[0] is self.train else f"-rate-{rate:g}"
        folder = self.folder / "runs" / f"{entry['row']}-dropout-{entry['dropout']:g}-{seed}{part}"
        options = Options.of({name: value for name, value in values.items() if value is not None}, entry["row"])
        return fit(options, parts, folder, backbone=self.backbone, cache=self.cache, progress=self.progress)

    def measure(self, run: Run) -> dict[str, Any]:
        """Scores on val, the loss on train without dropout, and the time that the steps of the training took."""
        found = summarize(self.outputs(run, self.val, maps=True), run.model, "val")
        seen = self.outputs(run, self.train, maps=False)
        logits, targets, label_mask = (
            torch.from_numpy(values) for values in (seen.logits, seen.targets, seen.label_mask)
        )
        loss = classification_loss(logits, targets.double(), run.model.task, label_mask=label_mask)
        history = run.about["results"]["history"]
        return {
            "mAP": finite(found.scores.mAP),
            "accuracy": found.scores.accuracy,
            "pointing": found.pointing,
            "train_loss": float(loss),
            "seconds": round(sum(len(self.train) / epoch["images_per_s"] for epoch in history), 1),
            "run": str(run.folder),
        }

    def outputs(self, run: Run, dataset: Dataset, *, maps: bool) -> Outputs:
        features = extract(run.model, dataset, cache=self.cache, workers=self.common["workers"], progress=self.progress)
        return score_source(run.model, CachedFeatures(features), maps=maps)

    def cost(self, row: Row) -> float:
        """Forward and backward of the head, the gradient of the features included, as a multiple of average pooling's.

        On the features of a batch of images of this study; the two take turns.
        """
        if row.options == AVERAGE:
            return 1.0
        average, head = (self.model(options) for options in (AVERAGE, row.options))
        features = extract(average, self.val, cache=self.cache, progress=False)
        x = features.batch([i % len(features) for i in range(BATCH)])
        x = x.flatten(0, -4).requires_grad_()
        steps = {name: one_pass(made.head, made.head, x, True) for name, made in (("0", average), ("1", head))}
        times = interleaved(steps, ROUNDS, torch.device("cpu"))
        return round(ratio(times["1"], times["0"]), 2)

    def model(self, options: Mapping[str, Any]) -> Recognizer:
        """A recognizer at its start."""
        given = Options.of(self.common | dict(options))
        values = dict(given.model)
        del values["backbone"]
        return Recognizer(
            self.backbone, classes=self.train.classes, preprocessing=given.preprocessing.of_model(), **values
        )

    def keep(self) -> None:
        """Writes the JSON file and the page, as far as the study has come."""
        write_json(self.folder / f"{NAME}.json", self.results)
        if entries_of(self.results):
            write_text(self.folder / f"{NAME}.md", result_page(self.results).markdown())


def finite(score: float) -> float:
    """The score, or 0 where it is not a number because no class could be scored."""
    return score if math.isfinite(score) else 0.0
