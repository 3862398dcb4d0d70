"""The poolings: they turn features into logits and the maps that add up to them. This package needs only torch."""

from attnpool.pooling.attentional import AttentionalPooling
from attnpool.pooling.base import Pooled, PoolingHead
from attnpool.pooling.bilinear import BilinearPooling
from attnpool.pooling.compact_bilinear import CompactBilinearPooling
from attnpool.pooling.covariance import CovariancePooling
from attnpool.pooling.first_order import AveragePooling, MaxPooling
from attnpool.pooling.multi_query import MultiQueryPooling
from attnpool.pooling.netvlad import NetVLADPooling
from attnpool.pooling.pose_regularized import PoseRegularizedPooling
from attnpool.pooling.saliency import SaliencyPooling

POOLINGS: dict[str, type[PoolingHead]] = {
    "average": AveragePooling,
    "max": MaxPooling,
    "attentional": AttentionalPooling,
    "pose": PoseRegularizedPooling,
    "bilinear": BilinearPooling,
    "compact_bilinear": CompactBilinearPooling,
    "covariance": CovariancePooling,
    "saliency": SaliencyPooling,
    "multi_query": MultiQueryPooling,
    "netvlad": NetVLADPooling,
}

__all__ = [
    "POOLINGS",
    "AttentionalPooling",
    "AveragePooling",
    "BilinearPooling",
    "CompactBilinearPooling",
    "CovariancePooling",
    "MaxPooling",
    "MultiQueryPooling",
    "NetVLADPooling",
    "Pooled",
    "PoolingHead",
    "PoseRegularizedPooling",
    "SaliencyPooling",
]
