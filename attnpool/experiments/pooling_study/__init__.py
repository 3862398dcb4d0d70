"""The study that the paper left open: every pooling on the same frozen features, tuned and measured in the same way."""

from attnpool.experiments.pooling_study.rows import DROPOUTS, ROWS, Row
from attnpool.experiments.pooling_study.run import EPOCHS, IMAGE_SIZE, Study, poolings

__all__ = ["DROPOUTS", "EPOCHS", "IMAGE_SIZE", "ROWS", "Row", "Study", "poolings"]
