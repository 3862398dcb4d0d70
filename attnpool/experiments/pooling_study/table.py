"""The study as a table: scores with their spread over seeds, and what a pooling costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from attnpool.evaluation.tables import spread
from attnpool.experiments.benchmark.measure import machine_line
from attnpool.experiments.pages import ResultPage

# Key of a training -> title, factor, digits.
SCORES = {
    "mAP": ("mAP", 100, 1),
    "accuracy": ("accuracy", 100, 1),
    "pointing": ("pointing", 100, 1),
    "train_loss": ("loss on train", 1, 3),
    "seconds": ("seconds", 1, 0),
}
BASE = "average"


def entries_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of which there are trainings with the seeds that were asked for, with these in a list."""
    found = []
    for entry in results["rows"].values():
        trainings = [entry["trainings"][str(s)] for s in results["seeds"] if str(s) in entry["trainings"]]
        if trainings:
            found.append(entry | {"trainings": trainings})
    return found


def values_of(entry: Mapping[str, Any], key: str) -> list[float]:
    """The values of a score in the trainings of a row, in the table's unit; those there are."""
    factor = SCORES[key][1]
    return [factor * training[key] for training in entry["trainings"] if training[key] is not None]


def table_of(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of cells."""
    header = ["pooling", "dropout", "rate", *(title for title, _, _ in SCORES.values()), "parameters", "cost"]
    rows, costs = [], results["costs"]
    for entry in entries_of(results):
        cells = [entry["title"], f"{entry['dropout']:g}", f"{entry['lr']:g}"]
        cells += [spread(values_of(entry, key), digits) for key, (_, _, digits) in SCORES.items()]
        rows.append(
            [*cells, f"{entry['parameters']:,}", f"{costs[entry['row']]['cost']:.1f}" if entry["row"] in costs else "-"]
        )
    return header, rows


def rates_of(results: Mapping[str, Any]) -> list[str]:
    """A line a row: the rates that were tried, and what they reached on the part held out of train."""
    lines = []
    for entry in entries_of(results):
        tried = sorted((float(rate), score) for rate, score in entry["tried"].items())
        words = ", ".join(f"{rate:g}: {100 * score:.1f}" for rate, score in tried)
        at_end = " (the best is the last that was tried)" if entry["lr"] in (tried[0][0], tried[-1][0]) else ""
        lines.append(f"{entry['title']}, dropout {entry['dropout']:g}: {words}{at_end}")
    return lines


def gains_of(results: Mapping[str, Any]) -> list[str]:
    """A line a row: what it adds to average pooling with the same dropout, seed by seed."""
    entries = entries_of(results)
    lines = []
    for entry in entries:
        base = next((e for e in entries if (e["row"], e["dropout"]) == (BASE, entry["dropout"])), None)
        if base is None or entry["row"] == BASE or len(base["trainings"]) != len(entry["trainings"]):
            continue
        gains = np.subtract(values_of(entry, "mAP"), values_of(base, "mAP"))
        mean = float(gains.mean())
        within = len(gains) > 1 and mean <= gains.std(ddof=1)
        verdict = " (no better)" if mean <= 0 else " (within the spread)" if within else ""
        sign = "+" if mean >= 0 else ""
        lines.append(f"{entry['title']}, dropout {entry['dropout']:g}: {sign}{spread(list(gains))} mAP{verdict}")
    return lines


def notes(results: Mapping[str, Any]) -> list[str]:
    """What has to be known to read the table."""
    settings, images, seeds = results["settings"], results["images"], results["seeds"]
    spoken = f"mean ± standard deviation over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "one seed"
    lines = [
        f"Data {settings['data']}: {results['classes']} classes, {images['train']} images to train on, "
        f"{images['val']} for validation. Frozen {settings['backbone']} at {settings['image_size']} px, "
        f"{settings['epochs']} epochs. Scores in percent, {spoken}.",
        f"The rate is the best on {images['held out']} images held out of train, one seed. The seeds vary a head's "
        "start, the order of images and dropout, not the images.",
        "Pointing: how often the combined map of the true class peaks in the evidence. Seconds: of the steps of one "
        "training. Cost: forward and backward of the head, as a multiple of average pooling's.",
    ]
    machines = {machine_line(found["machine"]) for found in results["costs"].values()}
    lines += [f"Costs were measured on {name}." for name in sorted(machines)]
    if not results["keypoints"]:
        lines.append("No keypoints are known in train: the pose head was trained without its pose loss.")
    if not results["complete"]:
        lines.append("Not complete: the same command goes on.")
    return lines


def result_page(results: Mapping[str, Any]) -> ResultPage:
    """The table of what `poolings` found."""
    header, rows = table_of(results)
    lists = [
        ("Against average pooling with the same dropout, seed by seed:", gains_of(results)),
        ("mAP (%) of the rates on the part held out of train:", rates_of(results)),
    ]
    return ResultPage("Poolings", header, rows, lists, notes(results))


def summary(results: Mapping[str, Any]) -> str:
    """The table as text for a terminal, without the rates that were tried."""
    page = result_page(results)
    return replace(page, title="", lists=page.lists[:1]).text()


def plotted(results: Mapping[str, Any]) -> tuple[dict[str, dict[str, Sequence[float]]], dict[str, float]]:
    """What `plots.study_plot` draws: dropout -> row -> mAP of the seeds, and row -> cost."""
    entries = entries_of(results)
    scores: dict[str, dict[str, Sequence[float]]] = {}
    for entry in entries:
        scores.setdefault(f"dropout {entry['dropout']:g}", {})[entry["title"]] = values_of(entry, "mAP")
    return scores, {entry["title"]: results["costs"][entry["row"]]["cost"] for entry in entries}
