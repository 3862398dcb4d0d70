"""Loads batches of views from a dataset, in an order and with an augmentation that depend only on the seed."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils import data as torch_data
from torch.utils.data import DataLoader

from attnpool.data.clips import read_views
from attnpool.data.crops import detail, require_crops
from attnpool.data.dataset import Dataset, Sample
from attnpool.data.decoding.image import Unreadable, read_image
from attnpool.data.decoding.optical_flow import FLOW_LENGTH
from attnpool.data.people import people_of, person_boxes
from attnpool.data.preprocessing import Preprocessing
from attnpool.data.views import eval_views, train_view
from attnpool.keypoints.joints import Box, Joints

# The first number of every generator's seed, so that views, places and the order of one (seed, epoch) are independent
# of each other: NumPy's seeds [s, e] and [s, e, 0] are the same.
_VIEW, _FRAMES = 2, 4


@dataclass
class PixelBatch:
    """A batch of images or clips with their annotations, in pixels of the network's input. B may be 0.

    Attributes:
        pixels: uint8 (B, 3, S, S), RGB; (B, T, 3, S, S) for the T frames of clips, or the T crops of images. Optical
            flow has more than 3 channels.
        targets: float32 (B, K), 1 for the labels and 0 elsewhere.
        label_mask: bool (B, K), False where the label is ambiguous.
        indices: int64 (B,), positions in the dataset.
        matrices: float64 (B, 2, 3), from `(x, y, 1)` in each image to `(x, y)` in its (first) view.
        frames: number of frames of each whole clip; 0 for images.
        people: for every image, or for every frame of every clip (B * T in all), the joints of its persons, each of
            them 16 entries `(x, y)` or `None`.
        boxes: for every image the boxes of its persons, clipped at the border; none for clips.
        evidence: for every image the boxes of the evidence, clipped at the border.
        objects: for every image the boxes of the objects in use.
        failed: `(path, reason)` of images that are left out of the batch because they cannot be read.
    """

    pixels: Tensor
    targets: Tensor
    label_mask: Tensor
    indices: Tensor
    matrices: np.ndarray
    frames: list[int]
    people: list[list[Joints]]
    boxes: list[list[Box]]
    evidence: list[list[Box]]
    objects: list[list[Box]]
    failed: list[tuple[str, str]]


def load(
    dataset: Dataset,
    options: Preprocessing,
    batches: Sequence[Sequence[int]],
    *,
    seed: int,
    epoch: int,
    train: bool,
    workers: int = 0,
    crops: int = 1,
    flip: bool = False,
) -> Iterator[PixelBatch]:
    """Decodes and crops the images or clips of each batch.

    The view of sample i depends only on (seed, epoch, i), not on the number of workers or the batches. An image that
    cannot be read, or whose keypoint file is malformed, is left out of its batch and recorded in `PixelBatch.failed`.
    Worker processes end with the iterator, also when it is closed early. `options.segments` frames of a clip are drawn
    in training, and `options.frames` are used in testing, see `temporal_sampling.segment_frames`.

    Args:
        dataset: the dataset.
        options: options of the views.
        batches: positions in the dataset, such as `batches()` returns them.
        seed: random seed, at least 0.
        epoch: number of the epoch, at least 0.
        train: whether to use random views for training (`train_views`) or test-time views (`eval_views`).
        workers: number of processes that read ahead; 0 reads in this process.
        crops, flip: test-time views, see `eval_views`.

    Raises:
        ValueError: the seed, the epoch or the number of workers is negative, or there are no such crops.
    """
    if min(seed, epoch, workers) < 0:
        raise ValueError(f"seed {seed}, epoch {epoch} and workers {workers} must not be negative")
    if options.modality == "flow" and dataset.media != "clips":
        raise ValueError(f"{dataset.name}: holds images, which have no optical flow; use modality rgb")
    require_crops(crops, options)
    return _load(_Views(dataset, options, seed, epoch, train, crops, flip), batches, workers)


def _load(views: _Views, batches: Sequence[Sequence[int]], workers: int) -> Iterator[PixelBatch]:
    with warnings.catch_warnings():
        # Python 3.12 warns about every fork of a process with threads, and torch about more workers than cores. The
        # first is safe here, because workers only decode; the second is the caller's choice.
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*worker processes", category=UserWarning)
        loader: DataLoader[_Item] = DataLoader(
            views,
            batch_sampler=batches,  # type: ignore[arg-type]
            collate_fn=list,
            num_workers=workers,
            worker_init_fn=_start_worker,
            # Without a generator of its own the loader would draw from torch's global one in every epoch.
            generator=torch.Generator(),
        )
        stream = iter(loader)
    try:
        for items in stream:
            yield _collate(items, views.dataset, views.options)
    finally:
        del stream  # ends the workers


@dataclass
class _Item:
    """A sample as workers send it. NumPy arrays go through a pipe; torch's tensors would need space in /dev/shm."""

    i: int
    pixels: np.ndarray | None = None  # None if the sample cannot be read
    matrix: np.ndarray = field(default_factory=lambda: np.zeros((2, 3)))
    frames: int = 0
    people: list[list[Joints]] = field(default_factory=list)  # of every view
    boxes: list[Box] = field(default_factory=list)
    evidence: list[Box] = field(default_factory=list)
    objects: list[Box] = field(default_factory=list)
    reason: str = ""
    lost: str = ""  # why the data cannot be reached, which ends the epoch


class _Views(torch_data.Dataset[_Item]):
    def __init__(
        self,
        dataset: Dataset,
        options: Preprocessing,
        seed: int,
        epoch: int,
        train: bool,
        crops: int = 1,
        flip: bool = False,
    ) -> None:
        self.dataset, self.options, self.seed, self.epoch, self.train = dataset, options, seed, epoch, train
        self.crops, self.flip = crops, flip

    def __getitem__(self, i: int) -> _Item:
        sample = self.dataset.samples[i]
        try:
            return self.clip(i, sample) if self.dataset.media == "clips" else self.still(i, sample)
        except Unreadable as error:
            return _Item(i, reason=error.reason)
        except OSError as error:  # a worker's exception would arrive as the text of its traceback
            return _Item(i, lost=str(error))

    def generator(self, i: int, stream: int = _VIEW) -> np.random.Generator | None:
        """The random generator of a sample's view; None in testing."""
        return np.random.default_rng([stream, self.seed, self.epoch, i]) if self.train else None

    def still(self, i: int, sample: Sample) -> _Item:
        rng = self.generator(i)
        with self.dataset.opened(sample) as file:
            image = read_image(file, partial(detail, options=self.options, crops=self.crops))
        if rng is not None:
            views = [train_view(image, self.options, rng)]
        else:
            views = eval_views([image], self.options, self.crops, self.flip)
        joints = people_of(self.dataset, sample)
        first = views[0]
        return _Item(
            i,
            first.pixels.numpy() if len(views) == 1 else np.stack([view.pixels.numpy() for view in views]),
            first.matrix,
            0,
            [[view.points(person) for person in joints] for view in views],
            first.boxes(person_boxes(sample, joints)),
            first.boxes(sample.evidence),
            first.boxes(sample.objects),
        )

    def clip(self, i: int, sample: Sample) -> _Item:
        with self.dataset.opened(sample) as file:
            clip = read_views(
                file,
                self.options,
                places=self.generator(i, _FRAMES),
                rng=self.generator(i),
                crops=self.crops,
                flip=self.flip,
            )
        crops = len(clip.views) // len(clip.numbers)
        people = [
            [view.points(person) for person in people_of(self.dataset, sample, clip.numbers[v // crops])]
            for v, view in enumerate(clip.views)
        ]
        pixels = np.stack([view.pixels.numpy() for view in clip.views])
        return _Item(i, pixels, clip.views[0].matrix, clip.count, people)


def _collate(items: Sequence[_Item], dataset: Dataset, options: Preprocessing) -> PixelBatch:
    if lost := [item.lost for item in items if item.lost]:
        raise OSError(lost[0])
    good = [item for item in items if item.pixels is not None]
    arrays = [item.pixels for item in good if item.pixels is not None]
    channels = 2 * FLOW_LENGTH if options.modality == "flow" else 3
    nothing = np.zeros((0, channels, options.image_size, options.image_size), np.uint8)
    pixels = torch.from_numpy(np.stack(arrays) if arrays else nothing)
    samples = [dataset.samples[item.i] for item in good]
    targets, label_mask = label_tensors(samples, len(dataset.classes))
    return PixelBatch(
        pixels,
        targets,
        label_mask,
        torch.tensor([item.i for item in good], dtype=torch.long),
        np.array([item.matrix for item in good]).reshape(-1, 2, 3),
        [item.frames for item in good],
        [people for item in good for people in item.people],
        [item.boxes for item in good],
        [item.evidence for item in good],
        [item.objects for item in good],
        [(dataset.samples[item.i].path, item.reason) for item in items if item.pixels is None],
    )


def label_tensors(samples: Sequence[Sample], classes: int) -> tuple[Tensor, Tensor]:
    """Targets, float32 `(B, K)`, 1 for the labels, and label mask, bool `(B, K)`, False where a label is ambiguous."""
    targets, label_mask = torch.zeros(len(samples), classes), torch.ones(len(samples), classes, dtype=torch.bool)
    for row, sample in enumerate(samples):
        targets[row, list(sample.labels)] = 1
        label_mask[row, list(sample.ambiguous)] = False
    return targets, label_mask


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C and the end of a job reach all processes at once. The main process may want to finish its step and save, so
    # workers ignore the signal and end when the main process does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
