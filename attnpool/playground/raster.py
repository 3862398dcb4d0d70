"""Signed distances and shading of shapes, evaluated on a window of the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Color = tuple[float, float, float]
Point = tuple[float, float]
Light = tuple[float, float, float]


@dataclass(frozen=True)
class Pattern:
    """A second colour on a shape: "stripes", "checks" or "dots", `period` pixels apart, turned by `angle` radians."""

    kind: str
    color: Color
    period: float
    angle: float = 0.0
    origin: Point = (0.0, 0.0)


def window(centres: Array, x: float, y: float, rx: float, ry: float) -> tuple[slice, slice, Array, Array] | None:
    """The window of the image around (x, y), and the coordinates of its pixel centres; None if it lies outside.

    `centres` (S,) are the pixel centres of a whole row, or column, of the square image.
    """
    assert math.isfinite(x + y + rx + ry), "a shape without finite extent"
    size = len(centres)
    x1, x2 = max(math.floor(x - rx), 0), min(math.ceil(x + rx), size)
    y1, y2 = max(math.floor(y - ry), 0), min(math.ceil(y + ry), size)
    if x1 >= x2 or y1 >= y2:
        return None
    return slice(y1, y2), slice(x1, x2), centres[None, x1:x2], centres[y1:y2, None]


def capsule_distance(
    x: Array, y: Array, segments: Array, radii: Array, smooth: float, light: Light | None
) -> tuple[Array, Array | None]:
    """The signed distance of a union of tapered capsules, and the light on them as if each were a cylinder.

    Without `light` only the distance is computed.
    """
    distance: Array | None = None
    shading: Array | None = None
    for (a, b), (ra, rb) in zip(segments, radii, strict=True):
        ax, ay = float(a[0]), float(a[1])
        dx, dy = float(b[0]) - ax, float(b[1]) - ay
        length = (dx * dx + dy * dy) ** 0.5
        # A capsule without length is a disc, for which any direction is right.
        ux, uy = (dx / length, dy / length) if length > 1e-3 else (1.0, 0.0)
        px, py = x - ax, y - ay
        run, perp = px * ux + py * uy, py * ux - px * uy
        along = run.clip(0, length)
        radius = float(ra) if ra == rb or length <= 1e-3 else float(ra) + (float(rb) - float(ra)) / length * along
        past = run - along
        here = perp * perp
        past *= past
        here += past
        np.sqrt(here, out=here)
        here -= radius
        lit = None if light is None else _cylinder(perp, radius, light[1] * ux - light[0] * uy, light[2])
        if distance is None:
            distance, shading = here, lit
        elif smooth > 0:
            blend = (0.5 + (0.5 / smooth) * (distance - here)).clip(0, 1)
            distance = distance + (here - distance) * blend - smooth * blend * (1 - blend)
            if lit is not None and shading is not None:
                shading = shading + (lit - shading) * blend
        else:
            if lit is not None and shading is not None:
                shading = np.where(here < distance, lit, shading)
            distance = np.minimum(distance, here)
    assert distance is not None
    return distance, None if shading is None else _exposure(shading)


def _cylinder(perp: Array, radius: Array | float, sideways: float, upwards: float) -> Array:
    """Lambert's cosine on a cylinder whose normal leans with the distance `perp` from its axis.

    The normal is (-uy, ux) * across in the image, for an axis (ux, uy), and the rest towards the viewer.
    """
    across = (perp / np.maximum(radius, np.float32(0.5))).clip(-1, 1)
    lit = across * across
    np.subtract(1, lit, out=lit)
    np.sqrt(lit, out=lit)
    lit *= upwards
    across *= sideways
    lit += across
    return lit


def thin_distance(x: Array, y: Array, segments: Array, radii: Array) -> Array:
    """The signed distance of a union of capsules of constant thickness, computed for all of them at once."""
    ends = segments[:, :, :, None, None]
    delta = ends[:, 1] - ends[:, 0]
    inverse = 1 / np.maximum((delta * delta).sum(axis=1), 1e-6)
    px, py = x - ends[:, 0, 0], y - ends[:, 0, 1]
    along = np.minimum(np.maximum((px * delta[:, 0] + py * delta[:, 1]) * inverse, 0), 1)
    px, py = px - along * delta[:, 0], py - along * delta[:, 1]
    return np.sqrt((px * px + py * py).min(axis=0)) - radii[0, 0]


def polygon_distance(x: Array, y: Array, corners: Array) -> Array:
    """The signed distance to a simple polygon, negative inside."""
    before = np.concatenate([corners[-1:], corners[:-1]])
    edges = before - corners
    inverse = 1 / np.maximum((edges * edges).sum(axis=1), 1e-6)
    height, width = y.shape[0], x.shape[1]
    squared = np.full((height, width), np.inf, np.float32)
    inside = np.zeros((height, width), bool)
    # All edges of a small polygon, or some edges of a large one, at a time, so that they fit into the processor's
    # cache.
    step = max(1, 20_000 // (height * width))
    for start in range(0, len(corners), step):
        some = slice(start, start + step)
        corner, edge, other = (part[some, :, None, None] for part in (corners, edges, before))
        wx, wy = x - corner[:, 0], y - corner[:, 1]
        ex, ey = edge[:, 0], edge[:, 1]
        along = wx * ex + wy * ey
        along *= inverse[some, None, None]
        along = along.clip(0, 1, out=along)
        bx, by = wx - ex * along, wy - ey * along
        bx *= bx
        by *= by
        bx += by
        np.minimum(squared, bx.min(axis=0), out=squared)
        slope = ex / np.where(ey == 0, np.float32(1), ey)
        crosses = (y >= corner[:, 1]) != (y >= other[:, 1])
        # A ray crosses the contour an odd number of times from inside.
        inside ^= np.logical_xor.reduce(crosses & (wx < slope * wy), axis=0)
    root = np.sqrt(squared, out=squared)
    return np.negative(root, out=root, where=inside)


def inflated(distance: Array, bulge: float, light: Light) -> Array:
    """The light on a surface that rises like a cushion from its contour."""
    flat = (distance * (1 / bulge) + 1).clip(0, 1)
    height = bulge * np.sqrt(1 - flat * flat)
    if min(height.shape) < 2:
        return np.ones_like(height)
    slope_x, slope_y = np.empty_like(height), np.empty_like(height)
    slope_x[:, 1:-1] = 0.5 * (height[:, 2:] - height[:, :-2])
    slope_y[1:-1] = 0.5 * (height[2:] - height[:-2])
    slope_x[:, [0, -1]], slope_y[[0, -1]] = 0, 0
    norm = np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    return _exposure((light[2] - light[0] * slope_x - light[1] * slope_y) / norm)


def _exposure(lambert: Array) -> Array:
    """Converts Lambert's cosine to a factor around 1, with ambient light so that the dark side is not black."""
    light = np.maximum(lambert, 0)
    light *= 0.52
    light += 0.66
    return light


def patterned(x: Array, y: Array, color: Array, pattern: Pattern) -> Array:
    """A colour with a pattern of a second colour, (3, h, w)."""
    c, s = math.cos(pattern.angle), math.sin(pattern.angle)
    px, py = x - pattern.origin[0], y - pattern.origin[1]
    u, v = (px * c + py * s) / pattern.period, (py * c - px * s) / pattern.period
    edge = pattern.period / 2
    if pattern.kind == "stripes":
        mix = np.clip(0.5 + np.cos(2 * np.pi * v) * edge * 0.6, 0, 1)
    elif pattern.kind == "checks":
        mix = 0.5 * (np.cos(2 * np.pi * u) > 0) + 0.5 * (np.cos(2 * np.pi * v) > 0)
    else:
        near = np.hypot(u - np.round(u), v - np.round(v))
        mix = np.clip((0.27 - near) * pattern.period + 0.5, 0, 1)
    return color + mix.astype(np.float32) * (np.asarray(pattern.color, np.float32)[:, None, None] - color)
