"""The things of the playground: the shapes of each kind, in use and not in use.

A thing is drawn in a plane of its own: `v` is its long axis (up when it stands) and `u` its other axis, with lengths in
heights of an adult. `Frame` maps the plane into the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from attnpool.playground.draw import Shape, capsule, chain, polygon, rod, strokes, tint
from attnpool.playground.looks import Look
from attnpool.playground.raster import Array

Plane = tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """The plane of a thing in the image: its origin and its two unit axes, in pixels."""

    origin: Plane
    across: Plane
    up: Plane

    @property
    def scale(self) -> float:
        """The pixels per unit, for thicknesses."""
        return max(float(np.hypot(*self.up)), float(np.hypot(*self.across)), 1e-3)

    def __call__(self, *points: Plane) -> Array:
        """Maps points of the plane to pixels (n, 2)."""
        plane = np.asarray(points, np.float32)
        axes = np.array([self.across, self.up], np.float32)
        return plane @ axes + np.asarray(self.origin, np.float32)


def upright(x: float, y: float, scale: float, angle: float = 0.0) -> Frame:
    """A plane facing the viewer, its `v` axis turned by `angle` radians clockwise from straight up."""
    c, s = float(np.cos(angle)) * scale, float(np.sin(angle)) * scale
    return Frame((x, y), (c, s), (s, -c))


def _ring(frame: Frame, u: float, v: float, ru: float, rv: float, count: int, start: float = 0.0) -> Array:
    turn = start + np.linspace(0, 2 * np.pi, count, endpoint=False)
    return frame(*zip(u + ru * np.cos(turn), v + rv * np.sin(turn), strict=True))


def mug(f: Frame, look: Look) -> list[Shape]:
    """Standing at the origin, handle on the positive side."""
    s = f.scale
    arc = np.linspace(-1.5, 1.5, 7)
    handle = f(*zip(0.034 + 0.026 * np.cos(arc), 0.043 + 0.026 * np.sin(arc), strict=True))
    stripe = tint(look.accent, 1.0)
    body = f((-0.033, 0.003), (0.033, 0.003), (0.036, 0.085), (-0.036, 0.085))
    shapes = [
        chain(handle, 0.0075 * s, tint(look.color, 0.92)),
        polygon(body, look.color, 0.003 * s, bulge=0.034 * s, gloss=0.5),
    ]
    if look.variant > 0.4:
        band = f((-0.0345, 0.030), (0.0345, 0.030), (0.0355, 0.056), (-0.0355, 0.056))
        shapes.append(polygon(band, stripe, 0.5, contrast=0.5))
    shapes.append(polygon(_ring(f, 0, 0.085, 0.036, 0.010, 12), tint(look.color, 1.35), 0.5))
    shapes.append(polygon(_ring(f, 0, 0.085, 0.029, 0.006, 12), (0.25, 0.15, 0.10), 0.3))
    return shapes


def bottle(f: Frame, look: Look) -> list[Shape]:
    """Standing at the origin, mouth at v = 0.2."""
    s = f.scale
    glass = look.color
    a = f((0, 0.028), (0, 0.105), (0, 0.15), (0, 0.19))
    width = 0.030 if look.variant < 0.6 else 0.034
    return [
        capsule(a[1], a[2], width * 0.96 * s, 0.013 * s, glass, gloss=1.0),
        capsule(a[2], a[3], 0.0125 * s, 0.0115 * s, glass, gloss=0.8),
        polygon(f((-width, 0.002), (width, 0.002), (width, 0.115), (-width, 0.115)), glass, 0.003 * s, bulge=width * s,
                gloss=0.9),
        polygon(f((-width, 0.045), (width, 0.045), (width, 0.088), (-width, 0.088)), look.accent, 0.5, bulge=width * s),
        capsule(a[3], f((0, 0.203))[0], 0.0145 * s, 0.0145 * s, tint(look.accent, 0.75)),
    ]  # fmt: skip


def phone(f: Frame, look: Look) -> list[Shape]:
    """Centred at the origin; the variant says whether the screen or the back is seen."""
    s = f.scale
    frame = (0.10, 0.10, 0.12) if look.variant < 0.6 else look.color
    shapes = [
        polygon(f((-0.025, -0.056), (0.025, -0.056), (0.025, 0.056), (-0.025, 0.056)), frame, 0.006 * s, gloss=0.5)
    ]
    if look.variant < 0.7:
        screen = f((-0.023, -0.047), (0.023, -0.047), (0.023, 0.049), (-0.023, 0.049))
        shapes.append(polygon(screen, (0.55, 0.78, 0.95), 0.002 * s))
        lines = [
            f((-0.016, v), (wide, v)) for v, wide in ((0.03, 0.004), (0.012, 0.008), (-0.006, 0.012), (-0.024, 0.004))
        ]
        shapes.append(strokes(lines, 0.0035 * s, (0.95, 0.97, 1.0)))
    else:
        shapes.append(polygon(_ring(f, -0.012, 0.042, 0.009, 0.009, 8), (0.05, 0.05, 0.06), 0.4))
    return shapes


def book(f: Frame, look: Look) -> list[Shape]:
    """Closed, centred at the origin."""
    s = f.scale
    return [
        polygon(f((-0.052, -0.074), (0.058, -0.074), (0.058, 0.066), (-0.052, 0.066)), (0.93, 0.90, 0.82), 0.5),
        polygon(f((-0.056, -0.068), (0.052, -0.068), (0.052, 0.074), (-0.056, 0.074)), look.color, 0.002 * s),
        polygon(f((-0.056, -0.068), (-0.044, -0.068), (-0.044, 0.074), (-0.056, 0.074)), tint(look.color, 0.7), 0.5),
        polygon(f((-0.030, 0.022), (0.038, 0.022), (0.038, 0.048), (-0.030, 0.048)), look.accent, 0.6),
        strokes([f((-0.026, v), (0.034, v)) for v in (-0.02, -0.035)], 0.003 * s, tint(look.accent, 0.8)),
    ]


def open_book(f: Frame, look: Look) -> list[Shape]:
    """Open, centred at its spine; the variant says whether pages or covers are seen."""
    s = f.scale
    covers = look.variant > 0.45
    shapes = []
    for side in (-1.0, 1.0):
        cover = f((0, -0.070), (0.088 * side, -0.054), (0.088 * side, 0.080), (0, 0.064))
        page = f((0, -0.062), (0.080 * side, -0.046), (0.081 * side, 0.086), (0, 0.072))
        tone = 1.0 if side < 0 else 0.88
        if covers:
            shapes.append(polygon(page, (0.96, 0.94, 0.87), 0.8))
            shapes.append(polygon(cover, tint(look.color, tone), 0.8))
            if side > 0:
                shapes.append(polygon(f((0.02, 0.02), (0.07, 0.03), (0.07, 0.055), (0.02, 0.045)), look.accent, 0.6))
        else:
            shapes.append(polygon(cover, tint(look.color, tone), 0.8))
            shapes.append(polygon(page, tint((0.97, 0.95, 0.89), tone), 0.8))
            lines = [f((0.012 * side, v), (0.068 * side, v + 0.011)) for v in (0.050, 0.030, 0.010, -0.010, -0.030)]
            shapes.append(strokes(lines, 0.0026 * s, (0.55, 0.53, 0.50)))
    shapes.append(rod(f((0, -0.066), (0, 0.068)), 0.003 * s, 0.003 * s, tint(look.color, 0.6)))
    return shapes


def ball(f: Frame, look: Look) -> list[Shape]:
    """Centred at the origin: a football, a basketball or a beach ball."""
    s, r = f.scale, 0.062
    centre = f((0, 0))[0]
    tilt = look.accent[0] * 6
    if look.variant < 0.45:
        shapes = [capsule(centre, centre, r * s, r * s, (0.93, 0.93, 0.92), bulge=r * s)]
        spots = [(0.0, 0.0, 0.020)] + [
            (0.046 * np.cos(a), 0.046 * np.sin(a), 0.013) for a in tilt + np.arange(5) * 1.257
        ]
        shapes += [polygon(_ring(f, u, v, size, size, 5, tilt), (0.12, 0.12, 0.14), 0.4) for u, v, size in spots]
        return shapes
    base = (0.86, 0.45, 0.16) if look.variant < 0.75 else look.color
    shapes = [capsule(centre, centre, r * s, r * s, base, bulge=r * s, gloss=0.4)]
    line = (0.20, 0.12, 0.08) if look.variant < 0.75 else (0.97, 0.97, 0.95)
    c, d = np.cos(tilt), np.sin(tilt)
    for bend in (-0.035, 0.0, 0.035):
        curve = [(bend * (1 - k * k * 0.8), 0.058 * k) for k in np.linspace(-0.98, 0.98, 6)]
        curve = [(u * c - v * d, u * d + v * c) for u, v in curve]
        shapes.append(chain(f(*curve), 0.0045 * s, line))
    return shapes


def guitar(f: Frame, look: Look) -> list[Shape]:
    """Body centred at the origin, neck along +v up to v = 0.42."""
    s = f.scale
    p = f((0, -0.055), (0, 0.065), (0, 0.40), (0, 0.43), (0, 0.02))
    seg = np.array([[p[0], p[0]], [p[1], p[1]], [p[0], p[1]]], np.float32)
    wide = float(np.hypot(*f.across)) / s
    radii = np.array([[0.088, 0.088], [0.066, 0.066], [0.055, 0.055]], np.float32) * s * max(wide, 0.6)
    ticks = [f((-0.009, v), (0.009, v)) for v in np.arange(0.15, 0.38, 0.04)]
    return [
        Shape(seg, radii * 1.06, tint(look.color, 0.5), smooth=0.03 * s),
        Shape(seg, radii * 0.96, look.color, smooth=0.03 * s, bulge=0.05 * s, gloss=0.6, contrast=0.6),
        capsule(p[4], p[2], 0.011 * s, 0.009 * s, (0.28, 0.18, 0.12)),
        capsule(p[2], p[3], 0.016 * s, 0.017 * s, tint(look.color, 0.6)),
        strokes(ticks, 0.0015 * s, (0.8, 0.75, 0.6)),
        polygon(_ring(f, 0, 0.025, 0.028, 0.028, 12), (0.12, 0.07, 0.05), 0.5),
        polygon(f((-0.03, -0.085), (0.03, -0.085), (0.03, -0.070), (-0.03, -0.070)), (0.18, 0.10, 0.07), 0.5),
        rod(f((0, -0.075), (0, 0.39)), 0.0035 * s, 0.003 * s, (0.85, 0.84, 0.78), alpha=0.7),
    ]


def racket(f: Frame, look: Look) -> list[Shape]:
    """Grip at the origin, head along +v around v = 0.28."""
    s = f.scale
    outer = _ring(f, 0, 0.285, 0.072, 0.098, 14)
    strings = []
    for k in np.linspace(-0.72, 0.72, 5):
        w = np.sqrt(1 - k * k)
        strings.append(f((0.068 * k, 0.285 - 0.094 * w), (0.068 * k, 0.285 + 0.094 * w)))
        strings.append(f((-0.068 * w, 0.285 + 0.094 * k), (0.068 * w, 0.285 + 0.094 * k)))
    return [
        strokes(strings, 0.0024 * s, (0.94, 0.94, 0.90), alpha=0.85),
        chain(np.concatenate([outer, outer[:1]]), 0.0085 * s, look.color, gloss=0.5),
        chain(f((0, 0.05), (0, 0.13), (-0.030, 0.20)), 0.007 * s, look.color),
        chain(f((0, 0.13), (0.030, 0.20)), 0.007 * s, look.color),
        rod(f((0, -0.04), (0, 0.07)), 0.0115 * s, 0.011 * s, (0.14, 0.13, 0.14)),
    ]


def broom(f: Frame, look: Look) -> list[Shape]:
    """Bristles on the ground at the origin, stick along +v up to v = 0.78."""
    s = f.scale
    head = f((-0.085, 0.0), (0.085, 0.0), (0.045, 0.105), (-0.045, 0.105))
    straw = look.accent if look.variant > 0.6 else (0.84, 0.69, 0.36)
    lines = [f((0.075 * k, 0.006), (0.042 * k, 0.09)) for k in np.linspace(-1, 1, 7)]
    return [
        rod(f((0, 0.08), (0, 0.78)), 0.0105 * s, 0.0105 * s, look.color),
        polygon(head, straw, 0.004 * s, bulge=0.05 * s),
        strokes(lines, 0.0025 * s, tint(straw, 0.7)),
        polygon(f((-0.046, 0.088), (0.046, 0.088), (0.03, 0.12), (-0.03, 0.12)), tint(look.color, 0.75), 0.004 * s),
    ]


def umbrella(f: Frame, look: Look) -> list[Shape]:
    """Open: grip at the origin, canopy around v = 0.5."""
    s = f.scale
    base, top, half = 0.43, 0.60, 0.27
    turn = np.linspace(0, np.pi, 15)
    dome = [(half * np.cos(a), base + (top - base) * np.sin(a)) for a in turn]
    scallop: list[Plane] = []
    for k in range(4):
        u1, u2 = -half + k * half / 2, -half + (k + 1) * half / 2
        scallop += [(u1 * 0.75 + u2 * 0.25, base + 0.018), (u1 * 0.5 + u2 * 0.5, base + 0.026)]
        scallop += [(u1 * 0.25 + u2 * 0.75, base + 0.018), (u2, base)]
    panels = []
    for k in (0, 2):
        u1, u2 = -half + k * half / 2, -half + (k + 1) * half / 2
        bow = [(u1 * np.cos(t), base + 0.012 + (top - base - 0.015) * np.sin(t)) for t in np.linspace(0.08, 1.5, 6)]
        back = [(u2 * np.cos(t), base + 0.012 + (top - base - 0.015) * np.sin(t)) for t in np.linspace(1.5, 0.08, 6)]
        panels.append(polygon(f(*bow, *back), look.accent, 0.3, contrast=0.5))
    hook = f((0, -0.02), (0, -0.045), (0.012, -0.06), (0.028, -0.055), (0.032, -0.04))
    return [
        rod(f((0, -0.02), (0, base + 0.05)), 0.0055 * s, 0.0055 * s, (0.30, 0.28, 0.28)),
        polygon(f(*dome, *scallop[:-1]), look.color, 0.6, bulge=0.12 * s),
        *panels,
        rod(f((0, top), (0, top + 0.03)), 0.005 * s, 0.003 * s, (0.30, 0.28, 0.28)),
        chain(hook, 0.008 * s, (0.35, 0.20, 0.12)),
    ]


def closed_umbrella(f: Frame, look: Look) -> list[Shape]:
    """Furled: centred on its length, the tip at -v."""
    s = f.scale
    hook = f((0, 0.17), (0, 0.23), (0.014, 0.247), (0.032, 0.242), (0.036, 0.225))
    folds = [f((u, 0.13), (u * 0.2, -0.20)) for u in (-0.012, 0.012)]
    return [
        chain(hook, 0.008 * s, (0.35, 0.20, 0.12)),
        rod(f((0, -0.22), (0, 0.14)), 0.006 * s, 0.026 * s, look.color),
        *[capsule(a[0], a[1], 0.003 * s, 0.002 * s, tint(look.color, 0.65)) for a in folds],
        rod(f((-0.021, 0.06), (0.021, 0.06)), 0.006 * s, 0.006 * s, look.accent),
        rod(f((0, -0.27), (0, -0.22)), 0.004 * s, 0.005 * s, (0.30, 0.28, 0.28)),
    ]


Maker = Callable[[Frame, Look], list[Shape]]

KINDS: tuple[str, ...] = ("mug", "bottle", "phone", "book", "ball", "guitar", "racket", "broom", "umbrella")

# The shapes of a thing in use, by (kind, state).
MAKERS: dict[tuple[str, str], Maker] = {
    ("mug", ""): mug,
    ("bottle", ""): bottle,
    ("phone", ""): phone,
    ("book", ""): book,
    ("book", "open"): open_book,
    ("ball", ""): ball,
    ("guitar", ""): guitar,
    ("racket", ""): racket,
    ("broom", ""): broom,
    ("umbrella", "open"): umbrella,
    ("umbrella", ""): closed_umbrella,
}
