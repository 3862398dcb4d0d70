"""Writing MATLAB files as MATLAB writes them, the same bytes for the same content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from attnpool.playground.raster import Array

EMPTY = np.zeros((0, 0))
# The first 116 bytes of a .mat are free text, in which scipy writes the time of day.
HEADER = b"MATLAB 5.0 MAT-file, made by attnpool playground"


def struct(entries: list[dict[str, Any]]) -> Array:
    """(1, n) struct array; all entries have the same fields."""
    made = np.zeros((1, len(entries)), [(name, object) for name in entries[0]])
    for number, entry in enumerate(entries):
        made[0, number] = tuple(entry.values())
    return made


def cells(values: list[Any]) -> Array:
    """(n, 1) cell array."""
    made = np.empty((len(values), 1), object)
    made[:, 0] = values
    return made


def save_mat(path: Path, content: dict[str, Any]) -> None:
    """Write variables to a compressed .mat of version 5."""
    from scipy.io import savemat

    savemat(path, content, do_compression=True)
    with path.open("r+b") as file:
        file.write(HEADER.ljust(116))
