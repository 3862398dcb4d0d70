"""Half-precision features on disk, found by a content hash of the image that they belong to.

A store is a folder with `store.json` (the shape of a row), `features.f16` (the rows) and `rows.jsonl` (one line for
each row). A row exists once its complete line is in `rows.jsonl`; whatever an interrupted writer has left after that is
dropped.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
from filelock import FileLock

from attnpool.files import write_json


@dataclass(frozen=True)
class Row:
    """The row number of an image, `matrix` (2, 3) from its pixels to the network's input, and the frames of a clip."""

    number: int
    matrix: list[list[float]]
    frames: int


class FeatureStore:
    """A store of features. Use it under `lock()`, so that runs that start together compute every image once.

    Args:
        folder: folder of the store, which is made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.about, self.data, self.lines = folder / "store.json", folder / "features.f16", folder / "rows.jsonl"

    def lock(self) -> FileLock:
        return FileLock(self.folder / "lock")

    def rows(self) -> dict[str, Row]:
        """The row of every image, by its content hash."""
        if not self.lines.exists():
            return {}
        complete = self.lines.read_text(encoding="utf-8").split("\n")[:-1]
        entries = [json.loads(line) for line in complete]
        return {entry["digest"]: Row(number, entry["matrix"], entry["frames"]) for number, entry in enumerate(entries)}

    def array(self) -> np.ndarray:
        """All rows, `(R, *shape)` float16, memory-mapped."""
        shape = json.loads(self.about.read_text(encoding="utf-8"))["shape"]
        return np.memmap(self.data, np.float16, "r").reshape(-1, *shape)

    @contextmanager
    def appending(self, expected: int) -> Iterator[Appender]:
        """Opens the store for about `expected` more rows.

        Raises:
            OSError: the disk is full, or has no room for the expected rows, which is checked first.
        """
        count = len(self.rows())
        shape = json.loads(self.about.read_text(encoding="utf-8"))["shape"] if count else None
        if self.lines.exists():
            text = self.lines.read_bytes()
            os.truncate(self.lines, text.rfind(b"\n") + 1)
        with self.data.open("ab") as data, self.lines.open("a", encoding="utf-8") as lines:
            data.truncate(2 * int(np.prod(shape)) * count if shape else 0)
            yield Appender(self, data, lines, shape, expected)


class Appender:
    """Writes rows to a store, see `FeatureStore.appending`."""

    def __init__(
        self, store: FeatureStore, data: BinaryIO, lines: TextIO, shape: Sequence[int] | None, expected: int
    ) -> None:
        self.store, self.data, self.lines, self.shape, self.expected = store, data, lines, shape, expected
        if shape:
            check_space(store.folder, 2 * int(np.prod(shape)) * expected)

    def write(self, features: np.ndarray, digests: Sequence[str], matrices: np.ndarray, frames: Sequence[int]) -> None:
        """Adds features `(n, ...)` float16 of n images or clips."""
        assert features.dtype == np.float16
        assert len(features) == len(digests) == len(matrices) == len(frames)
        if self.shape is None:
            self.shape = list(features.shape[1:])
            check_space(self.store.folder, 2 * int(np.prod(self.shape)) * self.expected)
            write_json(self.store.about, {"shape": self.shape})
        try:
            self.data.write(np.ascontiguousarray(features).tobytes())
            self.data.flush()
            for digest, matrix, count in zip(digests, matrices, frames, strict=True):
                entry = {"digest": digest, "matrix": matrix.tolist(), "frames": count}
                self.lines.write(json.dumps(entry) + "\n")
            self.lines.flush()
        except OSError as error:  # errors of an open file lack its name
            raise OSError(error.errno, error.strerror, str(self.store.folder)) from error


def check_space(folder: Path, needed: int) -> None:
    """Raises OSError before a computation whose result would not fit on the disk."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"the features need {needed / 2**20:.0f} MiB and only {free / 2**20:.0f} MiB are free; "
            "give a folder on another disk as cache, or train with use_cache off",
            str(folder),
        )
