"""Writes a world to disk, either completely or not at all, and never over something else."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The file that identifies a world and holds its annotations; it is written last.
RECORD = "annotations.json"
Progress = Callable[[int, int], None]


def make_world(
    directory: Path, info: dict[str, Any], total: int, fill: Callable[[Path], None], progress: Progress | None
) -> None:
    """Makes a world in `directory`, which is not changed if it holds exactly this world already.

    The world is made beside the directory and moved into its place when it is complete.

    Args:
        directory: folder to write, which must be new or empty, or hold exactly this world already.
        info: identification of the world, which `annotations.json` holds as "info".
        total: total units of work, which are reported at once if the world exists already.
        fill: function that writes the world into an empty folder, including `annotations.json` with a list "images" or
            "clips" of entries with `file_name`, and optionally a list "files" of more names.
        progress: function that is called with (units done, total units).

    Raises:
        ValueError: the directory is a file, or holds something else.
        OSError: the files cannot be written; nothing is left behind.
    """
    directory = Path(directory).absolute()
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file: choose another directory")
    if directory.is_dir() and any(directory.iterdir()):
        if not holds(directory, info):
            raise ValueError(
                f"{directory} is not empty and holds something else: choose another directory or remove it"
            )
        if progress is not None:
            progress(total, total)
        return
    if directory.is_symlink():
        directory = directory.resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".partial", dir=directory.parent))
    try:
        # A directory inside, because mkdtemp's own is closed to other users and would stay so when renamed.
        world = staging / "world"
        world.mkdir()
        fill(world)
        if directory.is_dir():
            directory.rmdir()
        os.replace(world, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def holds(directory: Path, info: dict[str, Any]) -> bool:
    """Whether the directory holds exactly this world, with every file still in place."""
    try:
        known = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        entries = known["images"] if "images" in known else known["clips"]
        names = [entry["file_name"] for entry in entries] + known.get("files", [])
        return known["info"] == info and all((directory / name).is_file() for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
