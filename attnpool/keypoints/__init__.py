"""Body keypoints: joint sets, the mappings between them and target heatmaps."""

from typing import TYPE_CHECKING, Any

from attnpool.keypoints.joints import COCO_JOINTS, MPII_FLIP, MPII_JOINTS, joint_mapping

if TYPE_CHECKING:
    from attnpool.keypoints.heatmaps import heatmaps

__all__ = ["COCO_JOINTS", "MPII_FLIP", "MPII_JOINTS", "heatmaps", "joint_mapping"]


def __getattr__(name: str) -> Any:
    # The heatmaps need torch, which takes seconds to import; who only asks for joints is spared it.
    if name != "heatmaps":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from attnpool.keypoints.heatmaps import heatmaps

    return heatmaps
