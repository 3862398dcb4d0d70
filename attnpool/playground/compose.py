"""Composition of images: decides what is where. All random decisions are made here; `scene.py` only draws them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from attnpool.playground.actions import ACTIONS, Feet, neutral
from attnpool.playground.backdrop import Place
from attnpool.playground.body import Body, Held, View, mirrored, solve
from attnpool.playground.clutter import add_clutter, add_furniture, busy_places
from attnpool.playground.draw import Layer, Shadow, Shape, placed
from attnpool.playground.figure import Drawing
from attnpool.playground.ground import INDOOR_FLOORS, OUTDOOR_FLOORS
from attnpool.playground.looks import Look, Wardrobe, random_look, random_wardrobe
from attnpool.playground.objects import MAKERS, Frame
from attnpool.playground.plan import PersonPlan, Plan, ThingPlan
from attnpool.playground.raster import Array

CLASSES: tuple[str, ...] = tuple(ACTIONS)
# Separates the random stream that assigns classes from the streams of the images, which are [seed, index].
DEAL = 7919


def label_of(seed: int, index: int) -> str:
    """The class of an image. Every block of K consecutive images has each class once, in a random order."""
    block, place = divmod(index, len(CLASSES))
    order = np.random.default_rng([seed, block, DEAL]).permutation(len(CLASSES))
    return CLASSES[int(order[place])]


@dataclass(frozen=True)
class Acting:
    """A person and the held thing, before they are placed in the image; bystanders have no label."""

    label: str
    body: Body
    wear: Wardrobe
    held: Held | None
    look: Look | None
    left_handed: bool

    def frame(self, view: View) -> Frame:
        """The plane of the held thing in the image."""
        assert self.held is not None
        assert self.look is not None
        flip = np.array([-1.0 if self.left_handed else 1.0, 1.0, 1.0])
        origin = view.project((self._at() * flip)[None])[0]
        size = view.scale * self.look.size
        up = view.direction(np.array(self.held.up) * flip)[:2]
        length = float(np.hypot(*up))
        # A plane seen edge-on would vanish, so lengths in the image are kept above a fraction of the true ones.
        least = 0.75 if self.held.round else 0.5
        if length < least:
            up = up / length * least if length > 1e-3 else np.array([0.0, -least])
            length = least
        straight = up / length
        normal = np.array([-straight[1], straight[0]])
        across = normal
        if self.held.across is not None:
            seen = view.direction(np.array(self.held.across) * flip)[:2]
            side = float(seen @ normal)
            sign = 1.0 if side >= 0 else -1.0
            if self.held.round:
                across = normal * sign
            else:
                across = normal * sign * max(abs(side), 0.45) + straight * float(np.clip(seen @ straight, -0.4, 0.4))
        across, up = across * size, up * size
        return Frame((float(origin[0]), float(origin[1])), (across[0], across[1]), (up[0], up[1]))

    def _at(self) -> Array:
        assert self.held is not None
        return self.held.at(mirrored(self.body) if self.left_handed else self.body)

    def held_shapes(self, view: View) -> list[Shape]:
        """The shapes of the held thing, between the palm and the fingers or beneath the palm."""
        if self.held is None or self.look is None:
            return []
        maker = MAKERS[(self.held.kind, self.held.state)]
        depth = 0.056 if self.held.hands else 0.045
        return [placed(s, depth, "thing") for s in maker(self.frame(view), self.look)]

    def extent(self, view: View) -> tuple[Array, Array]:
        """The corners of the box around the joints and the held thing."""
        points = [view.project(self.body.joints)[:, :2], *(s.segments.reshape(-1, 2) for s in self.held_shapes(view))]
        together = np.concatenate(points)
        return together.min(axis=0), together.max(axis=0)


def compose(seed: int, index: int, size: int) -> Plan:
    """Decides what is where in image `index` of the world `seed`."""
    rng = np.random.default_rng([seed, index])
    label = label_of(seed, index)
    acting = acting_of(label, float(rng.random()), rng)
    heading = float(rng.uniform(0.15, 1.25)) * (-1.0 if acting.left_handed else 1.0)
    view, low, high = put(acting, heading, rng, size)
    place = stage(view, rng, size)
    plan = Plan(label, place, [], [], [], rng)
    add_person(plan, acting, view)
    for _ in range(int(rng.choice([0, 1, 2], p=[0.35, 0.4, 0.25]))):
        add_bystander(plan, view, rng)
    tops = add_furniture(plan, view, rng)
    busy = busy_places(plan.people)
    for _ in range(int(rng.integers(3, 8))):
        add_clutter(plan, view, [(low, high)], tops, busy, rng)
    return plan


def acting_of(label: str, phase: float, rng: np.random.Generator, feet: Feet | None = None) -> Acting:
    """A person at a moment of an action ("" for a bystander); `feet` replaces the feet of the action.

    The random numbers do not depend on the phase: the same stream gives the same person at any phase.
    """
    act = (ACTIONS[label] if label else neutral)(phase, rng)
    if feet is not None:
        act = replace(act, pose=replace(act.pose, feet=feet))
    wear = random_wardrobe(rng)
    body = solve(act.pose, wear.build)
    left_handed = bool(rng.random() < 0.5)
    look = random_look(act.held.kind, rng) if act.held else None
    return Acting(label, mirrored(body) if left_handed else body, wear, act.held, look, left_handed)


def put(acting: Acting, heading: float, rng: np.random.Generator, size: int) -> tuple[View, float, float]:
    """Chooses a size and position at which the person and the thing fit; sometimes the feet are cut off.

    Also returns the span in x of the person and the thing.
    """
    scale = float(rng.uniform(0.36, 0.80)) * size
    across, down, cut = rng.random(3)
    probe = View(0.0, 0.0, scale, heading)
    low, high = acting.extent(probe)
    margin = 0.03 * size
    x = _between(margin - low[0], size - margin - high[0], float(across))
    lowest = size * 0.985 - high[1] - 0.02 * scale
    if cut < 0.12 and scale > 0.6 * size:
        lowest += 0.16 * scale
    y = _between(max(margin - low[1], 0.62 * size), lowest, float(down) ** 0.6)
    return View(x, min(y, lowest), scale, heading), float(low[0] + x), float(high[0] + x)


def _between(low: float, high: float, t: float) -> float:
    return float(low + (high - low) * t) if low < high else float((low + high) / 2)


def stage(view: View, rng: np.random.Generator, size: int) -> Place:
    """Chooses a backdrop on whose ground a person with this view stands."""
    indoor = bool(rng.random() < 0.5)
    horizon = float(np.clip(view.y - rng.uniform(0.55, 1.0) * view.scale, 0.16 * size, 0.56 * size))
    share = rng.uniform(0.22, 0.55) if indoor else rng.uniform(0.01, 0.10)
    edge = horizon + share * (view.y - horizon)
    side = float(rng.choice([-1.0, 1.0])) * float(rng.uniform(0.25, 0.6))
    light = np.array([side, -0.55, 0.62])
    light /= np.linalg.norm(light)
    floor = str(rng.choice(INDOOR_FLOORS if indoor else OUTDOOR_FLOORS))
    return Place(size, horizon, edge, indoor, floor, (float(light[0]), float(light[1]), float(light[2])))


def add_person(plan: Plan, acting: Acting, view: View) -> None:
    """Adds a person, the held thing and their shadows to the image, as a layer."""
    owner = plan.next_owner()
    plan.people.append(PersonPlan(owner, acting.body, view, bool(acting.label), acting.label))
    figure = Drawing(acting.body, view, acting.wear)
    figure.legs()
    figure.trunk()
    figure.arms()
    figure.head()
    shapes = []
    if acting.held is not None:
        thing = plan.next_owner()
        plan.things.append(ThingPlan(thing, acting.held.kind, True, acting.label))
        shapes = [(thing, shape) for shape in acting.held_shapes(view)]
        frame = acting.frame(view)
        for hand in acting.held.hands:
            figure.fingers(1 - hand if acting.left_handed else hand, np.array(frame.up), 0.058)
    shapes = [(owner, shape) for shape in figure.shapes] + shapes
    away = -np.sign(plan.place.light[0]) * view.scale
    shadows = [
        Shadow(view.x + 0.10 * away, view.y - 0.005 * view.scale, 0.26 * view.scale, 0.045 * view.scale, 0.33),
        Shadow(view.x, view.y, 0.15 * view.scale, 0.035 * view.scale, 0.30),
    ]
    plan.layers.append(Layer(view.y, shapes, shadows))


def add_bystander(plan: Plan, actor: View, rng: np.random.Generator) -> None:
    """Adds a bystander who does not hide the actor, if twelve tries find a place."""
    place, size = plan.place, plan.place.size
    acting = acting_of("", float(rng.random()), rng)
    heading = float(rng.uniform(-1.5, 1.5)) if rng.random() < 0.85 else float(rng.uniform(2.4, 3.9))
    ground = actor.y - place.horizon
    front = rng.random() < 0.25
    near = rng.uniform(1.03, 1.25) if front else rng.uniform(0.55, 0.97)
    y = place.horizon + ground * float(near)
    y = max(y, place.edge + 0.02 * size)
    scale = place.scale_at(y, actor.y, actor.scale) * float(rng.uniform(0.85, 1.08))
    # Nobody may stand in front of the actor or the thing in use.
    gap = (0.55 if front else 0.24) * (actor.scale + scale) / 2
    for _ in range(12):
        x = float(rng.uniform(0.06, 0.94)) * size
        taken = [person.view for person in plan.people[1:]]
        if abs(x - actor.x) > gap and all(abs(x - other.x) > 0.3 * scale for other in taken):
            add_person(plan, acting, View(x, y, scale, heading))
            return
