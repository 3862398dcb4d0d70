"""The run folder: every file in it is named, written and read here.

- `run.json`: the model, the options, the split and the results. It is written last: what has it is a finished run.
- `model.safetensors`: the model's weights.
- `best.safetensors`: the weights of the epoch with the best monitored mAP, without a frozen backbone.
- `log.jsonl` and `tensorboard/`: a line, or a point, for every epoch.
- `evaluation-SPLIT.png`: what an evaluation drew.
- `state.json` and the `state-EPOCH-STEP.safetensors` that it names: while a training is not finished. The state is
  replaced whole: new tensors are written beside the old ones and count once `state.json` names them.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from attnpool.files import read_tensors, save_tensors, write_json, write_text
from attnpool.models.recognizer import Recognizer

FORMAT = 2  # of the run folder; raised when an older version could not read it
RUN_FILE = "run.json"
WEIGHTS_FILE = "model.safetensors"
BEST_FILE = "best.safetensors"
LOG_FILE = "log.jsonl"
BOARD_FOLDER = "tensorboard"
EVALUATION_FILE = "evaluation-{}.png"  # of a split
STATE_FILE = "state.json"
STATE_TENSORS = "state-{}-{}.safetensors"  # of an epoch and a step
PACKAGES = ("attnpool", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "accelerate")


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
        if is_unfinished(path):
            raise ValueError(f"{path}: its training is not finished; run the same train command again to go on")
        about = read_run(path)
        model = load_model(path)
        if best:
            load_best(model, path)
        return cls(path, model, about)

    @property
    def media(self) -> Literal["images", "clips"]:
        """What the run was trained on; images where it was not trained here."""
        return self.about["split"].get("media", "images")


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a finished run."""
    return (folder / RUN_FILE).exists()


def is_unfinished(folder: Path) -> bool:
    """Whether a folder holds a training that can go on."""
    return (folder / STATE_FILE).exists() and not is_finished(folder)


def require_new(folder: Path) -> None:
    """Raises ValueError unless a run can be written to a folder: it is no file, and holds no run and no training."""
    if is_finished(folder) or is_unfinished(folder) or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{folder}: is there already; give a new folder as out")


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
        raise ValueError(f"{run}: not a run folder (it has no readable {RUN_FILE}); train one into it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged; train again into a new folder") from error
    if found != FORMAT:
        known = about.get("versions")
        writer = known.get("attnpool", "unknown") if isinstance(known, dict) else "unknown"
        raise ValueError(
            f"{run}: a run of format {found} (attnpool {writer}), this version reads format {FORMAT}: "
            "install that version or train again"
        )
    return about


def save_run(
    model: Recognizer,
    run: str | Path,
    *,
    recipe: Mapping[str, Any] | None = None,
    split: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a finished run. After a failure nothing is left of new files.

    Args:
        model: the recognizer.
        run: the folder, made if it is not there.
        recipe: the resolved options of the training.
        split: what was trained on and what held out: the paths of "train" and "val", "split_seed", and "media".
        results: what the training wrote down.

    Returns:
        The folder.
    """
    folder = Path(run)
    made, new = not folder.exists(), not (folder / WEIGHTS_FILE).exists()
    try:
        save_tensors(folder / WEIGHTS_FILE, model.state_dict())
        about = {
            "format": FORMAT,
            "versions": versions(),
            "model": model.describe(),
            "recipe": dict(recipe or {}),
            "split": dict(split or {}),
            "results": dict(results or {}),
        }
        write_json(folder / RUN_FILE, about)
    except BaseException:
        if new:
            (folder / WEIGHTS_FILE).unlink(missing_ok=True)
        if made and folder.exists():
            folder.rmdir()
        raise
    return folder


def load_model(run: str | Path) -> Recognizer:
    """The recognizer of a run folder, in eval mode.

    Raises:
        ValueError: it is not a run folder, is damaged, or was written by another version.
    """
    about = read_run(run)
    tensors = _own_tensors(Path(run) / WEIGHTS_FILE)
    try:
        model = Recognizer.from_description(about["model"])
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise ValueError(
            f"{run}: its {RUN_FILE} and {WEIGHTS_FILE} do not fit together ({reason}); train it again"
        ) from error
    return model.eval()


def trained_tensors(model: Recognizer) -> dict[str, Tensor]:
    """The tensors that a training changes: the model's state, without a frozen backbone."""
    frozen = model.backbone.frozen
    return {name: t for name, t in model.state_dict().items() if not (frozen and name.startswith("backbone."))}


def save_best(model: Recognizer, folder: Path) -> None:
    """Writes a model's trained tensors as those of the best epoch."""
    save_tensors(folder / BEST_FILE, trained_tensors(model))


def load_best(model: Recognizer, folder: Path) -> None:
    """Puts the best epoch's tensors into a model.

    Raises:
        ValueError: the file is missing or damaged, or is of another model.
    """
    path = folder / BEST_FILE
    tensors, own = _own_tensors(path), trained_tensors(model)
    if tensors.keys() != own.keys() or any(tensors[name].shape != own[name].shape for name in own):
        raise ValueError(f"{path}: its tensors are not those of the model; train again into a new folder")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def write_log(folder: Path, epochs: Iterable[Mapping[str, Any]]) -> None:
    """Writes what was measured after every epoch."""
    write_text(folder / LOG_FILE, "".join(json.dumps(entry) + "\n" for entry in epochs))


def open_board(folder: Path, step: int) -> Any:
    """TensorBoard's writer of a run; what an earlier call wrote from this step on is superseded."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / BOARD_FOLDER), purge_step=step)


def evaluation_file(folder: Path, split: str) -> Path:
    """Where the plot of an evaluation of a split stands, unless another place is named."""
    return folder / EVALUATION_FILE.format(split)


def save_state(folder: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor], at: tuple[int, int]) -> None:
    """Writes the state of a training, whole or not at all.

    Args:
        folder: of the run.
        content: JSON values.
        tensors: of the model and the optimizer.
        at: the epoch and the step of the state.
    """
    name = STATE_TENSORS.format(*at)
    save_tensors(folder / name, tensors)
    write_json(folder / STATE_FILE, {**content, "tensors": name})
    for old in folder.glob(STATE_TENSORS.format("*", "*")):
        if old.name != name:
            old.unlink()


def read_state(folder: Path) -> dict[str, Any] | None:
    """What `save_state` was given as content, and the name of the file of tensors; None if there is no state.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content) | {"tensors": str(content["tensors"])}
    except (ValueError, KeyError, TypeError) as error:
        raise damaged_state(folder) from error


def damaged_state(folder: Path) -> ValueError:
    """The error that a training's state is not what `save_state` writes."""
    return ValueError(f"{folder / STATE_FILE}: damaged; train into a new folder")


def read_state_tensors(folder: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state that `read_state` gave.

    Raises:
        ValueError: the file is missing or damaged.
    """
    return _own_tensors(folder / content["tensors"])


def remove_state(folder: Path) -> None:
    """Removes what only an unfinished training needs."""
    (folder / STATE_FILE).unlink(missing_ok=True)
    for path in folder.glob(STATE_TENSORS.format("*", "*")):
        path.unlink()


def versions() -> dict[str, str]:
    """Versions of what computed a run."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def _own_tensors(path: Path) -> dict[str, Tensor]:
    """A file of tensors that a training wrote; a ValueError says what to do without it."""
    try:
        return read_tensors(path)
    except ValueError as error:
        raise ValueError(f"{path}: missing or damaged ({str(error.__cause__)[:100]}); train again") from error
