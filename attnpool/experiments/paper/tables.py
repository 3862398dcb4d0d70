"""The tables of the paper: their rows, each a recipe, and the trainings that a row is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from attnpool.training.recipe import RECIPES, Options, Recipe, read_recipe


@dataclass(frozen=True)
class Table:
    """A table of the paper: which data, how large a world stands for it in small, and its rows in order."""

    data: Literal["mpii", "hico", "hmdb51"]
    world: int
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


@dataclass(frozen=True)
class Job:
    """One training: a row of a table, on one split, with one seed."""

    row: str
    split: str
    source: str
    seed: int
    options: Options

    @property
    def name(self) -> str:
        return "-".join(part for part in (self.row, self.split, str(self.seed)) if part)

    @property
    def identity(self) -> dict[str, Any]:
        """All that its scores depend on."""
        return {"data": self.source, **self.options.flat()}


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
        raise ValueError(f"{table}: none of these rows can be run at scale {scale} ({reason}); use --scale full")
    return left, skipped


def require_seeds(seeds: Sequence[int]) -> None:
    """Raises ValueError unless there are one or more different seeds."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds {' '.join(map(str, seeds))}: give one or more different numbers")


def jobs_of(
    recipe: Recipe,
    data: str,
    root: Path,
    seeds: Sequence[int],
    scale: str,
    workers: int,
    weights: Mapping[str, str | Path],
) -> list[Job]:
    """The trainings of a row; `weights` are the files of some backbones."""
    values = recipe.options | (recipe.small if scale == "small" else {})
    options = Options.of(values, f"recipe {recipe.name}")
    if file := weights.get(options.model["backbone"]):
        options = options.change({"weights": str(file)})
    names = ("hmdb51", "hmdb51-2", "hmdb51-3") if data == "hmdb51" else (data,)
    used = seeds[:1] if options.train.trainval else seeds
    return [
        Job(
            recipe.name,
            f"split{number}" if len(names) > 1 else "",
            f"{name}:{root}",
            seed,
            replace(options, train=replace(options.train, seed=seed, workers=workers)),
        )
        for number, name in enumerate(names, 1)
        for seed in used
    ]
