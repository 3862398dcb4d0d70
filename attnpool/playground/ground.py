"""The ground plane: floors and lawns, textured in perspective, and the noise for natural textures."""

from __future__ import annotations

import numpy as np
from PIL import Image

from attnpool.playground.raster import Array, Color

INDOOR_FLOORS = ("planks", "tiles", "carpet")
OUTDOOR_FLOORS = ("grass", "street", "sand", "court")


def noise(rng: np.random.Generator, size: int, cells: int, rows: int | None = None) -> Array:
    """Smooth noise around 0 with about `cells` bumps across, (size, size), or the first `rows` of its rows."""
    coarse = Image.fromarray(rng.standard_normal((cells + 1, cells + 1)).astype(np.float32))
    how = Image.Resampling.BICUBIC if cells <= 16 else Image.Resampling.BILINEAR
    fine = coarse.resize((size, size), how)
    return np.asarray(fine if rows is None else fine.crop((0, 0, size, rows)))


def pick(rng: np.random.Generator, *colors: Color) -> Array:
    """One of the colours, slightly varied, (3, 1, 1)."""
    return np.clip(np.asarray(colors[rng.integers(len(colors))]) + rng.uniform(-0.05, 0.05, 3), 0, 1).astype(
        np.float32
    )[:, None, None]


def ground(floor: str, horizon: float, size: int, edge: int, grain: Array, rng: np.random.Generator) -> Array:
    """The ground plane below `edge`, (3, size - edge, size), textured in perspective and roughened by `grain`."""
    y = np.arange(edge, size, dtype=np.float32)[:, None] + 0.5
    x = np.arange(size, dtype=np.float32)[None, :] + 0.5
    depth = size / np.maximum(y - horizon, 2.0)
    across = (x - size / 2) / size * depth
    lines = size - edge
    if floor == "grass":
        color = pick(rng, (0.36, 0.54, 0.24), (0.46, 0.58, 0.28), (0.30, 0.46, 0.24))
        blades = noise(rng, size, size // 3, lines) * 0.10 + noise(rng, size, 24, lines) * 0.07
        tone = 0.92 + blades + 0.06 * grain[edge:]
        if rng.random() < 0.4:
            tone = tone + 0.07 * np.sign(np.sin(2 * np.pi * across / 0.8))
        return np.asarray(color * tone)
    if floor == "planks":
        color = pick(rng, (0.66, 0.47, 0.30), (0.52, 0.35, 0.22), (0.78, 0.63, 0.46))
        wide = rng.uniform(0.14, 0.24)
        board = np.floor(across / wide)
        joint = np.floor(depth * 0.9 + (board * 0.37) % 1.0)
        shade = rng.uniform(-0.11, 0.11, (32, 32)).astype(np.float32)
        tone = 0.97 + shade[board.astype(int) % 32, joint.astype(int) % 32]
        seam = np.abs(across / wide - np.round(across / wide)) * wide / depth * size
        tone = tone * (1 - 0.3 * np.clip(1.3 - seam, 0, 1)) + 0.03 * noise(rng, size, 40, lines)
        return np.asarray(color * tone)
    if floor in ("tiles", "court"):
        wide = rng.uniform(0.3, 0.5)
        u, v = across / wide, depth / wide
        color = pick(rng, (0.80, 0.78, 0.74), (0.66, 0.60, 0.55), (0.55, 0.62, 0.66))
        if floor == "court":
            color = pick(rng, (0.62, 0.34, 0.26), (0.28, 0.46, 0.42), (0.30, 0.40, 0.58))
            line = np.minimum(np.abs(across - 0.55), np.abs(across + 0.75)) / depth * size
            mark = np.clip(3.0 - line, 0, 1)
            tone = 0.97 + 0.05 * noise(rng, size, 30, lines) + 0.04 * grain[edge:]
            return np.asarray(color * tone + mark * (0.92 - color))
        odd = (np.floor(u) + np.floor(v)) % 2
        fade = np.clip(4.0 / depth, 0, 1)
        tone = 1 - 0.20 * odd * fade * float(rng.random() < 0.6)
        gap = np.minimum(
            np.abs(u - np.round(u)) * wide / depth * size, np.abs(v - np.round(v)) * wide / depth**2 * size
        )
        tone = tone * (1 - 0.22 * np.clip(1.4 - gap, 0, 1) * fade)
        return np.asarray(color * tone)
    color = {
        "carpet": pick(rng, (0.55, 0.50, 0.48), (0.42, 0.48, 0.58), (0.60, 0.42, 0.38), (0.50, 0.55, 0.44)),
        "street": pick(rng, (0.52, 0.52, 0.53), (0.62, 0.60, 0.57), (0.44, 0.45, 0.48)),
        "sand": pick(rng, (0.84, 0.75, 0.58), (0.76, 0.68, 0.52)),
    }[floor]
    tone = 1.0 + 0.04 * noise(rng, size, size // 4, lines) + 0.04 * grain[edge:] + 0.03 * noise(rng, size, 10, lines)
    if floor == "street":
        paving = rng.uniform(0.5, 0.8)
        gap = np.minimum(
            np.abs(depth / paving - np.round(depth / paving)) * paving / depth**2 * size,
            np.abs(across / paving - np.round(across / paving)) * paving / depth * size,
        )
        tone = tone * (1 - 0.16 * np.clip(1.4 - gap, 0, 1))
    return np.asarray(color * tone)
