"""Backdrops: rooms and outdoor places, textured in perspective, with one light and one ground plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attnpool.playground.draw import Panel, Shape, capsule, polygon, tint
from attnpool.playground.ground import ground, noise, pick
from attnpool.playground.looks import PALETTE
from attnpool.playground.raster import Array, Color


@dataclass(frozen=True)
class Place:
    """The geometry and kind of a backdrop.

    Attributes:
        size: side of the square image in pixels.
        horizon: y at which the ground plane vanishes.
        edge: y at which the ground ends at a wall or at the skyline.
        indoor: whether it is a room.
        floor: kind of ground.
        light: unit vector towards the light, with x to the right, y down the image and z to the viewer.
    """

    size: int
    horizon: float
    edge: float
    indoor: bool
    floor: str
    light: tuple[float, float, float]

    def scale_at(self, y: float, reference_y: float, reference_scale: float) -> float:
        """Pixels per unit for an object that stands at `y`, given the scale at another place of the ground."""
        return reference_scale * (y - self.horizon) / (reference_y - self.horizon)


def paint(place: Place, rng: np.random.Generator) -> tuple[Array, Array, list[Shape | Panel]]:
    """Paints an empty backdrop (3, S, S), the grain (S, S) that roughens every surface, and fixtures at the back."""
    size = place.size
    grain = 1.9 * (rng.random((size, size), dtype=np.float32) - np.float32(0.5)) + 0.5 * noise(rng, size, size // 6)
    # Four times the memory that is used: the C library returns free memory beyond twice the largest block to the
    # system, and allocating an image's memory anew each time is a sixth of the work. The rest is never touched.
    image = np.empty((12, size, size), np.float32)[:3]
    edge = int(np.clip(round(place.edge), 8, size - 8))
    broad = noise(rng, size, 5)
    fixtures: list[Shape | Panel] = []
    if place.indoor:
        fixtures += _wall(image[:, :edge], rng, edge, size)
    else:
        fixtures += _outdoors(image[:, :edge], rng, edge, size)
    image[:, edge:] = ground(place.floor, place.horizon, size, edge, grain, rng)
    amount = 0.05 if place.indoor else 0.03
    tone = 1 + amount * broad + 0.035 * grain
    rows = np.arange(size, dtype=np.float32)
    corner = (1 - 0.25 * np.exp(-np.abs(rows - edge) / (0.02 * size)))[:, None]
    aside = 1.0 + 0.14 * np.linspace(-1, 1, size, dtype=np.float32) * np.sign(place.light[0])
    # One plane at a time fits into the processor's cache.
    for plane in image:
        plane *= tone
        if place.indoor:
            plane *= corner
            plane *= aside
    return image, grain, fixtures


def _wall(image: Array, rng: np.random.Generator, edge: int, size: int) -> list[Shape | Panel]:
    base = pick(
        rng,
        (0.87, 0.83, 0.75),
        (0.72, 0.79, 0.80),
        (0.80, 0.72, 0.66),
        (0.62, 0.70, 0.62),
        (0.88, 0.88, 0.88),
        (0.55, 0.60, 0.70),
        (0.82, 0.66, 0.55),
    )
    x = np.arange(size, dtype=np.float32)[None, :]
    y = np.arange(edge, dtype=np.float32)[:, None]
    kind = rng.choice(["plain", "stripes", "bricks", "panels", "dots"], p=[0.35, 0.2, 0.15, 0.15, 0.15])
    period = rng.uniform(0.04, 0.10) * size
    tone = np.ones((edge, size), np.float32)
    if kind == "stripes":
        tone = tone - 0.09 * (np.cos(2 * np.pi * x / period) > 0.2) + 0 * y
    elif kind == "bricks":
        height = period * 0.45
        row = np.floor(y / height)
        column = np.floor(x / period + 0.5 * (row % 2))
        mortar = np.minimum(
            np.abs(y / height - np.round(y / height)) * height,
            np.abs(x / period + 0.5 * (row % 2) - np.round(x / period + 0.5 * (row % 2))) * period,
        )
        shade = rng.uniform(-0.10, 0.10, (64, 64)).astype(np.float32)
        tone = 0.92 + shade[row.astype(int) % 64, column.astype(int) % 64] + 0.16 * (mortar < 1.1)
    elif kind == "panels":
        tone = tone - 0.10 * (np.abs(x / period - np.round(x / period)) * period < 1.0) + 0 * y
        tone = np.where(y > edge * 0.62, tone * 0.82, tone)
    elif kind == "dots":
        u, v = x / period * 1.4, y / period * 1.4
        v = v + 0.5 * (np.floor(u) % 2)
        tone = tone - 0.10 * (np.hypot(u - np.floor(u) - 0.5, v - np.floor(v) - 0.5) < 0.2)
    image[:] = base * tone
    board = max(int(0.022 * size), 3)
    image[:, edge - board :] = base * 0.5 + 0.45
    return _wall_things(rng, edge, size)


def _wall_things(rng: np.random.Generator, edge: int, size: int) -> list[Shape | Panel]:
    """A window, paintings and shelves: fixtures without owner, which are painted first."""
    shapes: list[Shape | Panel] = []
    slots = rng.permutation(4)[: rng.integers(2, 5)]
    for slot in slots:
        x1 = (slot + rng.uniform(0.05, 0.25)) * size / 4
        x2 = x1 + rng.uniform(0.14, 0.22) * size
        kind = rng.choice(["window", "image", "shelf", "door", "none"], p=[0.28, 0.27, 0.25, 0.1, 0.1])
        top = rng.uniform(0.03, 0.25) * edge
        if kind == "window":
            shapes += _window(rng, x1, x2, top, top + rng.uniform(0.4, 0.55) * edge)
        elif kind == "image":
            frame = tint(PALETTE[rng.integers(len(PALETTE))], 0.8)
            bottom = top + rng.uniform(0.2, 0.4) * edge
            shapes.append(_rect(x1, top, x2, bottom, frame))
            inset = 0.012 * size
            shapes.append(
                _rect(x1 + inset, top + inset, x2 - inset, bottom - inset, PALETTE[rng.integers(len(PALETTE))])
            )
            cx, cy = (x1 + x2) / 2, (top + bottom) / 2
            r = rng.uniform(0.01, 0.025) * size
            shapes.append(capsule((cx - r, cy), (cx + r, cy + r), r, r, PALETTE[rng.integers(len(PALETTE))]))
        elif kind == "shelf":
            for k in range(int(rng.integers(1, 4))):
                y = edge * (0.28 + 0.22 * k)
                shapes.append(_rect(x1, y, x2, y + 0.012 * size, (0.52, 0.36, 0.22)))
                x = x1 + 2
                while x < x2 - 0.03 * size:
                    wide, high = rng.uniform(0.010, 0.022) * size, rng.uniform(0.045, 0.08) * size
                    if rng.random() < 0.75:
                        color = tint(PALETTE[rng.integers(len(PALETTE))], 0.85)
                        shapes.append(_rect(x, y - high, x + wide, y, color))
                    x += wide + 1
        elif kind == "door":
            shapes.append(_rect(x1, edge * 0.06, x2, edge, (0.60, 0.48, 0.36)))
            shapes.append(_rect(x1 + 4, edge * 0.06 + 4, x2 - 4, edge, (0.68, 0.55, 0.42)))
            shapes.append(capsule((x2 - 10, edge * 0.6), (x2 - 10, edge * 0.6), 3, 3, (0.85, 0.75, 0.4), bulge=3))
    return shapes


def _rect(x1: float, y1: float, x2: float, y2: float, color: Color) -> Panel:
    return Panel(x1, y1, x2, y2, color)


def _window(rng: np.random.Generator, x1: float, x2: float, y1: float, y2: float) -> list[Shape | Panel]:
    sky = tint((0.55, 0.75, 0.92), float(rng.uniform(0.9, 1.4)))
    hill = tint((0.36, 0.55, 0.34), float(rng.uniform(0.8, 1.3)))
    middle, low = (x1 + x2) / 2, y1 + (y2 - y1) * rng.uniform(0.55, 0.75)
    bar = max((x2 - x1) * 0.04, 1.5)
    curtain = PALETTE[rng.integers(len(PALETTE))]
    shapes: list[Shape | Panel] = [
        _rect(x1 - bar * 1.5, y1 - bar * 1.5, x2 + bar * 1.5, y2 + bar * 1.5, (0.95, 0.94, 0.92)),
        _rect(x1, y1, x2, y2, sky),
        polygon([(x1, low), (middle, low - (y2 - y1) * 0.12), (x2, low + 3), (x2, y2), (x1, y2)], hill, 0.5),
        _rect(middle - bar / 2, y1, middle + bar / 2, y2, (0.95, 0.94, 0.92)),
        _rect(x1, (y1 + y2) / 2 - bar / 2, x2, (y1 + y2) / 2 + bar / 2, (0.95, 0.94, 0.92)),
    ]
    if rng.random() < 0.6:
        for x in (x1 - bar, x2 + bar):
            for k in range(3):
                fold = x + (k - 1) * bar * 1.6
                shapes.append(
                    capsule((fold, y1 - bar), (fold, y2 + bar * 4), bar * 1.1, bar * 1.3, tint(curtain, 1 - 0.05 * k))
                )
    return shapes


def _outdoors(image: Array, rng: np.random.Generator, edge: int, size: int) -> list[Shape | Panel]:
    fall = np.linspace(0, 1, edge, dtype=np.float32)[:, None]
    high, low = (
        pick(rng, (0.38, 0.62, 0.92), (0.55, 0.72, 0.88), (0.52, 0.60, 0.82)),
        pick(rng, (0.80, 0.88, 0.94), (0.94, 0.84, 0.72), (0.85, 0.86, 0.88)),
    )
    image[:] = high + (low - high) * fall
    clouds = np.clip(noise(rng, size, 6, edge) + 0.5 * noise(rng, size, 14, edge) - 0.25, 0, 1)
    image += (clouds * 0.75) * (0.96 - image)
    shapes: list[Shape | Panel] = []
    shapes += _skyline(rng, edge, size) if rng.random() < 0.45 else _hills(rng, edge, size)
    if rng.random() < 0.75:
        for _ in range(int(rng.integers(2, 6))):
            shapes += _tree(
                rng, rng.uniform(-0.05, 1.05) * size, edge + rng.uniform(0, 4), rng.uniform(0.18, 0.5) * size
            )
    if rng.random() < 0.5:
        shapes += _fence(rng, edge, size)
    return shapes


def _hills(rng: np.random.Generator, edge: int, size: int) -> list[Shape | Panel]:
    shapes: list[Shape | Panel] = []
    for k in range(2):
        xs = np.linspace(-0.05, 1.05, 9) * size
        ys = edge - rng.uniform(0.02, 0.16, 9) * size * (1.0 - 0.4 * k)
        color = tint((0.40 - 0.08 * k, 0.55 - 0.06 * k, 0.45 - 0.15 * k), float(rng.uniform(0.85, 1.25)))
        corners = [*zip(xs, ys, strict=True), (size * 1.05, edge + 1.0), (-0.05 * size, edge + 1.0)]
        shapes.append(polygon(corners, color, 0.5))
    return shapes


def _skyline(rng: np.random.Generator, edge: int, size: int) -> list[Shape | Panel]:
    shapes: list[Shape | Panel] = []
    x = -rng.uniform(0, 0.1) * size
    while x < size:
        wide, high = rng.uniform(0.12, 0.26) * size, rng.uniform(0.35, 0.95) * edge
        r, g, bl = pick(rng, (0.66, 0.60, 0.55), (0.72, 0.50, 0.42), (0.58, 0.62, 0.68), (0.80, 0.76, 0.68))
        color = (float(r[0, 0]), float(g[0, 0]), float(bl[0, 0]))
        shapes.append(_rect(x, edge - high, x + wide, edge + 1, color))
        step = rng.uniform(0.045, 0.07) * size
        glass = tint((0.35, 0.45, 0.55), float(rng.uniform(0.8, 1.5)))
        for wx in np.arange(x + step * 0.4, x + wide - step * 0.5, step):
            for wy in np.arange(edge - high + step * 0.5, edge - step * 0.6, step * 1.3):
                shapes.append(_rect(wx, wy, wx + step * 0.45, wy + step * 0.7, glass))
        x += wide + rng.uniform(0, 0.02) * size
    return shapes


def _tree(rng: np.random.Generator, x: float, foot: float, high: float) -> list[Shape | Panel]:
    leaf = tint((0.25, 0.45, 0.22), float(rng.uniform(0.7, 1.25)))
    trunk = capsule((x, foot), (x, foot - high * 0.55), high * 0.045, high * 0.03, (0.36, 0.26, 0.18))
    shapes: list[Shape | Panel] = [trunk]
    for k in range(7):
        cx, cy = x + rng.uniform(-0.2, 0.2) * high, foot - high * rng.uniform(0.5, 0.9)
        r = high * rng.uniform(0.11, 0.19)
        shapes.append(capsule((cx, cy), (cx, cy), r, r, tint(leaf, 0.85 + 0.06 * k), bulge=r * 1.2))
    return shapes


def _fence(rng: np.random.Generator, edge: int, size: int) -> list[Shape | Panel]:
    color = tint((0.75, 0.66, 0.52), float(rng.uniform(0.7, 1.3)))
    high, step = rng.uniform(0.06, 0.10) * size, rng.uniform(0.03, 0.05) * size
    shapes: list[Shape | Panel] = []
    shapes += [
        _rect(-2, edge - high * f, size + 2, edge - high * f + 0.009 * size, tint(color, 0.9)) for f in (0.75, 0.35)
    ]
    shapes += [_rect(x, edge - high, x + step * 0.45, edge + 2, color) for x in np.arange(0, size, step)]
    return shapes
