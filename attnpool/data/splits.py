"""Splits that depend only on names and a seed, so that adding an image does not move others between the splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from attnpool.data.dataset import Dataset


def choose(names: Sequence[str], seed: int, fraction: float) -> list[str]:
    """The `round(fraction * n)` names (at least 1, at most n - 1) with the smallest hashes, sorted."""
    count = min(max(1, int(fraction * len(names) + 0.5)), len(names) - 1)
    return sorted(by_hash(names, seed)[:count])


def choose_groups(samples: Mapping[str, tuple[str, str]], seed: int, fraction: float) -> set[str]:
    """Samples of whole groups, about `fraction` of every class: at least one of each, and never all.

    Groups are taken in the order of their hashes, if they bring the numbers of their classes nearer to what is wanted.
    Where every sample is a group of its own, this is `choose` for each class.

    Args:
        samples: path -> class and group.
        seed: seed of the hashes.
        fraction: what part of a class is chosen.

    Raises:
        ValueError: a class has a single group, or none of its groups can be chosen without taking all of another class.
    """
    count = Counter(label for label, _ in samples.values())
    of_group: dict[str, Counter[str]] = {}
    for path, (label, group) in samples.items():
        of_group.setdefault(group or path, Counter())[label] += 1
    groups_of = {label: sum(label in classes for classes in of_group.values()) for label in count}
    if single := sorted(label for label, groups in groups_of.items() if groups < 2):
        raise ValueError(f"all {count[single[0]]} samples of class {single[0]!r} are of one group")
    wanted = {label: min(max(1, int(fraction * n + 0.5)), n - 1) for label, n in count.items()}
    taken: Counter[str] = Counter()
    chosen: set[str] = set()

    def fits(group: str) -> bool:
        return all(taken[label] + n < count[label] for label, n in of_group[group].items())

    def take(group: str) -> None:
        taken.update(of_group[group])
        chosen.add(group)

    order = by_hash(list(of_group), seed)
    for group in order:
        short = {label: max(0, wanted[label] - taken[label]) for label in of_group[group]}
        gain = sum(min(n, short[label]) for label, n in of_group[group].items())
        if fits(group) and 2 * gain > of_group[group].total():
            take(group)
    smallest = sorted(order, key=lambda group: of_group[group].total())
    for label in sorted(count):
        if not taken[label]:
            fitting = [group for group in smallest if label in of_group[group] and fits(group)]
            if not fitting:
                raise ValueError(f"class {label!r} cannot be on both sides of a split without dividing a group")
            take(fitting[0])
    return {path for path, (_, group) in samples.items() if (group or path) in chosen}


def hold_out(dataset: Dataset, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Holds out a part of every class of a dataset, and returns `(rest, held out)`; groups stay whole.

    Hyper-parameters and the epoch to stop at are chosen on such a part of the training images. The image of a class
    with a single image stays in the rest. Images with several labels count for the first of them.

    Raises:
        ValueError: a class is all of one group.
    """
    classes = {label: paths for label, paths in by_class(dataset).items() if len(paths) > 1}
    if any(sample.group for sample in dataset):
        labels = {path: str(label) for label, paths in classes.items() for path in paths}
        groups = {sample.path: (labels[sample.path], sample.group) for sample in dataset if sample.path in labels}
        held = choose_groups(groups, seed, fraction)
        # A group may also have the only sample of a class.
        together = {sample.group for sample in dataset if sample.group and sample.path in held}
        held |= {sample.path for sample in dataset if sample.group in together}
    else:
        held = {path for paths in classes.values() for path in choose(paths, seed, fraction)}
    rest = [sample.path for sample in dataset if sample.path not in held]
    return dataset.select(rest), dataset.select(held, split="tune")


def fold_numbers(dataset: Dataset, count: int, seed: int = 0) -> list[int]:
    """The fold, 0 to `count - 1`, of every sample; every class is spread over the folds as evenly as possible.

    Images with several labels count for the first of them. Groups stay whole: the largest come first, each goes into
    the fold that has fewest of its classes.
    """
    classes = sorted(by_class(dataset).items())
    if not any(sample.group for sample in dataset):
        dealt = [path for _, paths in classes for path in by_hash(paths, seed)]
        fold = {path: place % count for place, path in enumerate(dealt)}
        return [fold[sample.path] for sample in dataset]
    labels = {path: label for label, paths in classes for path in paths}
    of_group: dict[str, Counter[int]] = {}
    for sample in dataset:
        of_group.setdefault(sample.group or sample.path, Counter())[labels[sample.path]] += 1
    filled = [Counter[int]() for _ in range(count)]
    fold_of: dict[str, int] = {}
    for group in sorted(by_hash(list(of_group), seed), key=lambda group: -of_group[group].total()):
        costs = [
            (sum(n * have[label] for label, n in of_group[group].items()), have.total(), number)
            for number, have in enumerate(filled)
        ]
        fold_of[group] = min(costs)[2]
        filled[fold_of[group]].update(of_group[group])
    return [fold_of[sample.group or sample.path] for sample in dataset]


def by_class(dataset: Dataset) -> dict[int, list[str]]:
    """The paths of the samples of every class, by their first label; -1 for those without one."""
    paths: dict[int, list[str]] = {}
    for sample in dataset:
        paths.setdefault(sample.labels[0] if sample.labels else -1, []).append(sample.path)
    return paths


def by_hash(names: Sequence[str], seed: int) -> list[str]:
    """Names in the order of their hashes with a seed."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
