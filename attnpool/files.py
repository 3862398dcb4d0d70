"""Files of a run folder, each written whole or not at all: tensors, JSON and text, and the check of `run.json`.

And where the user's cache is.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

FORMAT = 1  # of the run folder; raised when an older version could not read it
WEIGHTS_FILE = "model.safetensors"
RUN_FILE = "run.json"


def cache_folder() -> Path:
    """Where what can be computed again is kept: `$ATTNPOOL_CACHE`, or attnpool in the user's cache folder."""
    if named := os.environ.get("ATTNPOOL_CACHE"):
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("attnpool", appauthor=False)


def read_run(run: str | Path) -> dict[str, Any]:
    """The `run.json` of a run folder.

    Raises:
        ValueError: there is none, it is damaged, or it is of another format.
    """
    path = Path(run) / RUN_FILE
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        found = about["format"]
    except OSError as error:
        raise ValueError(
            f"{run}: not a run folder (it has no readable {RUN_FILE}); make one with: attnpool train ... --out {run}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged; train again into a new folder") from error
    if found != FORMAT:
        writer = (
            about.get("versions", {}).get("attnpool", "unknown")
            if isinstance(about.get("versions"), dict)
            else "unknown"
        )
        raise ValueError(
            f"{run}: a run of format {found} (attnpool {writer}), this version reads format {FORMAT}: "
            "install that version or train again"
        )
    return about


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    partial = path.with_name(path.name + ".partial")
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial)
        os.replace(partial, path)
    except Exception as error:
        partial.unlink(missing_ok=True)
        if type(error).__name__ == "SafetensorError":  # how the library reports a full disk
            raise OSError(f"{path}: cannot be written ({error})") from error
        raise


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        ValueError: it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: missing or damaged ({str(error)[:100]}); train again") from error


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file, whole or not at all; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def versions() -> dict[str, str]:
    """Versions of what computed a run."""
    from importlib.metadata import version

    names = ("attnpool", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "accelerate")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
