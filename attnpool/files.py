"""Files written whole or not at all and never over those of the user, files of tensors, and the user's cache folder.

An output is a new file, or replaces one that carries our mark, a few words near its beginning. A folder of outputs is
new, empty, or has the mark in a file of its own.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# No space left: on the disk, in the quota, or in a file of limited size.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

MARK = "written by attnpool"
MARKED_BYTES = 4096  # the mark is within so many bytes from the beginning
MARK_FILE = ".attnpool.json"  # in a folder of outputs
# What file managers put into folders, which are empty all the same.
NOTHING = (".DS_Store", "Thumbs.db", "desktop.ini", MARK_FILE)


def cache_folder() -> Path:
    """The folder for files that can be computed again: `$ATTNPOOL_CACHE`, or attnpool in the user's cache folder."""
    if named := os.environ.get("ATTNPOOL_CACHE"):
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("attnpool", appauthor=False)


def is_full(error: OSError) -> bool:
    """Whether a write failed because there is no space left."""
    # libraries in other languages that write files, such as safetensors, do not pass on the error number
    return error.errno in FULL or any(os.strerror(number) in str(error) for number in FULL)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to; what is written there replaces `path` atomically at the end.

    After an error the temporary file is removed and `path` is unchanged. Missing folders are made. When this returns,
    the file is on the disk: after a power cut it has its old content or its new one.
    """
    make_folder(path.parent)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        # Errors of an open file lack its name.
        if isinstance(error, OSError) and error.errno and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def mark(*identity: Any) -> str:
    """The words that mark a file as ours; of an output that only the same command may replace, with what it is of."""
    return f"{MARK} [{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]}]" if identity else MARK


def is_ours(file: Path, words: str = MARK) -> bool:
    """Whether a file carries our mark, or these words of it."""
    if not file.is_file():  # reading a pipe would wait
        return False
    try:
        with file.open("rb") as content:
            return words.encode() in content.read(MARKED_BYTES)
    except OSError:
        return False


def require_ours(file: Path, option: str) -> None:
    """Raises ValueError if there is a file that is not ours where an option names an output."""
    if file.is_dir() or (os.path.lexists(file) and not is_ours(file)):
        raise ValueError(f"{option} {file}: is there already and not by attnpool; give the name of a new file")


def unused(folder: Path, name: str, words: str) -> Path:
    """A file of a name in a folder, with a number before its suffix if the name is taken.

    A file that carries these words, see `mark`, is an earlier output of the same command and is taken again.
    """
    path, count = folder / name, 1
    while os.path.lexists(path) and not is_ours(path, words):
        count += 1
        path = folder / f"{Path(name).stem}-{count}{Path(name).suffix}"
    return path


def require_folder(folder: Path) -> None:
    """Raises ValueError if there is something else than a folder where the option out names one."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise ValueError(f"out {folder}: is a file; give a new folder")


def require_free(folder: Path, holds: str, *, known: bool = False) -> bool:
    """Whether a folder has our mark already, as what it `holds`; otherwise it can be made, or is empty.

    Raises:
        ValueError: it is a file, or holds something else.
    """
    require_folder(folder)
    try:
        before = json.loads((folder / MARK_FILE).read_text(encoding="utf-8"))[MARK]
    except (OSError, ValueError, KeyError, TypeError):
        before = None
    if before == holds or (known and before is None):
        return True
    if before is not None:
        raise ValueError(f"out {folder}: holds {before}, and this would be {holds}; give a new folder")
    if folder.is_dir():
        others = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(NOTHING))
        if others:
            raise ValueError(f"out {folder}: holds files that are not by attnpool ({others[0]}); give a new folder")
    return False


def claim(folder: Path, holds: str, *, known: bool = False) -> None:
    """Makes a folder of outputs, or opens an earlier one, and marks it.

    Args:
        folder: the folder.
        holds: what it is for, such as "a run"; it stays so.
        known: whether what is in it shows that it is ours, should it have no mark.

    Raises:
        ValueError: it is a file, holds something else, or cannot be written to.
    """
    if require_free(folder, holds, known=known):
        return
    try:
        write_json(folder / MARK_FILE, {MARK: holds})
    except OSError as error:
        if is_full(error):
            raise
        if not is_ours(folder / MARK_FILE):  # another process of the same training may have been faster
            reason = error.strerror or error
            raise ValueError(f"out {folder}: cannot be written to ({reason}); give another folder") from error


@contextmanager
def claimed(folder: Path, holds: str, *, known: bool = False) -> Iterator[None]:
    """Claims a folder for a block; after an error in which nothing was written to it, no mark is left."""
    made = not folder.exists()
    claim(folder, holds, known=known)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if [entry.name for entry in folder.iterdir()] == [MARK_FILE]:
                (folder / MARK_FILE).unlink()
                if made:
                    folder.rmdir()
        raise


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, so that they are there after a power cut, too."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync(folder.parent)


def sync(path: Path) -> None:
    """Waits until a file, or the list of names in a folder, is on the disk."""
    folder = path.is_dir()
    if folder and os.name == "nt":  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if not folder or error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems sync no folders
            raise
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file atomically; missing folders are made."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8 atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


CHECK = "check"  # the key of what `sealed` adds


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON gives them back, with a checksum, so that a damaged file is not taken for a good one."""
    plain = json.loads(json.dumps({key: value for key, value in content.items() if key != CHECK}))
    return plain | {CHECK: digest_of(json.dumps(plain, sort_keys=True).encode())}


def is_intact(content: Mapping[str, Any]) -> bool:
    """Whether what was read has the checksum that `sealed` gave it, or none."""
    return CHECK not in content or sealed(content)[CHECK] == content[CHECK]


def digest_of(content: bytes) -> str:
    """A checksum of a file's content, 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Writes a safetensors file atomically; returns its checksum, see `digest_of`."""
    from safetensors.torch import save

    # Safetensors itself would write to a file of a random name, which stays behind when the process is killed.
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    with replacing(path) as partial:
        partial.write_bytes(content)
    return digest_of(content)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Holds Ctrl-C and SIGTERM back until the end of a block of calls into libraries.

    Some of these take the exception that a signal raises for one of their own, and a good file for a damaged one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for late in received:
            signal.raise_signal(late)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads the state dict in a .safetensors or PyTorch file; code in a PyTorch file is never run.

    Wrappers such as `{"state_dict": ...}` and the prefix "module." are removed from the content of a PyTorch file.

    Raises:
        ValueError: the file is missing or damaged, or holds anything besides tensors.
    """
    import torch
    from safetensors.torch import load_file

    try:
        with undisturbed():
            if path.suffix == ".safetensors":
                return load_file(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the unpickler fail in any way
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        if path.suffix != ".safetensors" and not isinstance(error, OSError):
            # torch's own message recommends to switch its protection off, or says nothing
            reason = "it is damaged or not by PyTorch, or holds more than tensors, which could run code"
        raise ValueError(
            f"{path}: cannot be read as weights ({reason.splitlines()[0][:120]}); give another file"
        ) from error
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path}: holds no state dict of tensors; give a .safetensors or .pth file of one")
    return {str(key).removeprefix("module."): value for key, value in state.items()}
