"""The rows of the study: poolings with the options that are not their defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from attnpool.training.config import AUTO


@dataclass(frozen=True)
class Row:
    """A pooling.

    Attributes:
        title: its title in the table.
        options: options of the model and of its training, as in a recipe; all others have their defaults.
        usual: whether it is trained unless rows are named.
    """

    title: str
    options: dict[str, Any] = field(default_factory=dict)
    usual: bool = True


BASE = "average"

ROWS: dict[str, Row] = {
    BASE: Row("Average", {"pooling": "average"}),
    "max": Row("Max", {"pooling": "max"}),
    "rank1": Row("Attention, rank 1"),
    "per-class": Row("Attention per class", {"per_class": True}),
    "hidden": Row("Attention, hidden 64, softmax", {"hidden": 64, "activation": "softmax"}),
    "covariance": Row("Covariance, 64 channels", {"pooling": "covariance", "channels": 64}),
    "covariance-256": Row("Covariance, 256 channels", {"pooling": "covariance"}, usual=False),
    "multi_query": Row("Multi-query, 32 queries", {"pooling": "multi_query"}),
    "netvlad": Row("VLAD, 64 centres", {"pooling": "netvlad"}),
    AUTO: Row("auto", {"pooling": AUTO}),
    "rank2": Row("Attention, rank 2", {"rank": 2}, usual=False),
    "rank5": Row("Attention, rank 5", {"rank": 5}, usual=False),
    "relu": Row("Attention, ReLU", {"activation": "relu"}, usual=False),
    "sigmoid": Row("Attention, sigmoid", {"activation": "sigmoid"}, usual=False),
    "softmax": Row("Attention, softmax", {"activation": "softmax"}, usual=False),
    "free": Row("Attention, rank 1, free", {"optimizer": "adamw"}, usual=False),
    "official": Row("Attention, rank 1, free, official start", {"optimizer": "adamw", "init": "official"}, usual=False),
    "pose": Row("Pose-regularised attention", {"pooling": "pose"}, usual=False),
    "no-pose-loss": Row("Pose head, pose loss off", {"pooling": "pose", "pose_weight": 0.0}, usual=False),
    "cbp": Row("CBP, 2048", {"pooling": "compact_bilinear"}, usual=False),
    "cbp-normed": Row(
        "CBP, 2048, root and norm", {"pooling": "compact_bilinear", "signed_sqrt": True, "l2": True}, usual=False
    ),
    "bilinear": Row("Bilinear", {"pooling": "bilinear"}, usual=False),
    "saliency-norm": Row("Given saliency: norm", {"pooling": "saliency", "saliency": "norm"}, usual=False),
    "saliency-centre": Row("Given saliency: centre", {"pooling": "saliency", "saliency": "centre"}, usual=False),
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
    return dict(sorted(entries.items(), key=lambda item: number.get(item[0], len(number))))
