"""What a training that is not finished leaves in its run folder: its checkpoint, and what it has chosen before.

- `state.json` and the `state-EPOCH-STEP.safetensors` that it names: the checkpoint of a training that is not finished.
  It is replaced atomically: new tensors are written beside the old ones and are valid once `state.json` names them.
- `choice.json` and the `choice-STEP.safetensors` that it may name: what a training that is not finished has chosen by
  cross-validation on its images, or how far the choosing has come. It is replaced as `state.json` is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from attnpool.files import digest_of, is_intact, read_tensors, save_tensors, sealed, write_json

STATE_FILE = "state.json"
CHOICE_FILE = "choice.json"
STATE_TENSORS = "state-{}-{}.safetensors"  # by epoch and step
CHOICE_TENSORS = "choice-{}.safetensors"  # by step


def save_state(folder: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor], at: tuple[int, int]) -> None:
    """Writes the checkpoint of a training atomically.

    Args:
        folder: the run folder.
        content: JSON values.
        tensors: tensors of the model and the optimizer.
        at: epoch and step of the checkpoint.
    """
    name = STATE_TENSORS.format(*at)
    digest = save_tensors(folder / name, tensors)
    write_json(folder / STATE_FILE, sealed({**content, "tensors": name, "digest": digest}))
    remove_all_but(folder, STATE_TENSORS.format("*", "*"), name)


def remove_all_but(folder: Path, pattern: str, name: str | None) -> None:
    """Removes the tensors of checkpoints that were replaced."""
    for old in folder.glob(pattern):
        if old.name != name:
            old.unlink()


def read_state(folder: Path) -> dict[str, Any] | None:
    """Reads the `content` that `save_state` wrote, with the name of the file of tensors; None if there is none.

    Raises:
        ValueError: the checkpoint is damaged.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = dict(content) | {"tensors": str(content["tensors"])}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged_state(folder) from error
    if not is_intact(found):
        raise damaged_state(folder)
    return found


def damaged_state(folder: Path) -> ValueError:
    """The error for a checkpoint whose content is not what `save_state` writes."""
    return ValueError(f"{folder / STATE_FILE}: damaged; train into a new folder")


def read_state_tensors(folder: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Reads the tensors of a checkpoint whose content `read_state` or `read_choice` returned.

    Raises:
        ValueError: the file is missing or damaged.
    """
    return own_tensors(folder / content["tensors"], content.get("digest"))


def save_choice(
    folder: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None, step: int = 0
) -> None:
    """Writes what a training has chosen before its first step; while it is choosing, the tensors of a checkpoint."""
    name = None if tensors is None else CHOICE_TENSORS.format(step)
    digest = None if tensors is None else save_tensors(folder / CHOICE_TENSORS.format(step), tensors)
    write_json(folder / CHOICE_FILE, sealed({**content, "tensors": name, "digest": digest}))
    remove_all_but(folder, CHOICE_TENSORS.format("*"), name)


def read_choice(folder: Path) -> dict[str, Any] | None:
    """Reads the `content` that `save_choice` wrote; None if there is none.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / CHOICE_FILE
    if not path.exists():
        return None
    damaged = ValueError(f"{path}: damaged; train into a new folder")
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged from error
    if not is_intact(found):
        raise damaged
    return found


def remove_state(folder: Path) -> None:
    """Removes the checkpoint, which only an unfinished training needs."""
    (folder / STATE_FILE).unlink(missing_ok=True)
    (folder / CHOICE_FILE).unlink(missing_ok=True)
    for pattern in (STATE_TENSORS.format("*", "*"), CHOICE_TENSORS.format("*")):
        remove_all_but(folder, pattern, None)


def own_tensors(path: Path, digest: str | None) -> dict[str, Tensor]:
    """Reads a file of tensors that a training wrote; raises ValueError if it is missing or damaged."""
    if digest is not None and path.is_file() and digest_of(path.read_bytes()) != digest:
        raise ValueError(f"{path}: is not what was written there, it was damaged or changed; train into a new folder")
    try:
        return read_tensors(path)
    except ValueError as error:
        raise ValueError(
            f"{path}: missing or damaged ({str(error.__cause__)[:100]}); train into a new folder"
        ) from error
