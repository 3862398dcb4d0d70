"""The tables of the paper: their rows, each a recipe, and how our numbers stand beside the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from attnpool.evaluation.tables import spread
from attnpool.experiments.pages import ResultPage
from attnpool.training.recipe import RECIPES, Recipe, read_recipe


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        data: the benchmark that it is about.
        samples: images or clips of the playground that stands for the benchmark at small scale.
        title: heading of our page.
        rows: names of its recipes, in order.
    """

    data: Literal["mpii", "hico", "hmdb51"]
    samples: int
    title: str
    rows: tuple[str, ...]


TABLE1 = (
    "bn-inception", "resnet101", "bn-inception-attention", "resnet101-attention", "resnet101-pose", "rank2", "rank5",
    "per-class", "dropout-average", "dropout-attention", "resnet101-attention-test", "resnet101-pose-test",
)  # fmt: skip
TABLES: dict[str, Table] = {
    "table1": Table(
        "mpii",
        700,
        "Table 1: MPII, and the paper's ablations",
        TABLE1,
    ),
    "table2": Table("hico", 420, "Table 2: HICO", ("resnet101", "cbp", "attention", "pose")),
    "table3": Table(
        "hmdb51",
        280,
        "Table 3: HMDB51",
        ("resnet101", "attention", "pose", "resnet101-224", "attention-224", "pose-224"),
    ),
}

# Column -> the paths of its values in a training, and how many percent one is.
COLUMNS = {
    "mAP": (("mAP",), 100.0),
    "mAP_voc07": (("mAP_voc07",), 100.0),
    "known_object": (("known_object",), 100.0),
    "accuracy": (("accuracy",), 100.0),
    "pointing": (("pointing",), 100.0),
    "train mAP": (("train", "mAP"), 100.0),
    "train loss": (("train_loss",), 1.0),
    "similarity": (("similarity",), 1.0),
}
SHOWN = {
    "mAP": ("mAP", "accuracy", "pointing", "train mAP", "train loss", "similarity"),
    "mAP_voc07": ("mAP_voc07", "known_object", "train mAP", "train loss", "similarity"),
    "accuracy": ("train loss", "similarity"),
}
TITLES = {
    "mAP": "mAP",
    "mAP_voc07": "mAP (11 points)",
    "known_object": "Known-Object",
    "accuracy": "accuracy",
    "pointing": "pointing",
    "train mAP": "mAP on train",
    "train loss": "loss on train",
    "similarity": "similarity",
}
# What is compared: a row, and the one that it is held against.
PAIRS = (
    ("attention", "resnet101"),
    ("resnet101-attention", "resnet101"),
    ("bn-inception-attention", "bn-inception"),
    ("attention-224", "resnet101-224"),
    ("pose", "attention"),
    ("resnet101-pose", "resnet101-attention"),
    ("pose-224", "attention-224"),
)


def plan(table: str, rows: Sequence[str], scale: str) -> tuple[list[Recipe], dict[str, str]]:
    """The recipes of the rows that are run, and why the others are not.

    Raises:
        ValueError: unknown names, or nothing is left to run.
    """
    if table not in TABLES:
        raise ValueError(f"unknown table {table!r}: use one of {', '.join(TABLES)}")
    if scale not in ("full", "small"):
        raise ValueError(f"unknown scale {scale!r}: use full or small")
    known = TABLES[table].rows
    for row in rows:
        if row not in known:
            raise ValueError(f"{table} has no row {row!r}: use some of {', '.join(known)}")
    recipes = [read_recipe(RECIPES / table / f"{row}.yaml") for row in known if not rows or row in rows]
    skipped = {}
    if scale == "small":
        reason = "its backbone's weights are in no package, and another one's would be another experiment"
        skipped = {recipe.name: reason for recipe in recipes if recipe.about.get("small") is False}
    left = [recipe for recipe in recipes if recipe.name not in skipped]
    if not left:
        raise ValueError(f"{table}: none of these rows can be run at scale {scale} ({reason}); use scale full")
    return left, skipped


def root_of(table: str, roots: Mapping[str, str | Path | None], scale: Literal["full", "small"]) -> Path | None:
    """The root of the benchmark's files that a table is about; None where a playground is to stand for it.

    Raises:
        ValueError: the root of another benchmark is given, or none at full scale.
    """
    data = TABLES[table].data
    given = [name for name, root in roots.items() if root is not None]
    if given and given != [data]:
        other = next(name for name in given if name != data)
        raise ValueError(f"{table} is about {data}; give {data}, the root of its files, and not {other}")
    if not given and scale != "small":
        raise ValueError(f"{table} at full scale needs data: give {data}, the root of its files, or use scale small")
    return Path(roots[data] or "") if given else None


def values_of(trainings: Sequence[Mapping[str, Any]], column: str, split: str | None = None) -> list[float]:
    """The values of a column in some trainings, in percent where it is a score; those there are."""
    path, factor = COLUMNS[column]
    found = []
    for training in trainings:
        if split is not None and training["split"] != split:
            continue
        value: Any = training
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            found.append(factor * float(value))
    return found


def averaged(trainings: Sequence[Mapping[str, Any]], column: str) -> dict[int, float]:
    """Seed -> the mean of a column over the splits, so that a spread is one over seeds and not over splits."""
    seeds = dict.fromkeys(training["seed"] for training in trainings)
    means = {}
    for seed in seeds:
        values = values_of([training for training in trainings if training["seed"] == seed], column)
        if values:
            means[seed] = float(np.mean(values))
    return means


def table_of(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of cells."""
    metric = results["metric"]
    splits = sorted({training["split"] for row in results["rows"] for training in row["trainings"]} - {""})
    paper_keys = splits or sorted({key for row in results["rows"] for key in row["paper"]}, reverse=True)
    header = ["row", *(f"paper, {key}" for key in paper_keys)]
    if splits:
        header += ["paper, mean", *splits, "mean"]
    header += [TITLES[column] for column in SHOWN[metric]]
    rows = []
    for row in results["rows"]:
        trainings, paper = row["trainings"], row["paper"]
        cells = [row["title"], *(f"{paper[key]:.1f}" if key in paper else "-" for key in paper_keys)]
        if splits:
            cells.append(f"{paper['mean']:.1f}" if "mean" in paper else "-")
            cells += [spread(values_of(trainings, metric, split)) for split in splits]
            cells.append(spread(list(averaged(trainings, metric).values())))
        for column in SHOWN[metric]:
            digits = 1 if COLUMNS[column][1] == 100 else 3
            cells.append(spread(list(averaged(trainings, column).values()), digits))
        rows.append(cells)
    return header, rows


def comparisons(results: Mapping[str, Any]) -> list[str]:
    """What attention adds to average pooling, and what pose adds to attention, seed by seed."""
    rows = {row["row"]: row for row in results["rows"]}
    lines = []
    for better, worse in PAIRS:
        if better not in rows or worse not in rows:
            continue
        ours, other = (averaged(rows[name]["trainings"], results["metric"]) for name in (better, worse))
        gains = [ours[seed] - other[seed] for seed in ours if seed in other]
        if gains:
            first, second = (spread(list(values.values())) for values in (other, ours))
            sign = "<" if np.mean(gains) > 0 else ">="
            lines.append(
                f"{rows[worse]['title']} {first} {sign} {second} {rows[better]['title']}: "
                f"{'+' if np.mean(gains) >= 0 else ''}{spread(gains)}"
            )
    return lines


def notes(results: Mapping[str, Any]) -> list[str]:
    """What has to be known to read the table."""
    seeds = results["seeds"]
    lines = [
        f"Scale {results['scale']}, data {results['data']}; percent, "
        + (f"mean ± standard deviation over seeds {', '.join(map(str, seeds))}." if len(seeds) > 1 else "one seed.")
    ]
    if results["scale"] == "small":
        lines.append(
            "The playground in the benchmark's own format and frozen EfficientNet-Lite0 features: the paper's numbers "
            "are of other data and another network, and stand here for the order of the rows alone."
        )
    lines.append("Similarity: mean cosine between the last features of different positions of an image.")
    files = [t["submission"] for row in results["rows"] for t in row["trainings"] if t.get("submission")]
    lines += [f"For MPII's server (labels of the test part are not public): {file}" for file in files]
    lines += [f"Row {name} is not here: {reason}." for name, reason in results["skipped"].items()]
    if not results["complete"]:
        lines.append("Not complete: the same command goes on.")
    return lines


def result_page(results: Mapping[str, Any]) -> ResultPage:
    """The table of what `reproduce` found."""
    header, rows = table_of(results)
    return ResultPage(results["title"], header, rows, [("", comparisons(results))], notes(results))
