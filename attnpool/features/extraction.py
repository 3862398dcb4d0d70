"""Features of a frozen backbone, computed once and kept on disk, so that heads train in seconds.

There is one store for every combination of a backbone (with its weights) and a preprocessing of images. Images are
found in it by content. So runs, splits and datasets that share images share their features, a renamed folder costs
nothing, and a changed image is computed again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnpool.backbones.batchnorm_folding import folded
from attnpool.data import Dataset, Preprocessing, batches, load, shapes
from attnpool.data.crops import require_crops, zoomed
from attnpool.data.decoding.optical_flow import FLOW_LENGTH
from attnpool.data.views import mirror
from attnpool.features.features import Features
from attnpool.features.store import FeatureStore, Row, Writer
from attnpool.files import cache_folder
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import versions
from attnpool.progress import bar

FORMAT = 4
POLL_SECONDS = 0.5  # between two looks at what another process has computed
BATCH = 8  # larger ones leave the processor's caches and are slower on a CPU
# Libraries whose versions can change the last digits of a pixel or a feature.
RELEVANT = ("torch", "timm", "pillow")


def extract(
    model: Recognizer,
    dataset: Dataset,
    *,
    crops: int = 1,
    flip: bool = False,
    cache: Path | None = None,
    workers: int = 0,
    device: torch.device | None = None,
    progress: bool = True,
) -> Features:
    """The features of every readable image of a dataset; those that are not in the cache are computed now.

    Args:
        model: recognizer whose backbone and `preprocessing` are used; the backbone must be frozen.
        dataset: the images or clips.
        crops: 1, or 2 to keep the features of the middle of the view, enlarged, too; they are in `Features.others`.
        flip: whether to keep those of mirror images, too.
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
    if (crops > 1 or flip) and dataset.media == "clips":
        raise ValueError(f"{dataset.name}: holds clips, of which only one view is kept; leave cached_views out")
    digests, failed = digest_files(dataset)
    given = Preprocessing(**model.preprocessing)
    require_crops(crops, given)
    scales = [given, zoomed(given)] if crops == 2 else [given]
    wanted = [(options, mirrored) for options in scales for mirrored in (False, True)[: 1 + flip]]
    found = [
        extract_view(model, dataset, options, mirrored, (digests, failed), cache, workers, device, progress)
        for options, mirrored in wanted
    ]
    if len(found) > 1:  # a file that is lost between two views is lost for all
        lost = dict(failure for view in reversed(found) for failure in view.failed)
        paths = [sample.path for sample in dataset if sample.path not in lost]
        found = [replace(view.select(paths, dataset.split), failed=tuple(lost.items())) for view in found]
    return replace(found[0], others=tuple(found[1:]))


def extract_view(
    model: Recognizer,
    dataset: Dataset,
    options: Preprocessing,
    mirrored: bool,
    hashed: tuple[Sequence[str], Sequence[tuple[str, str]]],
    cache: Path | None,
    workers: int,
    device: torch.device | None,
    progress: bool,
) -> Features:
    """The features of one view of every image; `hashed` is what `digest_files` found."""
    digests, failed = hashed[0], list(hashed[1])
    of_samples = shapes(dataset, options) or [(options.image_size, options.image_size)] * len(dataset)
    kinds = []
    for size in sorted(set(of_samples)):
        store = store_key(model, dataset.media, options, size, mirrored)
        here = [i for i in range(len(dataset)) if of_samples[i] == size]
        kinds.append(OfShape(size, here, digests, FeatureStore((cache or cache_folder()) / "features" / store)))
    if missing := sum(len(kind.todo) for kind in kinds):
        title = "features" + (", mirrored" if mirrored else "")
        with bar(missing, title, dataset.media, hidden=not progress) as shown:
            while left := [kind for kind in kinds if kind.todo]:
                # All shapes in one pass over the data, whose shards may be far away.
                with ExitStack() as held:
                    writers = {kind.size: writer for kind in left if (writer := held.enter_context(kind.claimed()))}
                    if writers:
                        todo = sorted(kind.todo[digest] for kind in left for digest in kind.mine)
                        images = (dataset, options, todo, workers)
                        failed += compute(model, images, writers, of_samples, digests, device, shown, mirrored=mirrored)
                    else:
                        waiting = sum(len(kind.todo) for kind in left)
                        shown.set_description(f"{title} ({waiting} are computed by another process)")
                        time.sleep(POLL_SECONDS)
                shown.update(sum(kind.look() for kind in left))
    found: dict[int, tuple[int, Row]] = {}
    arrays: list[np.ndarray] = []
    sizes: list[tuple[int, int]] = []
    for kind in kinds:
        known = {i: kind.known[digests[i]] for i in kind.positions if digests[i] in kind.known}
        found |= {i: (len(arrays) + number, row) for i, (number, row) in known.items()}
        arrays += kind.arrays
        sizes += [kind.size] * len(kind.arrays)
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
        mirrored,
    )


class OfShape:
    """The images whose inputs have one shape, and what their store has of them.

    Attributes:
        size: height and width of the inputs.
        positions: positions of the images in the dataset.
        arrays, known: what `FeatureStore.read` found.
        todo: digest -> position of the images that are not known.
        mine: the digests of those that this process has claimed.
    """

    def __init__(
        self, size: tuple[int, int], positions: Sequence[int], digests: Sequence[str], store: FeatureStore
    ) -> None:
        self.size, self.positions, self.store = size, positions, store
        # An image that the dataset holds twice is computed once.
        wanted = {digests[i]: i for i in reversed(positions) if digests[i]}
        self.arrays, self.known = store.read(wanted)
        self.todo = {digest: i for digest, i in wanted.items() if digest not in self.known}
        self.mine: frozenset[str] = frozenset()

    @contextmanager
    def claimed(self) -> Iterator[Writer | None]:
        """Takes those of `todo` on which no other process works, see `FeatureStore.claim`."""
        with self.store.claim(self.todo) as writer:
            self.mine = frozenset(writer.digests if writer else ())
            yield writer

    def look(self) -> int:
        """Reads what was computed since; returns the number of rows that others than this process computed."""
        arrays, known = self.store.read(self.todo)
        self.known |= {digest: (len(self.arrays) + number, row) for digest, (number, row) in known.items()}
        self.arrays += arrays
        self.todo = {digest: i for digest, i in self.todo.items() if digest not in known and digest not in self.mine}
        return len(known.keys() - self.mine)


def store_key(model: Recognizer, media: str, options: Preprocessing, size: tuple[int, int], mirrored: bool) -> str:
    """The name of a store, with a hash of everything that changes features."""
    view = options.of_model()
    if view["view"] == "crop":
        del view["view"]  # so that features of before there were others are found
    else:
        view["size"] = size
    if mirrored:
        view["mirrored"] = True
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
            stored = dataset.storage
            digests.append(stored.digest(sample.path) if stored else digest_of(dataset.file(sample)))
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
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a file", str(path))  # reading a pipe would wait
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
    images: tuple[Dataset, Preprocessing, Sequence[int], int],
    writers: Mapping[tuple[int, int], Writer],
    of_samples: Sequence[tuple[int, int]],
    digests: Sequence[str],
    device: torch.device | None,
    shown: Any,
    *,
    mirrored: bool,
) -> list[tuple[str, str]]:
    """Writes features to the stores of their shapes; returns `(path, reason)` of the images that cannot be decoded.

    `images` are their dataset, the preprocessing, their positions, and the number of processes that decode them.
    """
    dataset, options, todo, workers = images
    device = device or torch.device("cpu")
    backbone = folded(model.backbone, device)
    groups, blocks = [of_samples[i] for i in todo], dataset.blocks
    order = batches(
        len(todo),
        BATCH if dataset.media == "images" else 1,
        seed=0,
        epoch=0,
        shuffle=False,
        groups=groups,
        blocks=blocks and [blocks[i] for i in todo],
    )
    parts = [[todo[i] for i in part] for part in order]
    loaded = load(dataset, options, parts, seed=0, epoch=0, train=False, workers=workers)
    failed = []
    for batch in loaded:
        failed += batch.failed
        if len(batch.indices):
            matrices = batch.matrices
            with torch.inference_mode():
                pixels = batch.pixels.to(device)
                if mirrored:
                    pixels, matrices = pixels.flip(-1), mirror(matrices, pixels.shape[-1])
                x = model.normalize(pixels.flatten(0, -4)).contiguous(memory_format=torch.channels_last)
                features = backbone(x).permute(0, 2, 3, 1).to("cpu", torch.float16)
                features = features.unflatten(0, pixels.shape[:-3])
            if not bool(torch.isfinite(features).all()):
                raise ValueError(f"{model.backbone.name}: its features exceed half precision; train with use_cache off")
            positions = batch.indices.tolist()
            rows = writers[of_samples[positions[0]]]
            rows.write(features.numpy(), [digests[i] for i in positions], matrices, batch.frames)
        shown.update(len(batch.indices) + len(batch.failed))
    return failed
