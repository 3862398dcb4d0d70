"""`reproduce`: a table of the paper, a recipe a row, with several seeds; or the same path in small, on a laptop."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from attnpool.backbones.backbone import Backbone
from attnpool.data import Dataset, read_splits
from attnpool.evaluation.evaluate import Evaluation, evaluate
from attnpool.evaluation.similarity import feature_similarity
from attnpool.experiments.arguments import require_seeds, weight_files
from attnpool.experiments.pages import Results
from attnpool.experiments.paper.tables import TABLES, plan, result_page, root_of
from attnpool.files import claimed, write_json, write_text
from attnpool.models.run import Run, is_finished
from attnpool.playground import write_playground
from attnpool.progress import bar
from attnpool.training.checkpoint import require_same
from attnpool.training.config import Options
from attnpool.training.recipe import RECIPES, Recipe, fit, read_recipe

SEEDS = (0, 1, 2)
SCORES_FILE = "scores.json"
SIMILAR = 100  # images whose positions are compared


class Reproduced(Results):
    """What `reproduce` found: `results` is the content of the JSON file, `str()` the table to read."""

    def __str__(self) -> str:
        return f"{result_page(self.results).text()}\n\n{self.out / (self.results['table'] + '.md')}"


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


def reproduce(
    table: Literal["table1", "table2", "table3"],
    *,
    out: str | Path | None = None,
    mpii: str | Path | None = None,
    hico: str | Path | None = None,
    hmdb51: str | Path | None = None,
    rows: Sequence[str] = (),
    seeds: Sequence[int] = SEEDS,
    scale: Literal["full", "small"] = "full",
    weights: Sequence[str] = (),
    workers: int = 0,
    cache: str | Path | None = None,
    progress: bool = True,
) -> Reproduced:
    """Trains and scores the rows of a table that the paper's authors trained themselves, and sets both side by side.

    What an earlier, interrupted call has done is not done again. Writes `TABLE.json`, `TABLE.md` and `runs/` in `out`.
    The table has what earlier calls with other `rows` left there, too. The rows for MPII's test server are trained with
    the first seed only.

    Args:
        table: table of the paper: table1 is about MPII, table2 about HICO and table3 about HMDB51.
        out: folder for the runs, TABLE.json and TABLE.md (default: runs/TABLE).
        mpii: root of MPII's files, see docs/datasets.md (default at scale small: a playground in its format).
        hico: root of HICO's files, see docs/datasets.md (default at scale small: a playground in its format).
        hmdb51: root of HMDB51's files, see docs/datasets.md (default at scale small: a playground in its format).
        rows: rows of the table, by the names of their recipes, such as resnet101-attention; a wrong name lists them all
            (default: all).
        seeds: seeds of the trainings of each row.
        scale: full trains as the recipes say; small trains on a laptop in minutes, with the changes under a recipe's
            `small`: frozen EfficientNet-Lite0 features and few epochs.
        weights: BACKBONE=FILE for weights that are neither installed nor on timm's hub, such as bn_inception=FILE for
            its rows of table1.
        workers: processes that decode images; they change nothing but the speed.
        cache: folder of features (default: $ATTNPOOL_CACHE or the user's cache).
        progress: show progress bars.

    Raises:
        ValueError: unknown names, data that cannot be used, or a folder that holds trainings on other data or with
            other options, such as those of the other scale.
    """
    chosen, skipped = plan(table, rows, scale)
    require_seeds(seeds)
    about = TABLES[table]
    root = root_of(table, {"mpii": mpii, "hico": hico, "hmdb51": hmdb51}, scale)
    folder = Path("runs", table) if out is None else Path(out)
    cache = None if cache is None else Path(cache)
    place = folder / "data" / about.data if root is None else root
    files = weight_files(weights)
    jobs = [job for recipe in chosen for job in jobs_of(recipe, about.data, place, seeds, scale, workers, files)]
    require_wanted(files, jobs)
    with claimed(folder, "trainings of a table"):
        if root is None:
            write_playground(place, style=about.data, images=about.samples, seed=1, progress=progress)
        kept = {job.name: kept_scores(job, folder / "runs" / job.name) for job in jobs}
        splits = read_all_of([job for job in jobs if kept[job.name] is None])  # faults show before days of training
    backbones: dict[str, Backbone] = {}
    recipes = [read_recipe(RECIPES / table / f"{row}.yaml") for row in about.rows]
    entries: dict[str, list[dict[str, Any]]] = {recipe.name: [] for recipe in chosen}
    for recipe in recipes:
        if recipe.name not in entries:
            other = jobs_of(recipe, about.data, place, seeds, scale, workers, files)
            entries[recipe.name] = [scores for job in other if (scores := earlier(job, folder / "runs" / job.name))]
    with bar(len(jobs), table, "trainings", hidden=not progress) as shown:
        for number, job in enumerate(jobs, 1):
            entry = kept[job.name] or score_job(
                job, splits[job.source], folder / "runs" / job.name, backbones, cache, progress
            )
            entries[job.row].append(entry)
            shown.update(1)
            # written after every training, so that there is something to see of a table that takes days
            results = {
                "table": table,
                "title": about.title,
                "scale": scale,
                "seeds": list(seeds),
                "data": str(place),
                "metric": chosen[0].about["metric"],
                "rows": [row_of(recipe, scale, entries[recipe.name]) for recipe in recipes if entries[recipe.name]],
                "skipped": skipped,
                "complete": number == len(jobs),
            }
            write_json(folder / f"{table}.json", results)
            write_text(folder / f"{table}.md", result_page(results).markdown())
    return Reproduced(folder, results)


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
    options = recipe.at(scale)
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


def require_wanted(weights: Mapping[str, str | Path], jobs: Sequence[Job]) -> None:
    """Raises ValueError for a file of weights that is not there, or is of a backbone that no row has."""
    used = list(dict.fromkeys(job.options.model["backbone"] for job in jobs))
    for name, file in weights.items():
        if name not in used:
            raise ValueError(f"weights {name}={file}: none of the rows has the backbone {name}, but {', '.join(used)}")
        if not Path(file).is_file():
            raise ValueError(f"weights {name}={file}: there is no such file")


def kept_scores(job: Job, folder: Path) -> dict[str, Any] | None:
    """What an earlier call wrote down of a training; None if there is nothing.

    Raises:
        ValueError: the folder holds a training on other data or with other options.
    """
    try:
        known = json.loads((folder / SCORES_FILE).read_text(encoding="utf-8"))
        before, scores = known["of"], known["scores"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    require_same(folder, before, job.identity)
    return scores if is_finished(folder) else None


def earlier(job: Job, folder: Path) -> dict[str, Any] | None:
    """`kept_scores` of a row that was not asked for: on other data or with other options it is left out."""
    try:
        return kept_scores(job, folder)
    except ValueError:
        return None


def read_all_of(jobs: Sequence[Job]) -> dict[str, dict[str, Dataset]]:
    """Source -> its splits.

    Raises:
        ValueError: the data cannot be used, or a row needs a test part that is not there.
    """
    test = any(job.options.train.trainval for job in jobs)
    splits = {source: read_splits(source, test=test) for source in dict.fromkeys(job.source for job in jobs)}
    for job in jobs:
        if job.options.train.trainval and "test" not in splits[job.source]:
            raise ValueError(
                f"{job.source}: has no list of its test part, which {job.row} is for; add it, or name other rows"
            )
    return splits


def score_job(
    job: Job,
    splits: Mapping[str, Dataset],
    folder: Path,
    backbones: dict[str, Backbone],
    cache: Path | None,
    progress: bool,
) -> dict[str, Any]:
    """Trains and scores one run."""
    model, backbone = job.options.model, None
    if model["freeze_backbone"] and job.options.preprocessing.modality == "rgb":
        name, weights = model["backbone"], model["weights"]
        key = f"{name} {weights}"
        if key not in backbones:
            backbones[key] = Backbone(name, weights, frozen=True)
        backbone = backbones[key]
    run = fit(job.options, (splits["train"], splits["val"]), folder, backbone=backbone, cache=cache, progress=progress)
    entry: dict[str, Any] = {"seed": job.seed, "split": job.split, "run": str(folder)}
    entry["train_loss"] = run.about["results"]["history"][-1]["loss"]
    workers = job.options.train.workers
    if job.options.train.trainval:
        file = folder / "submission.mat"
        evaluate(run, splits["test"], cache=cache, workers=workers, submission=file, progress=progress)
        entry["submission"] = str(file)
    else:
        entry |= scores_of(evaluate(run, splits["val"], cache=cache, workers=workers, progress=progress))
        seen = evaluate(run, splits["train"], cache=cache, workers=workers, progress=progress)
        entry["train"] = scores_of(seen)
        entry["similarity"] = similarity_of(run, splits["val"], folder.parent, job.split, progress)
    write_json(folder / SCORES_FILE, {"of": job.identity, "scores": entry})
    return entry


def scores_of(found: Evaluation) -> dict[str, Any]:
    scores = found.to_json()
    known = scores["known_object"]
    kept = {name: scores[name] for name in ("mAP", "mAP_voc07", "mAP_sklearn", "accuracy")}
    return kept | {
        "known_object": known and known["mAP_voc07"],
        "pointing": scores["pointing"],
        "skipped": len(scores["skipped"]),
    }


def similarity_of(run: Run, dataset: Dataset, folder: Path, split: str, progress: bool) -> float:
    """Similarity between positions of the last features, measured once for each size and split if they are frozen."""
    name, size = run.model.backbone.name.replace("/", "_"), run.model.preprocessing["image_size"]
    path = folder / f"similarity-{name}-{size}{f'-{split}' if split else ''}.json"
    frozen = run.model.backbone.frozen
    if frozen and path.exists():
        return float(json.loads(path.read_text(encoding="utf-8"))["mean"])
    found = feature_similarity(run.model, dataset, limit=SIMILAR, progress=progress)
    if frozen:
        write_json(path, {"mean": found.mean, "std": found.std, "images": found.images})
    return found.mean


def row_of(recipe: Recipe, scale: str, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row of the table: what it is, the paper's numbers in percent, and our trainings."""
    about = recipe.about
    title = about.get("small-row", about["row"]) if scale == "small" else about["row"]
    return {"row": recipe.name, "title": title, "paper": about["paper"], "trainings": list(entries)}
