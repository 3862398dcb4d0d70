"""`reproduce`: a table of the paper, a recipe a row, with several seeds; or the same path in small, on a laptop."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from attnpool.backbones.backbone import Backbone
from attnpool.data import Dataset, read_splits
from attnpool.evaluation.evaluate import Evaluation, evaluate
from attnpool.evaluation.similarity import feature_similarity
from attnpool.experiments.paper.table_text import markdown, summary
from attnpool.experiments.paper.tables import TABLES, Job, jobs_of, plan, require_seeds
from attnpool.files import RUN_FILE, write_json, write_text
from attnpool.playground import write_playground
from attnpool.progress import bar
from attnpool.training.checkpoint import Run, require_same
from attnpool.training.recipe import RECIPES, Recipe, fit, read_recipe

SEEDS = (0, 1, 2)
SCORES_FILE = "scores.json"
SIMILAR = 100  # images whose positions are compared


@dataclass(frozen=True)
class Reproduced:
    """What `reproduce` found: `results` is the content of the JSON file, `text()` the table to read."""

    out: Path
    results: dict[str, Any]

    def text(self) -> str:
        return summary(self.results) + f"\n\n{self.out / (self.results['table'] + '.md')}"


def reproduce(
    table: str,
    *,
    out: str | Path,
    root: str | Path | None = None,
    rows: Sequence[str] = (),
    seeds: Sequence[int] = SEEDS,
    scale: Literal["full", "small"] = "full",
    weights: Mapping[str, str | Path] | None = None,
    workers: int = 0,
    cache: Path | None = None,
    progress: bool = True,
) -> Reproduced:
    """Trains and scores the rows of a table that the paper's authors trained themselves, and sets both side by side.

    What an earlier, interrupted call has done is not done again. Writes `TABLE.json`, `TABLE.md` and `runs/` in `out`.
    The table has what earlier calls with other `rows` left there, too.

    Args:
        table: a key of `TABLES`.
        out: the folder.
        root: of the benchmark's files; at scale small a playground in the benchmark's own format is made if there is
            none.
        rows: names of recipes in `recipes/TABLE`; by default all.
        seeds: of the trainings. (The rows for MPII's test server are trained with the first.)
        scale: "full" trains as the recipes say; "small" with the changes under their `small`: frozen EfficientNet-Lite0
            features and few epochs.
        weights: backbone -> file of its weights, where they are neither installed nor to be had from timm's hub, such
            as bn_inception's.
        workers: processes that decode images; changes nothing but the speed.
        cache: folder of features.
        progress: show progress bars.

    Raises:
        ValueError: unknown names, data that cannot be used, or a folder that holds trainings on other data or with
            other options, such as those of the other scale.
    """
    chosen, skipped = plan(table, rows, scale)
    require_seeds(seeds)
    folder, about = Path(out), TABLES[table]
    if root is None and scale != "small":
        raise ValueError(f"{table} at full scale needs the data: give --{about.data} ROOT, or use --scale small")
    place = folder / "data" / about.data if root is None else Path(root)
    files = weights or {}
    jobs = [job for recipe in chosen for job in jobs_of(recipe, about.data, place, seeds, scale, workers, files)]
    require_wanted(files, jobs)
    if root is None:
        write_playground(place, style=about.data, images=about.world, seed=1, progress=progress)
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
            write_text(folder / f"{table}.md", markdown(results))
    return Reproduced(folder, results)


def require_wanted(weights: Mapping[str, str | Path], jobs: Sequence[Job]) -> None:
    """Raises ValueError for a file of weights that is not there, or is of a backbone that no row has."""
    used = list(dict.fromkeys(job.options.model.backbone for job in jobs))
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
    return scores if (folder / RUN_FILE).exists() else None


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
                f"{job.source}: has no list of its test part, which {job.row} is for; add it, or name other --rows"
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
    if model.freeze_backbone and job.options.preprocessing.modality == "rgb":
        key = f"{model.backbone} {model.weights}"
        if key not in backbones:
            backbones[key] = Backbone(model.backbone, model.weights, frozen=True)
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
        entry["similarity"] = similarity_of(run, splits["val"], folder.parent, progress)
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


def similarity_of(run: Run, dataset: Dataset, folder: Path, progress: bool) -> float:
    """Similarity between positions of the last features; of a frozen backbone it is measured once for each size."""
    path = (
        folder / f"similarity-{run.model.backbone.name.replace('/', '_')}-{run.model.preprocessing['image_size']}.json"
    )
    frozen = run.model.backbone.frozen
    if frozen and path.exists():
        return float(json.loads(path.read_text())["mean"])
    found = feature_similarity(run.model, dataset, limit=SIMILAR, progress=progress)
    if frozen:
        write_json(path, {"mean": found.mean, "std": found.std, "images": found.images})
    return found.mean


def row_of(recipe: Recipe, scale: str, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row of the table: what it is, the paper's numbers in percent, and our trainings."""
    about = recipe.about
    title = about.get("small-row", about["row"]) if scale == "small" else about["row"]
    return {"row": recipe.name, "title": title, "paper": about["paper"], "trainings": list(entries)}
