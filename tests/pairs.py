"""Few combinations of options in which any two choices meet: what one option breaks in another is found by them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Combination = dict[str, Any]


def all_pairs(axes: Mapping[str, Iterable[Any]], allowed: Callable[[Combination], bool]) -> list[Combination]:
    """Combinations in which every choice stands, and every two choices of different options that may stand together.

    Greedy: of all allowed combinations the first one that has most pairs which were in none before, until none is left.

    Args:
        axes: option -> its choices; the first combination has the first choice of each, if that is allowed.
        allowed: whether a combination may be.
    """
    choices = {option: list(values) for option, values in axes.items()}
    product = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    candidates = [combination for combination in product if allowed(combination)]
    left = {pair for combination in candidates for pair in pairs_of(combination)}
    found: list[Combination] = []
    while left or not found:
        best = max(candidates, key=lambda combination: len(left & pairs_of(combination)))
        found.append(best)
        left -= pairs_of(best)
    for option, values in choices.items():
        for value in values:
            assert any(combination[option] == value for combination in found), f"{option}={value} is in none"
    return found


def pairs_of(combination: Combination) -> set[tuple[Any, ...]]:
    """Its pairs of choices; of a single option, the choice."""
    items = list(combination.items())
    return set(itertools.combinations(items, 2)) if len(items) > 1 else {tuple(items)}
