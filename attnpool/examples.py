"""What a training step or an evaluation sees: batches of pictures, or of features kept on disk, behind one face."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from attnpool.data import Box, Index, ViewOptions, load
from attnpool.features import Features

People = list[list[tuple[tuple[float, float] | None, ...]]]


@dataclass
class Examples:
    """A batch.

    Attributes:
        inputs: pixels uint8 `(B, 3, S, S)`, or features float32 `(B, C, h, w)`.
        targets: float32 `(B, K)`.
        paths: the names of the B samples.
        people, evidence: in pixels of the network's input, as in `data.Batch`.
        failed: `(path, reason)` of pictures that belonged here and cannot be read.
    """

    inputs: Tensor
    targets: Tensor
    paths: list[str]
    people: People
    evidence: list[list[Box]]
    failed: list[tuple[str, str]]


class Source(Protocol):
    """Where batches come from."""

    index: Index
    cached: bool  # inputs are features
    failed: tuple[tuple[str, str], ...]  # known before any batch

    def batches(self, order: Sequence[Sequence[int]], *, seed: int, epoch: int, train: bool) -> Iterator[Examples]:
        """The batches of these positions in `index`."""


class Pictures:
    """Batches decoded from files, with augmentation in training."""

    cached = False
    failed: tuple[tuple[str, str], ...] = ()

    def __init__(self, index: Index, options: ViewOptions, workers: int = 0) -> None:
        self.index = index
        self.options = options
        self.workers = workers

    def batches(self, order: Sequence[Sequence[int]], *, seed: int, epoch: int, train: bool) -> Iterator[Examples]:
        for batch in load(self.index, self.options, order, seed=seed, epoch=epoch, train=train, workers=self.workers):
            paths = [self.index.samples[i].path for i in batch.indices.tolist()]
            yield Examples(batch.pixels, batch.targets, paths, batch.people, batch.evidence, batch.failed)


class CachedFeatures:
    """Batches of features of a frozen backbone, read from the cache; every picture's one view, without augmentation."""

    cached = True

    def __init__(self, features: Features) -> None:
        self.features = features
        self.index = features.index
        self.failed = features.failed

    def batches(self, order: Sequence[Sequence[int]], *, seed: int, epoch: int, train: bool) -> Iterator[Examples]:
        features = self.features
        for positions in order:
            yield Examples(
                features.batch(positions),
                features.targets(positions),
                [self.index.samples[i].path for i in positions],
                [features.people(i) for i in positions],
                [features.evidence(i) for i in positions],
                [],
            )
