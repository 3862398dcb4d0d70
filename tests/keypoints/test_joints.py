from __future__ import annotations

import pytest

from attnpool.keypoints import COCO_JOINTS, MPII_FLIP, MPII_JOINTS, joint_mapping


def test_sets_have_their_sizes_and_no_repeats() -> None:
    assert len(MPII_JOINTS) == len(set(MPII_JOINTS)) == 16
    assert len(COCO_JOINTS) == len(set(COCO_JOINTS)) == 17


def test_flip_exchanges_left_and_right_and_undoes_itself() -> None:
    for joint, mirrored in zip(MPII_JOINTS, (MPII_JOINTS[j] for j in MPII_FLIP), strict=True):
        swapped = joint.replace("left", "?").replace("right", "left").replace("?", "right")
        assert mirrored == swapped
    assert [MPII_FLIP[j] for j in MPII_FLIP] == list(range(16))


def test_mpii_maps_to_itself_in_any_order_and_spelling() -> None:
    assert joint_mapping(MPII_JOINTS) == tuple(range(16))
    backwards = [name.replace("_", " ").title() for name in reversed(MPII_JOINTS)]
    assert joint_mapping(backwards) == tuple(range(15, -1, -1))


def test_coco_lacks_pelvis_thorax_and_neck_and_lends_its_nose() -> None:
    mapping = dict(zip(MPII_JOINTS, joint_mapping(COCO_JOINTS), strict=True))
    assert [name for name, position in mapping.items() if position is None] == ["pelvis", "thorax", "upper_neck"]
    assert mapping["head_top"] == COCO_JOINTS.index("nose")
    for name, position in mapping.items():
        if position is not None and name != "head_top":
            assert COCO_JOINTS[position] == name


@pytest.mark.parametrize(("names", "head"), [(("nose", "head"), 1), (("nose", "head_top"), 1), (("eye",), None)])
def test_the_best_stand_in_is_taken(names: tuple[str, ...], head: int | None) -> None:
    assert joint_mapping(names)[MPII_JOINTS.index("head_top")] == head
