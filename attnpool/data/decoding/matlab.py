"""MATLAB's .mat files, read by scipy in a child process with limits of time and memory, and kept as JSON.

Malformed files can send scipy's reader into endless loops, make it allocate all memory, or crash it. So it runs in a
child process, `matlab_worker.py`, whose crash is only an error message here. The result is kept in the user's cache
folder under a hash of the file's content, so that a file is read once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attnpool.child import Child
from attnpool.files import cache_folder

FORMAT = 1  # version of the cached results; increased when their content changes
SECONDS = 300.0  # time limit for one file; MPII's takes 20 on a slow machine
_START_SECONDS = 120.0  # time limit for importing scipy, on a busy machine
_FOLDER = "mat"
_WORKER = Path(__file__).with_name("matlab_worker.py")


@dataclass(frozen=True)
class MatFile:
    """The variables of a .mat file as plain values.

    Attributes:
        path: the file.
        tree: variable -> its value, unless that is a matrix. Structs are lists of dictionaries, one for each element,
            cells are lists, text is `str` (or a list of `str`, if it has several lines) and numbers are lists of
            numbers, column by column. A single number is also a list, as MATLAB does not distinguish the two. NaN and
            infinity are `None`.
        matrices: variable -> array (rows, columns), in the smallest type that holds its numbers exactly.
    """

    path: Path
    tree: dict[str, Any]
    matrices: dict[str, np.ndarray]


def read_mat(path: Path, variables: Sequence[str], *, seconds: float = SECONDS) -> MatFile:
    """Reads variables of a .mat file of MATLAB 5 to 7.2; variables that it does not hold are left out.

    Args:
        path: the file.
        variables: names of the variables.
        seconds: time limit for reading.

    Raises:
        ValueError: the file is missing, not such a file, malformed, or needs too much time or memory to read; the
            message is one line with its name.
    """
    with MatReader(seconds=seconds) as reader:
        return reader.read(path, variables)


class MatReader:
    """Reads several .mat files with one child process, which is started when needed, and restarted if it has ended.

    Attributes:
        seconds: time limit for reading a file.
        child: the child process; None before it is started.
    """

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self.child: Child | None = None

    def __enter__(self) -> MatReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def read(self, path: Path, variables: Sequence[str]) -> MatFile:
        """Reads variables of a file, see `read_mat`."""
        path = Path(path)
        try:
            digest = _digest(path, variables)
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
        kept = cache_folder() / _FOLDER / digest
        if (found := _load(path, kept)) is not None:
            return found
        with tempfile.TemporaryDirectory(prefix="attnpool-") as folder:
            if problem := self._convert(path, variables, Path(folder)):
                raise ValueError(f"{path}: {problem}; get the file again")
            found = _load(path, Path(folder))
            if found is None:
                raise ValueError(f"{path}: malformed; get the file again")
            _keep(Path(folder), kept)
        return found

    def _convert(self, path: Path, variables: Sequence[str], out: Path) -> str:
        """Lets the child process write a file's content to `out`; returns what went wrong, or ""."""
        if self.child is not None and not self.child.running:
            self._stop()
        if self.child is None:
            self.child = _start()
        child = self.child
        request = {"file": str(path.absolute()), "out": str(out), "variables": list(variables), "seconds": self.seconds}
        try:
            answer = child.ask(request, seconds=self.seconds)
        except BaseException as error:  # Ctrl-C must also end the child
            self._stop()
            if isinstance(error, TimeoutError):
                return f"reading it takes more than {self.seconds:g} seconds"
            if isinstance(error, EOFError):
                return f"malformed: reading it ended the reader ({child.status})"
            raise
        return str(answer.get("problem", ""))

    def _stop(self) -> None:
        child, self.child = self.child, None
        if child is not None:
            child.stop()


def _start() -> Child:
    """Starts the child process and waits until it is ready.

    Raises:
        RuntimeError: it does not start.
    """
    # It is run by its path, because `-m` would import the package and with it torch, which would exceed the limits.
    command = [sys.executable, "-P", "-B", str(_WORKER)]
    # Every thread of a linear algebra library reserves address space, and none is needed.
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    child = Child(command, {**os.environ, **threads})
    try:
        child.ask(seconds=_START_SECONDS)
    except BaseException as error:
        child.stop()
        if isinstance(error, EOFError | TimeoutError):
            reason = str(error) or f"it is not ready after {_START_SECONDS:g} seconds"
            raise RuntimeError(f"the reader of .mat files does not start: {reason}") from error
        raise
    return child


def _digest(path: Path, variables: Sequence[str]) -> str:
    """The name of a file's cached result; raises ValueError for files that are not .mat or that scipy cannot read.

    A file of MATLAB 5 to 7.2 begins with 124 characters, two bytes for the version (1 as two bytes) and "MI" or "IM",
    which shows the byte order. Version 2 is HDF5.
    """
    if not path.is_file() and path.exists():
        raise ValueError(f"{path}: is not a file")
    with path.open("rb") as stream:
        head = stream.read(128)
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256")
    version = {b"IM": head[125:126], b"MI": head[124:125]}.get(head[126:128])
    if version == b"\x02" or head.startswith(b"\x89HDF"):
        raise ValueError(
            f"{path}: is a file of MATLAB 7.3 (HDF5), which is not read; save it in MATLAB with save(..., '-v7')"
        )
    if version != b"\x01":
        what = "is empty" if not head else "is not a .mat file"
        raise ValueError(f"{path}: {what}; get the file again")
    digest.update(json.dumps([FORMAT, sorted(variables)]).encode())
    return digest.hexdigest()


def _load(path: Path, folder: Path) -> MatFile | None:
    """The cached result, if it exists and is complete."""
    try:
        content = json.loads((folder / "tree.json").read_bytes())
        # Opened here, as np.load leaves a damaged file open.
        with (folder / "matrices.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            matrices = {name: arrays[name] for name in content["matrices"]}
        tree = content["tree"]
    except Exception:  # whatever is wrong with the cache, the file can be read again
        return None
    return MatFile(path, tree, matrices) if isinstance(tree, dict) else None


def _keep(folder: Path, kept: Path) -> None:
    """Moves the result into the cache atomically; without space for it everything still works, but more slowly."""
    partial: Path | None = None
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=kept.parent, suffix=".partial"))
        for name in ("tree.json", "matrices.npz"):
            shutil.copyfile(folder / name, partial / name)
        shutil.rmtree(kept, ignore_errors=True)  # an earlier result may be damaged
        os.replace(partial, kept)
    except OSError:
        pass
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
