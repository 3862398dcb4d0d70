"""Dataclass fields as command-line flags, recipes as their defaults, folders as lists of files."""

from __future__ import annotations

import argparse
import math
import types
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def add_fields(parser: Any, options: type) -> None:
    """Adds a flag for every field of a dataclass: `image_size` becomes `--image-size`, `use_cache` `--no-use-cache`.

    The help text is the field's `metadata["help"]`; values are checked by the dataclass itself, see `collect`.
    """
    hints = get_type_hints(options)
    for field in fields(options):
        kind, flag, text = (
            plain_type(hints[field.name]),
            "--" + field.name.replace("_", "-"),
            field.metadata["help"].replace("%", "%%"),
        )
        if "default" not in text and field.default is not None and kind is not bool:  # flags say it by themselves
            text += " (default: %(default)s)"
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=field.default, help=text)
        elif get_origin(kind) is Literal:
            parser.add_argument(flag, choices=get_args(kind), default=field.default, help=text)
        else:
            parser.add_argument(flag, type=kind, default=field.default, metavar="N" if kind is int else "X", help=text)


def plain_type(hint: Any) -> Any:
    """`int | None` -> `int`."""
    if get_origin(hint) in (types.UnionType, Union):  # of a Literal and None, Python makes the older kind
        (hint,) = (argument for argument in get_args(hint) if argument is not types.NoneType)
    return hint


def collect(options: type[T], args: argparse.Namespace) -> T:
    """A dataclass from parsed arguments.

    Raises:
        ValueError: from the dataclass's own checks.
    """
    return options(**{field.name: getattr(args, field.name) for field in fields(options)})  # type: ignore[arg-type]


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Adds `--recipe`, whose values become the defaults of the other flags of this parser, see `read_recipe`."""
    parser.add_argument("--recipe", type=Path, metavar="YAML", help="file of options; flags given beside it win")
    parser.set_defaults(parser=parser)


def read_recipe(args: argparse.Namespace) -> dict[str, Any]:
    """The options of the recipe that the arguments name, as their flags would have given them.

    Raises:
        ValueError: the file cannot be read, or has an unknown option or a value of the wrong kind.
    """
    from attnpool import recipe

    options = recipe.read_recipe(args.recipe).options
    actions = {action.dest: action for action in args.parser._actions if action.option_strings}
    values = {}
    for name, value in options.items():
        action = actions.get(name)
        if action is None or name in ("help", "recipe", "json", "out"):
            raise ValueError(f"{args.recipe}: unknown option {name!r}; see attnpool {args.verb} --help")
        values[name] = checked(args.recipe, name, action, value)
    return values


def checked(recipe: Path, name: str, action: argparse.Action, value: Any) -> Any:
    """A value of a recipe as the flag would have given it."""
    if value is None:
        if action.default is not None:
            raise ValueError(f"{recipe}: {name} has no value; write one, such as {action.default}, or leave it out")
        return None
    if isinstance(action, argparse.BooleanOptionalAction | argparse._StoreTrueAction):
        if not isinstance(value, bool):
            raise ValueError(f"{recipe}: {name} is {value!r}; write true or false")
        return value
    try:
        converted = action.type(str(value)) if callable(action.type) else str(value)
    except ValueError as error:
        raise ValueError(
            f"{recipe}: {name} is {value!r}; it takes {getattr(action.type, '__name__', 'another value')}"
        ) from error
    if action.choices is not None and converted not in action.choices:
        raise ValueError(f"{recipe}: {name} is {value!r}; use one of {', '.join(map(str, action.choices))}")
    return converted


def weighted_run(word: str) -> tuple[Path, float]:
    """`runs/flow=1.5` -> the folder and the weight, which is 1 if it is not given.

    Raises:
        ValueError: the weight is no positive number.
    """
    folder, equals, weight = word.rpartition("=")
    if not equals:
        return Path(word), 1.0
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"--fuse {word}: {weight!r} is no weight; write a positive number, such as {folder}=1.5")
    return Path(folder), value


def expand(files: Sequence[str]) -> list[Path]:
    """Files as they are, folders as the pictures in them.

    Raises:
        ValueError: a file does not exist, or a folder holds no picture.
    """
    from attnpool.data.media import IMAGE_SUFFIXES

    found: list[Path] = []
    for name in files:
        path = Path(name)
        if path.is_dir():
            pictures = sorted(
                child
                for child in path.iterdir()
                if child.suffix.lower() in IMAGE_SUFFIXES and not child.name.startswith(".")
            )
            if not pictures:
                raise ValueError(
                    f"{path}: no pictures in this folder; name pictures, or a folder that holds some itself"
                )
            found += pictures
        elif path.exists():
            found.append(path)
        else:
            raise ValueError(f"{path}: no such file; name a picture, or a folder of them")
    return found
