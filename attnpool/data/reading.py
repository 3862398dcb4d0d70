"""From what a user types, `FORMAT:PATH`, to datasets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from attnpool.data.dataset import Dataset
from attnpool.data.formats import READERS, Format, ReadOptions


def read_splits(
    source: str | Path, *, split_seed: int | None = None, val_fraction: float | None = None, test: bool = True
) -> dict[str, Dataset]:
    """Read all parts of a dataset: "train", "val" and, if there is one and it is wanted, "test".

    Args:
        source: `FORMAT:PATH`, such as `folder:photos`; the formats are the keys of `READERS`.
        split_seed: of the split into train and val, where the dataset does not come with one (default: 0).
        val_fraction: part of every class that becomes val in such a split (default: 0.25).
        test: whether to look for a test split.

    Raises:
        ValueError: no such format, the dataset is missing or malformed, or it comes with its own split and a seed or
            fraction is given; one line with what to do.
    """
    name, found, root = _parse(source)
    given = {"split_seed": split_seed, "val_fraction": val_fraction}
    for option, value in given.items():
        if value is not None and found.own_split(root):
            raise ValueError(f"{source} comes with its own split; leave out {option}")
    options = ReadOptions(str(source), name, test)
    if split_seed is not None:
        options = replace(options, split_seed=split_seed)
    if val_fraction is not None:
        options = replace(options, val_fraction=val_fraction)
    return found.read(root, options)


def read(
    source: str | Path, *, split_seed: int | None = None, val_fraction: float | None = None
) -> tuple[Dataset, Dataset]:
    """Read a dataset: (train, val). Arguments and errors are those of `read_splits`."""
    splits = read_splits(source, split_seed=split_seed, val_fraction=val_fraction, test=False)
    return splits["train"], splits["val"]


def read_all(source: str | Path, *, split_seed: int | None = None, val_fraction: float | None = None) -> Dataset:
    """Train and val in one dataset, in order of path; a test split stays apart. Errors are those of `read_splits`."""
    train, val = read(source, split_seed=split_seed, val_fraction=val_fraction)
    samples = sorted((*train.samples, *val.samples), key=lambda sample: sample.path)
    return replace(train, samples=tuple(samples), split="all")


def has_own_split(source: str | Path) -> bool:
    """Whether a dataset comes with its own split into train and val, so that a seed would change nothing.

    Raises:
        ValueError: there is no such format.
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
