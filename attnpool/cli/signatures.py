"""Reads the options of functions and classes from their source, so that help needs no import of their modules.

An option is a parameter. Its type and default come from the signature, and its help is the first sentence of its entry
in the `Args:` section of the docstring.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from inspect import Parameter
from pathlib import Path
from types import EllipsisType
from typing import Any

REQUIRED = Parameter.empty
PLAIN: dict[str, type] = {kind.__name__: kind for kind in (str, int, float, bool, Path)}
Definition = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Option:
    """A parameter of a function that the command line can offer.

    Attributes:
        name: name of the parameter.
        default: its default, `REQUIRED` where there is none.
        help: its help text.
        type: type of one value; `None` where a command line cannot give such a value, for example a model.
        choices: the values of a `Literal`.
        words: words that stand beside the numbers of `type`, as in `float | Literal["auto"]`.
        many: whether it takes a sequence of values.
        keyword: whether it is keyword-only.
    """

    name: str
    default: Any
    help: str
    type: type | None
    choices: tuple[Any, ...] = ()
    words: tuple[str, ...] = ()
    many: bool = False
    keyword: bool = True


@dataclass(frozen=True)
class Source:
    """The modules below a folder; each is parsed when one of its names is looked up, and never imported."""

    root: Path

    @cache  # noqa: B019
    def names(self, module: str) -> dict[str, Any]:
        """The names at the top level of a module; those imported from modules below the folder are an `ImportFrom`."""
        path = self.root.joinpath(*module.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        found: dict[str, Any] = {}
        for node in ast.parse(file.read_bytes(), str(file)).body:
            match node:
                case ast.ImportFrom(module=str(origin), names=names) if (self.root / origin.split(".")[0]).is_dir():
                    found |= {item.asname or item.name: ast.ImportFrom(origin, [item], 0) for item in names}
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    found[name] = node.value
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                    found[name] = node
        return found

    def find(self, module: str, name: str) -> tuple[str, Any]:
        """The module that defines a name, and its definition; KeyError where that module is not below the folder."""
        node = self.names(module)[name]
        return self.find(str(node.module), node.names[0].name) if isinstance(node, ast.ImportFrom) else (module, node)

    def literal(self, module: str, name: str) -> Any:
        """The value of a module constant."""
        return self.default(*self.find(module, name))

    def options(self, module: str, name: str) -> list[Option]:
        """The parameters of a function, a dataclass or a constructor; a constructor and its help may be inherited.

        Raises:
            KeyError, ValueError: a default is neither a literal nor a constant with a literal value.
        """
        family = [*self.family(module, name)]
        texts = {key: text for _, node in reversed(family) for key, text in argument_texts(node).items()}
        where, listed = next((at, found) for at, node in family if (found := parameters(node)))
        return [
            Option(key, self.default(where, default), texts.get(key, ""), **self.kind(where, hint), keyword=keyword)
            for key, hint, default, keyword in listed
        ]

    def family(self, module: str, name: str) -> Iterator[tuple[str, Definition]]:
        """A definition and, for a class, its base classes that are defined below the folder."""
        where, node = self.find(module, name)
        yield where, node
        for base in getattr(node, "bases", ()):
            if isinstance(base, ast.Name) and base.id in self.names(where):
                yield from self.family(where, base.id)

    def default(self, module: str, node: ast.expr | None) -> Any:
        if isinstance(node, ast.Name):  # a constant of this module or of a module that it imports
            return self.default(*self.find(module, node.id))
        return REQUIRED if node is None else ast.literal_eval(node)

    def kind(self, module: str, hint: ast.expr) -> dict[str, Any]:
        """The fields of `Option` for an annotation. A union counts as str, or as its first usable type."""
        match hint:
            case ast.BinOp(op=ast.BitOr()) if {"str"} & {getattr(part, "id", "") for part in union(hint)}:
                return {"type": str}
            case ast.BinOp(op=ast.BitOr()):
                found = [self.kind(module, part) for part in union(hint)]
                first = next((one for one in found if one["type"]), {"type": None})
                words = [word for one in found if one is not first for word in one.get("choices", ())]
                return first | ({"words": tuple(words)} if first["type"] in (int, float) and words else {})
            case ast.Subscript(value=ast.Name(id="Literal"), slice=values):
                choices = ast.literal_eval(ast.Tuple(getattr(values, "elts", [values])))
                return {"type": type(choices[0]), "choices": choices}
            case (
                ast.Subscript(value=ast.Name(id="Sequence" | "Iterable" | "list"), slice=item)
                | ast.Subscript(
                    value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[item, ast.Constant(value=EllipsisType())])
                )
            ):
                return self.kind(module, item) | {"many": True}
            case ast.Name(id=name) if name in PLAIN:
                return {"type": PLAIN[name]}
            case ast.Name(id=name) if isinstance(self.names(module).get(name), ast.ImportFrom | ast.expr):
                return self.kind(*self.find(module, name))  # an alias, such as Activation
        return {"type": None}


def union(hint: ast.expr) -> list[ast.expr]:
    """The types in a union `A | B | C`."""
    return [*union(hint.left), *union(hint.right)] if isinstance(hint, ast.BinOp) else [hint]


def parameters(node: Definition) -> list[tuple[str, ast.expr, ast.expr | None, bool]]:
    """For every parameter besides `self`: its name, annotation and default, and whether it is keyword-only."""
    if isinstance(node, ast.FunctionDef):
        args, few = node.args.args, node.args.defaults
        defaults = [*[None] * (len(args) - len(few)), *few, *node.args.kw_defaults]
        pairs = zip([*args, *node.args.kwonlyargs], defaults, strict=True)
        return [
            (arg.arg, arg.annotation, default, arg in node.args.kwonlyargs) for arg, default in pairs if arg.annotation
        ]
    if own := [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]:
        return parameters(own[0])
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign)] if node.decorator_list else []
    return [(ast.unparse(item.target), item.annotation, item.value, True) for item in fields]


def argument_texts(node: Definition) -> dict[str, str]:
    """The first sentence of every entry in the `Args:` section of a docstring; names that share one share its text."""
    section = re.search(r"^Args:\n((?: .*\n?|\n)+)", ast.get_docstring(node) or "", re.MULTILINE)
    entries = re.split(r"^    (?=\S)", section[1], flags=re.MULTILINE)[1:] if section else []
    split = [" ".join(entry.split()).partition(": ") for entry in entries]
    first = {names: re.split(r"\.(?= |$)", text.replace("`", ""), maxsplit=1)[0] for names, _, text in split}
    return {name: text for names, text in first.items() for name in names.split(", ")}
