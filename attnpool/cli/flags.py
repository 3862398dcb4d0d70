"""Dataclass fields as command-line flags, recipes as their defaults, folders as lists of files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from attnpool.training.config import converted, plain_type

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
    from attnpool.training import recipe

    options = recipe.read_recipe(args.recipe).options
    actions = {action.dest: action for action in args.parser._actions if action.option_strings}
    values = {}
    for name, value in options.items():
        action = actions.get(name)
        if action is None or name in ("help", "recipe", "json", "out"):
            raise ValueError(f"{args.recipe}: unknown option {name!r}; see attnpool {args.verb} --help")
        try:
            values[name] = converted(name, value, kind_of(action), action.default)
        except ValueError as error:
            raise ValueError(f"{args.recipe}: {error}") from error
    return values


def kind_of(action: argparse.Action) -> Any:
    """What a flag takes, as `options.converted` wants to know it."""
    if isinstance(action, argparse.BooleanOptionalAction | argparse._StoreTrueAction):
        return bool
    return Literal[tuple(action.choices)] if action.choices is not None else action.type or str


def add_poolings(parser: argparse.ArgumentParser) -> None:
    """The arguments that `reproduce poolings` alone has; what was not given is None."""
    add = parser.add_argument_group("poolings").add_argument
    add("--data", metavar="SOURCE", help="a dataset, such as folder:DIR (default: a playground)")
    add("--images", type=int, metavar="N", help="of the playground (default: 840)")
    add("--backbone", metavar="NAME", help="which stays frozen (default: lite0)")
    add("--epochs", type=int, metavar="N", help="of each training (default: 6)")
    add("--image-size", type=int, metavar="PX", help="side of the network's input (default: 448)")


def refuse(args: argparse.Namespace, names: Sequence[str], what: str) -> None:
    """Raises ValueError for an option that was given although it means nothing to `what`."""
    for name in names:
        if getattr(args, name) not in (None, []):
            raise ValueError(f"{what} has no --{name.replace('_', '-')}: leave it out")


def add_benchmark(parser: argparse.ArgumentParser) -> None:
    """The arguments of both benchmarks; what was not given is None."""
    add = parser.add_argument
    add("what", choices=("pooling", "training"), help="pooling: every head; training: whole steps, and cached features")
    add("--quick", action="store_true", help="small sizes, only to see that it works")
    add("--rounds", type=int, metavar="N", help="in which all take turns (default: 7; training: 5; quick: 2)")
    add("--threads", type=int, metavar="N", help="of PyTorch (default: as many as it uses)")
    add("--out", type=Path, metavar="DIR", help="folder for the figures: .json, .md and .png")
    add = parser.add_argument_group("pooling").add_argument
    add("--heads", nargs="+", metavar="NAME", help="keys of attnpool.POOLINGS, or timm (default: all)")
    add("--layouts", nargs="+", metavar="NAME", help="of NCHW, NHWC and tokens (default: all)")
    add("--device", choices=("cpu", "cuda"), help="where (default: cpu)")
    add("--compile", nargs="*", metavar="NAME", help="heads, or all of them, that are also timed compiled by inductor")
    add = parser.add_argument_group("training").add_argument
    add("--backbone", metavar="NAME", help="a timm name (default: resnet50)")
    add("--image-size", type=int, metavar="PX", help="side of the images (default: 224)")
    add("--batch-size", type=int, metavar="N", help="images a step (default: 32)")
    add("--pooling", metavar="NAME", help="a key of attnpool.POOLINGS (default: attentional)")
