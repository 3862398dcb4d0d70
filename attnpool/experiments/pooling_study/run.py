"""`reproduce poolings`: trains every pooling with its defaults on several splits, scores it, measures its cost."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from attnpool.backbones.backbone import Backbone
from attnpool.data import Dataset, Preprocessing, hold_out, read
from attnpool.data.splits import choose
from attnpool.evaluation.deletion import deletion
from attnpool.evaluation.evaluate import summarize
from attnpool.evaluation.inference import as_probabilities, score_source
from attnpool.evaluation.metrics import calibration_error
from attnpool.experiments.arguments import require_seeds, weight_files
from attnpool.experiments.benchmark.measure import interleaved, machine, ratio
from attnpool.experiments.benchmark.passes import one_pass
from attnpool.experiments.pages import Results
from attnpool.experiments.pooling_study.rows import BASE, ROWS, Row, choose_rows, in_order
from attnpool.experiments.pooling_study.table import entries_of, plotted, result_page, summary
from attnpool.explain.plots import study_plot
from attnpool.features.batches import CachedFeatures, Images
from attnpool.features.extraction import extract
from attnpool.features.features import Features
from attnpool.files import claim, write_bytes, write_json, write_text
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import Run
from attnpool.playground.write_folder import write_folder
from attnpool.progress import bar
from attnpool.training import auto
from attnpool.training.checkpoint import require_same
from attnpool.training.config import AUTO, Options
from attnpool.training.cross_validation import Choice
from attnpool.training.recipe import fit

NAME = "poolings"
IMAGES = 840
WORLD_SEED = 3
IMAGE_SIZE = 448
SEEDS = (0, 1, 2)
DELETED, DELETED_PART = 60, 0.25  # images of the deletion test, and the part of their cells that is covered
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
    epochs: int | None = None,
    image_size: int = IMAGE_SIZE,
    workers: int = 0,
    cache: str | Path | None = None,
    progress: bool = True,
) -> Study:
    """Compares poolings on frozen features of one dataset, each with its defaults, and what `--pooling auto` chooses.

    A seed stands for a random split of the images into train and val, in the proportion of the dataset's own and class
    by class, and for the training on it. (Clips keep their split, so that those of one video stay on one side.) A
    pooling is trained on train as `attnpool train` does it and scored on val, which nothing is chosen on. What an
    earlier, interrupted call has done is not done again. Writes `poolings.json`, `poolings.md`, `poolings.png` and
    `runs/` in `out`.

    Args:
        out: folder for the runs, poolings.json, poolings.md and poolings.png (default: runs/poolings).
        data: dataset to compare poolings on, such as folder:DIR (default: a playground, which is made).
        images: images of the playground that is made without data (default: 840).
        rows: rows of the table, such as average rank1 covariance auto; a wrong name lists them all (default: the usual
            ones).
        seeds: seeds of the splits and of the trainings on them.
        backbone: network that gives the features; it stays frozen.
        weights: BACKBONE=FILE for weights of the backbone that are neither installed nor on timm's hub.
        epochs: epochs of every training (default: 30, or as many as give 400 updates).
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
    settings |= {"epochs": epochs, "image_size": image_size} | (
        {} if data else {"images": IMAGES if images is None else images}
    )
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
        ValueError: the folder holds a study with other settings, or files of these names that are of none.
    """
    results: dict[str, Any] = {"rows": {}, "costs": {}}
    claim(folder, "a study of poolings")
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
        self.backbone, self.data = backbone, data
        train, val = data
        self.results |= {
            "images": {"train": len(train), "val": len(val)},
            "classes": len(train.classes),
            "task": train.task,
            "own split": train.media == "clips",
            "keypoints": any(sample.people or sample.keypoints for sample in train),
        }

    def run(self, rows: Mapping[str, Row], seeds: Sequence[int]) -> None:
        """Does all that has not been done yet, a seed after the other, so that the table soon has all rows."""
        found: dict[str, dict[str, Any]] = self.results["rows"]
        for name, row in rows.items():
            found.setdefault(name, {"title": row.title, "trainings": {}})
        self.results["rows"] = found = in_order(found)
        with bar(len(rows) * len(seeds), NAME, "trainings", hidden=not self.progress) as shown:
            for seed in seeds:
                parts = split(self.data, seed)
                for name in rows:
                    if str(seed) not in found[name]["trainings"]:
                        found[name]["trainings"][str(seed)] = self.one(name, parts, seed, first=seed == seeds[0])
                        self.keep()
                    shown.update(1)
        for name in rows:
            if name not in self.results["costs"] and name != AUTO:
                self.results["costs"][name] = {"cost": self.cost(name), "machine": machine(torch.device("cpu"))}
        self.results["complete"] = True
        self.keep()
        write_bytes(self.folder / f"{NAME}.png", study_plot(*plotted(self.results)))

    def one(self, name: str, parts: tuple[Dataset, Dataset], seed: int, *, first: bool) -> dict[str, Any]:
        """One training, as `attnpool train` does it, and what it scores."""
        options = Options.of(self.common | ROWS[name].options | {"seed": seed}, name)
        if options.model["pooling"] == "pose" and not self.results["keypoints"]:
            options = options.change({"pose_weight": 0.0})  # which the page says
        _ = self.kept  # the features are there, so that they are not in the time of the training
        folder = self.folder / "runs" / f"{name}-{seed}"
        whole, started = not folder.exists(), time.monotonic()
        run = fit(options, parts, folder, backbone=self.backbone, cache=self.cache, progress=self.progress)
        seconds = round(time.monotonic() - started, 1) if whole else None  # an interrupted training has no time
        outputs = score_source(run.model, CachedFeatures(self.features(run.model, parts[1])), maps=True)
        scores = summarize(outputs, run.model, "val")
        probabilities = as_probabilities(torch.from_numpy(outputs.logits), run.model.scores)
        chosen = run.about["results"].get("auto")
        return {
            "mAP": finite(scores.scores.mAP),
            "accuracy": scores.scores.accuracy,
            "pointing": scores.pointing,
            "calibration": calibration_error(probabilities, outputs.targets, outputs.label_mask, run.model.task),
            "deletion": self.deletion(run, parts[1]) if first else None,
            "seconds": seconds,
            "parameters": sum(weight.numel() for weight in run.model.head.parameters()),
            "chosen": auto.title(Choice.from_json(chosen).chosen) if chosen else None,
            "run": str(run.folder),
        }

    def deletion(self, run: Run, val: Dataset) -> dict[str, float] | None:
        """The drops of the deletion test at `DELETED_PART`, on some of the images; None for clips, which have none."""
        if val.media == "clips":
            return None
        paths = [sample.path for sample in val]
        some = val.select(choose(paths, 0, DELETED / len(paths)), "val") if len(paths) > DELETED else val
        images = Images(some, Preprocessing(**run.model.preprocessing), self.common["workers"])
        found = deletion(run.model, images, covered=(DELETED_PART,), progress=self.progress)
        return {order: value for order, (value,) in found.drops.items()}

    @cached_property
    def kept(self) -> tuple[Features, Features]:
        """The features of both parts of the data, which every row and split uses."""
        train, val = (self.features(self.model(BASE), part) for part in self.data)
        return train, val

    def features(self, model: Recognizer, dataset: Dataset) -> Features:
        return extract(model, dataset, cache=self.cache, workers=self.common["workers"], progress=self.progress)

    def cost(self, name: str) -> float:
        """Forward and backward of the head, the gradient of the features included, as a multiple of average pooling's.

        On the features of a batch of images of this study; the two take turns.
        """
        if name == BASE:
            return 1.0
        average, head = self.model(BASE), self.model(name)
        features = self.kept[1]
        kinds = features.shapes or [(0, 0)] * len(features)
        most = max(kinds, key=kinds.count)
        alike = [i for i, kind in enumerate(kinds) if kind == most]  # a batch has one shape
        x = features.batch([alike[i % len(alike)] for i in range(BATCH)])
        x = x.flatten(0, -4).requires_grad_()
        steps = {name: one_pass(made.head, made.head, x, True) for name, made in (("0", average), ("1", head))}
        times = interleaved(steps, ROUNDS, torch.device("cpu"))
        return round(ratio(times["1"], times["0"]), 2)

    def model(self, name: str) -> Recognizer:
        """The recognizer of a row at its start."""
        given = Options.of(self.common | ROWS[name].options)
        values = dict(given.model)
        del values["backbone"]
        return Recognizer(
            self.backbone, classes=self.data[0].classes, preprocessing=given.preprocessing.of_model(), **values
        )

    def keep(self) -> None:
        """Writes the JSON file and the page, as far as the study has come."""
        write_json(self.folder / f"{NAME}.json", self.results)
        if entries_of(self.results):
            write_text(self.folder / f"{NAME}.md", result_page(self.results).markdown())


def split(data: tuple[Dataset, Dataset], seed: int) -> tuple[Dataset, Dataset]:
    """Another split of the same images, class by class, with a val of about the same size; clips keep theirs."""
    train, val = data
    if train.media == "clips":
        return data
    both = train.joined(val, train.split)
    rest, held = hold_out(both, len(val) / len(both), seed)
    return rest, replace(held, split="val")


def finite(score: float) -> float:
    """The score, or 0 where it is not a number because no class could be scored."""
    return score if math.isfinite(score) else 0.0
