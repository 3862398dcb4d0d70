"""Making a world on disk: all of it or nothing, and never over something else."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The file in which every world says which one it is, and what is known exactly; written last.
RECORD = "annotations.json"
Progress = Callable[[int, int], None]


def make_world(
    directory: Path, info: dict[str, Any], total: int, fill: Callable[[Path], None], progress: Progress | None
) -> None:
    """Make a world below `directory`, or leave it as it is if it holds exactly this one.

    The world is made beside the directory and moved into its place when it is complete.

    Args:
        directory: where to; must not exist, be empty, or hold this very world.
        info: which world: what `annotations.json` will hold as "info".
        total: units of work, of which `progress` hears at once if the world is there already.
        fill: writes the world into the empty folder it is given, `annotations.json` with a list "images" or "clips"
            of entries with `file_name`, and perhaps a list "files" of more names, included.
        progress: called with (units done, units in all).

    Raises:
        ValueError: the directory is a file, or holds something else.
        OSError: the disk refused; nothing is left behind.
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
        # A directory of its own inside, as mkdtemp's is closed to other users and keeps that when renamed.
        world = staging / "world"
        world.mkdir()
        fill(world)
        if directory.is_dir():
            directory.rmdir()
        os.replace(world, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def holds(directory: Path, info: dict[str, Any]) -> bool:
    """Whether this very world has been written there already, with every file still in place."""
    try:
        known = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        entries = known["images"] if "images" in known else known["clips"]
        names = [entry["file_name"] for entry in entries] + known.get("files", [])
        return known["info"] == info and all((directory / name).is_file() for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
