"""From an index to batches of views, in an order and with an augmentation that follow from the seed alone."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from attnpool.data.index import Box, Index
from attnpool.data.media import UnreadableImage, read_image
from attnpool.data.transforms import Joint, View, ViewOptions, eval_view, train_view

# The first word of every generator's seed, so that the order and the views of one (seed, epoch) are unrelated:
# NumPy's seeds [s, e] and [s, e, 0] are the same.
_ORDER, _VIEW = 1, 2


@dataclass
class Batch:
    """Pictures and what is known about them, in pixels of the network's input. B may be 0.

    Attributes:
        pixels: uint8 (B, 3, S, S), RGB.
        targets: float32 (B, K), 1 for the labels and 0 elsewhere.
        indices: int64 (B,), positions in the index.
        matrices: float64 (B, 2, 3), from `(x, y, 1)` in each picture to `(x, y)` in the network's input.
        people: for every picture its persons with keypoints, each of them 16 entries `(x, y)` or `None`.
        evidence: for every picture the boxes of the evidence, cut at the border.
        objects: for every picture the boxes of the objects in use.
        failed: `(path, reason)` of the pictures which belonged here and could not be read.
    """

    pixels: Tensor
    targets: Tensor
    indices: Tensor
    matrices: np.ndarray
    people: list[list[tuple[Joint, ...]]]
    evidence: list[list[Box]]
    objects: list[list[Box]]
    failed: list[tuple[str, str]]


def batches(
    n: int, batch_size: int, *, seed: int, epoch: int, shuffle: bool = True, rank: int = 0, world: int = 1
) -> list[list[int]]:
    """The order in which an epoch visits positions 0..n-1, for one of `world` processes.

    Follows from (seed, epoch) alone. Every step takes the next `batch_size * world` positions and deals them out, so
    all processes make the same number of steps and together visit everything exactly once; in the last step a process
    may come away with fewer, or with none (`[]`).

    Raises:
        ValueError: a negative seed or epoch, a batch size below 1, or a rank outside of the world.
    """
    if n < 0 or batch_size < 1 or seed < 0 or epoch < 0 or not 0 <= rank < world:
        raise ValueError(
            f"n {n}, seed {seed} and epoch {epoch} must not be negative, batch_size {batch_size} at least 1, "
            f"and rank {rank} one of the {world} from 0"
        )
    order = np.random.default_rng([_ORDER, seed, epoch]).permutation(n) if shuffle else np.arange(n)
    step = batch_size * world
    return [order[start : start + step][rank::world].tolist() for start in range(0, n, step)]


def load(
    index: Index,
    options: ViewOptions,
    batches: Sequence[Sequence[int]],
    *,
    seed: int,
    epoch: int,
    train: bool,
    workers: int = 0,
) -> Iterator[Batch]:
    """Decode and crop the pictures of each batch.

    The view of sample i follows from (seed, epoch, i) alone, whatever the number of workers and the batches. A
    picture that cannot be read is left out of its batch and recorded in `Batch.failed`. Worker processes end with the
    iterator, also when it is left early.

    Args:
        index: the dataset.
        options: of the views.
        batches: positions in the index, such as `batches()` gives them.
        seed: not negative.
        epoch: not negative.
        train: random views (`train_view`) or the middle of the picture (`eval_view`).
        workers: processes that read ahead; 0 reads in this one.

    Raises:
        ValueError: a negative seed, epoch or number of workers.
    """
    if min(seed, epoch, workers) < 0:
        raise ValueError(f"seed {seed}, epoch {epoch} and workers {workers} must not be negative")
    return _load(_Views(index, options, seed, epoch, train), batches, workers)


def _load(views: _Views, batches: Sequence[Sequence[int]], workers: int) -> Iterator[Batch]:
    with warnings.catch_warnings():
        # Python 3.12 warns of every fork beside threads, torch of more workers than cores. The first is safe here:
        # workers decode and nothing else. The second was the caller's choice.
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*worker processes", category=UserWarning)
        loader: DataLoader[_Item] = DataLoader(
            views,
            batch_sampler=batches,  # type: ignore[arg-type]
            collate_fn=list,
            num_workers=workers,
            worker_init_fn=_start_worker,
            # Its own generator: the loader would otherwise take a number from torch's global one at every epoch.
            generator=torch.Generator(),
        )
        stream = iter(loader)
    try:
        for items in stream:
            yield _collate(items, views.index, views.options.image_size)
    finally:
        del stream  # ends the workers


@dataclass
class _Item:
    """A view as workers send it: NumPy arrays go through a pipe, torch's tensors would need room in /dev/shm."""

    i: int
    pixels: np.ndarray | None  # None: could not be read
    matrix: np.ndarray
    people: list[tuple[Joint, ...]]
    evidence: list[Box]
    objects: list[Box]
    reason: str = ""


class _Views(Dataset[_Item]):
    def __init__(self, index: Index, options: ViewOptions, seed: int, epoch: int, train: bool) -> None:
        self.index, self.options, self.seed, self.epoch, self.train = index, options, seed, epoch, train

    def __getitem__(self, i: int) -> _Item:
        sample = self.index.samples[i]
        try:
            image = read_image(self.index.file(sample))
        except UnreadableImage as error:
            return _Item(i, None, np.zeros((2, 3)), [], [], [], error.reason)
        view: View
        if self.train:
            view = train_view(image, self.options, np.random.default_rng([_VIEW, self.seed, self.epoch, i]))
        else:
            view = eval_view(image, self.options)
        people = [view.points(person.joints) for person in sample.people if person.joints]
        return _Item(
            i, view.pixels.numpy(), view.matrix, people, view.boxes(sample.evidence), view.boxes(sample.objects)
        )


def _collate(items: Sequence[_Item], index: Index, size: int) -> Batch:
    good = [item for item in items if item.pixels is not None]
    pixels = torch.empty(len(good), 3, size, size, dtype=torch.uint8)
    targets = torch.zeros(len(good), len(index.classes))
    for row, item in enumerate(good):
        pixels[row] = torch.from_numpy(item.pixels)
        targets[row, list(index.samples[item.i].labels)] = 1
    return Batch(
        pixels,
        targets,
        torch.tensor([item.i for item in good], dtype=torch.long),
        np.array([item.matrix for item in good]).reshape(-1, 2, 3),
        [item.people for item in good],
        [item.evidence for item in good],
        [item.objects for item in good],
        [(index.samples[item.i].path, item.reason) for item in items if item.pixels is None],
    )


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C and a job's end reach all processes at once. Which of them stops is the main process's affair: it may
    # want to finish its step and save; the workers end when it does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
