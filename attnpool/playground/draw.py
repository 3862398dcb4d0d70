"""Rasterising: shapes given as signed distances, shaded softly, painted back to front on a canvas that remembers owners.

Every shape is a union of tapered capsules or a rounded polygon. Its signed distance is evaluated on the shape's own
bounding box only, which gives exact antialiasing without supersampling and costs a fraction of a millisecond a shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]
Color = tuple[float, float, float]
Point = tuple[float, float]


@dataclass(frozen=True)
class Pattern:
    """A second colour on a shape: "stripes", "checks" or "dots", `period` pixels apart, turned by `angle` radians."""

    kind: str
    color: Color
    period: float
    angle: float = 0.0
    origin: Point = (0.0, 0.0)


@dataclass(slots=True)
class Shape:
    """Something to paint, in pixels.

    Attributes:
        segments: (n, 2, 2) end points of capsules or, if `closed`, (n, 2) corners of a polygon.
        radii: (n, 2) radii at both ends of each capsule or, if `closed`, (1,) the rounding of the corners.
        color: RGB in 0..1.
        bulge: pixels over which the inside rises from the contour; 0 keeps a polygon flat and a capsule a cylinder.
        smooth: pixels over which capsules melt into one another.
        depth: order within a layer; larger is nearer to the viewer.
        part: name of the part of its thing, for the visibility of joints.
        pattern: a second colour.
        gloss: strength of a highlight.
        alpha: opacity.
        contrast: 1 shades fully, 0 leaves the colour flat, which is faster.
    """

    segments: Array
    radii: Array
    color: Color
    closed: bool = False
    bulge: float = 0.0
    smooth: float = 0.0
    depth: float = 0.0
    part: str = ""
    pattern: Pattern | None = None
    gloss: float = 0.0
    alpha: float = 1.0
    contrast: float = 1.0


@dataclass(frozen=True)
class Shadow:
    """A soft ellipse of shade on the ground: centre, half axes and strength."""

    x: float
    y: float
    rx: float
    ry: float
    strength: float


@dataclass(frozen=True)
class Panel:
    """An upright rectangle of the backdrop; whole pixels, as furniture at the back needs no antialiasing."""

    x1: float
    y1: float
    x2: float
    y2: float
    color: Color


@dataclass
class Layer:
    """Shapes with their owners; layers are painted by `order` (the picture's y where they stand), shapes by depth."""

    order: float
    shapes: list[tuple[int, Shape]]
    shadows: list[Shadow] = field(default_factory=list)


def capsule(a: Sequence[float], b: Sequence[float], ra: float, rb: float, color: Color, **more: Any) -> Shape:
    """One tapered capsule from `a` to `b`."""
    return Shape(np.array([[a, b]], np.float32), np.array([[ra, rb]], np.float32), color, **more)


def chain(points: Sequence[Sequence[float]] | Array, radius: float, color: Color, **more: Any) -> Shape:
    """A line of constant thickness through `points`."""
    line = np.asarray(points, np.float32)
    segments = np.stack([line[:-1], line[1:]], axis=1)
    return Shape(segments, np.full((len(segments), 2), radius, np.float32), color, **more)


def polygon(corners: Sequence[Sequence[float]] | Array, color: Color, rounding: float = 0.5, **more: Any) -> Shape:
    """A filled polygon with rounded corners."""
    return Shape(np.asarray(corners, np.float32), np.array([rounding], np.float32), color, closed=True, **more)


def tint(color: Color, factor: float) -> Color:
    """The colour made darker (factor < 1) or lighter (factor > 1, towards white)."""
    if factor <= 1:
        return (color[0] * factor, color[1] * factor, color[2] * factor)
    amount = min(factor - 1, 1.0)
    return (color[0] + (1 - color[0]) * amount, color[1] + (1 - color[1]) * amount, color[2] + (1 - color[2]) * amount)


def placed(shape: Shape, depth: float, part: str) -> Shape:
    """The same shape, its place among the others of its layer set."""
    shape.depth, shape.part = depth, part
    return shape


def strokes(lines: Sequence[Array], radius: float, color: Color, **more: Any) -> Shape:
    """Separate thin lines of one colour, without shading: print, strings, straws."""
    segments = np.asarray(lines, np.float32)
    return Shape(segments, np.full((len(segments), 2), radius, np.float32), color, contrast=0.0, **more)


class Canvas:
    """A square picture under construction.

    Attributes:
        image: (3, S, S) float32, RGB in 0..1; planes first, which numpy broadcasts several times faster.
        top: (S, S) int32, number of the shape that is on top at each pixel; 0 where the backdrop is.
        shapes: (owner, part) of each number; entry 0 is the backdrop.
        drawn: pixels painted by each owner, whether or not something covers them later.
    """

    def __init__(self, image: Array, grain: Array, light: tuple[float, float, float]) -> None:
        self.image = image
        self.grain = grain
        self.light = light
        self.size = image.shape[1]
        self.top = np.zeros((self.size, self.size), np.int32)
        self.shapes: list[tuple[int, str]] = [(-1, "")]
        self.drawn: dict[int, int] = {}

    def shade(self, shadow: Shadow) -> None:
        """Darken the ground under something."""
        found = _window(self.size, shadow.x, shadow.y, shadow.rx * 1.6, shadow.ry * 1.6)
        if found is None:
            return
        rows, columns, x, y = found
        q = ((x - shadow.x) / shadow.rx) ** 2 + ((y - shadow.y) / shadow.ry) ** 2
        fall = np.clip(1.25 - q, 0, 1) ** 1.5 * shadow.strength
        self.image[:, rows, columns] *= 1 - fall

    def paint(self, shape: Shape, owner: int) -> None:
        """Paint one shape over everything painted so far."""
        points = shape.segments.reshape(-1, 2)
        radius = float(shape.radii.max()) + shape.smooth * 0.25
        low, high = points.min(axis=0), points.max(axis=0)
        middle, half = (low + high) / 2, (high - low) / 2 + radius + 1.5
        found = _window(self.size, float(middle[0]), float(middle[1]), float(half[0]), float(half[1]))
        if found is None:
            return
        rows, columns, x, y = found
        if shape.closed:
            distance = _polygon_distance(x, y, shape.segments) - shape.radii[0]
            light = None
        else:
            distance, light = _capsule_distance(x, y, shape, self.light)
        if shape.bulge > 0:
            light = _inflated(distance, shape.bulge, self.light)
        cover = np.minimum(np.maximum(np.float32(0.5) - distance, 0), 1)
        inside = distance < 0
        color = np.asarray(shape.color, np.float32)[:, None, None]
        tone = 1 + 0.028 * self.grain[rows, columns]
        if light is not None:
            tone = tone * (1 + shape.contrast * (light - 1))
        texture = color if shape.pattern is None else _patterned(x, y, color, shape.pattern)
        painted = texture * tone
        if shape.gloss > 0 and light is not None:
            painted += np.float32(shape.gloss) * np.maximum(light - np.float32(1.02), 0)
        target = self.image[:, rows, columns]
        painted -= target
        painted *= cover * np.float32(shape.alpha)
        target += painted
        self.top[rows, columns][inside] = len(self.shapes)
        self.shapes.append((owner, shape.part))
        self.drawn[owner] = self.drawn.get(owner, 0) + int(np.count_nonzero(inside))

    def paint_layer(self, layer: Layer) -> None:
        """Paint shadows, then shapes from far to near; shapes of equal depth keep their order."""
        for shadow in layer.shadows:
            self.shade(shadow)
        for owner, shape in sorted(layer.shapes, key=lambda pair: pair[1].depth):
            self.paint(shape, owner)

    def fill(self, panel: Panel) -> None:
        """Paint a rectangle of the backdrop, which has no owner."""
        x1, x2 = (int(np.clip(round(x), 0, self.size)) for x in (panel.x1, panel.x2))
        y1, y2 = (int(np.clip(round(y), 0, self.size)) for y in (panel.y1, panel.y2))
        tone = 1 + 0.04 * self.grain[y1:y2, x1:x2]
        self.image[:, y1:y2, x1:x2] = np.asarray(panel.color, np.float32)[:, None, None] * tone

    def owners(self) -> Array:
        """(S, S) the owner seen at each pixel, -1 for the backdrop."""
        return np.array([owner for owner, _ in self.shapes], np.int32)[self.top]

    def picture(self) -> Image.Image:
        """The finished picture in 8 bits."""
        planes = self.image * np.float32(255) + np.float32(0.5)
        np.minimum(np.maximum(planes, 0, out=planes), 255, out=planes)
        return Image.merge("RGB", [Image.fromarray(plane) for plane in planes.astype(np.uint8)])


def _window(size: int, x: float, y: float, rx: float, ry: float) -> tuple[slice, slice, Array, Array] | None:
    """The part of the picture around (x, y), and the coordinates of its pixel centres; None if it lies outside."""
    if not np.isfinite(x + y + rx + ry):
        raise AssertionError("a shape has no finite extent")
    x1, x2 = max(int(np.floor(x - rx)), 0), min(int(np.ceil(x + rx)), size)
    y1, y2 = max(int(np.floor(y - ry)), 0), min(int(np.ceil(y + ry)), size)
    if x1 >= x2 or y1 >= y2:
        return None
    columns = np.arange(x1, x2, dtype=np.float32)[None, :] + np.float32(0.5)
    lines = np.arange(y1, y2, dtype=np.float32)[:, None] + np.float32(0.5)
    return slice(y1, y2), slice(x1, x2), columns, lines


def _capsule_distance(
    x: Array, y: Array, shape: Shape, light: tuple[float, float, float]
) -> tuple[Array, Array | None]:
    """Signed distance of a union of tapered capsules, and the light on them as if each were a cylinder."""
    if shape.contrast == 0 and y.shape[0] * x.shape[1] * len(shape.segments) < 40_000:
        return _thin_distance(x, y, shape), None
    distance: Array | None = None
    shading: Array | None = None
    for (a, b), (ra, rb) in zip(shape.segments, shape.radii, strict=True):
        ax, ay = float(a[0]), float(a[1])
        dx, dy = float(b[0]) - ax, float(b[1]) - ay
        length = (dx * dx + dy * dy) ** 0.5
        # Without a length it is a disc, and any direction will do.
        ux, uy = (dx / length, dy / length) if length > 1e-3 else (1.0, 0.0)
        px, py = x - ax, y - ay
        run, perp = px * ux + py * uy, py * ux - px * uy
        along = np.minimum(np.maximum(run, 0), length)
        radius = float(ra) if ra == rb or length <= 1e-3 else float(ra) + (float(rb) - float(ra)) / length * along
        past = run - along
        here = np.sqrt(perp * perp + past * past) - radius
        if shape.contrast == 0:
            distance = here if distance is None else np.minimum(distance, here)
            continue
        across = np.minimum(np.maximum(perp / np.maximum(radius, np.float32(0.5)), -1), 1)
        # The cylinder's normal is (-uy, ux) * across in the picture and the rest towards the viewer.
        lit = (light[1] * ux - light[0] * uy) * across + light[2] * np.sqrt(1 - across * across)
        if distance is None or shading is None:
            distance, shading = here, lit
        elif shape.smooth > 0:
            blend = np.minimum(np.maximum(0.5 + (0.5 / shape.smooth) * (distance - here), 0), 1)
            distance = distance + (here - distance) * blend - shape.smooth * blend * (1 - blend)
            shading = shading + (lit - shading) * blend
        else:
            nearer = here < distance
            distance, shading = np.where(nearer, here, distance), np.where(nearer, lit, shading)
    assert distance is not None
    return distance, None if shading is None else _exposure(shading)


def _thin_distance(x: Array, y: Array, shape: Shape) -> Array:
    """Signed distance of a union of capsules of constant thickness, all of them at once."""
    ends = shape.segments[:, :, :, None, None]
    delta = ends[:, 1] - ends[:, 0]
    inverse = 1 / np.maximum((delta * delta).sum(axis=1), 1e-6)
    px, py = x - ends[:, 0, 0], y - ends[:, 0, 1]
    along = np.minimum(np.maximum((px * delta[:, 0] + py * delta[:, 1]) * inverse, 0), 1)
    px, py = px - along * delta[:, 0], py - along * delta[:, 1]
    return np.sqrt((px * px + py * py).min(axis=0)) - shape.radii[0, 0]


def _polygon_distance(x: Array, y: Array, corners: Array) -> Array:
    """Signed distance to a simple polygon, negative inside."""
    before = np.roll(corners, 1, axis=0)
    edges = before - corners
    inverse = 1 / np.maximum((edges * edges).sum(axis=1), 1e-6)
    height, width = y.shape[0], x.shape[1]
    squared = np.full((height, width), np.inf, np.float32)
    crossings = np.zeros((height, width), np.int64)
    # All edges of a small polygon at once, a few at a time of a large one, to stay within the processor's cache.
    step = max(1, 20_000 // (height * width))
    for start in range(0, len(corners), step):
        some = slice(start, start + step)
        corner, edge, other = (part[some, :, None, None] for part in (corners, edges, before))
        wx, wy = x - corner[:, 0], y - corner[:, 1]
        ex, ey = edge[:, 0], edge[:, 1]
        along = np.minimum(np.maximum((wx * ex + wy * ey) * inverse[some, None, None], 0), 1)
        bx, by = wx - ex * along, wy - ey * along
        np.minimum(squared, (bx * bx + by * by).min(axis=0), out=squared)
        slope = ex / np.where(ey == 0, np.float32(1), ey)
        crosses = (y >= corner[:, 1]) != (y >= other[:, 1])
        crossings += (crosses & (wx < slope * wy)).sum(axis=0)
    root = np.sqrt(squared)
    return np.where(crossings % 2 == 1, -root, root)


def _inflated(distance: Array, bulge: float, light: tuple[float, float, float]) -> Array:
    """The light on a surface that rises like a cushion from its contour."""
    flat = np.minimum(np.maximum(distance * (1 / bulge) + 1, 0), 1)
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
    """Lambert's cosine to a factor around 1: ambient light keeps the dark side from going black."""
    return 0.66 + 0.52 * np.maximum(lambert, 0)


def _patterned(x: Array, y: Array, color: Array, pattern: Pattern) -> Array:
    c, s = np.cos(pattern.angle), np.sin(pattern.angle)
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
