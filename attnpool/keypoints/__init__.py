"""Body keypoints: joint sets, the mappings between them, target heatmaps, and estimators that find people."""

from attnpool.keypoints.joints import COCO_JOINTS, MPII_FLIP, MPII_JOINTS, Box, Joint, Joints, joint_mapping

__all__ = ["COCO_JOINTS", "MPII_FLIP", "MPII_JOINTS", "Box", "Joint", "Joints", "joint_mapping"]
