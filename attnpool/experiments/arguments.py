"""What all experiments are given, such as seeds and files of weights, and how a page says what it was made with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def require_seeds(seeds: Sequence[int]) -> None:
    """Raises ValueError unless there are one or more different seeds."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds {' '.join(map(str, seeds))}: give one or more different numbers")


def require_positive(numbers: Mapping[str, int]) -> None:
    """Raises ValueError that names the argument whose number is less than 1."""
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; give at least 1")


def weight_files(words: Sequence[str]) -> dict[str, Path]:
    """Backbone -> the file of its weights, from words such as `bn_inception=bn_inception.pth`.

    Raises:
        ValueError: the name or the file is missing in a word.
    """
    files = {}
    for word in words:
        name, _, file = word.partition("=")
        if not name or not file:
            raise ValueError(f"weights {word}: write BACKBONE=FILE, such as bn_inception=bn_inception.pth")
        files[name] = Path(file)
    return files


def command_line(verb: str, arguments: Mapping[str, tuple[Any, Any]]) -> str:
    """What to type for the same again.

    Args:
        verb: of the command line, such as "benchmark pooling".
        arguments: name -> the value and its default; an argument that has its default is left out.
    """
    words = ["attnpool", *verb.split()]
    for name, (value, default) in arguments.items():
        several = isinstance(value, Sequence) and not isinstance(value, str)
        if value == default or (several and default is not None and tuple(value) == tuple(default)):
            continue
        given = list(value) if several else [] if value is True else [value]
        words += ["--" + name.replace("_", "-"), *(str(word) for word in given)]
    return shlex.join(words)
