"""The motion of people and cameras in a clip; times are seconds from the middle of the clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attnpool.playground.actions import Feet
from attnpool.playground.backdrop import Place
from attnpool.playground.body import View
from attnpool.playground.compose import Acting, acting_of
from attnpool.playground.raster import Array

# Distance of the image plane in pixels: a person 200 px high is 3.5 times his height away.
FOCAL = 700.0
STRIDE = 0.13

# Actions whose movement is a cycle; the others move forth and back.
ROUND = ("carrying a book", "carrying a guitar", "playing a guitar", "sweeping with a broom")
# Actions that people also do while walking.
WALKING = (
    "drinking from a mug", "drinking from a bottle", "calling with a phone", "texting on a phone", "reading a book",
    "carrying a book", "playing a guitar", "carrying a guitar", "holding an umbrella", "",
)  # fmt: skip


@dataclass(frozen=True)
class Performer:
    """A person in a clip.

    Attributes:
        label: the action, "" for a bystander.
        key: seed of everything about the person that does not move.
        start: the person's view in the middle of the clip.
        walks: whether the person walks straight ahead.
        cadence: double steps per second.
        period: duration of the action's movement in seconds, forth and back.
        offset: phase of step and movement in the middle of the clip, 0..1.
    """

    label: str
    key: tuple[int, ...]
    start: View
    walks: bool
    cadence: float
    period: float
    offset: float

    def phase(self, time: float) -> float:
        """The phase of the action, in 0..1."""
        turns = time / self.period + self.offset
        if self.walks and not self.label:
            return float((time * self.cadence + self.offset) % 1)
        if not self.label:  # A bystander who stands hardly moves.
            return float(np.clip(0.1 + 0.8 * self.offset + 0.05 * np.sin(2 * np.pi * turns), 0, 1))
        if self.label in ROUND:
            return float(turns % 1)
        return float(0.5 - 0.5 * np.cos(2 * np.pi * turns))

    def acting(self, time: float) -> Acting:
        """The posed body and the held thing."""
        return acting_of(self.label, self.phase(time), np.random.default_rng(self.key), self._feet(time))

    def _feet(self, time: float) -> Feet | None:
        if not self.walks:
            return None
        turn = 2 * np.pi * (time * self.cadence + self.offset)
        swing, rise = STRIDE * float(np.sin(turn)), 0.018 * float(np.cos(turn))
        return (-0.06, max(rise, 0.0), swing), (0.06, max(-rise, 0.0), -swing)

    def view(self, time: float, place: Place) -> View:
        """The person's view: a walker moves over the ground in the direction he faces, two strides per double step."""
        if not self.walks:
            return self.start
        start = self.start
        gone = 4 * STRIDE * self.cadence * time
        away = FOCAL / start.scale
        near = max(away - gone * float(np.cos(start.heading)), 0.6 * away)
        scale = FOCAL / near
        middle = place.size / 2
        x = middle + ((start.x - middle) / start.scale + gone * float(np.sin(start.heading))) * scale
        y = place.horizon + (start.y - place.horizon) * scale / start.scale
        return View(float(x), float(y), float(scale), start.heading)


@dataclass(frozen=True)
class Camera:
    """A hand-held, panning or still camera that sees a window of the stage.

    Attributes:
        width, height: size of the frame in pixels.
        x, y: middle of the window in the middle of the clip, in pixels of the stage.
        pan: (2,), in pixels per second.
        shake: amplitude of the trembling of the hand in pixels; it also rotates the camera a little.
        zoom: relative growth of the image per second.
        waves: (3, 3, 2), the frequency in hertz and phase of three waves for x, y and angle.
    """

    width: int
    height: int
    x: float
    y: float
    pan: tuple[float, float]
    shake: float
    zoom: float
    waves: Array

    def matrix(self, time: float, size: int) -> Array:
        """The matrix (2, 3) from pixels of the frame to pixels of the stage, which is `size` wide and high."""
        tremble = np.sin(2 * np.pi * (self.waves[:, :, 0] * time + self.waves[:, :, 1])).mean(axis=1) * self.shake
        angle, factor = 0.006 * float(tremble[2]), float(np.clip(1 + self.zoom * time, 0.97, 1.12))
        c, s = float(np.cos(angle)) / factor, float(np.sin(angle)) / factor
        turn = np.array([[c, -s], [s, c]])
        half = np.array([self.width, self.height]) / 2
        reach = np.abs(turn) @ half + 1
        centre = np.array([self.x, self.y]) + np.array(self.pan) * time + tremble[:2]
        centre = np.clip(centre, reach, size - reach)
        return np.concatenate([turn, (centre - turn @ half)[:, None]], axis=1)


def random_camera(
    frame: tuple[int, int],
    middle: tuple[float, float],
    size: int,
    moving: float,
    seconds: float,
    rng: np.random.Generator,
) -> Camera:
    """A random camera with frames of (width, height), whose window has this middle in the middle of the clip.

    It pans with probability `moving`, to the side where a stage of width `size` has more room.
    """
    kind = str(rng.choice(["still", "hand", "pan"], p=[0.4 * (1 - moving), 0.6 * (1 - moving), moving]))
    shake = {"still": 0.0, "hand": float(rng.uniform(1.5, 5)), "pan": float(rng.uniform(0.5, 3))}[kind]
    distance = np.array([rng.uniform(60, 180) * (1.0 if middle[0] < size / 2 else -1.0), rng.uniform(-15, 15)])
    pan = distance / seconds if kind == "pan" else np.zeros(2)
    zoom = float(rng.uniform(-0.03, 0.06)) / seconds if kind != "still" else 0.0
    waves = np.stack([rng.uniform(0.3, 3.5, (3, 3)), rng.random((3, 3))], axis=2)
    # As near to the middle as the border of the stage allows; otherwise a pan would begin late.
    x, y = (float(np.clip(at, side / 2 + 6, size - side / 2 - 6)) for at, side in zip(middle, frame, strict=True))
    return Camera(*frame, x, y, (float(pan[0]), float(pan[1])), shake, zoom, waves)
