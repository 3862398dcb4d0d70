"""The run folder: every file in it is named, written and read here.

- `.attnpool.json`: the mark of a folder that is ours to write to; it is written first.
- `run.json`: the model, the options, the split and the results. It is written last: a folder that has it is a finished
  run.
- `model.safetensors`: the model's weights.
- `best.safetensors`: the weights of the epoch with the best monitored mAP, without a frozen backbone.
- `log.jsonl` and `tensorboard/`: the measurements after every epoch.
- `choice.json` and the `choice-STEP.safetensors` that it may name: what a training that is not finished has chosen by
  cross-validation on its images, or how far the choosing has come. It is replaced as `state.json` is.
- `evaluation-SPLIT.json` and `evaluation-SPLIT.png`: the numbers of an evaluation and their plot, with a number behind
  SPLIT if they are of another dataset or with other options.
- `state.json` and the `state-EPOCH-STEP.safetensors` that it names: the checkpoint of a training that is not finished.
  It is replaced atomically: new tensors are written beside the old ones and are valid once `state.json` names them.
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
    read_tensors,
    require_free,
    save_tensors,
    sealed,
    write_json,
    write_text,
)
from attnpool.models.recognizer import Recognizer

FORMAT = 2  # version of the run folder's format; increased when older code cannot read new folders
RUN_FILE = "run.json"
SCHEMA = "run_schema.json"
WEIGHTS_FILE = "model.safetensors"
BEST_FILE = "best.safetensors"
LOG_FILE = "log.jsonl"
HOLDS = "a run"
BOARD_FOLDER = "tensorboard"
EVALUATION_FILE = "evaluation-{}.{}"  # by split and suffix
STATE_FILE = "state.json"
CHOICE_FILE = "choice.json"
STATE_TENSORS = "state-{}-{}.safetensors"  # by epoch and step
CHOICE_TENSORS = "choice-{}.safetensors"  # by step
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
    tensors = _own_tensors(Path(run) / WEIGHTS_FILE, about.get("files", {}).get(WEIGHTS_FILE))
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
    tensors, own = _own_tensors(path, files.get(BEST_FILE)), trained_tensors(model)
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
    return _own_tensors(folder / content["tensors"], content.get("digest"))


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


def versions() -> dict[str, str]:
    """The versions of the software that computed a run."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def _own_tensors(path: Path, digest: str | None) -> dict[str, Tensor]:
    """Reads a file of tensors that a training wrote; raises ValueError if it is missing or damaged."""
    if digest is not None and path.is_file() and digest_of(path.read_bytes()) != digest:
        raise ValueError(f"{path}: is not what was written there, it was damaged or changed; train into a new folder")
    try:
        return read_tensors(path)
    except ValueError as error:
        raise ValueError(
            f"{path}: missing or damaged ({str(error.__cause__)[:100]}); train into a new folder"
        ) from error
