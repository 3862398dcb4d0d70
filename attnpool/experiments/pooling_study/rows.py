"""The rows of the study: a pooling with its options, and the learning rates that it is tried with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

DROPOUTS = (0.0, 0.8)
STEPS_BEYOND = 2  # how often rates are added at an end of the grid where the best one lies


@dataclass(frozen=True)
class Row:
    """A pooling.

    Attributes:
        title: its title in the table.
        options: options of the model and of its training, as in a recipe.
        rates: peak learning rates to choose from, a stretch of 1, 3, 10, 30, ... The optimizer is that of
            `OptimizerOptions`: SGD for average pooling on frozen features, else AdamW.
        usual: whether it is trained unless rows are named.
    """

    title: str
    options: dict[str, Any] = field(default_factory=dict)
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    usual: bool = True


ROWS: dict[str, Row] = {
    "average": Row("Average", {"pooling": "average"}, (3e-3, 1e-2, 3e-2)),
    "max": Row("Max", {"pooling": "max"}, (3e-3, 1e-2, 3e-2)),
    "rank1": Row("Attention, rank 1"),
    "rank2": Row("Attention, rank 2", {"rank": 2}),
    "rank5": Row("Attention, rank 5", {"rank": 5}),
    "per-class": Row("Attention per class", {"per_class": True}),
    "relu": Row("Attention, ReLU", {"activation": "relu"}),
    "sigmoid": Row("Attention, sigmoid", {"activation": "sigmoid"}),
    "softmax": Row("Attention, softmax", {"activation": "softmax"}),
    "pose": Row("Pose-regularised attention", {"pooling": "pose"}),
    "cbp": Row("CBP, 2048", {"pooling": "compact_bilinear"}, (1e-4, 3e-4, 1e-3)),
    "covariance": Row("Covariance, 128 channels", {"pooling": "covariance", "channels": 128}, (3e-4, 1e-3, 3e-3)),
    "multi_query": Row("Multi-query, 32 queries", {"pooling": "multi_query"}),
    "netvlad": Row("VLAD, 64 centres", {"pooling": "netvlad"}, (3e-3, 1e-2, 3e-2)),
    "official-init": Row("Attention, official start", {"init": "official"}, usual=False),
    "no-pose-loss": Row("Pose head, pose loss off", {"pooling": "pose", "pose_weight": 0.0}, usual=False),
    "bilinear": Row("Bilinear", {"pooling": "bilinear"}, (1e-5, 3e-5, 1e-4), usual=False),
    "cbp-normed": Row(
        "CBP, 2048, root and norm",
        {"pooling": "compact_bilinear", "signed_sqrt": True, "l2": True},
        (0.03, 0.1, 0.3),
        usual=False,
    ),
    "saliency-norm": Row(
        "Given saliency: norm", {"pooling": "saliency", "saliency": "norm"}, (3e-3, 1e-2, 3e-2), usual=False
    ),
    "saliency-centre": Row(
        "Given saliency: centre", {"pooling": "saliency", "saliency": "centre"}, (3e-3, 1e-2, 3e-2), usual=False
    ),
}


def choose_rows(names: Sequence[str]) -> dict[str, Row]:
    """The rows of these names in the order of the table; without names the usual ones.

    Raises:
        ValueError: a name is unknown.
    """
    for name in names:
        if name not in ROWS:
            raise ValueError(f"poolings has no row {name!r}: use some of {', '.join(ROWS)}")
    return {name: row for name, row in ROWS.items() if (name in names if names else row.usual)}


def in_order(entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What is known of rows, in the order of the table and not in that in which it was asked for."""
    number = {name: n for n, name in enumerate(ROWS)}
    keys = sorted(entries, key=lambda key: (number.get(entries[key]["row"], len(number)), entries[key]["dropout"]))
    return {key: entries[key] for key in keys}


def next_rate(rates: Sequence[float], tried: dict[float, float]) -> float | None:
    """The learning rate to try next; None once the best one is known.

    The grid is gone through, then continued at the end where its best rate lies, up to `STEPS_BEYOND` rates at each
    end.

    Args:
        rates: the grid.
        tried: rate -> score.
    """
    for rate in rates:
        if rate not in tried:
            return rate
    best = max(tried, key=lambda rate: tried[rate])
    if best == min(tried) and sum(rate < min(rates) for rate in tried) < STEPS_BEYOND:
        return neighbour(best, -1)
    if best == max(tried) and sum(rate > max(rates) for rate in tried) < STEPS_BEYOND:
        return neighbour(best, 1)
    return None


def neighbour(rate: float, step: int) -> float:
    """The rate before (-1) or after (1) this one in 1, 3, 10, 30, ...

    >>> neighbour(0.003, 1), neighbour(0.001, -1)
    (0.01, 0.0003)
    """
    digit, exponent = f"{rate:.0e}".split("e")
    other = {("1", 1): ("3", 0), ("3", 1): ("1", 1), ("3", -1): ("1", 0), ("1", -1): ("3", -1)}[digit, step]
    return float(f"{other[0]}e{int(exponent) + other[1]}")
