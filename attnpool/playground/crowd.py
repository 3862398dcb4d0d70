"""Images with several actors, which have labels of more than one class."""

from __future__ import annotations

import numpy as np

from attnpool.playground.body import View
from attnpool.playground.clutter import add_clutter, add_furniture, busy_places
from attnpool.playground.compose import CLASSES, Acting, acting_of, add_bystander, add_person, label_of, put, stage
from attnpool.playground.plan import Plan

# Separates the random streams of these images from those of images with one actor, which are [seed, index].
CROWD = 104_729


def compose_crowd(seed: int, index: int, size: int) -> tuple[Plan, dict[str, float]]:
    """Decides what is where in an image with one or two actors, who do different things.

    The action of the first is `label_of(seed, index)`, so that every block of K images has each class at least once.

    Returns:
        The plan, and the phase in 0..1 of each action that is shown.
    """
    rng = np.random.default_rng([seed, index, CROWD])
    label = label_of(seed, index)
    phases = {label: float(rng.random())}
    acting = acting_of(label, phases[label], rng)
    heading = _heading(acting, rng)
    view, low, high = put(acting, heading, rng, size)
    company = rng.random() < 0.6
    if company:
        # The first actor is smaller and at one side, so that there is room for another.
        view, low, high = _aside(acting, heading, view, rng, size)
    place = stage(view, rng, size)
    plan = Plan(label, place, [], [], [], rng)
    add_person(plan, acting, view)
    spans = [(low, high)]
    if company:
        other = str(rng.choice([name for name in CLASSES if name != label]))
        phase = float(rng.random())
        found = _add_second(plan, acting_of(other, phase, rng), view, spans[0], rng)
        if found is not None:
            phases[other] = phase
            spans.append(found)
    for _ in range(int(rng.choice([0, 1, 2], p=[0.5, 0.35, 0.15]))):
        add_bystander(plan, view, rng)
    tops = add_furniture(plan, view, rng)
    busy = busy_places(plan.people)
    for _ in range(int(rng.integers(3, 8))):
        add_clutter(plan, view, spans, tops, busy, rng)
    return plan, phases


def _heading(acting: Acting, rng: np.random.Generator) -> float:
    return float(rng.uniform(0.15, 1.25)) * (-1.0 if acting.left_handed else 1.0)


def _aside(
    acting: Acting, heading: float, view: View, rng: np.random.Generator, size: int
) -> tuple[View, float, float]:
    """Chooses a smaller view of the first actor at the left or right side of the image; also returns the span in x."""
    scale = min(view.scale, float(rng.uniform(0.40, 0.62)) * size)
    low, high = acting.extent(View(0.0, 0.0, scale, heading))
    least, most = 0.03 * size - low[0], 0.97 * size - high[0]
    room = float(rng.uniform(0, 0.22))
    x = least + (most - least) * (room if rng.random() < 0.5 else 1 - room)
    y = min(max(view.y, 0.66 * size, 0.03 * size - low[1]), 0.985 * size - high[1])
    return View(float(x), float(y), scale, heading), float(low[0] + x), float(high[0] + x)


def _add_second(
    plan: Plan, acting: Acting, first: View, taken: tuple[float, float], rng: np.random.Generator
) -> tuple[float, float] | None:
    """Adds the second actor beside the first, if twelve tries find a place where neither hides the other."""
    place, size = plan.place, plan.place.size
    heading = _heading(acting, rng)
    for _ in range(12):
        y = place.horizon + (first.y - place.horizon) * float(rng.uniform(0.72, 1.12))
        y = max(y, place.edge + 0.02 * size)
        scale = place.scale_at(y, first.y, first.scale) * float(rng.uniform(0.90, 1.08))
        low, high = acting.extent(View(0.0, 0.0, scale, heading))
        x = float(rng.uniform(0.02 * size - low[0], max(0.98 * size - high[0], 0.02 * size - low[0] + 1)))
        span = (float(low[0] + x), float(high[0] + x))
        gap = 0.02 * scale
        apart = span[1] < taken[0] - gap or span[0] > taken[1] + gap
        if apart and y + low[1] > 0.02 * size and y + high[1] < 0.99 * size and span[1] < 0.99 * size:
            add_person(plan, acting, View(x, y, scale, heading))
            return span
    return None
