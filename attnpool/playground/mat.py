"""Writes MATLAB files as MATLAB does, with the same bytes for the same content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from attnpool.playground.raster import Array

EMPTY = np.zeros((0, 0))
# The first 116 bytes of a .mat file are free text, into which scipy writes the time.
HEADER = b"MATLAB 5.0 MAT-file, made by attnpool playground"


def struct(entries: list[dict[str, Any]]) -> Array:
    """A struct array (1, n); all entries have the same fields."""
    made = np.zeros((1, len(entries)), [(name, object) for name in entries[0]])
    for number, entry in enumerate(entries):
        made[0, number] = tuple(entry.values())
    return made


def cells(values: list[Any]) -> Array:
    """A cell array (n, 1)."""
    made = np.empty((len(values), 1), object)
    made[:, 0] = values
    return made


def save_mat(path: Path, content: dict[str, Any]) -> None:
    """Writes variables to a compressed .mat file of version 5."""
    from scipy.io import savemat

    savemat(path, content, do_compression=True)
    with path.open("r+b") as file:
        file.write(HEADER.ljust(116))
