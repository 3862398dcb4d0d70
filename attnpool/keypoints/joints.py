"""Types of joints, persons and boxes; the joint sets of MPII and COCO, and the mapping from other sets to MPII's."""

from __future__ import annotations

from collections.abc import Sequence

Joint = tuple[float, float] | None
"""`(x, y)` in pixels, continuous: the first pixel reaches from 0 to 1. `None` where there is no label."""

Joints = tuple[Joint, ...]
"""The joints of one person: 16 entries in the order of `MPII_JOINTS`, or an empty tuple."""

Box = tuple[float, float, float, float]
"""`(x1, y1, x2, y2)` in pixels, continuous like joints."""

MPII_JOINTS: tuple[str, ...] = (
    "right_ankle",
    "right_knee",
    "right_hip",
    "left_hip",
    "left_knee",
    "left_ankle",
    "pelvis",
    "thorax",
    "upper_neck",
    "head_top",
    "right_wrist",
    "right_elbow",
    "right_shoulder",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
)
"""MPII's joints by id. "Right" is the person's own right."""

COCO_JOINTS: tuple[str, ...] = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
"""COCO's keypoints in the order of its person category."""

OPENPOSE_JOINTS: tuple[str, ...] = (
    "nose",
    "neck",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "right_hip",
    "right_knee",
    "right_ankle",
    "left_hip",
    "left_knee",
    "left_ankle",
    "right_eye",
    "left_eye",
    "right_ear",
    "left_ear",
)
"""The 18 joints of OpenPose's COCO model in its order. "Right" is the person's own right."""

MPII_FLIP: tuple[int, ...] = (5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10)
"""Joint j of a mirrored person is joint `MPII_FLIP[j]` of the person: left and right change places."""

# Joints that may replace one that a joint set does not have, best first. The paper's authors use the nose as the top of
# the head.
_STAND_INS: dict[str, tuple[str, ...]] = {"upper_neck": ("neck",), "head_top": ("head", "nose")}


def joint_mapping(names: Sequence[str]) -> tuple[int | None, ...]:
    """The position of each of MPII's 16 joints in another joint set.

    Names are compared without regard to case, and spaces and hyphens count as underscores. A neck replaces the upper
    neck, and the head or else the nose replaces the top of the head. No joint is computed from others, so persons of
    COCO have no pelvis, thorax or upper neck.

    Args:
        names: the names of the other set's joints, in its order.

    Returns:
        For each MPII joint its position in `names`, or `None` where it is missing.
    """
    found: dict[str, int] = {}
    for position, name in enumerate(names):
        found.setdefault(name.strip().lower().replace(" ", "_").replace("-", "_"), position)
    return tuple(
        next((found[name] for name in (joint, *_STAND_INS.get(joint, ())) if name in found), None)
        for joint in MPII_JOINTS
    )
