"""Appearance that does not depend on the action: colours, clothes and hair of people, variants of things."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attnpool.playground.body import Build
from attnpool.playground.raster import Color

SKINS: tuple[Color, ...] = (
    (0.98, 0.84, 0.74), (0.94, 0.76, 0.63), (0.87, 0.67, 0.52), (0.76, 0.55, 0.40), (0.60, 0.41, 0.29),
    (0.44, 0.29, 0.21), (0.34, 0.22, 0.16),
)  # fmt: skip
HAIRS: tuple[Color, ...] = (
    (0.10, 0.08, 0.08), (0.22, 0.14, 0.10), (0.38, 0.24, 0.14), (0.60, 0.40, 0.20), (0.84, 0.68, 0.40),
    (0.62, 0.26, 0.12), (0.66, 0.65, 0.64),
)  # fmt: skip
CLOTHS: tuple[Color, ...] = (
    (0.78, 0.22, 0.20), (0.18, 0.36, 0.60), (0.24, 0.50, 0.36), (0.92, 0.74, 0.28), (0.93, 0.92, 0.89),
    (0.20, 0.21, 0.25), (0.90, 0.52, 0.28), (0.46, 0.30, 0.54), (0.42, 0.66, 0.74), (0.84, 0.55, 0.60),
    (0.52, 0.40, 0.30), (0.60, 0.62, 0.64), (0.12, 0.24, 0.30), (0.50, 0.14, 0.20), (0.68, 0.72, 0.50),
)  # fmt: skip
TROUSERS: tuple[Color, ...] = (
    (0.20, 0.28, 0.45), (0.16, 0.17, 0.20), (0.62, 0.54, 0.42), (0.36, 0.38, 0.40), (0.32, 0.42, 0.58),
    (0.30, 0.24, 0.20), (0.42, 0.44, 0.32), (0.80, 0.77, 0.70), (0.44, 0.16, 0.20),
)  # fmt: skip


PALETTE: tuple[Color, ...] = (
    (0.80, 0.20, 0.18), (0.16, 0.38, 0.66), (0.20, 0.52, 0.34), (0.92, 0.72, 0.20), (0.90, 0.89, 0.86),
    (0.17, 0.18, 0.22), (0.88, 0.46, 0.18), (0.48, 0.28, 0.56), (0.36, 0.66, 0.74), (0.78, 0.44, 0.52),
    (0.45, 0.32, 0.22), (0.55, 0.58, 0.60),
)  # fmt: skip
WOODS: tuple[Color, ...] = ((0.72, 0.45, 0.20), (0.82, 0.60, 0.32), (0.50, 0.26, 0.14), (0.62, 0.14, 0.10))
GLASS: tuple[Color, ...] = ((0.20, 0.48, 0.28), (0.45, 0.27, 0.12), (0.62, 0.80, 0.88), (0.25, 0.45, 0.70))


@dataclass(frozen=True)
class Wardrobe:
    """The appearance of a person, apart from the pose."""

    skin: Color
    hair: Color
    top: Color
    bottom: Color
    shoes: Color
    pattern: str
    second: Color
    sleeves: str  # "short" or "long"
    legs: str  # "long", "short" or "skirt"
    style: str  # "short", "long", "bun", "bald", "cap", "curly"
    beard: bool
    build: Build


def random_wardrobe(rng: np.random.Generator) -> Wardrobe:
    """The random appearance of a person, independent of the action."""

    def pick(options: tuple[Color, ...]) -> Color:
        color = np.clip(
            np.asarray(options[rng.integers(len(options))]) + rng.uniform(-0.04, 0.04) + rng.uniform(-0.012, 0.012, 3),
            0.03,
            0.98,
        )
        return (float(color[0]), float(color[1]), float(color[2]))

    def clothing(options: tuple[Color, ...]) -> Color:
        color = pick(options)
        # Clothes of the skin's colour would look like bare skin.
        if max(abs(a - b) for a, b in zip(color, skin, strict=True)) > 0.2:
            return color
        return (color[2], color[1], color[0]) if color[0] - color[2] > 0.25 else (0.20, 0.36, 0.58)

    skin = pick(SKINS)
    style = str(rng.choice(["short", "long", "bun", "bald", "cap", "curly"], p=[0.32, 0.25, 0.12, 0.06, 0.12, 0.13]))
    return Wardrobe(
        skin=skin,
        hair=pick(HAIRS),
        top=clothing(CLOTHS),
        bottom=clothing(TROUSERS),
        shoes=pick(TROUSERS + CLOTHS[4:6]),
        pattern=str(rng.choice(["", "stripes", "checks", "dots", "crest"], p=[0.5, 0.2, 0.1, 0.08, 0.12])),
        second=pick(CLOTHS),
        sleeves=str(rng.choice(["short", "long"])),
        legs=str(rng.choice(["long", "short", "skirt"], p=[0.65, 0.2, 0.15])),
        style=style,
        beard=style in ("short", "bald", "cap") and rng.random() < 0.35,
        build=Build(
            shoulders=float(rng.uniform(0.094, 0.118)),
            hips=float(rng.uniform(0.05, 0.062)),
            girth=float(rng.uniform(0.88, 1.2)),
            head=float(rng.uniform(1.02, 1.18)),
        ),
    )


@dataclass(frozen=True)
class Look:
    """The appearance of a thing of some kind: two colours, a variant in 0..1 and a factor on the size."""

    color: Color
    accent: Color
    variant: float
    size: float = 1.0


def random_look(kind: str, rng: np.random.Generator) -> Look:
    """The random colours, variant and size of a thing; their distribution is the same whether or not it is used."""
    first, second = rng.choice(len(PALETTE), 2, replace=False)
    color = PALETTE[first]
    if kind in ("guitar", "broom"):
        color = WOODS[rng.integers(len(WOODS))]
    if kind == "bottle":
        color = GLASS[rng.integers(len(GLASS))]
    variant, size = rng.random(), rng.uniform(0.9, 1.15)
    return Look(_vary(color, rng), _vary(PALETTE[second], rng), float(variant), float(size))


def _vary(color: Color, rng: np.random.Generator) -> Color:
    shift = rng.uniform(-0.06, 0.06, 3)
    r, g, b = np.clip(np.asarray(color) + shift, 0.03, 0.97)
    return (float(r), float(g), float(b))
