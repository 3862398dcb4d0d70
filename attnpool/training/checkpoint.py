"""The checkpoint of a training: what is saved so that the same call continues where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnpool.data import Dataset
from attnpool.files import digest_of
from attnpool.models import state

SAVE_SECONDS = 60  # seconds between two checkpoints: the most that a killed process loses


@dataclass
class Progress:
    """How far a training has come: everything besides tensors that its continuation depends on."""

    epoch: int = 0
    step: int = 0  # number of batches of this epoch that are done
    updates: int = 0
    loss_sum: float = 0.0  # sum over the images of this epoch
    images: int = 0
    best: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    processes: int = 1


def save_state(folder: Path, progress: Progress, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes the state of a training atomically."""
    content = {"options": dict(options), "progress": vars(progress)}
    state.save_state(folder, content, tensors, at=(progress.epoch, progress.step))


def load_state(folder: Path, options: Mapping[str, Any]) -> tuple[Progress, dict[str, Tensor]] | None:
    """The saved state of a training, or None if there is none.

    Raises:
        ValueError: the training was started with other options, or the state is damaged.
    """
    content = state.read_state(folder)
    if content is None:
        return None
    try:
        progress, before = Progress(**content["progress"]), content["options"]
    except (KeyError, TypeError) as error:
        raise state.damaged_state(folder) from error
    require_same(folder, before, options)
    return progress, state.read_state_tensors(folder, content)


def split_of(train: Dataset, val: Dataset, seed: int) -> dict[str, Any]:
    """The split of a training as it is saved with the run."""
    split: dict[str, Any] = {
        "media": train.media,
        "split_seed": seed,
        "train": [sample.path for sample in train],
        "val": [sample.path for sample in val],
    }
    if train.left_out:
        split["left_out"] = list(train.left_out)
    if any(groups := [sample.group for sample in train]):
        split["groups"] = digest_of(json.dumps(groups).encode())  # on which folds and held-out parts depend
    return split


def require_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises ValueError that names the options in which a call differs from the one that started the run."""
    plain = json.loads(json.dumps(now))
    keys = (plain.keys() | before.keys()) - {"workers"}  # workers change only the speed
    different = sorted(key for key in keys if plain.get(key) != before.get(key))
    if different:
        named = ", ".join(
            key if isinstance(plain.get(key), dict | list) else f"{key} was {before.get(key)}, is {plain.get(key)}"
            for key in different[:4]
        )
        raise ValueError(
            f"{folder}: holds a run with other options ({named}); use the same options, or another folder as out"
        )


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of an optimizer's state under flat names."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{i}.{name}": torch.as_tensor(value)
        for i, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restores the optimizer's state from the tensors of `pack_optimizer`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, i, name = key.split(".", 2)
            state.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def pack_scaler(scaler: torch.amp.GradScaler | None) -> dict[str, Tensor]:
    """The scale of the losses under float16, and for how many steps it was kept; nothing without a scaler."""
    values = scaler.state_dict() if scaler else {}
    return {f"scaler.{name}": torch.tensor(float(values[name])) for name in ("scale", "_growth_tracker") if values}


def unpack_scaler(scaler: torch.amp.GradScaler | None, tensors: Mapping[str, Tensor]) -> None:
    """Restores the scaler's state from the tensors of `pack_scaler`."""
    if scaler and "scaler.scale" in tensors:
        scale, kept = float(tensors["scaler.scale"]), int(tensors["scaler._growth_tracker"])
        scaler.load_state_dict(scaler.state_dict() | {"scale": scale, "_growth_tracker": kept})


class ChoiceFile:
    """What a training chooses by cross-validation before its first step, and how far the choosing has come.

    Args:
        folder: the run folder.
        options: the options that an earlier call must have had.

    Attributes:
        path: the file.
        choice: what was chosen, or None.
        notes: what stages of the choosing that are over have found.

    Raises:
        ValueError: an earlier call had other options, or its file is damaged.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        self.folder, self.options = folder, dict(options)
        self.path = folder / state.CHOICE_FILE
        found = state.read_choice(folder)
        if found is None:
            found = {"options": self.options, "choice": None, "notes": {}, "stage": None, "step": 0, "tensors": None}
            state.save_choice(folder, found)  # the folder is this training's from here on
        try:
            before, self.choice, self.notes = found["options"], found["choice"], dict(found["notes"])
            self.stage, self.step, self.tensors = found["stage"], int(found["step"]), found["tensors"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path}: damaged; train into a new folder") from error
        require_same(folder, before, options)

    def save_choice(self, choice: Mapping[str, Any]) -> None:
        """Writes what was chosen."""
        self._save(dict(choice))

    def save_note(self, stage: str, found: Any) -> None:
        """Writes what a stage has found, JSON values."""
        self.notes[stage] = found
        self._save(None)

    def save_state(self, stage: str, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Writes the tensors after a number of steps of a stage."""
        self._save(None, stage, step, tensors)

    def read_state(self, stage: str) -> tuple[int, dict[str, Tensor]] | None:
        """The number of steps of a stage that are done, and their tensors; None before its first checkpoint."""
        if self.tensors is None or self.stage != stage:
            return None
        return self.step, state.read_state_tensors(self.folder, {"tensors": self.tensors})

    def _save(
        self,
        choice: dict[str, Any] | None,
        stage: str | None = None,
        step: int = 0,
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        content = {"options": self.options, "choice": choice, "notes": self.notes, "stage": stage, "step": step}
        state.save_choice(self.folder, content, tensors, step)


def seed_step(seed: int, batch: int) -> None:
    """Seeds torch's generator, of which dropout draws, by the number of the batch: a resumed run drops the same."""
    drawn = np.random.SeedSequence([seed, batch, 0]).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(drawn >> 1))
