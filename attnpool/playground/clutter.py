"""Clutter: furniture, and things of every kind that nobody uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attnpool.playground.body import LEFT_ANKLE, RIGHT_ANKLE, View
from attnpool.playground.draw import Layer, Shadow, Shape, capsule, placed, polygon, tint
from attnpool.playground.looks import PALETTE, WOODS, Look, random_look
from attnpool.playground.objects import KINDS, MAKERS, Frame, upright
from attnpool.playground.plan import PersonPlan, Plan, ThingPlan
from attnpool.playground.raster import Array, Color


@dataclass(frozen=True)
class Top:
    """A surface for things to stand on: its span, the y of its middle, the scale there and the order of its layer."""

    x1: float
    x2: float
    y: float
    scale: float
    order: float


def add_furniture(plan: Plan, actor: View, rng: np.random.Generator) -> list[Top]:
    """Adds tables, crates and benches behind the actor, so that they do not hide what matters."""
    place, tops = plan.place, []
    for _ in range(int(rng.choice([0, 1, 2], p=[0.15, 0.55, 0.3]))):
        low = max(place.horizon + 0.5 * (actor.y - place.horizon), place.edge + 0.012 * place.size)
        y = float(rng.uniform(low, max(actor.y - 0.03 * place.size, low + 1)))
        s = place.scale_at(y, actor.y, actor.scale)
        wide, high = float(rng.uniform(0.22, 0.42)) * s, float(rng.uniform(0.22, 0.44)) * s
        deep = float(np.clip(0.30 * s * (y - high - place.horizon) / max(s, 1.0), 0.025 * s, 0.12 * s))
        x = float(rng.uniform(0.05, 0.95)) * place.size
        color = tint(WOODS[rng.integers(3)] if rng.random() < 0.6 else PALETTE[rng.integers(len(PALETTE))], 0.9)
        plan.layers.append(
            Layer(
                y,
                [(0, s) for s in _furniture(x, y, wide, high, deep, color, bool(rng.random() < 0.5))],
                [Shadow(x, y - deep * 0.4, wide * 1.15, deep * 1.1 + 3, 0.4)],
            )
        )
        tops.append(Top(x - wide * 0.85, x + wide * 0.85, y - high - deep * 0.45, s, y))
    return tops


def _furniture(x: float, y: float, wide: float, high: float, deep: float, color: Color, solid: bool) -> list[Shape]:
    top = [
        (x - wide, y - high),
        (x + wide, y - high),
        (x + wide * 0.9, y - high - deep),
        (x - wide * 0.9, y - high - deep),
    ]
    thick = max(high * 0.07, 2.0)
    shapes = []
    if solid:
        shapes.append(
            polygon(
                [(x - wide * 0.97, y - high), (x + wide * 0.97, y - high), (x + wide * 0.97, y), (x - wide * 0.97, y)],
                tint(color, 0.85),
                1.0,
            )
        )
        for k in (-0.5, 0.5):
            inner = wide * 0.42
            cx = x + wide * k
            shapes.append(
                polygon(
                    [
                        (cx - inner, y - high * 0.85),
                        (cx + inner, y - high * 0.85),
                        (cx + inner, y - high * 0.1),
                        (cx - inner, y - high * 0.1),
                    ],
                    tint(color, 0.95),
                    1.0,
                )
            )
            shapes.append(
                capsule((cx, y - high * 0.6), (cx, y - high * 0.6), thick * 0.5, thick * 0.5, tint(color, 0.5))
            )
    else:
        for k, foot in ((-0.84, deep * 0.8), (0.84, deep * 0.8), (-0.92, 0.0), (0.92, 0.0)):
            shapes.append(
                capsule(
                    (x + wide * k, y - high), (x + wide * k, y - foot), thick * 0.75, thick * 0.55, tint(color, 0.75)
                )
            )
    shapes.append(polygon(top, tint(color, 1.12), 1.0))
    shapes.append(
        polygon(
            [(x - wide, y - high), (x + wide, y - high), (x + wide, y - high + thick), (x - wide, y - high + thick)],
            tint(color, 0.78),
            0.8,
        )
    )
    return [placed(shape, k * 1e-3, "") for k, shape in enumerate(shapes)]


Spans = list[tuple[float, float]]
Busy = list[tuple[Array, float]]


def add_clutter(plan: Plan, actor: View, spans: Spans, tops: list[Top], busy: Busy, rng: np.random.Generator) -> None:
    """Adds an unused thing, which stands or lies on furniture or on the ground.

    It is neither in front of an actor (within `spans` in x), where it could hide the thing in use, nor near anybody's
    hands or feet (`busy`), where it would look used. If twelve tries find no such place, it is left out.
    """
    kind = KINDS[rng.integers(len(KINDS))]
    look = random_look(kind, rng)
    small = kind in ("mug", "bottle", "phone", "book", "ball")
    furniture = bool(small and tops and rng.random() < 0.65)
    for _ in range(12):
        if furniture:
            top = tops[rng.integers(len(tops))]
            x, y, s, order = float(rng.uniform(top.x1, top.x2)), top.y, top.scale, top.order + 0.5
        else:
            x, y, s = _spot(plan, actor, rng)
            order = y
            margin = 0.10 * actor.scale
            if any(low - margin < x < high + margin for low, high in spans):
                continue
        shapes = _lying(kind, look, x, y, s * look.size, rng)
        if any(_touches(shapes, points, reach) for points, reach in busy):
            continue
        owner = plan.next_owner()
        plan.things.append(ThingPlan(owner, kind, False))
        shadow = Shadow(x, y + 0.004 * s, (0.06 if small else 0.11) * s, 0.016 * s + 1.5, 0.32)
        plan.layers.append(Layer(order, [(owner, placed(shape, 0.0, "thing")) for shape in shapes], [shadow]))
        return


def _spot(plan: Plan, actor: View, rng: np.random.Generator) -> tuple[float, float, float]:
    """A random place on the ground, and the scale there."""
    place = plan.place
    low = max(place.horizon + 0.55 * (actor.y - place.horizon), place.edge + 0.01 * place.size)
    y = float(rng.uniform(low, max(min(actor.y * 1.04, place.size * 0.97), low + 1)))
    return float(rng.uniform(0.03, 0.97)) * place.size, y, place.scale_at(y, actor.y, actor.scale)


def busy_places(people: list[PersonPlan]) -> Busy:
    """For each person the pixels of hands and feet, and the distance from them that unused things must keep."""
    places = []
    for person in people:
        points = np.concatenate([person.body.grips, person.body.joints[[RIGHT_ANKLE, LEFT_ANKLE]]])
        places.append((person.view.project(points)[:, :2], 0.07 * person.view.scale))
    return places


def _touches(shapes: list[Shape], points: Array, reach: float) -> bool:
    corners = np.concatenate([shape.segments.reshape(-1, 2) for shape in shapes])
    low, high = corners.min(axis=0) - reach, corners.max(axis=0) + reach
    return bool(((points > low) & (points < high)).all(axis=1).any())


def _lying(kind: str, look: Look, x: float, y: float, s: float, rng: np.random.Generator) -> list[Shape]:
    turn, flat = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.38, 0.55))
    c, d = float(np.cos(turn)) * s, float(np.sin(turn)) * s
    lying = Frame((x, y), (c, d * flat), (d, -c * flat))
    lean = float(rng.uniform(-0.35, 0.35))
    stands = rng.random() < 0.5
    if kind == "mug":
        frame = upright(x, y, s)
        return MAKERS[("mug", "")](frame if rng.random() < 0.5 else Frame((x, y), (-s, 0.0), (0.0, -s)), look)
    if kind == "bottle":
        return MAKERS[("bottle", "")](upright(x, y, s, 0.0 if rng.random() < 0.8 else 1.5), look)
    if kind == "ball":
        return MAKERS[("ball", "")](upright(x, y - 0.062 * s, s), look)
    if kind == "book":
        if rng.random() < 0.35:
            return MAKERS[("book", "open")](lying, look)
        return MAKERS[("book", "")](upright(x, y - 0.07 * s, s, lean * 0.3) if stands else lying, look)
    if kind == "phone":
        return MAKERS[("phone", "")](upright(x, y - 0.055 * s, s, lean * 0.3) if stands else lying, look)
    if kind == "guitar":
        return MAKERS[("guitar", "")](upright(x, y - 0.09 * s, s, lean) if stands else lying, look)
    if kind == "racket":
        return MAKERS[("racket", "")](upright(x, y - 0.37 * s, s, np.pi + lean) if stands else lying, look)
    if kind == "broom":
        return MAKERS[("broom", "")](upright(x, y, s, lean) if stands else lying, look)
    if stands:
        # It rests on its handle and on the rim of the canopy, so tan(angle) = height of the rim / its half width.
        side = 1.0 if turn > np.pi else -1.0
        return MAKERS[("umbrella", "open")](upright(x - side * 0.3 * s, y - 0.03 * s, s, side * 1.01), look)
    return MAKERS[("umbrella", "")](upright(x, y - 0.26 * s, s, lean) if rng.random() < 0.5 else lying, look)
