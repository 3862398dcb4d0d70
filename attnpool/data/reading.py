"""Reads datasets that are named as `FORMAT:PATH`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from attnpool.data.dataset import Dataset
from attnpool.data.formats import READERS, Format, ReadOptions
from attnpool.data.groups import divided, group_of, require_groups, with_groups


def read_splits(
    source: str | Path,
    *,
    split_seed: int | None = None,
    val_fraction: float | None = None,
    min_per_class: int | None = None,
    left_out: Sequence[str] = (),
    group_by: str | None = None,
    test: bool = True,
) -> dict[str, Dataset]:
    """Reads all splits of a dataset: "train", "val" and, if it exists and `test` is set, "test".

    Args:
        source: dataset as `FORMAT:PATH`, such as `folder:photos`; the formats are the keys of `READERS`.
        split_seed: seed of the split into train and val, for a dataset without a split of its own (default: 0).
        val_fraction: fraction of every class that becomes val in such a split (default: 0.25).
        min_per_class: number of images to train on below which a class is left out, for a folder of classes.
        left_out: classes of a folder that are left out whatever they hold, as when a run was trained.
        group_by: what samples belong together by, so that no split divides them, see `groups.group_of`.
        test: whether to read a test split.

    Raises:
        ValueError: the format is unknown, the dataset is missing or malformed, it has a split of its own and a seed or
            fraction is given, or is published and no class can be left out; the message is one line with the fix.
    """
    name, found, root = _parse(source)
    given = {"split_seed": split_seed, "val_fraction": val_fraction}
    for option, value in given.items():
        if value is not None and found.own_split(root):
            raise ValueError(f"{source} comes with its own split; leave out {option}")
    if min_per_class is not None and not found.every_file:
        raise ValueError(f"{source} is a published dataset with all its classes; leave out min_per_class")
    if min_per_class is not None and min_per_class < 1:
        raise ValueError(f"min_per_class is {min_per_class}; give at least 1")
    options = ReadOptions(str(source), name, test, min_per_class=min_per_class or 0, left_out=tuple(left_out))
    options = replace(options, group_by=group_by or "")
    if split_seed is not None:
        options = replace(options, split_seed=split_seed)
    if val_fraction is not None:
        options = replace(options, val_fraction=val_fraction)
    splits = found.read(root, options)
    return grouped(splits, group_by) if group_by else splits


def grouped(splits: Mapping[str, Dataset], by: str) -> dict[str, Dataset]:
    """Splits whose samples know their groups; what of val is of a group of train is said.

    Raises:
        ValueError: no two samples belong together.
    """
    own = {sample.path: group_of(sample.path, by) for part in splits.values() for sample in part}
    require_groups(own, by)
    count, (of_val, of_train) = divided(splits, own.__getitem__)
    said = f"{count} of {len(splits['val'])} {splits['val'].media} of val are of groups of train, such as {of_val} and "
    notes = [f"{splits['val'].name}: {said}{of_train}; its own split divides them"] if count else []
    made = {id(part): with_groups(replace(part, notes=(*part.notes, *notes)), by) for part in splits.values()}
    return {split: made[id(part)] for split, part in splits.items()}  # a test split that is val stays so


def read(
    source: str | Path,
    *,
    split_seed: int | None = None,
    val_fraction: float | None = None,
    min_per_class: int | None = None,
    group_by: str | None = None,
) -> tuple[Dataset, Dataset]:
    """Reads a dataset and returns (train, val). Arguments and errors are those of `read_splits`."""
    splits = read_splits(
        source,
        split_seed=split_seed,
        val_fraction=val_fraction,
        min_per_class=min_per_class,
        group_by=group_by,
        test=False,
    )
    return splits["train"], splits["val"]


def read_all(source: str | Path, *, split_seed: int | None = None, val_fraction: float | None = None) -> Dataset:
    """Reads train and val as one dataset, in a fixed order, without a test split. Errors are those of `read_splits`."""
    train, val = read(source, split_seed=split_seed, val_fraction=val_fraction)
    return train.sorted((*train.samples, *val.samples), "all")


def has_own_split(source: str | Path) -> bool:
    """Whether a dataset has a split into train and val of its own, so that a seed would change nothing.

    Raises:
        ValueError: the format is unknown.
    """
    _, found, root = _parse(source)
    return found.own_split(root)


def _parse(source: str | Path) -> tuple[str, Format, Path]:
    name, colon, path = str(source).partition(":")
    found = READERS.get(name) if colon else None
    if found is None or not path:
        given = str(source) or "DIR"
        hint = f"folder:{'DIR' if colon else given}"
        raise ValueError(f"{given!r} does not say which format to read ({', '.join(READERS)}); write {hint}")
    return name, found, Path(path).expanduser()
