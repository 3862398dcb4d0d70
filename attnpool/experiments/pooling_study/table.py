"""The study as a table: scores with their spread over seeds, and what a pooling costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from attnpool.evaluation.deletion import ORDERS
from attnpool.evaluation.tables import spread
from attnpool.experiments.benchmark.measure import machine_line
from attnpool.experiments.pages import ResultPage
from attnpool.experiments.pooling_study.rows import BASE
from attnpool.training.config import AUTO

# Key of a training -> title, factor, digits.
SCORES = {
    "mAP": ("mAP", 100, 1),
    "accuracy": ("accuracy", 100, 1),
    "pointing": ("pointing", 100, 1),
    "calibration": ("calibration error", 100, 1),
    "seconds": ("seconds", 1, 0),
}


def entries_of(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of which there are trainings with the seeds that were asked for, with these in a list."""
    found = {}
    for name, entry in results["rows"].items():
        trainings = [entry["trainings"][str(s)] for s in results["seeds"] if str(s) in entry["trainings"]]
        if trainings:
            found[name] = entry | {"trainings": trainings}
    return found


def values_of(entry: Mapping[str, Any], key: str) -> list[float]:
    """The values of a score in the trainings of a row, in the table's unit; those there are."""
    factor = SCORES[key][1]
    return [factor * training[key] for training in entry["trainings"] if training[key] is not None]


def table_of(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of cells."""
    titles = [title for title, _, _ in SCORES.values()]
    header = ["pooling", *titles[:-1], "deletion", *titles[-1:], "parameters", "cost"]
    rows, costs = [], results["costs"]
    for name, entry in entries_of(results).items():
        cells = [spread(values_of(entry, key), digits) for key, (_, _, digits) in SCORES.items()]
        parameters = "/".join(f"{count:,}" for count in sorted({each["parameters"] for each in entry["trainings"]}))
        cost = f"{costs[name]['cost']:.1f}" if name in costs else "-"
        rows.append([entry["title"], *cells[:-1], deletion_of(entry), *cells[-1:], parameters, cost])
    return header, rows


def deletion_of(entry: Mapping[str, Any]) -> str:
    """What the best class loses, in points, by covering cells in the order of the maps, of the gradient, at random."""
    known = [training["deletion"] for training in entry["trainings"] if training["deletion"] is not None]
    return " / ".join(f"{100 * np.mean([drops[order] for drops in known]):.0f}" for order in ORDERS) if known else "-"


def chosen_of(results: Mapping[str, Any]) -> list[str]:
    """A line a seed: what auto chose."""
    trainings = results["rows"].get(AUTO, {"trainings": {}})["trainings"]
    return [f"seed {s}: {trainings[str(s)]['chosen']}" for s in results["seeds"] if str(s) in trainings]


def gains_of(results: Mapping[str, Any]) -> list[str]:
    """A line a row: what it adds to average pooling, split by split."""
    entries = entries_of(results)
    return [
        f"{entry['title']}: {difference(entry, entries[BASE])}"
        for name, entry in entries.items()
        if name != BASE and BASE in entries and len(entry["trainings"]) == len(entries[BASE]["trainings"])
    ]


def against_best(results: Mapping[str, Any]) -> list[str]:
    """A line: how far auto is from the best pooling by the mean over the splits."""
    entries = entries_of(results)
    if AUTO not in entries or not (others := [entry for name, entry in entries.items() if name != AUTO]):
        return []
    best = max(others, key=lambda entry: np.mean(values_of(entry, "mAP")))
    if len(best["trainings"]) != len(entries[AUTO]["trainings"]):
        return []
    return [f"auto against the best of the others, {best['title']}: {difference(entries[AUTO], best)}"]


def difference(entry: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """The difference of two rows in mAP, split by split, and whether it is more than chance."""
    gains = np.subtract(values_of(entry, "mAP"), values_of(base, "mAP"))
    mean = float(gains.mean())
    within = len(gains) > 1 and abs(mean) <= gains.std(ddof=1)
    return f"{'+' if mean >= 0 else ''}{spread(list(gains))} mAP{' (within the spread)' if within else ''}"


def notes(results: Mapping[str, Any]) -> list[str]:
    """What has to be known to read the table."""
    settings, images, seeds = results["settings"], results["images"], results["seeds"]
    spoken = f"mean ± standard deviation over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "one seed"
    epochs = "the default number of epochs" if settings["epochs"] is None else f"{settings['epochs']} epochs"
    vary = "trainings only" if results["own split"] else "the split into train and val, and the trainings"
    lines = [
        f"Data {settings['data']}: {results['classes']} classes, about {images['train']} images to train on and "
        f"{images['val']} for validation. Frozen {settings['backbone']} at {settings['image_size']} px, {epochs}; all "
        f"else is the default of `train`. Scores in percent, {spoken}. The seeds vary {vary}.",
        "Pointing: how often the combined map of the true class peaks in the evidence. Calibration error: between "
        "confidence and accuracy, in 15 bins. Deletion: points of probability that the best class loses when a quarter "
        "of the cells is covered in the order of its map / of the gradient / at random, on some images of the first "
        "seed. Seconds: of the whole training, what is chosen in it included, features excluded. Cost: forward and "
        "backward of the head, as a multiple of average pooling's.",
    ]
    machines = {machine_line(found["machine"]) for found in results["costs"].values()}
    lines += [f"Costs were measured on {name}." for name in sorted(machines)]
    if "pose" in results["rows"] and not results["keypoints"]:
        lines.append("No keypoints are known in train: the pose head was trained without its pose loss.")
    if not results["complete"]:
        lines.append("Not complete: the same command goes on.")
    return lines


def result_page(results: Mapping[str, Any]) -> ResultPage:
    """The table of what `poolings` found."""
    header, rows = table_of(results)
    lists = [
        ("Against average pooling, split by split:", gains_of(results)),
        ("", against_best(results)),
        ("What auto chose:", chosen_of(results)),
    ]
    return ResultPage("Poolings", header, rows, lists, notes(results))


def summary(results: Mapping[str, Any]) -> str:
    """The table as text for a terminal."""
    return replace(result_page(results), title="").text()


def plotted(results: Mapping[str, Any]) -> tuple[dict[str, Sequence[float]], dict[str, float]]:
    """What `plots.study_plot` draws: row -> mAP of the seeds, and row -> cost."""
    entries, costs = entries_of(results), results["costs"]
    scores: dict[str, Sequence[float]] = {entry["title"]: values_of(entry, "mAP") for entry in entries.values()}
    return scores, {entry["title"]: costs[name]["cost"] for name, entry in entries.items() if name in costs}
