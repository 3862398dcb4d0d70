"""Speed and memory beside what people use today: of the heads, and of whole training steps."""

from attnpool.experiments.benchmark.pooling import PoolingBenchmark, Sizes, benchmark_pooling
from attnpool.experiments.benchmark.steps import TrainingSizes
from attnpool.experiments.benchmark.training import TrainingBenchmark, benchmark_training

__all__ = [
    "PoolingBenchmark",
    "Sizes",
    "TrainingBenchmark",
    "TrainingSizes",
    "benchmark_pooling",
    "benchmark_training",
]
