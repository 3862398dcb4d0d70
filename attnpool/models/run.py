"""The run folder: every file of a finished run is named, written and read here.

- `.attnpool.json`: the mark of a folder that is ours to write to; it is written first.
- `run.json`: the model, the options, the split and the results. It is written last: a folder that has it is a finished
  run.
- `model.safetensors`: the model's weights.
- `best.safetensors`: the weights of the epoch with the best monitored mAP, without a frozen backbone.
- `log.jsonl` and `tensorboard/`: the measurements after every epoch.
- `evaluation-SPLIT.json` and `evaluation-SPLIT.png`: the numbers of an evaluation and their plot, with a number behind
  SPLIT if they are of another dataset or with other options.
- what a training that is not finished leaves there: see `models/state.py`.
"""

from __future__ import annotations

import json
import platform
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from torch import Tensor

from attnpool.files import (
    CHECK,
    claimed,
    digest_of,
    is_intact,
    require_free,
    save_tensors,
    sealed,
    write_json,
    write_text,
)
from attnpool.models.recognizer import Recognizer
from attnpool.models.state import CHOICE_FILE, STATE_FILE, own_tensors

FORMAT = 2  # version of the run folder's format; increased when older code cannot read new folders
RUN_FILE = "run.json"
SCHEMA = "run_schema.json"
WEIGHTS_FILE = "model.safetensors"
BEST_FILE = "best.safetensors"
LOG_FILE = "log.jsonl"
HOLDS = "a run"
BOARD_FOLDER = "tensorboard"
EVALUATION_FILE = "evaluation-{}.{}"  # by split and suffix
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
            folder: the run folder.
            best: whether to load the weights of the epoch with the best monitored mAP in place of the result's.

        Raises:
            ValueError: the folder is not a run, is not finished, or has an incompatible format.
        """
        path = Path(folder)
        if is_unfinished(path):
            raise ValueError(f"{path}: its training is not finished; run the same train command again to continue")
        about = read_run(path)
        model = load_model(path)
        if best:
            load_best(model, path)
        return cls(path, model, about)

    @property
    def media(self) -> Literal["images", "clips"]:
        """Whether the run was trained on images or clips; "images" for a converted model."""
        return self.about["split"].get("media", "images")


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a finished run."""
    return (folder / RUN_FILE).exists()


def is_unfinished(folder: Path) -> bool:
    """Whether a folder holds a training that can continue."""
    return any((folder / name).exists() for name in (STATE_FILE, CHOICE_FILE)) and not is_finished(folder)


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run or a training that can continue."""
    return is_finished(folder) or is_unfinished(folder)


def require_new(folder: Path) -> None:
    """Raises ValueError unless a new run can be written to a folder: it is empty, or is made."""
    if is_run(folder):
        raise ValueError(f"out {folder}: holds a run already; give a new folder")
    require_usable(folder)


def require_usable(folder: Path) -> None:
    """Raises ValueError unless a folder is empty, can be made, or holds a run or training of ours."""
    if (folder / WEIGHTS_FILE).exists() and not is_run(folder):
        raise ValueError(
            f"out {folder}: holds {WEIGHTS_FILE} and no {RUN_FILE} that says what it is; put that back, or give a new "
            "folder"
        )
    require_free(folder, HOLDS, known=is_run(folder))


def open_folder(folder: Path) -> AbstractContextManager[None]:
    """Makes the folder of a run, or opens that of an earlier call, for a block; see `files.claimed`.

    Raises:
        ValueError: it holds something else, or cannot be written to.
    """
    return claimed(folder, HOLDS, known=is_run(folder))


def read_run(run: str | Path) -> dict[str, Any]:
    """Reads the `run.json` of a run folder.

    Raises:
        ValueError: there is none, it is damaged, is not as run_schema.json says, or has an incompatible format.
    """
    path = Path(run) / RUN_FILE
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        found = about["format"]
    except OSError as error:
        raise ValueError(
            f"{run}: not a run folder (it has no readable {RUN_FILE}); give the folder of a finished training"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged; train again into a new folder") from error
    if found != FORMAT:
        known = about.get("versions")
        writer = known.get("attnpool", "unknown") if isinstance(known, dict) else "unknown"
        raise ValueError(
            f"{run}: is a run of format {found} (attnpool {writer}), but this version reads format {FORMAT}: "
            "install that version or train again"
        )
    if not is_intact(about):
        raise ValueError(
            f"{path}: is not what was written there, it was damaged or changed; train again into a new folder, or, if "
            f'the change was meant, remove the entry "{CHECK}" from it'
        )
    if wrong := best_match(schema().iter_errors(about)):
        said = wrong.message if len(wrong.message) <= 120 else f"{wrong.message[:80]} ... {wrong.message[-36:]}"
        raise ValueError(
            f"{path}: damaged, {wrong.json_path[2:] or 'as a whole'}: {said}; train again into a new folder"
        )
    return dict(about)


@cache
def schema() -> Draft202012Validator:
    """What `run.json` must hold, from run_schema.json."""
    return Draft202012Validator(json.loads(files("attnpool.models").joinpath(SCHEMA).read_text(encoding="utf-8")))


def save_run(
    model: Recognizer,
    run: str | Path,
    *,
    recipe: Mapping[str, Any] | None = None,
    split: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a finished run. After a failure no new files are left.

    Args:
        model: the recognizer.
        run: the folder, which must be new, empty or a run's.
        recipe: the resolved options of the training.
        split: the files that were trained on and held out: the paths of "train" and "val", "split_seed", and "media".
        results: the results of the training.

    Returns:
        The folder.
    """
    folder = Path(run)
    new = not (folder / WEIGHTS_FILE).exists()
    about = {
        "format": FORMAT,
        "versions": versions(),
        "model": model.describe(),
        "recipe": dict(recipe or {}),
        "split": dict(split or {}),
        "results": dict(results or {}),
    }
    with open_folder(folder):
        try:
            files = {WEIGHTS_FILE: save_tensors(folder / WEIGHTS_FILE, model.state_dict())}
            if (folder / BEST_FILE).exists():
                files[BEST_FILE] = digest_of((folder / BEST_FILE).read_bytes())
            write_json(folder / RUN_FILE, sealed(about | {"files": files}))
        except BaseException:
            if new:
                (folder / WEIGHTS_FILE).unlink(missing_ok=True)
            raise
    return folder


def load_model(run: str | Path) -> Recognizer:
    """Reads the recognizer of a run folder, in eval mode.

    Raises:
        ValueError: the folder is not a run, is damaged, or was written by an incompatible version.
    """
    about = read_run(run)
    tensors = own_tensors(Path(run) / WEIGHTS_FILE, about.get("files", {}).get(WEIGHTS_FILE))
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
    """The tensors that a training changes: the model's state dict without a frozen backbone."""
    frozen = model.backbone.frozen
    return {name: t for name, t in model.state_dict().items() if not (frozen and name.startswith("backbone."))}


def save_best(model: Recognizer, folder: Path) -> None:
    """Writes the trained tensors of a model as those of the best epoch."""
    save_tensors(folder / BEST_FILE, trained_tensors(model))


def load_best(model: Recognizer, folder: Path) -> None:
    """Loads the tensors of the best epoch into a model.

    Raises:
        ValueError: the file is missing or damaged, or belongs to another model.
    """
    path = folder / BEST_FILE
    files = read_run(folder).get("files", {}) if is_finished(folder) else {}
    tensors, own = own_tensors(path, files.get(BEST_FILE)), trained_tensors(model)
    if tensors.keys() != own.keys() or any(tensors[name].shape != own[name].shape for name in own):
        raise ValueError(f"{path}: its tensors are not those of the model; train again into a new folder")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def write_log(folder: Path, epochs: Iterable[Mapping[str, Any]]) -> None:
    """Writes the measurements after every epoch."""
    write_text(folder / LOG_FILE, "".join(json.dumps(entry) + "\n" for entry in epochs))


@contextmanager
def open_board(folder: Path, step: int) -> Iterator[Any]:
    """Opens the TensorBoard writer of a run; what an earlier call wrote from this step on is superseded.

    Raises:
        OSError: a write failed.
    """
    from torch.utils.tensorboard import SummaryWriter

    # It writes in a thread, whose errors are raised here, too, with the next entry.
    printed = threading.excepthook
    threading.excepthook = lambda failure: None if isinstance(failure.exc_value, OSError) else printed(failure)
    try:
        with SummaryWriter(str(folder / BOARD_FOLDER), purge_step=step) as board:
            yield board
    except OSError as error:
        if error.errno and error.filename is None:
            raise OSError(error.errno, error.strerror, str(folder / BOARD_FOLDER)) from error
        raise
    finally:
        threading.excepthook = printed


def versions() -> dict[str, str]:
    """The versions of the software that computed a run."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
