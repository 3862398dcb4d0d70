"""The state of a training on disk, so that the same call goes on where it was stopped; and finished runs.

A run folder holds `model.safetensors` and `run.json` (written last: a finished run), `best.safetensors`, `log.jsonl`,
`tensorboard/`, and while training `state.json` with the tensors file that it names. State is replaced whole: new
tensors are written beside the old ones and count once `state.json` names them.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor

from attnpool.data.decoding.image import IMAGE_SUFFIXES
from attnpool.files import RUN_FILE, load_tensors, read_run, save_tensors, write_json
from attnpool.models.recognizer import Recognizer

STATE_FILE = "state.json"
BEST_FILE = "best.safetensors"
LOG_FILE = "log.jsonl"


class Interrupted(Exception):
    """A signal stopped the training after its state was saved; `signum` is the signal."""

    def __init__(self, signum: int, folder: Path) -> None:
        super().__init__(f"stopped; the same command goes on from {folder / STATE_FILE}")
        self.signum = signum


class TrainingFailed(Exception):
    """The training cannot go on, such as at a loss that is not finite."""


@dataclass
class Run:
    """A finished run: its folder, its model in eval mode, and what `run.json` says about it."""

    folder: Path
    model: Recognizer
    about: dict[str, Any] = field(repr=False)

    @classmethod
    def load(cls, folder: str | Path, *, best: bool = False) -> Run:
        """Reads a run folder.

        Args:
            folder: of the run.
            best: the weights of the epoch with the best monitored mAP in place of the last ones.

        Raises:
            ValueError: it is no run, is not finished, or of another version.
        """
        path = Path(folder)
        if not (path / RUN_FILE).exists() and (path / STATE_FILE).exists():
            raise ValueError(f"{path}: its training is not finished; run the same train command again to go on")
        about = read_run(path)
        model = Recognizer.load(path)
        if best:
            load_trained(model, path / BEST_FILE)
        return cls(path, model, about)

    @property
    def media(self) -> Literal["images", "clips"]:
        """What the run was trained on, told from the names of its training part: a clip has no image's name."""
        names = self.about["split"].get("train", ())
        return "clips" if names and Path(names[0]).suffix.lower() not in IMAGE_SUFFIXES else "images"


@dataclass
class Progress:
    """Where a training is: everything but tensors that its continuation depends on."""

    epoch: int = 0
    step: int = 0  # batches of this epoch that are done
    updates: int = 0
    loss_sum: float = 0.0  # over the images of this epoch
    images: int = 0
    best: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def trained(model: Recognizer) -> dict[str, Tensor]:
    """The tensors that a training changes: the model's state, without a frozen backbone."""
    frozen = model.backbone.frozen
    return {name: t for name, t in model.state_dict().items() if not (frozen and name.startswith("backbone."))}


def load_trained(model: Recognizer, path: Path) -> None:
    """Puts tensors of `trained` from a file into a model.

    Raises:
        ValueError: the file is missing or damaged, or is of another model.
    """
    tensors, own = load_tensors(path), trained(model)
    if tensors.keys() != own.keys() or any(tensors[name].shape != own[name].shape for name in own):
        raise ValueError(f"{path}: its tensors are not those of the model; train again into a new folder")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def save_state(folder: Path, progress: Progress, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes the state of a training, whole or not at all."""
    name = f"state-{progress.epoch}-{progress.step}.safetensors"
    save_tensors(folder / name, tensors)
    write_json(folder / STATE_FILE, {"options": dict(options), "tensors": name, "progress": vars(progress)})
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_state(folder: Path, options: Mapping[str, Any]) -> tuple[Progress, dict[str, Tensor]] | None:
    """The saved state of a training, or None if there is none.

    Raises:
        ValueError: it was started with other options, or is damaged.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        saved = json.loads(path.read_text())
        progress, name, before = Progress(**saved["progress"]), saved["tensors"], saved["options"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged; train into a new folder (--out)") from error
    require_same(folder, before, options)
    return progress, load_tensors(folder / name)


def require_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises ValueError that names the options in which a call differs from the one that started the run."""
    plain = json.loads(json.dumps(now))
    keys = (plain.keys() | before.keys()) - {"workers"}  # which changes nothing but the speed
    different = sorted(key for key in keys if plain.get(key) != before.get(key))
    if different:
        named = ", ".join(
            key if isinstance(plain.get(key), dict | list) else f"{key} was {before.get(key)}, is {plain.get(key)}"
            for key in different[:4]
        )
        raise ValueError(f"{folder}: holds a run with other options ({named}); use the same options or another --out")


def remove_state(folder: Path) -> None:
    """Removes what only an unfinished training needs."""
    (folder / STATE_FILE).unlink(missing_ok=True)
    for path in folder.glob("state-*.safetensors"):
        path.unlink()


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
    """Puts the tensors of `pack_optimizer` back."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, i, name = key.split(".", 2)
            state.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


class StopSignals:
    """Turns SIGTERM and SIGINT into a flag while a training runs, so that it stops between two steps.

    A second signal ends the process as usual. Outside of the main thread, where Python allows no handlers, nothing
    changes.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                self._previous[signum] = signal.signal(signum, self._receive)
        return self

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        self._restore()

    def _restore(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()

    def __exit__(self, *_: object) -> None:
        self._restore()
