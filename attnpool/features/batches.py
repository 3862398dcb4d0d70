"""Batches for training and evaluation, of decoded images or of cached features, with a common interface."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from attnpool.data import Dataset, Preprocessing, label_tensors, load, segment_positions, shapes
from attnpool.data.decoding.image import Unreadable
from attnpool.features.extraction import Features
from attnpool.keypoints.joints import Box, Joints

_FRAMES = 3  # random stream for frames, different from those of `data.loader`


@dataclass
class Batch:
    """A batch of images or clips, as pixels or as features.

    Attributes:
        inputs: pixels uint8 `(B, 3, S, S)`, or features float32 `(B, C, h, w)`; clips have the axis T after B.
        targets, label_mask: `(B, K)`, as in `data.PixelBatch`.
        paths: the names of the B samples.
        people, boxes, evidence: in pixels of the network's input, as in `data.PixelBatch`.
        failed: `(path, reason)` of images that are left out of the batch because they, or their keypoints, cannot be
            read.
        size: height and width of the network's input in pixels.
    """

    inputs: Tensor
    targets: Tensor
    label_mask: Tensor
    paths: list[str]
    people: list[list[Joints]]
    boxes: list[list[Box]]
    evidence: list[list[Box]]
    failed: list[tuple[str, str]]
    size: tuple[int, int]


class Seen(NamedTuple):
    """The people in a sample, their boxes and the evidence boxes, in pixels of the network's input; see `Batch`."""

    people: list[list[Joints]]
    boxes: list[Box]
    evidence: list[Box]


class BatchSource(Protocol):
    """A source of batches.

    Attributes:
        dataset: the samples.
        cached: whether inputs are features, not pixels.
        failed: `(path, reason)` of samples that are known to be unreadable before the first batch.
        views: number of test-time views of every image, or of every frame of a clip.
        inputs_per_sample: number of network inputs per sample in testing: its frames times its views.
        shapes: height and width of the network's input for every sample, by which `data.batches` groups them; None if
            all are alike.
    """

    dataset: Dataset
    cached: bool
    failed: tuple[tuple[str, str], ...]

    @property
    def views(self) -> int: ...

    @property
    def inputs_per_sample(self) -> int: ...

    @property
    def shapes(self) -> list[tuple[int, int]] | None: ...

    def batches(self, order: Sequence[Sequence[int]], *, seed: int, epoch: int, train: bool) -> Iterator[Batch]:
        """Yields a batch for each list of positions in `dataset`."""


class Images:
    """Batches decoded from files, with augmentation in training."""

    cached = False
    failed: tuple[tuple[str, str], ...] = ()

    def __init__(
        self, dataset: Dataset, options: Preprocessing, workers: int = 0, *, crops: int = 1, flip: bool = False
    ) -> None:
        self.dataset = dataset
        self.options = options
        self.workers = workers
        self.crops, self.flip = crops, flip  # used in testing only

    @property
    def views(self) -> int:
        """The number of test-time views of every image or frame."""
        return self.crops * (2 if self.flip and self.crops == 1 else 1)

    @property
    def inputs_per_sample(self) -> int:
        """The number of frames times the number of views."""
        return self.views * (self.options.frames if self.dataset.media == "clips" else 1)

    @cached_property
    def shapes(self) -> list[tuple[int, int]] | None:
        return shapes(self.dataset, self.options)

    def batches(self, order: Sequence[Sequence[int]], *, seed: int, epoch: int, train: bool) -> Iterator[Batch]:
        loaded = load(
            self.dataset,
            self.options,
            order,
            seed=seed,
            epoch=epoch,
            train=train,
            workers=self.workers,
            crops=self.crops,
            flip=self.flip,
        )
        for batch in loaded:
            paths = [self.dataset.samples[i].path for i in batch.indices.tolist()]
            yield Batch(
                batch.pixels,
                batch.targets,
                batch.label_mask,
                paths,
                batch.people,
                batch.boxes,
                batch.evidence,
                batch.failed,
                (batch.pixels.shape[-2], batch.pixels.shape[-1]),
            )


class CachedFeatures:
    """Batches of cached features of a frozen backbone: one view per image, without augmentation.

    For clips, testing uses all cached frames, and training draws one of them from each of `segments` parts.

    Args:
        features: the features of the samples.
        segments: number of parts of a clip from which training draws a frame each; 0 uses all frames in training too.
    """

    cached = True
    views = 1

    def __init__(self, features: Features, segments: int = 0) -> None:
        self.features = features
        self.segments = segments
        self.dataset = features.dataset
        self.failed = features.failed
        self.of_images: dict[int, Seen] = {}

    @property
    def inputs_per_sample(self) -> int:
        """The number of cached frames per clip; 1 for images."""
        return max(self.features.frames, 1)

    @property
    def shapes(self) -> list[tuple[int, int]] | None:
        return self.features.shapes

    def batches(self, order: Sequence[Sequence[int]], *, seed: int, epoch: int, train: bool) -> Iterator[Batch]:
        features = self.features
        for positions in order:
            good: list[int] = []
            people: list[list[Joints]] = []
            boxes: list[list[Box]] = []
            evidence: list[list[Box]] = []
            failed: list[tuple[str, str]] = []
            for i in positions:
                try:  # keypoint files are read now, not when the features were computed
                    shown = self.seen(i, self.draw(seed, epoch, i) if train else None)
                except Unreadable as error:
                    failed.append((self.dataset.samples[i].path, error.reason))
                    continue
                good.append(i)
                people += shown.people
                boxes.append(shown.boxes)
                evidence.append(shown.evidence)
            samples = [self.dataset.samples[i] for i in good]
            targets, label_mask = label_tensors(samples, len(self.dataset.classes))
            yield Batch(
                features.batch(good, [self.draw(seed, epoch, i) if train else None for i in good]),
                targets,
                label_mask,
                [sample.path for sample in samples],
                people,
                boxes,
                evidence,
                failed,
                features.size(good[0] if good else 0),
            )

    def seen(self, position: int, frames: Sequence[int] | None) -> Seen:
        """What is known of the people in a sample; for an image it is computed once, because its view never changes."""
        known = self.of_images.get(position)
        if known is None:
            features = self.features
            people, boxes = features.people(position, frames), features.boxes(position)
            known = Seen(people, boxes, features.evidence(position))
            if self.dataset.media == "images":
                self.of_images[position] = known
        return known

    def draw(self, seed: int, epoch: int, position: int) -> list[int] | None:
        """The cached frames of a clip that training uses in an epoch; None for all of them."""
        kept = self.features.frames
        if not kept or not self.segments or self.segments >= kept:
            return None
        return segment_positions(kept, self.segments, rng=np.random.default_rng([_FRAMES, seed, epoch, position]))
