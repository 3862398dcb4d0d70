"""Which heads are timed: every entry of POOLINGS with the variants that differ in cost, and what people use today."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from attnpool.experiments.benchmark.references import (
    AverageAndLinear,
    BothMaps,
    EfficientProbing,
    MapsFirst,
    TimmPooling,
    UsualCompactBilinear,
    UsualCovariance,
)
from attnpool.pooling import POOLINGS

REFERENCE = "average pooling + linear (plain torch)"
MAPS_FIRST = "attentional, rank 1, K maps first (released code)"
BOTH_MAPS = "attentional, per class, one product with [A, B]"
USUAL_SKETCH = "compact bilinear, D=8192, an inverse FFT a position"
USUAL_COVARIANCE = "covariance, 256 channels, steps of the public code"
USUAL_PROBE = "multi_query, all positions projected first"
SKETCH, COVARIANCE, PROBE = "compact bilinear, D=8192", "covariance, 256 channels", "multi_query"
Layout = Literal["NCHW", "NHWC", "tokens"]
LAYOUTS: tuple[Layout, ...] = ("NCHW", "NHWC", "tokens")
PASSES = ("forward", "forward + backward")
# A head whose weights take more bytes than this is left out.
LARGEST = 2**30
QUERIES = 32

# Options in the order of the tables; a pooling that is not named here is timed with its defaults.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "attentional": {
        "attentional, rank 1": {},
        "attentional, rank 2": {"rank": 2},
        "attentional, rank 5": {"rank": 5},
        "attentional, relu": {"activation": "relu"},
        "attentional, sigmoid": {"activation": "sigmoid"},
        "attentional, softmax": {"activation": "softmax"},
        "attentional, per class": {"per_class": True},
    },
    "compact_bilinear": {"compact bilinear, D=2048": {}, SKETCH: {"dim": 8192}},
    "covariance": {COVARIANCE: {}},
    "multi_query": {PROBE: {"queries": QUERIES}},
}


@dataclass(frozen=True)
class Sizes:
    """B, C, the side of the map and K."""

    batch: int = 32
    channels: int = 2048
    side: int = 14
    classes: int = 393

    def __str__(self) -> str:
        return f"B={self.batch}, C={self.channels}, {self.side}x{self.side} positions, K={self.classes}, float32"


@dataclass(frozen=True)
class Entry:
    """A head that is timed.

    Attributes:
        name: its name in the tables.
        family: a key of POOLINGS, or "timm"; heads are chosen by it.
        ours: whether it is one of this library.
        build: a function that makes it.
        layouts: the layouts of features that it takes.
    """

    name: str
    family: str
    ours: bool
    build: Callable[[], nn.Module]
    layouts: tuple[str, ...] = LAYOUTS


def families() -> tuple[str, ...]:
    """The names by which heads can be chosen."""
    return (*POOLINGS, "timm")


def catalogue(sizes: Sizes, chosen: tuple[str, ...]) -> tuple[list[Entry], dict[str, str]]:
    """The heads of the chosen families, average pooling + linear first, and those left out with the reason.

    Raises:
        ValueError: there is no such family.
    """
    for name in chosen:
        if name not in families():
            raise ValueError(f"heads {name}: there is no such pooling; use some of {', '.join(families())}")
    c, k, side = sizes.channels, sizes.classes, sizes.side
    entries = [Entry(REFERENCE, "average", False, lambda: AverageAndLinear(c, k))]
    left_out = {}
    for key, head in POOLINGS.items():
        if key == "bilinear" and 4 * k * c**2 > LARGEST:
            left_out[key] = f"its {k} matrices of {c} x {c} take {4 * k * c**2 / 2**30:.1f} GiB, the gradients as much"
            continue
        for name, options in VARIANTS.get(key, {key: {}}).items():
            entries.append(Entry(name, key, True, lambda head=head, options=options: head(c, k, **options)))  # type: ignore[misc]
        entries += [entry for entry in references(sizes) if entry.family == key]
    entries += [
        Entry(f"timm {name}", "timm", False, lambda kind=kind: TimmPooling(c, k, side, kind), layouts)  # type: ignore[misc]
        for name, kind, layouts in (
            ("AttentionPoolLatent", "latent", LAYOUTS),
            ("AttentionPool2d", "2d", LAYOUTS[:2]),
            ("RotAttentionPool2d", "rotary", LAYOUTS[:2]),
        )
    ]
    picked = [entry for entry in entries if entry.name == REFERENCE or not chosen or entry.family in chosen]
    return picked, {name: reason for name, reason in left_out.items() if not chosen or name in chosen}


def references(sizes: Sizes) -> list[Entry]:
    """What people use today, each in the family of the pooling that it is compared with."""
    c, k = sizes.channels, sizes.classes
    return [
        Entry(MAPS_FIRST, "attentional", False, lambda: MapsFirst(c, k)),
        Entry(BOTH_MAPS, "attentional", False, lambda: BothMaps(c, k)),
        Entry(USUAL_SKETCH, "compact_bilinear", False, lambda: UsualCompactBilinear(c, k, 8192)),
        Entry(USUAL_COVARIANCE, "covariance", False, lambda: UsualCovariance(c, k, 256)),
        Entry(USUAL_PROBE, "multi_query", False, lambda: EfficientProbing(c, k, QUERIES)),
    ]


@dataclass(frozen=True)
class Limit:
    """A promise: `head` takes at most `most` times the time of `against`."""

    head: str
    against: str
    which: str
    layout: str
    most: float


LIMITS = (
    Limit("attentional, rank 1", REFERENCE, PASSES[1], "NCHW", 2.5),
    Limit("attentional, rank 1", REFERENCE, PASSES[1], "NHWC", 1.5),
    Limit("attentional, rank 1", REFERENCE, PASSES[1], "tokens", 1.5),
    Limit("attentional, rank 1", REFERENCE, PASSES[0], "NHWC", 2),
    Limit("attentional, rank 1", REFERENCE, PASSES[0], "tokens", 2),
    Limit("attentional, rank 1", MAPS_FIRST, PASSES[0], "NCHW", 1 / 8),
    *(Limit("attentional, rank 1", MAPS_FIRST, PASSES[1], layout, 1 / 3) for layout in LAYOUTS),
    *(Limit("attentional, rank 5", "attentional, rank 1", PASSES[1], layout, 3) for layout in LAYOUTS),
    *(Limit("attentional, per class", BOTH_MAPS, PASSES[1], layout, 1) for layout in LAYOUTS),
    *(Limit(SKETCH, USUAL_SKETCH, PASSES[1], layout, 1 / 1.3) for layout in LAYOUTS),
    *(Limit(PROBE, USUAL_PROBE, PASSES[1], layout, 1 / 5) for layout in LAYOUTS),
    *(Limit(COVARIANCE, USUAL_COVARIANCE, PASSES[1], layout, 1) for layout in LAYOUTS),
)
