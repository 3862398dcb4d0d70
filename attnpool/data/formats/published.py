"""Shared by the readers of published datasets: finding files, reading lists, and checked access to MATLAB values."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from attnpool.data.dataset import Dataset

KEYPOINTS = "keypoints"
"""The folder of OpenPose JSON in a published dataset, for the authors' files and those of `attnpool pose`."""


class Malformed(Exception):
    """The error for a value that does not fit the format; the reader adds the name of the file."""


def need_folder(root: Path, layout: str) -> None:
    """Checks that `root` is a directory; `layout` says what it should hold.

    Raises:
        ValueError: `root` is not a directory.
    """
    if not root.is_dir():
        what = "is a file, not a directory" if root.exists() else "does not exist"
        raise ValueError(f"{root} {what}; give the directory with {layout}")


def find(root: Path, folders: Sequence[str], names: Sequence[str]) -> Path | None:
    """The first file that exists, of all names in the first folder, then in the next; "" is `root` itself."""
    for folder in folders:
        for name in names:
            if (path := root / folder / name).exists():
                return path
    return None


def places(folders: Sequence[str]) -> str:
    """A list of folders below a root as text for messages: "it, lists/ and splits/"."""
    words = [f"{folder}/" if folder else "it" for folder in folders]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def read_list(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file, which may be gzipped, as (line number, text), without empty lines.

    Raises:
        ValueError: the file cannot be read or is not text.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not text in UTF-8; get the file again") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{path}: cannot be read ({reason.lower()}); get the file again") from error
    # Not `splitlines`, which also splits at characters that names may contain.
    lines = [line.strip() for line in text.replace("\r\n", "\n").split("\n")]
    return [(number, line) for number, line in enumerate(lines, start=1) if line]


def need_some(datasets: Sequence[Dataset], folder: str, get: str) -> None:
    """Checks that at least one file of some datasets exists; `folder` and `get` are for the message.

    Raises:
        ValueError: none of the files exists. (Single missing files are reported when they are read: `check` lists them,
            and training and evaluation name them.)
    """
    first = datasets[0]
    if not any(dataset.file(sample).exists() for dataset in datasets for sample in dataset):
        count = sum(map(len, datasets))
        raise ValueError(f"{first.root / folder}: none of {count} files exists, such as {first.samples[0].path}; {get}")


def no_repeats(names: Iterable[str], where: str) -> None:
    """Checks that names are unique.

    Raises:
        Malformed: a name occurs twice.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise Malformed(f"{where} names {name!r} twice")
        seen.add(name)


def file_name(value: str, where: str) -> str:
    """The value, if it can be the name of a file in a folder.

    Raises:
        Malformed: it is empty, or has a slash or characters that cannot be shown.
    """
    if value in ("", ".", "..") or any(c in "/\\" or c < " " or "\x7f" <= c <= "\x9f" for c in value):
        raise Malformed(f"{where} {value!r} is not a file name")
    return value


def records(value: Any, where: str) -> list[dict[str, Any]]:
    """The elements of a struct array; none for an empty value.

    Raises:
        Malformed: the value is not a struct array.
    """
    if not value:
        return []
    # A struct without fields is read as an empty value in a list.
    if isinstance(value, list) and all(isinstance(item, dict) or item is None for item in value):
        return [item or {} for item in value]
    raise Malformed(f"{where} is not a struct")


def record(value: Any, where: str) -> dict[str, Any]:
    """The first element of a struct array; `{}` for an empty value.

    Raises:
        Malformed: the value is not a struct array.
    """
    return next(iter(records(value, where)), {})


def text(value: Any, where: str) -> str:
    """The value, if it is text.

    Raises:
        Malformed: the value is not text of a single line.
    """
    if value in (None, [], ""):
        return ""
    if isinstance(value, str):
        return value
    raise Malformed(f"{where} is not text")


def texts(value: Any, where: str) -> list[str]:
    """The texts in a cell array.

    Raises:
        Malformed: the value is not a cell array, or one of its elements is not text.
    """
    if not isinstance(value, list):
        raise Malformed(f"{where} is not a cell array of texts")
    return [text(item, f"{where}({number})") for number, item in enumerate(value, start=1)]


def number(value: Any, where: str) -> float | None:
    """A single number; `None` for an empty value and for NaN.

    Raises:
        Malformed: the value is not a number.
    """
    if value in (None, [], "", [None]):
        return None
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], int | float) and abs(value[0]) < 1e9:
        return float(value[0])
    raise Malformed(f"{where} is not a number")
