"""Features of a frozen backbone, computed once and kept on disk, so that heads train in seconds.

There is one store for every combination of a backbone (with its weights) and a preprocessing of images. Images are
found in it by content. So runs, splits and datasets that share images share their features, a renamed folder costs
nothing, and a changed image is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnpool.backbones.batchnorm_folding import folded
from attnpool.data import Dataset, Preprocessing, View, batches, load, segment_positions, shapes
from attnpool.data.decoding.optical_flow import FLOW_LENGTH
from attnpool.data.people import people_of, person_boxes
from attnpool.features.store import FeatureStore, Row
from attnpool.files import cache_folder
from attnpool.keypoints.joints import Box, Joints
from attnpool.models.feature_norm import Standardize
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import versions
from attnpool.progress import bar

FORMAT = 2
BATCH = 8  # larger ones leave the processor's caches and are slower on a CPU
# Libraries whose versions can change the last digits of a pixel or a feature.
RELEVANT = ("torch", "timm", "pillow")


@dataclass(frozen=True)
class Features:
    """Features of the readable images or clips of a dataset, read from disk as they are needed.

    Attributes:
        dataset: the readable samples.
        stores: `(R, h, w, C)` float16, memory-mapped, with rows of other datasets too (float32 after `averaged`). For
            clips they are `(R, T, h, w, C)`. There is one for each shape of the network's input.
        rows: `(n, 2)`, the store and the row in it of every sample.
        matrices: `(n, 2, 3)` from `(x, y, 1)` in an image to `(x, y)` in the network's input.
        counts: `(n,)`, the number of frames of each clip, 0 for images.
        sizes: `(height, width)` of the network's input in pixels, for each store.
        length: number of consecutive frames behind each frame of `store`: 1, or the frames of a stack of optical flow.
        failed: `(path, reason)` of the images that could not be read.
    """

    dataset: Dataset
    stores: tuple[np.ndarray, ...]
    rows: np.ndarray
    matrices: np.ndarray
    counts: np.ndarray
    sizes: tuple[tuple[int, int], ...]
    length: int = 1
    failed: tuple[tuple[str, str], ...] = ()

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
        return None if len(self.stores) == 1 else [self.sizes[store] for store in self.rows[:, 0].tolist()]

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
        (number,) = set(which.tolist()) or {0}
        store = self.stores[number]
        if frames is None or all(chosen is None for chosen in frames):
            taken = store[rows]
        else:  # frame by frame, because reading whole clips would read many times as much
            taken = np.stack([store[row][list(chosen or ())] for row, chosen in zip(rows, frames, strict=True)])
        return torch.from_numpy(taken).float().movedim(-1, -3)

    def view(self, position: int) -> View:
        """The view of an image that the network sees, without its pixels."""
        pixels = torch.empty(1, dtype=torch.uint8).expand(3, *self.size(position))
        return View(pixels, self.matrices[position], False)

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
        return replace(self, dataset=dataset, rows=rows, matrices=matrices, counts=counts, failed=failed)

    @cached_property
    def averaged(self) -> Features:
        """These features averaged over positions, which is all that average pooling needs, at a fraction of the time.

        A clip is averaged over its frames, too, which gives average pooling the same logits.
        """
        pooled = np.empty((len(self), 1, 1, self.stores[0].shape[-1]), np.float32)
        for chunk in self.chunks():
            pooled[chunk, 0, 0] = self.batch(chunk).movedim(-3, 1).flatten(2).mean(2).numpy()
        rows = np.stack([np.zeros(len(self), np.int64), np.arange(len(self))], 1)
        return replace(self, stores=(pooled,), rows=rows, sizes=self.sizes[:1])

    def chunks(self) -> Iterator[list[int]]:
        """The positions of all samples, in lists of one shape whose features fit into memory."""
        size = max(1, 64 // max(self.frames, 1))
        return iter(batches(len(self), size, seed=0, epoch=0, shuffle=False, groups=self.shapes))


def extract(
    model: Recognizer,
    dataset: Dataset,
    *,
    cache: Path | None = None,
    workers: int = 0,
    device: torch.device | None = None,
    progress: bool = True,
) -> Features:
    """The features of every readable image of a dataset; those that are not in the cache are computed now.

    Args:
        model: recognizer whose backbone and `preprocessing` are used; the backbone must be frozen.
        dataset: the images or clips.
        cache: the folder of all stores, `cache_folder()` by default.
        workers: number of processes that decode images.
        device: device on which the backbone runs.
        progress: show a progress bar.

    Raises:
        ValueError: no image can be read, or a feature is beyond the range of half precision.
        OSError: the disk is full.
    """
    if not model.backbone.frozen:
        raise ValueError("the features of a backbone that is trained change in every step: use freeze_backbone=True")
    digests, failed = digest_files(dataset)
    options = Preprocessing(**model.preprocessing)
    of_samples = shapes(dataset, options)
    kinds = sorted(set(of_samples)) if of_samples else [(options.image_size, options.image_size)]
    found: dict[int, tuple[int, Row]] = {}
    arrays: list[np.ndarray] = []
    sizes: list[tuple[int, int]] = []
    for kind in kinds:
        here = [i for i in range(len(dataset)) if of_samples is None or of_samples[i] == kind]
        title = "features" if len(kinds) == 1 else f"features {kind[1]}x{kind[0]}"
        store = FeatureStore((cache or cache_folder()) / "features" / store_key(model, dataset.media, kind))
        with store.lock():
            known = store.rows()
            # An image that the dataset holds twice is computed once.
            todo = {digests[i]: i for i in reversed(here) if digests[i] and digests[i] not in known}
            if todo:
                with bar(len(todo), title, dataset.media, hidden=not progress) as shown:
                    failed += compute(model, dataset, store, sorted(todo.values()), digests, workers, device, shown)
                known = store.rows()
        good = {i: (len(arrays), known[digests[i]]) for i in here if digests[i] in known}
        if good:
            found |= good
            arrays.append(store.array())
            sizes.append(kind)
    if not found:
        raise ValueError(
            f"{dataset.name}: none of its {len(dataset)} images can be read; see attnpool check {dataset.name}"
        )
    rows = [found[i] for i in sorted(found)]
    return Features(
        replace(dataset, samples=tuple(dataset.samples[i] for i in sorted(found))),
        tuple(arrays),
        np.array([(store, row.number) for store, row in rows]),
        np.array([row.matrix for _, row in rows], dtype=np.float64),
        np.array([row.frames for _, row in rows]),
        tuple(sizes),
        FLOW_LENGTH + 1 if options.modality == "flow" else 1,
        with_copies(failed, dataset, digests),
    )


def store_key(model: Recognizer, media: str, size: tuple[int, int]) -> str:
    """The name of a store, with a hash of everything that changes features."""
    view = Preprocessing(**model.preprocessing).of_model()
    if view["view"] == "crop":
        del view["view"]  # so that features of before there were others are found
    else:
        view["size"] = size
    if media == "images":
        del view["frames"], view["modality"]
    used = {name: version for name, version in versions().items() if name in RELEVANT}
    backbone = model.backbone
    parts = [FORMAT, media, backbone.digest(), backbone.mean, backbone.std, sorted(view.items()), used]
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()
    return f"{backbone.name.replace('/', '_')}-{model.preprocessing['image_size']}-{digest}"


def digest_files(dataset: Dataset) -> tuple[list[str], list[tuple[str, str]]]:
    """The content hash of every file, "" for files that cannot be opened; and `(path, reason)` of those files."""
    digests, failed = [], []
    for sample in dataset:
        try:
            digests.append(digest_of(dataset.file(sample)))
        except OSError as error:
            digests.append("")
            failed.append((sample.path, error.strerror or str(error)))
    return digests, failed


def digest_of(path: Path) -> str:
    """The content hash of a file, or of the files in a folder of frames."""
    if path.is_dir():
        whole = hashlib.blake2b(digest_size=16)
        for name in sorted(os.listdir(path)):
            whole.update(f"{name}\0{digest_of(path / name)}\0".encode(errors="surrogateescape"))
        return whole.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def with_copies(
    failed: Sequence[tuple[str, str]], dataset: Dataset, digests: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Extends failures to files with the same content, in the order of the dataset."""
    position = {sample.path: i for i, sample in enumerate(dataset.samples)}
    reasons = dict(failed)
    by_digest = {digests[position[path]]: reason for path, reason in failed if digests[position[path]]}
    return tuple(
        (sample.path, reasons.get(sample.path) or by_digest[digest])
        for sample, digest in zip(dataset, digests, strict=True)
        if sample.path in reasons or digest in by_digest
    )


def compute(
    model: Recognizer,
    dataset: Dataset,
    store: FeatureStore,
    todo: Sequence[int],
    digests: Sequence[str],
    workers: int,
    device: torch.device | None,
    shown: Any,
) -> list[tuple[str, str]]:
    """Adds the features of the images `todo` to a store; returns `(path, reason)` of those that cannot be decoded."""
    device = device or torch.device("cpu")
    backbone = folded(model.backbone, device)
    size = BATCH if dataset.media == "images" else 1
    parts = [list(todo[start : start + size]) for start in range(0, len(todo), size)]
    loaded = load(dataset, Preprocessing(**model.preprocessing), parts, seed=0, epoch=0, train=False, workers=workers)
    failed = []
    with store.appending(len(todo)) as rows:
        for batch in loaded:
            failed += batch.failed
            if len(batch.indices):
                with torch.inference_mode():
                    pixels = batch.pixels.to(device)
                    x = model.normalize(pixels.flatten(0, -4)).contiguous(memory_format=torch.channels_last)
                    features = backbone(x).permute(0, 2, 3, 1).to("cpu", torch.float16)
                    features = features.unflatten(0, pixels.shape[:-3])
                if not bool(torch.isfinite(features).all()):
                    raise ValueError(f"{model.backbone.name}: its features exceed half precision; turn use_cache off")
                rows.write(features.numpy(), [digests[i] for i in batch.indices.tolist()], batch.matrices, batch.frames)
            shown.update(len(batch.indices) + len(batch.failed))
    return failed


def statistics(features: Features) -> tuple[Tensor, Tensor]:
    """The mean and standard deviation of every channel over all images and positions, `(C,)` each."""
    count = 0
    total = torch.zeros(features.stores[0].shape[-1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for chunk in features.chunks():
        x = features.batch(chunk).movedim(-3, -1).flatten(0, -2)
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
