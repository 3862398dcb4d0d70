"""The child process of `matlab.py`, which turns MATLAB files into JSON and matrices.

It is run by its path and imports nothing of this package. Every line of standard input is a request
`{"file", "out", "variables", "seconds"}`; every line of standard output is an answer, `{"ok": true}` or
`{"problem": "..."}`. Malformed files can make scipy's reader loop, allocate all memory or crash; then only this process
ends.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

MEMORY = 4 << 30  # limit of this process's address space; MPII's file takes 1.5 GB
DISK = 1 << 30  # limit of the size of a file that it writes
TREE = 256 << 20  # limit of the characters of JSON; MPII's file gives 50 million
DEPTH = 40


class _Problem(Exception):
    pass


def serve() -> None:
    """Answers requests until standard input ends."""
    _limit_memory()
    import scipy.io  # here, so that the limits apply

    warnings.simplefilter("ignore")
    print("{}", flush=True)  # ready
    for line in sys.stdin:
        request = json.loads(line)
        _limit_time(request["seconds"])
        try:
            # chars_as_strings is left on: a MATLAB string arrives as an array with one string
            content = scipy.io.loadmat(
                request["file"], variable_names=request["variables"], verify_compressed_data_integrity=True
            )
            _write({k: v for k, v in content.items() if not k.startswith("__")}, Path(request["out"]))
            answer: dict[str, Any] = {"ok": True}
        except MemoryError:
            answer = {"problem": f"needs more than {MEMORY >> 30} GB of memory"}
        except _Problem as error:
            answer = {"problem": str(error)}
        except OSError as error:
            answer = {"problem": (error.strerror or str(error)).lower()}
        # The reader raises nearly every kind of exception on malformed files.
        except Exception as error:
            answer = {"problem": f"malformed: {' '.join(str(error).split())[:200] or type(error).__name__}"}
        print(json.dumps(answer), flush=True)


def _write(content: dict[str, Any], out: Path) -> None:
    """Writes matrices of numbers to `out/matrices.npz`, and all other variables to `out/tree.json`."""
    matrices: dict[str, np.ndarray] = {}
    tree: dict[str, Any] = {}
    for name, value in content.items():
        if type(value) is np.ndarray and value.dtype.kind in "biuf":
            if value.ndim != 2:
                raise _Problem(f"{name} has {value.ndim} dimensions instead of 2")
            matrices[name] = _compact(value)
        else:
            tree[name] = _plain(value, 0)
    text = json.dumps({"tree": tree, "matrices": sorted(matrices)}, allow_nan=False)
    if len(text) > TREE:
        raise _Problem(f"holds more than {TREE >> 20} million characters of labels")
    np.savez_compressed(out / "matrices.npz", allow_pickle=False, **matrices)
    (out / "tree.json").write_text(text, encoding="utf-8")


def _plain(value: Any, depth: int) -> Any:
    """Converts a MATLAB value to JSON: structs to lists of objects, cells to lists, text to strings, numbers to lists.

    In MATLAB even a single struct or number is an array, so they are always lists, column by column. Text of several
    lines is a list of strings. NaN and infinity are null.
    """
    if depth > DEPTH:
        raise _Problem("is nested too deeply")
    if not isinstance(value, np.ndarray):
        return None  # functions, sparse matrices and objects, which no dataset needs
    flat = value.ravel(order="F")
    if value.dtype.names is not None:
        names = value.dtype.names
        return [{name: _plain(record[name], depth + 1) for name in names} for record in flat]
    if value.dtype.kind == "O":
        return [_plain(item, depth + 1) for item in flat]
    if value.dtype.kind == "U":
        lines = flat.tolist()
        return lines[0] if len(lines) == 1 else lines or ""
    if value.dtype.kind in "biu":
        return flat.tolist()
    if value.dtype.kind == "f":
        return [number if math.isfinite(number) else None for number in flat.tolist()]
    return None


def _compact(matrix: np.ndarray) -> np.ndarray:
    """The same numbers, including NaN, in a type of one or two bytes if that holds them exactly."""
    for small in (np.int8, np.float16):
        with np.errstate(all="ignore"):
            same = matrix.astype(small)
        if np.array_equal(same, matrix, equal_nan=matrix.dtype.kind == "f" and small is np.float16):
            return same
    return matrix


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows has none; the parent's time limit is then the only one
        return
    _lower(resource, resource.RLIMIT_AS, MEMORY)
    _lower(resource, resource.RLIMIT_FSIZE, DISK)
    _lower(resource, resource.RLIMIT_CORE, 0)


def _limit_time(seconds: float) -> None:
    """Limits the processor time for the next file, in case the parent process has died."""
    try:
        import resource
    except ImportError:
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource, resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime + seconds) + 2)


def _lower(resource: Any, what: int, limit: int) -> None:
    hard = resource.getrlimit(what)[1]
    soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(what, (soft, hard))


if __name__ == "__main__":
    serve()
