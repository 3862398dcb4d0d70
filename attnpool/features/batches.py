"""What a training step or an evaluation sees: batches of images, or of features kept on disk, behind one face."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from attnpool.data import Dataset, Preprocessing, label_tensors, load, segment_positions
from attnpool.data.decoding.image import Unreadable
from attnpool.features.extraction import Features
from attnpool.keypoints.joints import Box, Joints

_FRAMES = 3  # apart from the streams of `data.loader`


@dataclass
class Batch:
    """A batch.

    Attributes:
        inputs: pixels uint8 `(B, 3, S, S)`, or features float32 `(B, C, h, w)`; with a T after the B for clips.
        targets, label_mask: `(B, K)`, as in `data.PixelBatch`.
        paths: the names of the B samples.
        people, boxes, evidence: in pixels of the network's input, as in `data.PixelBatch`.
        failed: `(path, reason)` of images that belonged here and cannot be read, or whose keypoints cannot.
    """

    inputs: Tensor
    targets: Tensor
    label_mask: Tensor
    paths: list[str]
    people: list[list[Joints]]
    boxes: list[list[Box]]
    evidence: list[list[Box]]
    failed: list[tuple[str, str]]


class BatchSource(Protocol):
    """Where batches come from.

    Attributes:
        dataset: the samples.
        cached: whether inputs are features, not pixels.
        failed: `(path, reason)` of what is known to be unreadable before any batch.
        views: test-time views of every image, or of every frame of a clip.
        inputs_per_sample: how many inputs of the network one sample becomes in testing: its frames times its views.
    """

    dataset: Dataset
    cached: bool
    failed: tuple[tuple[str, str], ...]

    @property
    def views(self) -> int: ...

    @property
    def inputs_per_sample(self) -> int: ...

    def batches(self, order: Sequence[Sequence[int]], *, seed: int, epoch: int, train: bool) -> Iterator[Batch]:
        """The batches of these positions in `dataset`."""


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
        self.crops, self.flip = crops, flip  # in testing

    @property
    def views(self) -> int:
        """Test-time views of every image or frame."""
        return self.crops * (2 if self.flip and self.crops == 1 else 1)

    @property
    def inputs_per_sample(self) -> int:
        """Frames times views."""
        return self.views * (self.options.frames if self.dataset.media == "clips" else 1)

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
            )


class CachedFeatures:
    """Batches of features of a frozen backbone, read from the cache: every image's one view, without augmentation.

    Of a clip, testing sees all frames that were kept, and training draws one of them from each of `segments` parts.

    Args:
        features: of the samples.
        segments: of clips; 0 takes all frames in training, too.
    """

    cached = True
    views = 1

    def __init__(self, features: Features, segments: int = 0) -> None:
        self.features = features
        self.segments = segments
        self.dataset = features.dataset
        self.failed = features.failed

    @property
    def inputs_per_sample(self) -> int:
        """The frames that were kept of every clip; 1 for images."""
        return max(self.features.frames, 1)

    def batches(self, order: Sequence[Sequence[int]], *, seed: int, epoch: int, train: bool) -> Iterator[Batch]:
        features = self.features
        for positions in order:
            good: list[int] = []
            people: list[list[Joints]] = []
            boxes: list[list[Box]] = []
            failed: list[tuple[str, str]] = []
            for i in positions:
                try:  # keypoint files are read now, not when the features were computed
                    in_frames, own = features.people(i, self.draw(seed, epoch, i) if train else None), features.boxes(i)
                except Unreadable as error:
                    failed.append((self.dataset.samples[i].path, error.reason))
                    continue
                good.append(i)
                people += in_frames
                boxes.append(own)
            samples = [self.dataset.samples[i] for i in good]
            targets, label_mask = label_tensors(samples, len(self.dataset.classes))
            yield Batch(
                features.batch(good, [self.draw(seed, epoch, i) if train else None for i in good]),
                targets,
                label_mask,
                [sample.path for sample in samples],
                people,
                boxes,
                [features.evidence(i) for i in good],
                failed,
            )

    def draw(self, seed: int, epoch: int, position: int) -> list[int] | None:
        """Which of the frames that were kept training sees of a clip."""
        kept = self.features.frames
        if not kept or not self.segments or self.segments >= kept:
            return None
        return segment_positions(kept, self.segments, rng=np.random.default_rng([_FRAMES, seed, epoch, position]))
