"""The actions: for each class the pose at a moment of the movement, and how the thing is held.

Neither the thing nor the pose alone determines the class: one thing is used in several ways (a phone for calling and
for texting), and one pose belongs to several things (a mug and a bottle at the mouth, a phone beside it).
All poses are defined for the right hand; `body.mirrored` makes the left-handed ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from attnpool.playground.body import HANG_LEFT, HANG_RIGHT, Act, Body, Held, Pose, Reach, Vector
from attnpool.playground.raster import Array

Random = np.random.Generator
Feet = tuple[Vector, Vector]


def _grip(hand: int, *shift: float) -> Callable[[Body], Array]:
    offset = np.array(shift) if shift else np.zeros(3)
    return lambda body: body.grips[hand] + offset


def _mid(*shift: float) -> Callable[[Body], Array]:
    return lambda body: body.grips.mean(axis=0) + np.array(shift)


def _stance(rng: Random, wide: float = 1.0) -> Feet:
    out = rng.uniform(0.055, 0.10, 2) * wide
    fore = rng.uniform(-0.05, 0.07, 2) * wide
    return (-float(out[0]), 0.0, float(fore[0])), (float(out[1]), 0.0, float(fore[1]))


def _free_hand(rng: Random) -> Reach:
    """The position of the left hand when it is not used."""
    kind = rng.random()
    if kind < 0.55:
        return Reach("shoulder", (0.05, -0.33, float(rng.uniform(-0.02, 0.07))), (0.5, 0.0, -1.0))
    if kind < 0.8:
        return Reach("pelvis", (0.105, 0.05, 0.03), (1.0, 0.1, -0.5))
    return Reach("chest", (0.05, -0.09, 0.05), (1.0, -0.3, -0.2))


def drinking(kind: str) -> Callable[[float, Random], Act]:
    """A mug or a bottle at the mouth; the tilt grows with the phase."""

    def act(phase: float, rng: Random) -> Act:
        tilt = 0.25 + 0.55 * phase
        nod = -0.08 - 0.30 * phase
        if kind == "mug":
            shift = (-0.004, -0.062, 0.052)
            hand = Reach("mouth", (-0.05, -0.03, 0.055), (-1.0, float(rng.uniform(-1.2, -0.2)), 0.2))
            up, across = (0.0, float(np.cos(tilt)), -float(np.sin(tilt))), (-1.0, 0.0, 0.0)
            at = lambda body: body.anchors["mouth"] + np.array(shift)  # noqa: E731
        else:
            away = np.array([-0.25, 0.15 + 0.75 * phase, 0.9])
            away /= np.linalg.norm(away)
            reach = away * 0.125
            hand = Reach(
                "mouth",
                (float(reach[0]) - 0.02, float(reach[1]) - 0.01, float(reach[2])),
                (-1.0, float(rng.uniform(-1.2, -0.2)), 0.2),
            )
            up, across = (-float(away[0]), -float(away[1]), -float(away[2])), (-1.0, 0.0, 0.0)
            at = lambda body: body.anchors["mouth"] + away * 0.205  # noqa: E731
        pose = Pose(nod=nod, right_hand=hand, left_hand=_free_hand(rng), lean=-0.03, feet=_stance(rng))
        return Act(pose, Held(kind, "", at, up, across, (0,), round=True))

    return act


def calling(phase: float, rng: Random) -> Act:
    """A phone at the ear."""
    hand = Reach("ear", (-0.028, -0.035, 0.03), (-1.0, float(rng.uniform(-1.4, -0.5)), 0.1))
    pose = Pose(
        nod=0.10 * np.sin(6 * phase),
        sway=-0.03,
        turn=float(rng.uniform(-0.1, 0.25)),
        right_hand=hand,
        left_hand=_free_hand(rng),
        feet=_stance(rng),
    )
    return Act(pose, Held("phone", "", _grip(0, 0.004, 0.022, -0.012), (0.0, 0.93, -0.36), (0.25, 0.3, 0.9), (0,)))


def texting(phase: float, rng: Random) -> Act:
    """A phone before the chest, the head bent over it."""
    low = float(rng.uniform(-0.03, 0.05))
    hand = Reach("chest", (-0.045, low, 0.13), (-1.0, -1.0, -0.2))
    both = rng.random() < 0.5
    left = Reach("chest", (0.015, low, 0.13), (1.0, -1.0, -0.2)) if both else _free_hand(rng)
    pose = Pose(nod=0.34 + 0.16 * phase, lean=0.05, right_hand=hand, left_hand=left, feet=_stance(rng))
    return Act(pose, Held("phone", "", _grip(0, 0.026, 0.040, 0.008), (0.05, 0.85, 0.5), (1.0, 0.0, 0.0), (0,)))


def reading(phase: float, rng: Random) -> Act:
    """An open book before the chest, the head bent over it."""
    high = float(rng.uniform(-0.02, 0.05))
    right = Reach("chest", (-0.075, high, 0.14), (-1.0, -1.0, -0.2))
    left = Reach("chest", (0.075, high, 0.14), (1.0, -1.0, -0.2))
    pose = Pose(nod=0.24 + 0.18 * phase, lean=0.04, right_hand=right, left_hand=left, feet=_stance(rng))
    return Act(pose, Held("book", "open", _mid(0.0, 0.035, 0.01), (0.0, 0.88, 0.45), (1.0, 0.0, 0.0), (0, 1)))


def carrying_book(phase: float, rng: Random) -> Act:
    """A closed book under the arm or against the chest, walking or standing."""
    swing = 0.10 * float(np.sin(2 * np.pi * phase))
    feet: Feet = ((-0.06, 0.0, swing), (0.06, 0.0, -swing))
    if rng.random() < 0.5:
        hand = Reach("shoulder", (-0.035, -0.30, 0.05), (-0.4, 0.0, -1.0))
        held = Held("book", "", _grip(0, -0.015, 0.012, 0.02), (0.0, 0.3, 1.0), (0.0, 1.0, -0.3))
    else:
        hand = Reach("chest", (0.03, -0.045, 0.075), (-1.0, -0.8, -0.3))
        held = Held("book", "", _grip(0, -0.005, 0.025, -0.014), (0.12, 1.0, 0.0), (1.0, -0.12, 0.0))
    return Act(Pose(right_hand=hand, left_hand=_free_hand(rng), feet=feet), held)


def _wind_up(phase: float, right: Reach, left: Reach, feet: Feet) -> Pose:
    lean, twist = -0.10 + 0.22 * phase, -0.55 + 0.5 * phase
    return Pose(lean=lean, twist=twist, sway=0.10, right_hand=right, left_hand=left, feet=feet)


def throwing(phase: float, rng: Random) -> Act:
    """A ball overhead, from behind the head to the release."""
    hand = Reach("shoulder", (-0.13 + 0.05 * phase, 0.17 + 0.10 * phase, -0.13 + 0.27 * phase), (-1.0, 0.4, -0.3))
    left = Reach("shoulder", (0.10, 0.02 - 0.16 * phase, 0.24 - 0.12 * phase), (0.6, -0.8, 0.0))
    feet: Feet = ((-0.08, 0.0, -0.15), (0.08, 0.0, float(rng.uniform(0.1, 0.18))))
    pose = _wind_up(phase, hand, left, feet)
    return Act(pose, Held("ball", "", _grip(0, -0.01, 0.052, 0.01), (0.0, 1.0, 0.0)))


def kicking(phase: float, rng: Random) -> Act:
    """A ball at the foot: the leg from behind to before the body."""
    reach = -0.20 + 0.42 * phase
    lift = 0.14 * (2 * phase - 1) ** 2 + 0.02 if phase < 0.5 else 0.04 + 0.16 * (phase - 0.5)
    foot = (-0.06, lift, reach)
    flight = max(reach, 0.02) + 0.13 + 0.10 * max(phase - 0.6, 0.0)
    spot = np.array([-0.06, 0.062 if phase < 0.7 else 0.062 + 0.5 * (phase - 0.7), flight])
    right = Reach("shoulder", (-0.17, -0.20, -0.08 + 0.1 * phase), (-0.3, 0.3, -1.0))
    left = Reach("shoulder", (0.18, -0.14, 0.12 - 0.1 * phase), (0.3, 0.3, -1.0))
    feet = (foot, (0.05, 0.0, 0.02))
    lean = 0.12 - 0.26 * phase
    pose = Pose(lean=lean, twist=0.2, nod=0.18, right_hand=right, left_hand=left, feet=feet, crouch=0.012)
    return Act(pose, Held("ball", "", lambda body: spot, (0.0, 1.0, 0.0)))


def catching(phase: float, rng: Random) -> Act:
    """Both hands stretched out around a ball that arrives."""
    high = float(rng.uniform(-0.02, 0.22))
    gap = 0.085 - 0.02 * phase
    right = Reach("chest", (-gap, high, 0.19), (-1.0, -0.9, 0.0))
    left = Reach("chest", (gap, high, 0.19), (1.0, -0.9, 0.0))
    pose = Pose(
        lean=0.06,
        nod=0.05 - 0.5 * high,
        right_hand=right,
        left_hand=left,
        crouch=float(rng.uniform(0, 0.05)),
        feet=_stance(rng, 1.5),
    )
    away = 0.03 + 0.09 * (1 - phase)
    return Act(pose, Held("ball", "", _mid(0.0, 0.01 + 0.3 * away, away), (0.0, 1.0, 0.0)))


def playing_guitar(phase: float, rng: Random) -> Act:
    """A guitar before the belly, one hand on the strings, one on the neck."""
    rise = float(rng.uniform(0.25, 0.55))
    neck = np.array([1.0, rise, 0.12]) / np.sqrt(1.0144 + rise * rise)
    centre = np.array([-0.055, 0.085, 0.135])
    strum = 0.02 * float(np.sin(2 * np.pi * phase))
    right = Reach("pelvis", (-0.045, 0.10 + strum, 0.165), (-1.0, 0.2, -0.6))
    fret = centre + neck * 0.30
    left = Reach("pelvis", (float(fret[0]), float(fret[1]) - 0.012, float(fret[2]) + 0.01), (0.9, -1.0, -0.1))
    pose = Pose(nod=0.18, turn=0.2, lean=0.02, right_hand=right, left_hand=left, feet=_stance(rng))
    across = np.cross(neck, (0.0, 0.0, 1.0))
    return Act(pose, Held("guitar", "", lambda body: body.anchors["pelvis"] + centre, _tuple(neck), _tuple(across)))


def carrying_guitar(phase: float, rng: Random) -> Act:
    """A guitar held by its neck at the side, walking or standing."""
    swing = 0.10 * float(np.sin(2 * np.pi * phase))
    feet: Feet = ((-0.06, 0.0, swing), (0.06, 0.0, -swing))
    hand = Reach("shoulder", (-0.06, -0.27, 0.07), (-0.4, 0.0, -1.0))
    tilt = float(rng.uniform(0.15, 0.8))
    up = np.array([-0.1, np.cos(tilt), np.sin(tilt)])
    up /= np.linalg.norm(up)
    across = np.cross(up, (1.0, 0.0, 0.0))
    return Act(
        Pose(right_hand=hand, left_hand=_free_hand(rng), feet=feet),
        Held(
            "guitar", "", lambda body: body.grips[0] - up * 0.13 + np.array([-0.02, 0, 0]), _tuple(up), _tuple(across)
        ),
    )


def swinging(phase: float, rng: Random) -> Act:
    """A racket overhead or at the side, from the wind-up to the hit."""
    feet: Feet = ((-0.09, 0.0, -0.13), (0.08, 0.0, float(rng.uniform(0.06, 0.15))))
    if rng.random() < 0.5:
        hand = Reach("shoulder", (-0.13 + 0.05 * phase, 0.17 + 0.12 * phase, -0.13 + 0.25 * phase), (-1.0, 0.4, -0.3))
        up = np.array([-0.25, 0.9, -0.5 + 1.1 * phase])
    else:
        hand = Reach("shoulder", (-0.26 + 0.14 * phase, -0.06 + 0.1 * phase, -0.04 + 0.26 * phase), (-0.5, -1.0, -0.3))
        up = np.array([-0.9 + 0.5 * phase, 0.35, 0.1 + 0.5 * phase])
    left = Reach("shoulder", (0.12, -0.06 - 0.1 * phase, 0.2 - 0.1 * phase), (0.6, -0.8, 0.0))
    up /= np.linalg.norm(up)
    across = np.cross(up, (0.3, 0.2, 0.93))
    pose = _wind_up(phase, hand, left, feet)
    return Act(pose, Held("racket", "", _grip(0), _tuple(up), _tuple(across / np.linalg.norm(across))))


def sweeping(phase: float, rng: Random) -> Act:
    """A broom held in both hands, its bristles on the ground before the feet."""
    side = -0.16 + 0.14 * float(np.sin(2 * np.pi * phase))
    foot = np.array([side - 0.05, 0.0, 0.30])
    top = np.array([0.06, 0.70, 0.13])
    stick = (top - foot) / np.linalg.norm(top - foot)
    low, high = foot + stick * 0.47, foot + stick * 0.66
    right = Reach("ground", _tuple(low), (-1.0, -0.2, -0.5))
    left = Reach("ground", _tuple(high), (1.0, -0.4, -0.3))
    pose = Pose(lean=0.22, nod=0.22, right_hand=right, left_hand=left, feet=_stance(rng, 1.3))
    return Act(pose, Held("broom", "", lambda body: foot, _tuple(stick)))


def umbrella(phase: float, rng: Random) -> Act:
    """An open umbrella over the head."""
    hand = Reach("chest", (-0.09, 0.0 + 0.04 * phase, 0.11), (-1.0, -1.0, -0.3))
    swing = 0.08 * float(np.sin(2 * np.pi * phase))
    feet: Feet = ((-0.06, 0.0, swing), (0.06, 0.0, -swing))
    up = np.array([0.10 + rng.uniform(-0.12, 0.12), 1.0, -0.06])
    pose = Pose(right_hand=hand, left_hand=_free_hand(rng), feet=feet)
    return Act(pose, Held("umbrella", "open", _grip(0), _tuple(up / np.linalg.norm(up)), None))


def neutral(phase: float, rng: Random) -> Act:
    """Bystanders: they stand, walk, put hands on the hips, fold them, wave or point. They hold nothing."""
    kind = rng.random()
    swing = 0.13 * float(np.sin(2 * np.pi * phase))
    walk: Feet = ((-0.06, 0.0, swing), (0.06, 0.0, -swing))
    turn, nod = float(rng.uniform(-0.4, 0.4)), float(rng.uniform(-0.1, 0.35))
    right, left = HANG_RIGHT, HANG_LEFT
    if kind < 0.25:
        right = Reach("shoulder", (-0.05, -0.32, -swing), (-0.4, 0.0, -1.0))
        left = Reach("shoulder", (0.05, -0.32, swing), (0.4, 0.0, -1.0))
    elif kind < 0.4:
        right = Reach("pelvis", (-0.105, 0.05, 0.03), (-1.0, 0.1, -0.5))
        left = Reach("pelvis", (0.105, 0.05, 0.03), (1.0, 0.1, -0.5))
    elif kind < 0.55:
        right = Reach("chest", (0.06, -0.05, 0.07), (-1.0, -0.6, -0.2))
        left = Reach("chest", (-0.06, -0.03, 0.06), (1.0, -0.6, -0.2))
    elif kind < 0.7:
        right = Reach("shoulder", (-0.12, 0.20, 0.10), (-1.0, -0.3, -0.3))
        left = _free_hand(rng)
    elif kind < 0.8:
        right = Reach("shoulder", (-0.08, -0.02, 0.30), (-0.6, -0.8, 0.0))
    elif kind < 0.9:
        right = Reach("mouth", (-0.02, -0.03, 0.02), (-1.0, -1.0, 0.1))
        left = Reach("chest", (-0.03, -0.12, 0.06), (1.0, -0.4, -0.2))
    feet = walk if rng.random() < 0.5 else _stance(rng)
    return Act(Pose(nod=nod, turn=turn, right_hand=right, left_hand=left, feet=feet))


def _tuple(vector: Array) -> Vector:
    return (float(vector[0]), float(vector[1]), float(vector[2]))


ACTIONS: dict[str, Callable[[float, Random], Act]] = {
    "drinking from a mug": drinking("mug"),
    "drinking from a bottle": drinking("bottle"),
    "calling with a phone": calling,
    "texting on a phone": texting,
    "reading a book": reading,
    "carrying a book": carrying_book,
    "throwing a ball": throwing,
    "kicking a ball": kicking,
    "catching a ball": catching,
    "playing a guitar": playing_guitar,
    "carrying a guitar": carrying_guitar,
    "swinging a racket": swinging,
    "sweeping with a broom": sweeping,
    "holding an umbrella": umbrella,
}
