"""The cached features of a dataset, as batches and statistics need them; `extraction` computes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from attnpool.data import Dataset, View, batches, segment_positions
from attnpool.data.people import people_of, person_boxes
from attnpool.keypoints.joints import Box, Joints
from attnpool.models.feature_norm import Standardize
from attnpool.models.recognizer import Recognizer


@dataclass(frozen=True)
class Features:
    """Features of the readable images or clips of a dataset, read from disk as they are needed.

    Attributes:
        dataset: the readable samples.
        stores: `(R, h, w, C)` float16, memory-mapped, with rows of other datasets too (float32 after `averaged`). For
            clips they are `(R, T, h, w, C)`. There are one or more for each shape of the network's input.
        rows: `(n, 2)`, the store and the row in it of every sample.
        matrices: `(n, 2, 3)` from `(x, y, 1)` in an image to `(x, y)` in the network's input.
        counts: `(n,)`, the number of frames of each clip, 0 for images.
        sizes: `(height, width)` of the network's input in pixels, for each store.
        length: number of consecutive frames behind each frame of `store`: 1, or the frames of a stack of optical flow.
        failed: `(path, reason)` of the images that could not be read.
        mirrored: whether left and right are exchanged.
        others: features of further views of the same images, from which training draws.
    """

    dataset: Dataset
    stores: tuple[np.ndarray, ...]
    rows: np.ndarray
    matrices: np.ndarray
    counts: np.ndarray
    sizes: tuple[tuple[int, int], ...]
    length: int = 1
    failed: tuple[tuple[str, str], ...] = ()
    mirrored: bool = False
    others: tuple[Features, ...] = ()

    @property
    def views(self) -> tuple[Features, ...]:
        """All views, these features first."""
        return (self, *self.others)

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def frames(self) -> int:
        """The number T of cached frames per clip; 0 for images."""
        return self.stores[0].shape[1] if self.stores[0].ndim == 5 else 0

    @cached_property
    def shapes(self) -> list[tuple[int, int]] | None:
        """Height and width of the network's input for every sample, by which batches are grouped; None if all alike.

        Averaged features have no shape.
        """
        return None if len(set(self.sizes)) == 1 else [self.sizes[store] for store in self.rows[:, 0].tolist()]

    def size(self, position: int) -> tuple[int, int]:
        """Height and width of the network's input for a sample."""
        return self.sizes[self.rows[position, 0] if len(self.sizes) > 1 else 0]

    def batch(self, positions: Sequence[int], frames: Sequence[Sequence[int] | None] | None = None) -> Tensor:
        """The features of some samples, float32, with channels last in memory.

        Args:
            positions: positions of the samples in the dataset, of one shape.
            frames: the frames to take of each clip, of every clip the same number; `None` for all.

        Returns:
            `(B, C, h, w)`, or `(B, T, C, h, w)` for clips.
        """
        which, rows = self.rows[list(positions)].T
        if frames is None or all(chosen is None for chosen in frames):
            numbers = sorted(set(which.tolist())) or [0]
            if len(numbers) == 1:
                taken = self.stores[numbers[0]][rows]
            else:
                taken = np.empty((len(rows), *self.stores[numbers[0]].shape[1:]), self.stores[numbers[0]].dtype)
                for number in numbers:
                    taken[which == number] = self.stores[number][rows[which == number]]
        else:  # frame by frame, because reading whole clips would read many times as much
            each = zip(which, rows, frames, strict=True)
            taken = np.stack([self.stores[number][row][list(chosen or ())] for number, row, chosen in each])
        return torch.from_numpy(taken).float().movedim(-1, -3)

    def view(self, position: int) -> View:
        """The view of an image that the network sees, without its pixels."""
        pixels = torch.empty(1, dtype=torch.uint8).expand(3, *self.size(position))
        return View(pixels, self.matrices[position], self.mirrored)

    def people(self, position: int, frames: Sequence[int] | None = None) -> list[list[Joints]]:
        """The joints of everybody in an image, or in each frame of a clip, in pixels of the network's input.

        After `averaged` there are none for clips.
        """
        sample, view = self.dataset.samples[position], self.view(position)
        shown: Sequence[int | None] = [None]
        if self.dataset.media == "clips":
            if not self.frames:
                return [[]]
            kept = segment_positions(int(self.counts[position]), self.frames, length=self.length)
            shown = kept if frames is None else [kept[t] for t in frames]
        return [[view.points(joints) for joints in people_of(self.dataset, sample, frame)] for frame in shown]

    def boxes(self, position: int) -> list[Box]:
        """The boxes of the persons in an image, in pixels of the network's input; none for clips."""
        sample = self.dataset.samples[position]
        if self.dataset.media == "clips":
            return []
        return self.view(position).boxes(person_boxes(sample, people_of(self.dataset, sample)))

    def evidence(self, position: int) -> list[Box]:
        """The evidence boxes of an image, in pixels of the network's input."""
        return self.view(position).boxes(self.dataset.samples[position].evidence)

    def objects(self, position: int) -> list[Box]:
        """The boxes of the objects in use, in pixels of the network's input."""
        return self.view(position).boxes(self.dataset.samples[position].objects)

    def select(self, paths: Sequence[str], split: str) -> Features:
        """The features of those of these samples that are readable."""
        wanted = set(paths)
        keep = [i for i, sample in enumerate(self.dataset.samples) if sample.path in wanted]
        failed = tuple(item for item in self.failed if item[0] in wanted)
        dataset = replace(self.dataset, samples=tuple(self.dataset.samples[i] for i in keep), split=split)
        rows, matrices, counts = self.rows[keep], self.matrices[keep], self.counts[keep]
        others = tuple(other.select(paths, split) for other in self.others)
        return replace(self, dataset=dataset, rows=rows, matrices=matrices, counts=counts, failed=failed, others=others)

    @cached_property
    def averaged(self) -> Features:
        """These features averaged over positions, which is all that average pooling needs, at a fraction of the time.

        A clip is averaged over its frames, too, which gives average pooling the same logits.
        """
        pooled = np.empty((len(self), 1, 1, self.stores[0].shape[-1]), np.float32)
        for chunk in self.chunks():
            pooled[chunk, 0, 0] = self.batch(chunk).movedim(-3, 1).flatten(2).mean(2).numpy()
        rows = np.stack([np.zeros(len(self), np.int64), np.arange(len(self))], 1)
        others = tuple(other.averaged for other in self.others)
        return replace(self, stores=(pooled,), rows=rows, sizes=self.sizes[:1], others=others)

    def chunks(self) -> Iterator[list[int]]:
        """The positions of all samples, in lists of one shape whose features fit into memory."""
        size = max(1, 64 // max(self.frames, 1))
        return iter(batches(len(self), size, seed=0, epoch=0, shuffle=False, groups=self.shapes))


def statistics(features: Features) -> tuple[Tensor, Tensor]:
    """The mean and standard deviation of every channel over all images, views and positions, `(C,)` each."""
    count = 0
    total = torch.zeros(features.stores[0].shape[-1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for view in features.views:
        for chunk in view.chunks():
            x = view.batch(chunk).movedim(-3, -1).flatten(0, -2)
            total += x.sum(0, dtype=torch.float64)
            squares += x.square().sum(0, dtype=torch.float64)
            count += x.shape[0]
    mean = total / count
    return mean.float(), (squares / count - mean**2).clamp_min(0).sqrt().float()


def standardize(model: Recognizer, features: Features, *, pooled: bool) -> None:
    """Fits a model's `Standardize` on training features; a model without one is not changed.

    Args:
        model: the recognizer.
        features: features of the training images.
        pooled: whether the standard deviations are those of the pooled features, which are what average pooling
            classifies: with few images that is worth 2 to 4 points of mAP. Otherwise they are those of the positions.
    """
    if isinstance(model.standardize, Standardize):
        model.standardize.fit(*statistics(features.averaged if pooled else features))
