"""The part of a dataset that a run is scored on, and whether dataset and run fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attnpool.data import Dataset, has_own_split, read_splits
from attnpool.models.run import Run


def choose_split(run: Run, source: str, split: Literal["val", "train", "all", "test"] = "val") -> Dataset:
    """The part of a dataset that a run is evaluated on.

    For the data that the run was trained on, "val" and "train" are the run's own saved parts; another dataset is split
    as `data.read` does it. Data counts as the run's if it has the same name or at least half of the run's files: two
    datasets may share some names, such as drinking/001.jpg.

    Raises:
        ValueError: the dataset's classes are not the run's, files of the saved split are gone, or there is no test
            part.
    """
    saved = run.about["split"]
    seed = None if has_own_split(source) else saved.get("split_seed", 0)
    splits = read_splits(source, split_seed=seed, left_out=saved.get("left_out", ()), test=split == "test")
    require_classes(run, splits["train"])
    if split == "test":
        if "test" not in splits:
            raise ValueError(f"{source}: has no test part; use split val, train or all")
        return splits["test"]
    every = {sample.path: sample for part in ("train", "val") for sample in splits[part]}
    dataset = splits["train"].sorted(every.values(), "all")
    if split == "all":
        return dataset
    used = [*saved.get("train", ()), *saved.get("val", ())]
    gone = [path for path in used if path not in every]
    if not used or (2 * len(gone) > len(used) and not same_source(source, run.about["recipe"].get("data"))):
        return splits[split]
    if missing := sorted(set(gone).intersection(saved[split])):
        raise ValueError(
            f"{source}: {len(missing)} of the {len(saved[split])} {split} images of {run.folder} are not there, "
            f"the first is {missing[0]}; put them back, or use split all"
        )
    return dataset.select(saved[split], split)


def same_source(source: str, other: str | None) -> bool:
    """Whether two sources such as `folder:ds` and `folder:./ds` are the same data."""
    if other is None or source == other:
        return source == other
    (kind, _, place), (other_kind, _, other_place) = source.partition(":"), other.partition(":")
    return kind == other_kind and Path(place).expanduser().resolve() == Path(other_place).expanduser().resolve()


def require_classes(run: Run, dataset: Dataset) -> None:
    """Raises ValueError that names the classes in which a dataset differs from a run."""
    missing = sorted(set(run.model.classes) - set(dataset.classes))
    extra = sorted(set(dataset.classes) - set(run.model.classes))
    if missing or extra:
        parts = [
            f"{what}: {', '.join(names[:5])}"
            for what, names in (("unknown to the run", extra), ("not in the data", missing))
            if names
        ]
        raise ValueError(
            f"{dataset.name}: its classes are not those of {run.folder} ({'; '.join(parts)}); "
            "use the data it was trained for"
        )
    if dataset.classes != run.model.classes:
        raise ValueError(f"{dataset.name}: the classes of {run.folder} in another order; give them the same order")


def require_unseen(stream: Run, run: Run, dataset: Dataset) -> None:
    """Raises ValueError if a stream was trained on some of the samples, and the run that it is added to on none.

    So it is with streams of two of HMDB51's splits: one has learned what the other is tested on.
    """
    names = {sample.path for sample in dataset}
    seen = names.intersection(stream.about["split"].get("train", ()))
    if seen and not names.intersection(run.about["split"].get("train", ())):
        raise ValueError(
            f"{stream.folder}: was trained on {len(seen)} of the {len(names)} samples, and {run.folder} on none; "
            "fuse runs of the same split"
        )
