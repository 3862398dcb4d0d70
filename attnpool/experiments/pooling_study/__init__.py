"""The study that the paper left open: poolings on the same frozen features, trained and measured in the same way."""

from attnpool.experiments.pooling_study.rows import ROWS, Row
from attnpool.experiments.pooling_study.run import IMAGE_SIZE, Study, poolings

__all__ = ["IMAGE_SIZE", "ROWS", "Row", "Study", "poolings"]
