"""Renders an image of the playground and its annotations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from attnpool.keypoints.joints import Box
from attnpool.playground import backdrop
from attnpool.playground.body import face_points
from attnpool.playground.compose import compose
from attnpool.playground.draw import Canvas, Panel
from attnpool.playground.figure import JOINT_PARTS
from attnpool.playground.plan import PersonPlan, Plan
from attnpool.playground.raster import Array

# A thing with fewer visible pixels than this, at 448 px, is not annotated.
FEWEST_PIXELS = 12


@dataclass(frozen=True)
class Figure:
    """A person.

    Attributes:
        joints: (16, 2) pixels of the skeleton in the order of `keypoints.MPII_JOINTS`, inside the image or not.
        visible: (16,) COCO's v: 2 visible; 1 hidden by something drawn on top (another limb, the held thing, another
            person) or, for hips and shoulders, behind the torso; 0 outside the image.
        box: `(x1, y1, x2, y2)` around the person's visible pixels.
        actor: whether the person does what a label says.
        area: number of visible pixels.
        label: the action, "" for bystanders.
        scale: height of the upright person in pixels.
        face: (5, 2) pixels of nose, right eye, left eye, right ear, left ear.
        face_visible: (5,) 2 visible, 1 hidden by something drawn on top, 0 turned away or outside the image.
    """

    joints: Array
    visible: Array
    box: Box
    actor: bool
    area: int
    label: str
    scale: float
    face: Array
    face_visible: Array


@dataclass(frozen=True)
class Thing:
    """An object: its kind, the box around its visible pixels and their number, whether an actor uses it, and the
    actor's label."""

    name: str
    box: Box
    in_use: bool
    area: int
    label: str = ""


@dataclass(frozen=True)
class Scene:
    """An image with its label (that of the first actor, if there are several), people and things."""

    image: Image.Image
    label: str
    people: list[Figure]
    objects: list[Thing]

    @property
    def evidence(self) -> Box:
        """The box around the actors and the things in use."""
        boxes = [person.box for person in self.people if person.actor] + [it.box for it in self.objects if it.in_use]
        x1, y1, x2, y2 = zip(*boxes, strict=True)
        return (min(x1), min(y1), max(x2), max(y2))


def render(seed: int, index: int, *, size: int = 448) -> Scene:
    """Renders image `index` of the world `seed`, which depends only on the three arguments.

    Args:
        seed: seed of the world, at least 0.
        index: number of the image, at least 0. Every block of K consecutive images, from a multiple of K on, has every
            class once.
        size: width and height in pixels, 64 to 4096.

    Raises:
        ValueError: a number is out of range.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed {seed} and index {index}: both must be 0 or more")
    check_size(size)
    return draw(compose(seed, index, size))


def check_size(size: int) -> None:
    """Raises ValueError for an image size that cannot be painted."""
    if not 64 <= size <= 4096:
        raise ValueError(f"size {size}: an image of the playground has 64 to 4096 pixels a side; choose one of them")


def draw(plan: Plan) -> Scene:
    """Paints a plan, and derives the annotations from the painted pixels."""
    canvas = empty_stage(plan)
    for layer in sorted(plan.layers, key=lambda layer: layer.order):
        canvas.paint_layer(layer)
    _finish(canvas, plan.rng)
    owners = canvas.owners()
    people = []
    for person in plan.people:
        found = extent(owners, person.owner)
        if found is not None:
            people.append(figure_of(canvas, person, *found))
    least = FEWEST_PIXELS * (plan.place.size / 448) ** 2
    things = []
    for thing in plan.things:
        found = extent(owners, thing.owner)
        if found is not None and (found[1] >= least or thing.in_use):
            things.append(Thing(thing.kind, found[0], thing.in_use, found[1], thing.label))
    return Scene(canvas.finished(), plan.label, people, things)


def empty_stage(plan: Plan) -> Canvas:
    """Makes a canvas with the backdrop and its fixtures."""
    image, grain, fixtures = backdrop.paint(plan.place, plan.rng)
    canvas = Canvas(image, grain, plan.place.light)
    for fixture in fixtures:
        if isinstance(fixture, Panel):
            canvas.fill(fixture)
        else:
            canvas.paint(fixture, 0)
    return canvas


def _finish(canvas: Canvas, rng: np.random.Generator) -> None:
    """Applies the effects of a camera: a tint, a slight falloff towards the corners, and sensor noise."""
    size = canvas.size
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    falloff = 1 - np.float32(0.10) * (axis[:, None] ** 2 + axis[None, :] ** 2)
    warmth = float(rng.uniform(-0.05, 0.05))
    gain = np.array([1 + warmth, 1.0, 1 - warmth], np.float32) * np.float32(rng.uniform(1.0, 1.16))
    noise = np.float32(0.008) * canvas.grain
    for plane, factor in zip(canvas.image, gain, strict=True):
        plane *= falloff * factor
        plane += noise


def extent(owners: Array, owner: int) -> tuple[Box, int] | None:
    """The box around the visible pixels of an owner, and their number; None if there are none."""
    mask = owners == owner
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return box, int(np.count_nonzero(mask))


def figure_of(canvas: Canvas, person: PersonPlan, box: Box, area: int) -> Figure:
    """The annotations of a person whose visible pixels fill `box`."""
    seen = person.view.project(person.body.joints)
    visible = np.zeros(16, np.int64)
    for joint, (x, y, nearness) in enumerate(seen):
        if not (0 <= x < canvas.size and 0 <= y < canvas.size):
            continue
        owner, part = canvas.shapes[int(canvas.top[int(y), int(x)])]
        away = (
            joint in (2, 3, 12, 13) and part in ("torso", "hips") and nearness - seen[7 if joint > 6 else 6][2] < -0.045
        )
        visible[joint] = 2 if owner == person.owner and part in JOINT_PARTS[joint] and not away else 1
    points, turned = face_points(person.body)
    face = person.view.project(points)
    towards = face[:, 2] - person.view.project(person.body.head[None])[0, 2] > turned
    face_visible = np.zeros(5, np.int64)
    for point, (x, y, _) in enumerate(face):
        if towards[point] and 0 <= x < canvas.size and 0 <= y < canvas.size:
            hit = canvas.shapes[int(canvas.top[int(y), int(x)])]
            face_visible[point] = 2 if hit == (person.owner, "head") else 1
    joints, scale = seen[:, :2].copy(), person.view.scale
    return Figure(joints, visible, box, person.actor, area, person.label, scale, face[:, :2].copy(), face_visible)
