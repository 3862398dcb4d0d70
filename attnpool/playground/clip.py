"""Clips of the playground: a backdrop that is painted once, and people and a camera that move."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from attnpool.playground.body import View
from attnpool.playground.clutter import add_clutter, add_furniture, busy_places
from attnpool.playground.compose import add_person, label_of, stage
from attnpool.playground.draw import Canvas
from attnpool.playground.motion import WALKING, Camera, Performer, random_camera
from attnpool.playground.plan import Plan
from attnpool.playground.raster import Array
from attnpool.playground.scene import Figure, Thing, empty_stage, extent, figure_of

WIDTH, HEIGHT, RATE = 320, 240, 30
# The stage is larger than the frame, so that the camera has room.
STAGE = 544
# A part of the seeds that separates the random streams of clips from those of images.
CLIP = 15_487_469


@dataclass(frozen=True)
class Clip:
    """The plan of a clip.

    Attributes:
        label: the action of the actor.
        frames: number of frames.
        plan: the stage and everything that does not move.
        performers: the people, with the actor first.
        camera: the camera.
        noise: strength of the sensor's noise in grey levels.
    """

    label: str
    frames: int
    plan: Plan
    performers: list[Performer]
    camera: Camera
    noise: float

    def time(self, frame: int) -> float:
        """The time of a frame in seconds from the middle of the clip."""
        return (frame - (self.frames - 1) / 2) / RATE

    def window(self, frame: int) -> tuple[slice, slice]:
        """The rows and columns of the stage that a frame shows."""
        matrix = self.camera.matrix(self.time(frame), STAGE)
        corners = np.array([[0, 0, 1], [WIDTH, 0, 1], [0, HEIGHT, 1], [WIDTH, HEIGHT, 1]]) @ matrix.T
        x1, y1 = np.floor(corners.min(axis=0)).astype(int)
        x2, y2 = np.ceil(corners.max(axis=0)).astype(int)
        return slice(y1, y2), slice(x1, x2)

    def at(self, frame: int) -> Plan:
        """The plan of everything that moves, at a frame; its owner numbers continue those of the things lying about."""
        place = self.plan.place
        plan = Plan(self.label, place, [], list(self.plan.things), [], self.plan.rng)
        for performer in self.performers:
            time = self.time(frame)
            add_person(plan, performer.acting(time), performer.view(time, place))
        return plan


@dataclass(frozen=True)
class Frame:
    """A frame (H, W, 3) uint8, and the people in it, in its pixels; `things` are those in use."""

    image: Array
    people: list[Figure]
    things: list[Thing]


def compose_clip(seed: int, index: int, frames: int) -> Clip:
    """Decides the people and their movements in clip `index` of the world `seed`.

    In the middle of the clip the actor's chest and hands are in the frame; before and after he may be half outside.

    Args:
        seed: seed of the world, at least 0.
        index: number of the clip; every block of K consecutive clips, from a multiple of K on, has every class once.
        frames: number of frames, at least 1; another number gives another clip.
    """
    rng = np.random.default_rng([seed, index, CLIP])
    label = label_of(seed, index)
    walks = label in WALKING and bool(rng.random() < 0.6)
    actor = Performer(
        label,
        (seed, index, CLIP, 1),
        View(0.0, 0.0, 1.0, 0.0),
        walks,
        cadence=float(rng.uniform(0.75, 1.1)),
        period=float(rng.uniform(1.6, 3.0) if label.startswith("drinking") else rng.uniform(0.9, 1.7)),
        offset=float(rng.random()),
    )
    heading = float(rng.uniform(0.15, 1.25)) * (-1.0 if actor.acting(0.0).left_handed else 1.0)
    actor, middle = _put(replace(actor, start=View(0.0, 0.0, float(rng.uniform(120, 225)), heading)), rng)
    place = stage(actor.start, rng, STAGE)
    plan = Plan(label, place, [], [], [], rng)
    performers = [actor]
    for number in range(int(rng.choice([0, 1, 2], p=[0.35, 0.4, 0.25]))):
        performers += _bystander(plan, performers, (seed, index, CLIP, 2 + number), rng)
    seconds = frames / RATE
    camera = random_camera((WIDTH, HEIGHT), middle, STAGE, 0.35 if walks else 0.6, seconds, rng)
    clip = Clip(label, frames, plan, performers, camera, float(rng.choice([0.8, 2.0, 5.0], p=[0.4, 0.4, 0.2])))
    tops = add_furniture(plan, actor.start, rng)
    moments = [clip.at(frame).people for frame in sorted({0, frames // 2, frames - 1})]
    busy = [place for people in moments for place in busy_places(people)]
    low, high = actor.acting(0.0).extent(actor.start)
    for _ in range(int(rng.integers(5, 11))):
        add_clutter(plan, actor.start, [(float(low[0]), float(high[0]))], tops, busy, rng)
    return clip


def _put(actor: Performer, rng: np.random.Generator) -> tuple[Performer, tuple[float, float]]:
    """Puts the actor on the stage and the window around chest and thing; returns the middle of the window."""
    start = actor.start
    boxes = []
    for quarter in range(3):
        acting = actor.acting(quarter * actor.period / 4)
        chest = start.project(acting.body.anchors["chest"][None])[0, :2]
        points = [chest[None], *(shape.segments.reshape(-1, 2) for shape in acting.held_shapes(start))]
        boxes.append(np.concatenate(points))
    together = np.concatenate(boxes)
    low, high = float(together[:, 1].min()), float(together[:, 1].max())
    shrink = min(1.0, 200 / (high - low))
    scale = start.scale * shrink
    low, high, up = low * shrink, high * shrink, float(chest[1]) * shrink
    x = float(rng.uniform(0.36, 0.64)) * STAGE
    y = max(float(rng.uniform(0.72, 0.95)) * STAGE, 24 - low)
    # The top of the window is chosen so that the thing is inside with a margin and, if possible, the chest near the
    # middle.
    least, most = y + high + 12 - HEIGHT, y + low - 12
    top = float(np.clip(y + up - float(rng.uniform(0.3, 0.62)) * HEIGHT, least, max(most, least)))
    left = x - float(rng.uniform(0.12, 0.88)) * WIDTH
    return replace(actor, start=View(x, y, scale, start.heading)), (left + WIDTH / 2, top + HEIGHT / 2)


def _bystander(
    plan: Plan, performers: list[Performer], key: tuple[int, ...], rng: np.random.Generator
) -> list[Performer]:
    """Somebody who walks past or stands, apart from the others in the middle of the clip; or nobody."""
    place, actor = plan.place, performers[0].start
    walks = bool(rng.random() < 0.65)
    heading = float(rng.uniform(-1.5, 1.5)) if rng.random() < 0.85 else float(rng.uniform(2.4, 3.9))
    front = rng.random() < 0.2
    near = rng.uniform(1.03, 1.2) if front else rng.uniform(0.6, 0.97)
    y = max(place.horizon + (actor.y - place.horizon) * float(near), place.edge + 0.02 * STAGE)
    scale = place.scale_at(y, actor.y, actor.scale) * float(rng.uniform(0.88, 1.06))
    cadence, period, offset = rng.uniform(0.75, 1.1), rng.uniform(1.5, 3.0), rng.random()
    gap = (0.5 if front else 0.28) * (actor.scale + scale) / 2
    for _ in range(12):
        x = float(rng.uniform(0.04, 0.96)) * STAGE
        if abs(x - actor.x) > gap and all(abs(x - other.start.x) > 0.3 * scale for other in performers[1:]):
            view = View(x, y, scale, heading)
            return [Performer("", key, view, walks, float(cadence), float(period), float(offset))]
    return []


def render_clip(clip: Clip) -> Iterator[Frame]:
    """Paints the frames of a clip one after the other.

    Everything that does not move and is behind all people is painted once; every frame copies it and adds the rest.
    """
    fixed = sorted(clip.plan.layers, key=lambda layer: layer.order)
    behind = min(
        performer.view(clip.time(frame), clip.plan.place).y
        for performer in clip.performers
        for frame in (0, clip.frames - 1)
    )
    base = empty_stage(clip.plan)
    for layer in fixed:
        if layer.order < behind:
            base.paint_layer(layer)
    before = [layer for layer in fixed if layer.order >= behind]
    finish = _Finish(clip, clip.plan.rng)
    image, top = base.image.copy(), base.top.copy()
    for frame in range(clip.frames):
        canvas = copy.copy(base)
        window = clip.window(frame)
        image[:, *window] = base.image[:, *window]
        top[window] = base.top[window]
        canvas.image, canvas.top, canvas.shapes = image, top, list(base.shapes)
        plan = clip.at(frame)
        for layer in sorted(before + plan.layers, key=lambda layer: layer.order):
            canvas.paint_layer(layer)
        yield _seen(clip, frame, plan, canvas, finish)


class _Finish:
    """Applies the camera's tint, its falloff towards the corners, and noise that differs in each frame."""

    def __init__(self, clip: Clip, rng: np.random.Generator) -> None:
        x, y = np.linspace(-1, 1, WIDTH, dtype=np.float32), np.linspace(-1, 1, HEIGHT, dtype=np.float32)
        falloff = 1 - np.float32(0.10) * (y[:, None] ** 2 + x[None, :] ** 2)
        warmth, gain = float(rng.uniform(-0.05, 0.05)), float(rng.uniform(1.0, 1.16))
        self.gain = (falloff[:, :, None] * np.array([1 + warmth, 1.0, 1 - warmth]) * gain).astype(np.float32)
        self.noise = rng.standard_normal((HEIGHT + 64, WIDTH + 64, 1), np.float32) * np.float32(clip.noise)
        self.shifts = rng.integers(0, 64, (clip.frames, 2)).tolist()

    def __call__(self, image: Image.Image, frame: int) -> Array:
        row, column = self.shifts[frame]
        pixels = np.asarray(image, np.float32) * self.gain
        pixels += self.noise[row : row + HEIGHT, column : column + WIDTH]
        return pixels.clip(0, 255, out=pixels).astype(np.uint8)


def _seen(clip: Clip, frame: int, plan: Plan, canvas: Canvas, finish: _Finish) -> Frame:
    """Crops the window that the camera sees, with the people in it."""
    matrix = clip.camera.matrix(clip.time(frame), STAGE)
    window = clip.window(frame)
    inner = matrix.copy()
    inner[:, 2] -= (window[1].start, window[0].start)
    coefficients, size = tuple(inner.ravel().tolist()), (WIDTH, HEIGHT)
    planes = [
        Image.fromarray((plane[window] * np.float32(255) + np.float32(0.5)).clip(0, 255).astype(np.uint8))
        for plane in canvas.image
    ]
    image = Image.merge("RGB", planes).transform(size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    numbers = np.array([owner + 1 for owner, _ in canvas.shapes], np.uint8).take(canvas.top[window])
    owners = np.asarray(
        Image.fromarray(numbers).transform(size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST)
    )
    back = np.linalg.inv(matrix[:, :2])
    people = []
    for person in plan.people:
        found = extent(owners, person.owner + 1)
        if found is not None:
            people.append(_framed(figure_of(canvas, person, *found), back, matrix[:, 2]))
    things = []
    for thing in plan.things[len(clip.plan.things) :]:
        found = extent(owners, thing.owner + 1)
        if found is not None:
            things.append(Thing(thing.kind, found[0], True, found[1], thing.label))
    return Frame(finish(image, frame), people, things)


def _framed(person: Figure, back: Array, origin: Array) -> Figure:
    """Converts a figure from pixels of the stage to pixels of the frame; joints outside become invisible."""
    moved = []
    for points, visible in ((person.joints, person.visible), (person.face, person.face_visible)):
        inside = (points - origin) @ back.T
        kept = ((inside >= 0) & (inside < (WIDTH, HEIGHT))).all(axis=1)
        moved.append((inside, np.where(kept, visible, 0)))
    (joints, visible), (face, face_visible) = moved
    return replace(person, joints=joints, visible=visible, face=face, face_visible=face_visible)
