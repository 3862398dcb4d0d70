"""Splits that depend only on names and a seed, so that adding an image does not move others between the splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from attnpool.data.dataset import Dataset


def choose(names: Sequence[str], seed: int, fraction: float) -> list[str]:
    """The `round(fraction * n)` names (at least 1, at most n - 1) with the smallest hashes, sorted."""
    count = min(max(1, int(fraction * len(names) + 0.5)), len(names) - 1)
    return sorted(by_hash(names, seed)[:count])


def hold_out(dataset: Dataset, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Holds out a part of every class of a dataset, and returns `(rest, held out)`.

    Hyper-parameters and the epoch to stop at are chosen on such a part of the training images. The image of a class
    with a single image stays in the rest. Images with several labels count for the first of them.
    """
    held = {path for paths in by_class(dataset).values() if len(paths) > 1 for path in choose(paths, seed, fraction)}
    rest = [sample.path for sample in dataset if sample.path not in held]
    return dataset.select(rest), dataset.select(held, split="tune")


def fold_numbers(dataset: Dataset, count: int, seed: int = 0) -> list[int]:
    """The fold, 0 to `count - 1`, of every sample; every class is spread over the folds as evenly as possible.

    Images with several labels count for the first of them.
    """
    dealt = [path for _, paths in sorted(by_class(dataset).items()) for path in by_hash(paths, seed)]
    fold = {path: place % count for place, path in enumerate(dealt)}
    return [fold[sample.path] for sample in dataset]


def by_class(dataset: Dataset) -> dict[int, list[str]]:
    """The paths of the samples of every class, by their first label; -1 for those without one."""
    paths: dict[int, list[str]] = {}
    for sample in dataset:
        paths.setdefault(sample.labels[0] if sample.labels else -1, []).append(sample.path)
    return paths


def by_hash(names: Sequence[str], seed: int) -> list[str]:
    """Names in the order of their hashes with a seed."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
