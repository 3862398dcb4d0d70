"""Half-precision features on disk, found by a content hash of the image that they belong to.

A store is a folder of segments. Every process that computes features writes a segment of its own, NAME.f16 with the
rows and NAME.jsonl with their shape and a line for each row, so that many can write side by side and nobody waits to
read. A line has a checksum of its row: what was torn, cut short or damaged is not there, and is computed again. While a
process works, NAME.todo says which images it computes and NAME.lock is held, so that no other computes them, too.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from attnpool.files import make_folder, sync, write_json

LONGEST = 1000  # bytes of a first line


@dataclass(frozen=True)
class Row:
    """Where the features of an image are, `matrix` (2, 3) from its pixels to the network's input, a clip's frames.

    Attributes:
        number: the number of the row in its segment.
        check: the checksum of its line and features, see `checksum`.
    """

    number: int
    matrix: list[list[float]]
    frames: int
    check: int


class Segment:
    """What one process has written; damaged lines are passed over.

    Args:
        lines: the file NAME.jsonl.
    """

    def __init__(self, lines: Path) -> None:
        self.lines, self.data = lines, lines.with_suffix(".f16")

    def shape(self) -> list[int]:
        """The shape of the rows, which the first line says; empty if it does not."""
        try:
            with self.lines.open("rb") as file:
                return [int(side) for side in json.loads(file.readline(LONGEST))["shape"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
            return []

    def read(self) -> tuple[np.ndarray | None, dict[str, Row]]:
        """The rows, `(R, *shape)` float16, memory-mapped, and which is whose. Nothing, if there is no row."""
        shape = self.shape()
        try:
            lines = self.lines.read_bytes().split(b"\n")[1:-1]
            count = self.data.stat().st_size // (2 * int(np.prod(shape)))
        except (OSError, ValueError, ZeroDivisionError, OverflowError):
            return None, {}
        rows: dict[str, Row] = {}
        for number, line in enumerate(lines[:count]):
            try:
                entry = json.loads(line)
                matrix = [[float(value) for value in values] for values in entry["matrix"]]
                rows[str(entry["digest"])] = Row(number, matrix, int(entry["frames"]), int(entry["check"]))
            except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
                continue
        if not rows or not shape or min(shape) < 1:
            return None, {}
        return np.memmap(self.data, np.float16, "r", shape=(count, *shape)), rows


class FeatureStore:
    """A store of features.

    Args:
        folder: folder of the store, which is made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_folder(folder)

    def read(self, digests: Collection[str]) -> tuple[list[np.ndarray], dict[str, tuple[int, Row]]]:
        """The features of images as far as they are known and undamaged.

        Returns:
            Arrays `(R, *shape)` float16, memory-mapped, and for every image that is known the number of its array and
            its row there.
        """
        arrays: list[np.ndarray] = []
        found: dict[str, tuple[int, Row]] = {}
        with suppress(OSError):  # `attnpool cache prune` removes what was not used for long
            os.utime(self.folder)
        for lines in sorted(self.folder.glob("*.jsonl")):
            missing = set(digests) - found.keys()
            array, rows = Segment(lines).read()
            if array is None or (arrays and array.shape[1:] != arrays[0].shape[1:]):
                continue
            good = {
                digest: (len(arrays), row)
                for digest, row in rows.items()
                if digest in missing and checksum(digest, row.matrix, row.frames, array[row.number]) == row.check
            }
            if good:
                found |= good
                arrays.append(array)
        return arrays, found

    @contextmanager
    def claim(self, digests: Iterable[str]) -> Iterator[Writer | None]:
        """Takes the images on which no other process works; None if others work on all of them."""
        with ExitStack() as held:
            with FileLock(self.folder / "lock"):
                others = self.held()
                mine = [digest for digest in digests if digest not in others]
                if mine:
                    name = uuid.uuid4().hex[:16]
                    held.enter_context(FileLock(self.folder / f"{name}.lock"))
                    write_json(self.folder / f"{name}.todo", mine)
            if not mine:
                yield None
                return
            writer = Writer(self.folder, name, mine)
            try:
                yield writer
            finally:
                writer.close()
                for suffix in ("todo", "lock"):
                    (self.folder / f"{name}.{suffix}").unlink(missing_ok=True)

    def held(self) -> set[str]:
        """The images that other processes compute now. What those left that have died is cleared away."""
        found: set[str] = set()
        for todo in self.folder.glob("*.todo"):
            lock = FileLock(todo.with_suffix(".lock"))
            try:
                with lock.acquire(timeout=0):
                    todo.unlink(missing_ok=True)
                    todo.with_suffix(".lock").unlink(missing_ok=True)
            except Timeout:
                try:
                    found |= set(json.loads(todo.read_text(encoding="utf-8")))
                except (OSError, ValueError):  # it has just ended
                    continue
        return found


class Writer:
    """Writes the rows of a segment.

    Args:
        folder: folder of the store.
        name: name of the segment.
        digests: the images that this process is to compute.
    """

    def __init__(self, folder: Path, name: str, digests: Sequence[str]) -> None:
        self.folder, self.digests = folder, digests
        self.segment = Segment(folder / f"{name}.jsonl")
        self.files: tuple[BinaryIO, BinaryIO] | None = None

    def write(self, features: np.ndarray, digests: Sequence[str], matrices: np.ndarray, frames: Sequence[int]) -> None:
        """Adds features `(n, ...)` float16 of n images or clips.

        Raises:
            OSError: the disk is full, or has no room for all rows, which is checked before the first.
        """
        assert features.dtype == np.float16
        assert len(features) == len(digests) == len(matrices) == len(frames)
        try:
            if self.files is None:
                check_space(self.folder, features[0].nbytes * len(self.digests))
                self.files = self.segment.data.open("wb"), self.segment.lines.open("wb")
                self.files[1].write(line_of({"shape": features.shape[1:]}))
            data, lines = self.files
            data.write(np.ascontiguousarray(features).tobytes())
            data.flush()
            for digest, matrix, count, row in zip(digests, matrices.tolist(), frames, features, strict=True):
                entry = {"digest": digest, "matrix": matrix, "frames": count}
                lines.write(line_of(entry | {"check": checksum(digest, matrix, count, row)}))
            lines.flush()
        except OSError as error:  # errors of an open file lack its name
            raise OSError(error.errno, error.strerror, str(self.folder)) from error

    def close(self) -> None:
        """Ends the segment; after a power cut it is still there."""
        for file in self.files or ():
            try:
                file.close()
                sync(Path(file.name))
            except OSError:  # a full disk; the rows that are whole count
                continue
        if self.files:
            sync(self.folder)


def line_of(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def checksum(digest: str, matrix: list[list[float]], frames: int, row: np.ndarray) -> int:
    """The CRC-32 of a row of features and of what its line says."""
    said = zlib.crc32(json.dumps([digest, matrix, frames]).encode())
    return zlib.crc32(np.ascontiguousarray(row).data, said)


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
