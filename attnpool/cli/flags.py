"""Turns options into the flags and the help of a command-line parser."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from attnpool.cli.signatures import REQUIRED, Option

_RECIPE = re.compile(r"\S+\.ya?ml: ")
METAVARS = {int: "N", float: "X", Path: "PATH"}  # a str is shown by its own name


class Parser(argparse.ArgumentParser):
    """A parser whose error messages are a single line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())}; see {self.prog} --help\n")


def add_flag(parser: Any, option: Option) -> None:
    """Adds an option to a parser or a group. An option that the user does not give is absent from the namespace.

    Args:
        parser: parser or argument group of `argparse`.
        option: the option. It becomes a positional argument or a flag: `image_size` becomes `--image-size`, and a bool
            also gets `--no-...`.
    """
    assert option.type, f"{option.name} cannot be typed on a command line"
    assert option.help, f"{option.name} has no entry under Args"
    required = option.default is REQUIRED
    name = flag_of(option.name)[2:]
    more: dict[str, Any] = {"help": described(option.help, option.default).replace("%", "%%")}
    if option.type is bool:
        more["action"] = argparse.BooleanOptionalAction
    elif option.choices:
        more |= {"choices": option.choices, "type": option.type}
    else:
        kind = number_or(option.words, option.type) if option.words else option.type
        more |= {"type": kind, "metavar": METAVARS.get(option.type, name.upper())}
    if option.many:
        more["nargs"] = "*" if option.default is None else "+"
    if is_positional(option):
        parser.add_argument(option.name, **more | {"metavar": name.upper()})
    else:
        parser.add_argument(f"--{name}", dest=option.name, default=argparse.SUPPRESS, required=required, **more)


def flag_of(name: str) -> str:
    """The flag of an option: `image_size` is --image-size, and `class_` is --class."""
    return "--" + name.strip("_").replace("_", "-")


def in_flags(message: str, names: Iterable[str]) -> str:
    """A message of the library with its options as they are typed: `image_size` is --image-size, `use_cache off` is
    --no-use-cache. Names of a single word are left, since they may be words of the sentence, and all names in what is
    said of a recipe, where they stand as they are.
    """
    if _RECIPE.match(message):
        return message
    for name in sorted((name for name in names if "_" in name.strip("_")), key=len, reverse=True):
        flag = flag_of(name)
        alone = rf"(?<![\w./'\"-]){re.escape(name)}(?![\w/'\"-]|\.\w)"
        message = re.sub(alone + " off", f"--no-{flag[2:]}", message)
        message = re.sub(alone + "(=True)?", flag, message)
    return message


def number_or(words: Sequence[str], kind: type) -> Callable[[str], Any]:
    """A converter of what is typed: one of `words` as it is, else a number."""

    def convert(value: str) -> Any:
        return value if value in words else kind(value)

    convert.__name__ = f"{kind.__name__} or {' or '.join(words)}"  # for argparse's message
    return convert


def is_positional(option: Option) -> bool:
    """Whether an option is a positional argument: it is required, and not keyword-only in Python."""
    return option.default is REQUIRED and not option.keyword


def described(text: str, default: Any) -> str:
    """Appends the default to a help text, unless the text contains it already or the default means "nothing"."""
    if "(default: " in text or default in (None, (), REQUIRED):
        return text
    said = ("no", "yes")[default] if isinstance(default, bool) else default
    return f"{text} (default: {' '.join(map(str, said if isinstance(said, tuple) else (said,)))})"


def merged(owners: Mapping[str, Iterable[Option]]) -> list[Option]:
    """Merges options of the same name from several owners, such as the poolings.

    Where not all owners have an option, its help names those that do.

    Args:
        owners: name of an owner -> its options. Options of the same name must have the same type.
    """
    having: dict[str, dict[str, Option]] = {}
    for owner, options in owners.items():
        for option in options:
            having.setdefault(option.name, {})[owner] = option
    found = []
    for own in having.values():
        texts: dict[str, list[str]] = {}  # help text -> its owners
        for owner, option in own.items():
            texts.setdefault(described(option.help, option.default), []).append(owner)
        if len(texts) == 1 and len(own) == len(owners):
            text = next(iter(texts))
        else:
            text = "; ".join(f"{', '.join(names)}: {said}" for said, names in texts.items())
        kinds = {(option.type, option.choices, option.many) for option in own.values()}
        assert len(kinds) == 1, f"{next(iter(own.values())).name} has several types, and a flag has one"
        none = all(option.default is None for option in own.values())
        found.append(replace(next(iter(own.values())), help=text, default=None if none else ()))
    return found
