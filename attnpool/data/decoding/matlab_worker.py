"""The child process of `matlab.py`: MATLAB files in, JSON and matrices out. Run by its path; imports none of ours.

One request a line on standard input, `{"file", "out", "variables", "seconds"}`; one answer a line on standard output,
`{"ok": true}` or `{"problem": "..."}`. scipy's reader is trusted with nothing: malformed files make it loop, ask for
all memory or crash, and then it is this process that ends.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

MEMORY = 4 << 30  # address space of this process; MPII's file takes 1.5 GB
DISK = 1 << 30  # of one file that it writes
TREE = 256 << 20  # characters of JSON; MPII's file gives 50 million
DEPTH = 40


class _Problem(Exception):
    pass


def serve() -> None:
    """Answer requests until standard input ends."""
    _limit_memory()
    import scipy.io  # within the limits, too

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
    """`out/matrices.npz` with the variables that are matrices of numbers, and `out/tree.json` with all others."""
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
    """A MATLAB value as JSON: structs are lists of objects, cells lists, text strings, numbers lists of numbers.

    All are arrays in MATLAB, a struct or number that stands alone, too, so they always come as lists, column by
    column; text of several lines is a list of strings. NaN and infinity are null.
    """
    if depth > DEPTH:
        raise _Problem("is nested too deeply")
    if not isinstance(value, np.ndarray):
        return None  # functions, sparse matrices and objects: nothing that a dataset is read from
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
    """The same numbers, NaN included, in one or two bytes each if these can hold them exactly."""
    for small in (np.int8, np.float16):
        with np.errstate(all="ignore"):
            same = matrix.astype(small)
        if np.array_equal(same, matrix, equal_nan=matrix.dtype.kind == "f" and small is np.float16):
            return same
    return matrix


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on Windows; the parent's clock is then the only limit
        return
    _lower(resource, resource.RLIMIT_AS, MEMORY)
    _lower(resource, resource.RLIMIT_FSIZE, DISK)
    _lower(resource, resource.RLIMIT_CORE, 0)


def _limit_time(seconds: float) -> None:
    """Processor time for the next file, should the parent be gone and nobody look at the clock."""
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
