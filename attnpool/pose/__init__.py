"""Body keypoints: joint sets, the mappings between them and target heatmaps."""

from attnpool.pose.joints import COCO_JOINTS, MPII_FLIP, MPII_JOINTS, joint_mapping
from attnpool.pose.targets import heatmaps

__all__ = ["COCO_JOINTS", "MPII_FLIP", "MPII_JOINTS", "heatmaps", "joint_mapping"]
