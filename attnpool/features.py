"""Features of a frozen backbone, computed once and kept on disk, so that heads train in seconds.

A store is a folder for one backbone (every weight of it) and one way of preparing pictures: `features.f16`, rows of
`(h, w, C)` half-precision numbers, and `rows.jsonl`, a line a row with the picture's content hash. Rows are found by
content, so runs, splits and datasets that share pictures share them, a renamed folder costs nothing and a changed
picture is computed again. A row counts once its line stands in `rows.jsonl`, so an interrupted call goes on where it was.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from attnpool.data import Box, Index, View, ViewOptions, load
from attnpool.folding import folded
from attnpool.progress import bar
from attnpool.recognizer import Recognizer, Standardize, versions, write_json

FORMAT = 1
BATCH = 8  # larger ones leave the processor's caches and are slower on a CPU
# Versions that can change a pixel or a feature in the last digits.
RELEVANT = ("torch", "timm", "pillow")


@dataclass(frozen=True)
class Features:
    """Features of the readable pictures of an index, read from disk as they are needed.

    Attributes:
        index: the readable samples.
        store: `(R, h, w, C)` float16, memory-mapped; holds other datasets' rows, too.
        rows: `(n,)` the row of every sample.
        matrices: `(n, 2, 3)` from `(x, y, 1)` in a picture to `(x, y)` in the network's input.
        image_size: side of the network's input in pixels.
        failed: `(path, reason)` of the pictures that could not be read.
    """

    index: Index
    store: np.ndarray
    rows: np.ndarray
    matrices: np.ndarray
    image_size: int
    failed: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.index)

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of the feature map."""
        return self.store.shape[1], self.store.shape[2]

    def batch(self, positions: Sequence[int]) -> Tensor:
        """Features `(B, C, h, w)` of some samples, float32, channels last in memory."""
        rows = torch.from_numpy(self.store[self.rows[list(positions)]])
        return rows.float().permute(0, 3, 1, 2)

    def targets(self, positions: Sequence[int]) -> Tensor:
        """`(B, K)`: 1 for the labels of each sample, 0 elsewhere."""
        targets = torch.zeros(len(positions), len(self.index.classes))
        for row, position in enumerate(positions):
            targets[row, list(self.index.samples[position].labels)] = 1
        return targets

    def view(self, position: int) -> View:
        """Where the network's input lies in the picture (without pixels)."""
        pixels = torch.empty(1, dtype=torch.uint8).expand(3, self.image_size, self.image_size)
        return View(pixels, self.matrices[position], False)

    def people(self, position: int) -> list[tuple[tuple[float, float] | None, ...]]:
        """Joints of everybody in the picture, in pixels of the network's input."""
        view = self.view(position)
        return [view.points(person.joints) for person in self.index.samples[position].people if person.joints]

    def evidence(self, position: int) -> list[Box]:
        """Evidence boxes in pixels of the network's input."""
        return self.view(position).boxes(self.index.samples[position].evidence)

    def objects(self, position: int) -> list[Box]:
        """Boxes of the objects in use, in pixels of the network's input."""
        return self.view(position).boxes(self.index.samples[position].objects)

    def select(self, paths: Sequence[str], split: str) -> Features:
        """The readable ones among these samples."""
        wanted = set(paths)
        keep = [i for i, sample in enumerate(self.index.samples) if sample.path in wanted]
        failed = tuple(item for item in self.failed if item[0] in wanted)
        index = replace(self.index, samples=tuple(self.index.samples[i] for i in keep), split=split)
        return replace(self, index=index, rows=self.rows[keep], matrices=self.matrices[keep], failed=failed)


def cache_folder() -> Path:
    """Where features are kept if nothing else is said: `$ATTNPOOL_CACHE`, or attnpool in the user's cache folder."""
    if named := os.environ.get("ATTNPOOL_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attnpool"


def extract(
    model: Recognizer,
    index: Index,
    *,
    cache: Path | None = None,
    workers: int = 0,
    device: torch.device | None = None,
    progress: bool = True,
) -> Features:
    """Features of every readable picture of an index, from the cache or, where they are not in it, computed now.

    Args:
        model: whose backbone and preparation of pictures (`view`) are used; it must be frozen.
        index: the pictures.
        cache: the folder of all stores, `cache_folder()` by default.
        workers: processes that decode pictures.
        device: where the backbone runs.
        progress: show a progress bar.

    Raises:
        ValueError: no picture can be read, or a feature does not fit half precision.
        OSError: the disk is full.
    """
    from filelock import FileLock

    if not model.backbone.frozen:
        raise ValueError("features of a backbone that is trained change with every step: use freeze_backbone=True")
    options = ViewOptions(**model.view)
    folder = (cache or cache_folder()) / "features" / store_key(model)
    folder.mkdir(parents=True, exist_ok=True)
    digests, failed = digest_files(index)
    with FileLock(folder / "lock"):
        known = read_rows(folder)
        seen: set[str] = set()
        todo = []
        for position, digest in enumerate(digests):
            if digest and digest not in known and digest not in seen:
                seen.add(digest)
                todo.append(position)
        if todo:
            compute(
                model, index, options, folder, known, todo, digests, workers, device or torch.device("cpu"), progress
            )
            known = read_rows(folder)
    unreadable = read_failures(index, digests, known, options)
    good = [i for i, digest in enumerate(digests) if digest in known]
    if not good:
        raise ValueError(
            f"{index.name}: none of its {len(index)} pictures can be read; see attnpool check {index.name}"
        )
    about = json.loads((folder / "store.json").read_text())
    store = np.memmap(folder / "features.f16", np.float16, "r").reshape(-1, *about["shape"])
    return Features(
        replace(index, samples=tuple(index.samples[i] for i in good)),
        store,
        np.array([known[digests[i]][0] for i in good]),
        np.array([known[digests[i]][1] for i in good], dtype=np.float64),
        options.image_size,
        (*failed, *unreadable),
    )


def store_key(model: Recognizer) -> str:
    """Name of the store: a hash of everything that changes features."""
    versions_used = {name: version for name, version in versions().items() if name in RELEVANT}
    parts = [
        FORMAT,
        model.backbone.digest(),
        model.backbone.mean,
        model.backbone.std,
        sorted(model.view.items()),
        versions_used,
    ]
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()
    return f"{model.backbone.name.replace('/', '_')}-{model.view['image_size']}-{digest}"


def digest_files(index: Index) -> tuple[list[str], list[tuple[str, str]]]:
    """Content hash of every file, "" for those that cannot be opened, and these with the reason."""
    digests, failed = [], []
    for sample in index:
        try:
            with index.file(sample).open("rb") as file:
                digests.append(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest())
        except OSError as error:
            digests.append("")
            failed.append((sample.path, error.strerror or str(error)))
    return digests, failed


def read_rows(folder: Path) -> dict[str, tuple[int, list[list[float]]]]:
    """Content hash -> (row, matrix) of the complete rows; a line that was cut off by an interruption does not count."""
    path = folder / "rows.jsonl"
    if not path.exists():
        return {}
    known: dict[str, tuple[int, list[list[float]]]] = {}
    for row, line in enumerate(path.read_text().split("\n")[:-1]):
        entry = json.loads(line)
        known[entry["digest"]] = (row, entry["matrix"])
    return known


def read_failures(
    index: Index, digests: Sequence[str], known: dict[str, tuple[int, list[list[float]]]], options: ViewOptions
) -> list[tuple[str, str]]:
    """`(path, reason)` of the pictures that could be opened but not decoded."""
    undecoded = [[i] for i, digest in enumerate(digests) if digest and digest not in known]
    return [
        failure for batch in load(index, options, undecoded, seed=0, epoch=0, train=False) for failure in batch.failed
    ]


def compute(
    model: Recognizer,
    index: Index,
    options: ViewOptions,
    folder: Path,
    known: dict[str, tuple[int, list[list[float]]]],
    todo: Sequence[int],
    digests: Sequence[str],
    workers: int,
    device: torch.device,
    show: bool,
) -> None:
    """Appends the features of the pictures `todo` to a store."""
    backbone = folded(model.backbone, device)
    batches = [list(todo[start : start + BATCH]) for start in range(0, len(todo), BATCH)]
    row_bytes = 0
    with (
        (folder / "features.f16").open("ab") as data,
        (folder / "rows.jsonl").open("a") as lines,
        bar(len(todo), "features", "images", hidden=not show) as progress,
    ):
        if known:
            row_bytes = 2 * int(np.prod(json.loads((folder / "store.json").read_text())["shape"]))
            check_space(folder, row_bytes * len(todo))
        cut(data, row_bytes * len(known))
        cut_line(folder / "rows.jsonl")
        for batch in load(index, options, batches, seed=0, epoch=0, train=False, workers=workers):
            progress.update(len(batch.indices) + len(batch.failed))
            if not len(batch.indices):
                continue
            with torch.inference_mode():
                x = model.normalize(batch.pixels.to(device)).contiguous(memory_format=torch.channels_last)
                features = backbone(x).permute(0, 2, 3, 1).cpu().contiguous()
            half = features.to(torch.float16)
            if not bool(torch.isfinite(half).all()):
                raise ValueError(
                    f"{model.backbone.name}: features beyond half precision; train without the cache (--no-cache)"
                )
            if not row_bytes:
                row_bytes = 2 * half[0].numel()
                write_json(
                    folder / "store.json",
                    {"shape": list(half.shape[1:]), "backbone": model.backbone.name, "view": model.view},
                )
                check_space(folder, row_bytes * len(todo))
            data.write(half.numpy().tobytes())
            data.flush()
            for position, matrix in zip(batch.indices.tolist(), batch.matrices, strict=True):
                lines.write(json.dumps({"digest": digests[position], "matrix": matrix.tolist()}) + "\n")
            lines.flush()


def cut(data: BinaryIO, size: int) -> None:
    """Drops what an interrupted call wrote after the last complete row."""
    data.truncate(size)
    data.seek(0, os.SEEK_END)


def cut_line(path: Path) -> None:
    """Drops a line without its end, which an interrupted call left."""
    text = path.read_bytes()
    if text and not text.endswith(b"\n"):
        os.truncate(path, text.rfind(b"\n") + 1)


def check_space(folder: Path, needed: int) -> None:
    """Raises OSError before a computation whose result would not fit on the disk."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"the features need {needed / 2**20:.0f} MiB and {free / 2**20:.0f} MiB are free; use another disk (--cache DIR) or --no-cache",
            str(folder),
        )


def statistics(features: Features, *, chunk: int = 64) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel over all pictures and positions, `(C,)` each, for `Standardize`."""
    count = 0
    total = torch.zeros(features.store.shape[3], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for start in range(0, len(features), chunk):
        x = features.batch(range(start, min(start + chunk, len(features)))).permute(0, 2, 3, 1).flatten(0, 2)
        total += x.sum(0, dtype=torch.float64)
        squares += x.square().sum(0, dtype=torch.float64)
        count += x.shape[0]
    mean = total / count
    std = (squares / count - mean**2).clamp_min(0).sqrt()
    return mean.float(), std.float()


def standardize(model: Recognizer, features: Features) -> None:
    """Fits a model's `Standardize` on training features; a model without one is left as it is."""
    if isinstance(model.standardize, Standardize):
        model.standardize.fit(*statistics(features))
