"""The articulated body: a pose consists of a few angles and targets of hands and feet, which determine the 16 joints.

Body coordinates have x to the person's own left, y up and z forward, in heights of an adult, with the origin on the
ground below the pelvis. `View` projects them into the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from attnpool.playground.raster import Array

RIGHT_ANKLE, RIGHT_KNEE, RIGHT_HIP, LEFT_HIP, LEFT_KNEE, LEFT_ANKLE, PELVIS, THORAX = range(8)
UPPER_NECK, HEAD_TOP, RIGHT_WRIST, RIGHT_ELBOW, RIGHT_SHOULDER, LEFT_SHOULDER, LEFT_ELBOW, LEFT_WRIST = range(8, 16)

UPPER_ARM, FOREARM, GRIP = 0.165, 0.140, 0.048
THIGH, SHIN, ANKLE_HEIGHT = 0.245, 0.235, 0.042

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Build:
    """Proportions of one person: width of shoulders and hips, girth of the limbs, size of the head."""

    shoulders: float = 0.108
    hips: float = 0.056
    girth: float = 1.0
    head: float = 1.0


@dataclass(frozen=True)
class Reach:
    """Where a hand grips: `anchor` plus `offset`; the elbow bends towards `pole`.

    Anchors are "shoulder" and "ear" (the hand's own side), "chest", "mouth", "pelvis" and "ground".
    """

    anchor: str
    offset: Vector
    pole: Vector


HANG_RIGHT = Reach("shoulder", (-0.045, -0.335, 0.03), (-0.4, 0.0, -1.0))
HANG_LEFT = Reach("shoulder", (0.045, -0.335, 0.03), (0.4, 0.0, -1.0))


@dataclass(frozen=True)
class Pose:
    """A moment of a movement. Angles are in radians; feet are the right and the left ankle, relative to the origin."""

    lean: float = 0.0
    sway: float = 0.0
    twist: float = 0.0
    nod: float = 0.0
    turn: float = 0.0
    right_hand: Reach = HANG_RIGHT
    left_hand: Reach = HANG_LEFT
    feet: tuple[Vector, Vector] = ((-0.07, 0.0, 0.0), (0.07, 0.0, 0.0))
    crouch: float = 0.0


@dataclass(frozen=True)
class Body:
    """A posed body in body coordinates: 16 joints and the frames that objects are attached to.

    Attributes:
        joints: (16, 3) in the order of MPII.
        grips: (2, 3) centres of the right and the left hand.
        head: (3,) centre of the head.
        head_axes: (3, 3) rows: the head's left, up and forward.
        chest_axes: (3, 3) rows: the chest's left, up and forward.
    """

    joints: Array
    grips: Array
    head: Array
    head_axes: Array
    chest_axes: Array
    anchors: dict[str, Array] = field(default_factory=dict)


def rotation(pitch: float, yaw: float, roll: float) -> Array:
    """The axes (3, 3), as rows left, up and forward, of a frame pitched forward, turned left and tilted left."""
    cp, sp, cy, sy, cr, sr = np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw), np.cos(roll), np.sin(roll)
    pitched = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    turned = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    rolled = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(rolled @ turned @ pitched)


def bend(root: Array, target: Array, first: float, second: float, pole: Vector) -> tuple[Array, Array]:
    """Two-bone inverse kinematics: the middle joint, and the end as near to the target as the bones reach."""
    gap = target - root
    distance = float(np.linalg.norm(gap))
    direction = gap / distance if distance > 1e-6 else np.array([0.0, -1.0, 0.0])
    distance = float(np.clip(distance, abs(first - second) + 0.02, (first + second) * 0.998))
    along = (first * first - second * second + distance * distance) / (2 * distance)
    side = np.asarray(pole) - np.dot(pole, direction) * direction
    size = float(np.linalg.norm(side))
    side = side / size if size > 1e-6 else np.array([0.0, 0.0, 1.0])
    middle = root + direction * along + side * np.sqrt(max(first * first - along * along, 0.0))
    return middle, root + direction * distance


MIRROR = (5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10)


def mirrored(body: Body) -> Body:
    """The body with left and right exchanged, for a left-handed person."""
    flip = np.array([-1.0, 1.0, 1.0])
    # A frame stays right-handed if its left axis is reversed after the reflection.
    turn = np.array([[-1.0], [1.0], [1.0]])
    return Body(
        body.joints[list(MIRROR)] * flip,
        body.grips[::-1] * flip,
        body.head * flip,
        body.head_axes * flip * turn,
        body.chest_axes * flip * turn,
        {name: point * flip for name, point in body.anchors.items()},
    )


def solve(pose: Pose, build: Build) -> Body:
    """Computes the body in a pose (forward kinematics for the torso, inverse kinematics for arms and legs)."""
    joints = np.zeros((16, 3))
    feet = np.array(pose.feet) + np.array([0.0, ANKLE_HEIGHT, 0.0])
    longest = (THIGH + SHIN) * 0.995
    # The pelvis is as high as the leg on the ground allows, minus the crouch.
    height = 0.0
    for side, foot in zip((-1.0, 1.0), feet, strict=True):
        flat = float(np.hypot(foot[0] - side * build.hips, foot[2]))
        rise = float(np.sqrt(max(longest**2 - flat**2, 0.05)))
        stands = foot[1] < ANKLE_HEIGHT + 0.02
        height = max(height, foot[1] + rise if stands else 0.0)
    for side, foot in zip((-1.0, 1.0), feet, strict=True):
        flat = float(np.hypot(foot[0] - side * build.hips, foot[2]))
        if foot[1] < ANKLE_HEIGHT + 0.02:
            height = min(height, foot[1] + float(np.sqrt(max(longest**2 - flat**2, 0.05))))
    pelvis = np.array([0.0, height - pose.crouch + 0.012, 0.0])
    hips = rotation(pose.lean * 0.2, pose.twist * 0.3, pose.sway * 0.2)
    chest = rotation(pose.lean, pose.twist, pose.sway)
    spine = rotation(pose.lean * 0.7, 0.0, pose.sway * 0.8)
    joints[PELVIS] = pelvis
    joints[RIGHT_HIP] = pelvis - hips[0] * build.hips + np.array([0, -0.012, 0])
    joints[LEFT_HIP] = pelvis + hips[0] * build.hips + np.array([0, -0.012, 0])
    thorax = pelvis + spine[1] * 0.275
    joints[THORAX] = thorax
    neck = thorax + chest[1] * 0.062 + chest[2] * 0.008
    joints[UPPER_NECK] = neck
    head_axes = rotation(pose.lean * 0.5 + pose.nod, pose.twist * 0.4 + pose.turn, pose.sway * 0.5)
    head = neck + head_axes[1] * 0.062 * build.head + head_axes[2] * 0.012
    joints[HEAD_TOP] = neck + head_axes[1] * 0.128 * build.head
    joints[RIGHT_SHOULDER] = thorax - chest[0] * build.shoulders - chest[1] * 0.012
    joints[LEFT_SHOULDER] = thorax + chest[0] * build.shoulders - chest[1] * 0.012
    ear = head_axes[0] * 0.062 * build.head
    anchors = {
        "chest": thorax - chest[1] * 0.09 + chest[2] * 0.05,
        "mouth": head - head_axes[1] * 0.034 * build.head + head_axes[2] * 0.058 * build.head,
        "pelvis": pelvis.copy(),
        "ground": np.zeros(3),
    }
    grips = np.zeros((2, 3))
    arms = (
        (RIGHT_SHOULDER, RIGHT_ELBOW, RIGHT_WRIST, pose.right_hand, -1.0),
        (LEFT_SHOULDER, LEFT_ELBOW, LEFT_WRIST, pose.left_hand, 1.0),
    )
    for which, (shoulder, elbow, wrist, reach, side) in enumerate(arms):
        own = {"shoulder": joints[shoulder], "ear": head + ear * side}
        target = {**anchors, **own}[reach.anchor] + np.asarray(reach.offset)
        middle, end = bend(joints[shoulder], target, UPPER_ARM, FOREARM + GRIP, reach.pole)
        joints[elbow], grips[which] = middle, end
        joints[wrist] = middle + (end - middle) * (FOREARM / (FOREARM + GRIP))
    legs = ((RIGHT_HIP, RIGHT_KNEE, RIGHT_ANKLE, feet[0], -1.0), (LEFT_HIP, LEFT_KNEE, LEFT_ANKLE, feet[1], 1.0))
    for hip, knee, ankle, foot, side in legs:
        joints[knee], joints[ankle] = bend(joints[hip], foot, THIGH, SHIN, (0.12 * side, 0.1, 1.0))
    return Body(joints, grips, head, head_axes, chest, anchors)


# Offsets of nose, right eye, left eye, right ear and left ear from the head's centre, to its left, up and forward; and
# how much nearer than the centre each must be to be visible.
FACE = np.array([[0, -0.014, 0.062], [-0.022, 0.006, 0.048], [0.022, 0.006, 0.048], [-0.056, -0.006, -0.006],
                 [0.056, -0.006, -0.006]])  # fmt: skip
TURNED = np.array([-0.008, 0.008, 0.008, -0.012, -0.012])


def face_points(body: Body) -> tuple[Array, Array]:
    """The points (5, 3) of nose, right eye, left eye, right ear and left ear, and how much nearer they must be (5,).

    A point is visible if it is nearer than the head's centre by at least this.
    """
    size = float(np.linalg.norm(body.joints[HEAD_TOP] - body.joints[UPPER_NECK])) / 0.128
    return body.head + FACE @ body.head_axes * size, TURNED * size


@dataclass(frozen=True)
class View:
    """The projection of a body: its place in the image, pixels per unit, its heading and the camera's pitch."""

    x: float
    y: float
    scale: float
    heading: float
    pitch: float = 0.12

    def axes(self) -> Array:
        """The matrix (3, 3) from a vector in body coordinates to the image's x, its y (down) and the nearness."""
        c, s = np.cos(self.heading), np.sin(self.heading)
        cp, sp = np.cos(self.pitch), np.sin(self.pitch)
        # Nearness before the pitch is (-s, 0, c); the camera looks down a little, so nearer things lie lower.
        return np.array([[c, 0, s], [-s * sp, -cp, c * sp], [-s * cp, sp, c * cp]])

    def project(self, points: Array) -> Array:
        """Projects points (n, 3) in body coordinates to x and y in pixels and nearness in units, (n, 3)."""
        axes = self.axes()
        seen = np.asarray(points, float) @ axes.T
        seen[:, :2] = seen[:, :2] * self.scale + np.array([self.x, self.y])
        return seen

    def direction(self, vector: Array) -> Array:
        """Projects a vector in body coordinates to the image, (3,), in units."""
        return np.asarray(self.axes() @ np.asarray(vector, float))


@dataclass(frozen=True)
class Held:
    """How a thing is held: its kind and state, and the place and direction of its axes in body coordinates.

    Attributes:
        at: function from the body to the origin of the thing.
        up: direction of the thing's long axis.
        across: direction of its other axis; None for the direction across the long axis in the image.
        hands: the hands whose fingers close over it (0 right, 1 left); without any it is drawn beneath the palms.
        round: whether it always appears at its full width; `across` then only gives the side.
    """

    kind: str
    state: str
    at: Callable[[Body], Array]
    up: Vector
    across: Vector | None = None
    hands: tuple[int, ...] = ()
    round: bool = False


@dataclass(frozen=True)
class Act:
    """A pose and, for actors, the held thing."""

    pose: Pose
    held: Held | None = None
