"""One step of each way of training that is timed, all on the same batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attnpool.data import Dataset, Sample, label_tensors
from attnpool.experiments.benchmark.measure import Step
from attnpool.features.batches import Batch, BatchSource, CachedFeatures
from attnpool.features.features import Features
from attnpool.features.store import FeatureStore
from attnpool.models.recognizer import Recognizer
from attnpool.training.config import OptimizerOptions, TrainOptions
from attnpool.training.optimizer import resolve
from attnpool.training.trainer import Trainer

CACHED_STEPS = 5  # a round: one of them is too short to be timed among steps of seconds
STORED = 64  # different images in the store of features


@dataclass(frozen=True)
class TrainingSizes:
    """What is trained: a timm backbone with random weights, on B images of this side a step, into K classes."""

    backbone: str = "resnet50"
    image_size: int = 224
    batch: int = 32
    classes: int = 393

    def __str__(self) -> str:
        return f"{self.backbone} at {self.image_size} px, batch {self.batch}, {self.classes} classes, float32"


def recognizer(sizes: TrainingSizes, pooling: str, frozen: bool) -> Recognizer:
    """A network with random weights."""
    return Recognizer(
        sizes.backbone,
        classes=[f"class {k}" for k in range(sizes.classes)],
        pooling=pooling,
        weights="random",
        freeze_backbone=frozen,
        preprocessing={"image_size": sizes.image_size, "short_side": None, "max_width": None},
    )


def dataset_of(sizes: TrainingSizes, rounds: int) -> Dataset:
    """Names of as many images as the steps of all rounds take; nothing is read from disk."""
    count = sizes.batch * CACHED_STEPS * (rounds + 1)
    samples = tuple(Sample(f"{n}.jpg", (n % sizes.classes,)) for n in range(count))
    return Dataset("benchmark", Path(), tuple(f"class {k}" for k in range(sizes.classes)), samples)


def images(sizes: TrainingSizes) -> Batch:
    """A batch of random pixels, and labels."""
    generator = torch.Generator().manual_seed(0)
    shape = (sizes.batch, 3, sizes.image_size, sizes.image_size)
    pixels = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    samples = [Sample(f"{n}.jpg", (n % sizes.classes,)) for n in range(sizes.batch)]
    targets, label_mask = label_tensors(samples, sizes.classes)
    nothing: list[Any] = [[] for _ in samples]
    names = [sample.path for sample in samples]
    return Batch(
        pixels, targets, label_mask, names, nothing, nothing, nothing, [], (sizes.image_size, sizes.image_size)
    )


class Repeated:
    """A source of one batch, over and over."""

    cached = False
    failed: tuple[tuple[str, str], ...] = ()
    views = inputs_per_sample = 1
    shapes = blocks = None

    def __init__(self, dataset: Dataset, batch: Batch) -> None:
        self.dataset, self.batch = dataset, batch

    def batches(self, order: Sequence[Sequence[int]], *, seed: int, epoch: int, train: bool) -> Iterator[Batch]:
        return (self.batch for _ in order)


def stored(dataset: Dataset, shape: Sequence[int], folder: Path) -> CachedFeatures:
    """Random features in a store on disk, as `features.extract` keeps them, under all names of the dataset."""
    store = FeatureStore(folder / "store")
    channels, height, width = shape
    rng = np.random.default_rng(0)
    values = rng.random((STORED, height, width, channels), dtype=np.float32).astype(np.float16)
    matrix = np.array([[1.0, 0, 0], [0, 1, 0]])
    names = [str(n) for n in range(STORED)]
    with store.claim(names) as rows:
        assert rows is not None
        rows.write(values, names, np.stack([matrix] * STORED), [0] * STORED)
    arrays, _ = store.read(names)
    count = len(dataset)
    matrices = np.broadcast_to(matrix, (count, 2, 3))
    rows_of = np.stack([np.zeros(count, dtype=int), np.arange(count) % STORED], 1)
    frames = np.zeros(count, dtype=int)
    return CachedFeatures(Features(dataset, tuple(arrays), rows_of, matrices, frames, ((height, width),)))


def trainer(model: Recognizer, source: BatchSource, folder: Path, sizes: TrainingSizes) -> Trainer:
    """A training as `train` makes it."""
    schedule = resolve(model, OptimizerOptions(optimizer="adamw"), len(source.dataset))
    return Trainer(model, source, source, folder, TrainOptions(epochs=1, batch_size=sizes.batch), schedule, {})


class NoBar:
    """Stands in for the bar of an epoch: the benchmark has its own."""

    def set_postfix_str(self, text: str, refresh: bool) -> None: ...

    def update(self, count: int) -> None: ...


def stepper(training: Trainer) -> Step:
    """One step of the training loop at each call."""
    steps = training.run_epoch(NoBar())

    def step() -> None:
        assert next(steps), "every step makes an update"

    return step


def repeated(step: Step, count: int) -> Step:
    """So many steps at each call."""

    def run() -> None:
        for _ in range(count):
            step()

    return run


def head_step(model: Recognizer, shape: Sequence[int], batch: int, device: torch.device) -> Step:
    """Forward and backward of a head alone, on features as the backbone gives them."""
    features = torch.rand(batch, *shape, device=device).requires_grad_()
    sources = [features, *model.head.parameters()]

    def step() -> None:
        torch.autograd.grad(model.head(features).logits.sum(), sources)

    return step


def plain_step(sizes: TrainingSizes, batch: Batch, model: Recognizer, device: torch.device) -> Step:
    """What one writes with timm and PyTorch alone."""
    import timm

    network = timm.create_model(sizes.backbone, num_classes=sizes.classes).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=5e-4)
    labels = batch.targets.argmax(1)

    def normalize(pixels: Tensor) -> Tensor:
        mean = torch.tensor(model.backbone.mean, device=device)[:, None, None]
        std = torch.tensor(model.backbone.std, device=device)[:, None, None]
        return (pixels.float() - mean) / std

    def step() -> None:
        loss = F.cross_entropy(network(normalize(batch.inputs.to(device))), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert math.isfinite(loss.item())

    return step
