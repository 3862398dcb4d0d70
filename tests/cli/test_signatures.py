"""What is read from source is what Python itself sees."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from attnpool.cli.signatures import REQUIRED, Option, Source
from attnpool.cli.verbs import VERBS

EXAMPLE = '''
"""A module."""

from pathlib import Path
from pack.other import LIMIT, Kind

STEPS = (1, 2)
LOW = -0.5


class Base:
    """A base.

    Args:
        size: size of it, in `mm`. It may
            be anything.
    """

    def __init__(self, size: int, *, quick: bool = False) -> None: ...


class Derived(Base):
    """Inherits the constructor and its texts."""


@dataclass(frozen=True)
class Options:
    """Options.

    Args:
        kind, other: what kind (default: the first).
        low: how low.
    """

    kind: Kind = "a"
    other: Literal["x", "y"] | None = None
    low: float = LOW


def act(
    model: Model | str | Path,
    files: Iterable[str | Path],
    *,
    steps: Sequence[int] = STEPS,
    limit: int | None = LIMIT,
    hook: Hook = None,
) -> None:
    """Acts.

    Args:
        model: the model.
        files: files
            to act on.
        steps: how many.
    """
'''
OTHER = 'from typing import Literal\n\nLIMIT = 9\nKind = Literal["a", "b"]\n'


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "example.py").write_text(EXAMPLE)
    (tmp_path / "pack" / "other.py").write_text(OTHER)
    return Source(tmp_path)


def test_constructors_and_what_they_inherit(source: Source) -> None:
    expected = [
        Option("size", REQUIRED, "size of it, in mm", int, keyword=False),
        Option("quick", False, "", bool),
    ]
    assert source.options("pack.example", "Base") == source.options("pack.example", "Derived") == expected


def test_fields_of_a_dataclass(source: Source) -> None:
    text = "what kind (default: the first)"
    assert source.options("pack.example", "Options") == [
        Option("kind", "a", text, str, ("a", "b")),
        Option("other", None, text, str, ("x", "y")),
        Option("low", -0.5, "how low", float),
    ]


def test_functions(source: Source) -> None:
    assert source.options("pack.example", "act") == [
        Option("model", REQUIRED, "the model", str, keyword=False),
        Option("files", REQUIRED, "files to act on", str, many=True, keyword=False),
        Option("steps", (1, 2), "how many", int, many=True),
        Option("limit", 9, "", int),
        Option("hook", None, "", None),
    ]


def functions() -> list[str]:
    found = []
    for verb in VERBS.values():
        found += [verb.function] if isinstance(verb.function, str) else list(verb.function.values())
        found += [verb.then] if verb.then else []
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("path", functions())
def test_python_sees_the_same(path: str) -> None:
    """Names, order and defaults of everything that verbs call."""
    module, name = path.split(":")
    seen = inspect.signature(getattr(import_module(module), name)).parameters
    read = Source(Path(inspect.getfile(import_module("attnpool"))).parents[1]).options(module, name)
    expected: dict[str, Any] = {key: parameter.default for key, parameter in seen.items()}
    assert {option.name: option.default for option in read} == expected


def test_nothing_is_imported() -> None:
    """Help of a training knows every pooling, and neither torch nor numpy is loaded for it."""
    code = """
        import sys
        from attnpool.cli.main import main
        try:
            main(["train", "--help"])
        except SystemExit as end:
            assert end.code == 0
        loaded = {"torch", "numpy", "timm", "yaml", "PIL"} & set(sys.modules)
        assert not loaded, loaded
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--iterations" in done.stdout
