"""Batches for training and evaluation, of decoded images or of cached features, with a common interface."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from attnpool.data import Dataset, Preprocessing, label_tensors, load, segment_positions, shapes
from attnpool.data.decoding.image import Unreadable
from attnpool.features.features import Features
from attnpool.keypoints.joints import Box, Joints

_FRAMES, _VIEW = 3, 6  # random streams, different from those of `data.loader`


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
        blocks: for every sample what it is stored with, for `data.batches`; None if the order makes no difference.
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

    @property
    def blocks(self) -> list[int] | None: ...

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
        return self.crops * (2 if self.flip and self.crops != 10 else 1)

    @property
    def inputs_per_sample(self) -> int:
        """The number of frames times the number of views."""
        return self.views * (self.options.frames if self.dataset.media == "clips" else 1)

    @cached_property
    def shapes(self) -> list[tuple[int, int]] | None:
        return shapes(self.dataset, self.options)

    @cached_property
    def blocks(self) -> list[int] | None:
        return self.dataset.blocks

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
    """Batches of cached features of a frozen backbone.

    Of several cached views of an image training draws one, in every epoch anew. Testing uses the first, or all of them.
    For clips, testing uses all cached frames, and training draws one of them from each of `segments` parts.

    Args:
        features: the features of the samples.
        segments: number of parts of a clip from which training draws a frame each; 0 uses all frames in training too.
        all_views: whether testing uses all views.
    """

    cached = True
    blocks: list[int] | None = None

    def __init__(self, features: Features, segments: int = 0, *, all_views: bool = False) -> None:
        self.features = features
        self.segments = segments
        self.views = len(features.views) if all_views else 1
        self.dataset = features.dataset
        self.failed = features.failed
        self.of_images: dict[tuple[int, int], Seen] = {}

    @property
    def inputs_per_sample(self) -> int:
        """The number of cached frames per clip, or of views of an image that testing uses."""
        return max(self.features.frames, 1) * self.views

    @property
    def shapes(self) -> list[tuple[int, int]] | None:
        return self.features.shapes

    def batches(self, order: Sequence[Sequence[int]], *, seed: int, epoch: int, train: bool) -> Iterator[Batch]:
        features = self.features
        for positions in order:
            good: list[int] = []
            drawn: list[tuple[int, list[int] | None]] = []  # the view, and the frames of a clip
            people: list[list[Joints]] = []
            boxes: list[list[Box]] = []
            evidence: list[list[Box]] = []
            failed: list[tuple[str, str]] = []
            for i in positions:
                try:  # keypoint files are read now, not when the features were computed
                    view, kept = (self.view(seed, epoch, i), self.draw(seed, epoch, i)) if train else (0, None)
                    shown = self.seen(i, view, kept)
                except Unreadable as error:
                    failed.append((self.dataset.samples[i].path, error.reason))
                    continue
                good.append(i)
                drawn.append((view, kept))
                people += shown.people
                boxes.append(shown.boxes)
                evidence.append(shown.evidence)
            samples = [self.dataset.samples[i] for i in good]
            targets, label_mask = label_tensors(samples, len(self.dataset.classes))
            if train and features.others and good:
                each = zip(good, drawn, strict=True)
                inputs = torch.cat([features.views[view].batch([i], [kept]) for i, (view, kept) in each])
            elif self.views > 1 and not train:
                inputs = torch.stack([each.batch(good) for each in features.views], 1)
            else:
                inputs = features.batch(good, [kept for _, kept in drawn])
            yield Batch(
                inputs,
                targets,
                label_mask,
                [sample.path for sample in samples],
                people,
                boxes,
                evidence,
                failed,
                features.size(good[0] if good else 0),
            )

    def seen(self, position: int, view: int, frames: Sequence[int] | None) -> Seen:
        """What is known of the people in a view of a sample; for an image it is computed once."""
        known = self.of_images.get((position, view))
        if known is None:
            features = self.features.views[view]
            people, boxes = features.people(position, frames), features.boxes(position)
            known = Seen(people, boxes, features.evidence(position))
            if self.dataset.media == "images":
                self.of_images[position, view] = known
        return known

    def view(self, seed: int, epoch: int, position: int) -> int:
        """The number of the view of a sample that training uses in an epoch."""
        views = len(self.features.views)
        return int(np.random.default_rng([_VIEW, seed, epoch, position]).integers(views)) if views > 1 else 0

    def draw(self, seed: int, epoch: int, position: int) -> list[int] | None:
        """The cached frames of a clip that training uses in an epoch; None for all of them."""
        kept = self.features.frames
        if not kept or not self.segments or self.segments >= kept:
            return None
        return segment_positions(kept, self.segments, rng=np.random.default_rng([_FRAMES, seed, epoch, position]))
