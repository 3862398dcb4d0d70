"""Flags made of options, and what was given to them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from attnpool.cli.signatures import REQUIRED, Option

METAVARS = {int: "N", float: "X", Path: "PATH"}  # a str has its own name


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())}; see {self.prog} --help\n")


def add_flag(parser: Any, option: Option) -> None:
    """Adds an option to a parser or to a group of it; what is not given then is not in the namespace.

    Args:
        parser: `argparse`'s.
        option: a positional argument, or a flag: `image_size` becomes `--image-size`, a bool also `--no-...`.
    """
    assert option.type, f"{option.name} cannot be typed on a command line"
    assert option.help, f"{option.name} has no entry under Args"
    required = option.default is REQUIRED
    name = option.name.strip("_").replace("_", "-")  # `class_` is --class
    more: dict[str, Any] = {"help": described(option.help, option.default).replace("%", "%%")}
    if option.type is bool:
        more["action"] = argparse.BooleanOptionalAction
    elif option.choices:
        more |= {"choices": option.choices, "type": option.type}
    else:
        more |= {"type": option.type, "metavar": METAVARS.get(option.type, name.upper())}
    if option.many:
        more["nargs"] = "*" if option.default is None else "+"
    if is_positional(option):
        parser.add_argument(option.name, **more | {"metavar": name.upper()})
    else:
        parser.add_argument(f"--{name}", dest=option.name, default=argparse.SUPPRESS, required=required, **more)


def is_positional(option: Option) -> bool:
    """Whether an option is typed without its name: it is required, and not given by name alone in Python either."""
    return option.default is REQUIRED and not option.keyword


def described(text: str, default: Any) -> str:
    """A help text with the default behind it, unless the text says it by itself or the default says nothing."""
    if "(default: " in text or default in (None, (), REQUIRED):
        return text
    said = ("no", "yes")[default] if isinstance(default, bool) else default
    return f"{text} (default: {' '.join(map(str, said if isinstance(said, tuple) else (said,)))})"


def merged(owners: Mapping[str, Iterable[Option]]) -> list[Option]:
    """Options of several owners, such as the poolings, one a name; the help says whose it is where not all have it.

    Args:
        owners: name -> options. Those of one name must be of one type.
    """
    having: dict[str, dict[str, Option]] = {}
    for owner, options in owners.items():
        for option in options:
            having.setdefault(option.name, {})[owner] = option
    found = []
    for own in having.values():
        texts: dict[str, list[str]] = {}  # in the end a text -> whose it is
        for owner, option in own.items():
            texts.setdefault(described(option.help, option.default), []).append(owner)
        if len(texts) == 1 and len(own) == len(owners):
            text = next(iter(texts))
        else:
            text = "; ".join(f"{', '.join(names)}: {said}" for said, names in texts.items())
        (kind,) = {(option.type, option.choices, option.many) for option in own.values()}
        found.append(replace(next(iter(own.values())), help=text, default=None, type=kind[0]))
    return found
