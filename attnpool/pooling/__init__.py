"""The poolings: features in, scores and the maps that add up to them out. This package imports torch alone."""

from attnpool.pooling.attentional import AttentionalPooling
from attnpool.pooling.base import Pooled, PoolingHead
from attnpool.pooling.first_order import AveragePooling, MaxPooling
from attnpool.pooling.pose import PoseRegularizedPooling

POOLINGS: dict[str, type[PoolingHead]] = {
    "average": AveragePooling,
    "max": MaxPooling,
    "attentional": AttentionalPooling,
    "pose": PoseRegularizedPooling,
}

__all__ = [
    "POOLINGS",
    "AttentionalPooling",
    "AveragePooling",
    "MaxPooling",
    "Pooled",
    "PoolingHead",
    "PoseRegularizedPooling",
]
