"""The rules of the house: who may import whom, how long a file may be, and that importing does nothing else."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import attnpool
from attnpool.data import READERS

ROOT = Path(attnpool.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


def module_of(path: Path) -> str:
    """`attnpool/data/dataset.py` -> `data.index`; a package is its own `__init__`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def imports(path: Path) -> set[str]:
    """Every module that a file imports anywhere, written out in full: `torch.nn`, `attnpool.data.dataset`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full"
            assert node.module is not None
            # `from attnpool import data` imports a part, `from attnpool.data import read` a name
            found |= {f"attnpool.{alias.name}" for alias in node.names} if node.module == "attnpool" else {node.module}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "pooling").glob("*.py")), ids=module_of)
def test_pooling_imports_torch_alone(path: Path) -> None:
    for name in imports(path):
        first = name.split(".")[0]
        assert first == "torch" or first in sys.stdlib_module_names or name.startswith("attnpool.pooling"), name


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_are_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 300, f"{path.relative_to(ROOT)} has {lines} lines: split it"


def test_no_module_is_a_drawer() -> None:
    assert not {path.stem for path in FILES} & {"utils", "util", "helpers", "misc", "common"}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_options_are_written_out(path: Path) -> None:
    """No `**kwargs` in a public signature: an option that does not exist must be an error, not ignored."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in [*tree.body, *(inner for outer in classes for inner in outer.body)]:
        if isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__init__"):
            assert node.args.kwarg is None, f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_modules_say_what_they_are(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path.relative_to(ROOT)} has no docstring"


@pytest.mark.parametrize("name", sorted(getattr(attnpool, "__all__", [])))
def test_public_names_are_documented(name: str) -> None:
    value = getattr(attnpool, name)
    if isinstance(value, type) or callable(value):
        assert value.__doc__, f"attnpool.{name} has no docstring"
        assert not value.__doc__.startswith(f"{name}("), (
            f"attnpool.{name} has only the docstring that dataclass gave it"
        )


@pytest.mark.parametrize("path", [path for path in FILES if ">>>" in path.read_text(encoding="utf-8")], ids=module_of)
def test_examples_in_docstrings(path: Path) -> None:
    module = importlib.import_module(f"attnpool.{module_of(path)}".removesuffix(".__init__"))
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed


def test_only_the_readers_name_a_format() -> None:
    """What differs between formats is a field of their entry in READERS; the tables are about benchmarks by name."""
    allowed = ("data/formats/", "playground/", "experiments/paper/", "cli/")
    names = [name for name in READERS if name != "folder"]  # "folder:DIR" is what users are told to write
    words = {*names, *(f"{name}:" for name in names)}
    found = []
    for path in FILES:
        place = path.relative_to(ROOT).as_posix()
        if not place.startswith(allowed):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and node.value in words:
                    found.append(f"{place}:{node.lineno}: {node.value!r}")
    assert found == []


IMPORT = """
import json, os, random, sys
import numpy, torch
seen = []
def hook(event, args):
    writes = event == "open" and (any(m in str(args[1]) for m in "wax+") or (args[2] or 0) & (os.O_WRONLY | os.O_RDWR))
    if writes or event in ("os.mkdir", "os.remove", "os.rename") or event.startswith(("socket.", "subprocess.")):
        seen.append([event, str(args[:2])])
def state():
    settings = dict(os.environ), torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    return torch.get_rng_state().tolist(), random.getstate(), str(numpy.random.get_state()), settings
before = state()
sys.addaudithook(hook)
STATEMENTS
print(json.dumps({
    "seen": seen,
    "same": [a == b for a, b in zip(before, state())],
    "cuda": torch.cuda.is_initialized(),
    "loaded": sorted(name for name in sys.modules if "." not in name),
}))
"""


def state_after(statements: str, folder: Path) -> dict[str, Any]:
    """Imports in a fresh process, and what changed; seeds, settings, CUDA and the current folder never may."""
    command = [sys.executable, "-B", "-W", "error", "-c", IMPORT.replace("STATEMENTS", statements)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert all(found["same"])
    assert not found["cuda"]
    assert list(folder.iterdir()) == []
    return found


def test_importing_does_nothing_else(tmp_path: Path) -> None:
    found = state_after("import attnpool", tmp_path)
    assert found["seen"] == []
    assert not {"timm", "matplotlib", "tensorboard", "sklearn", "scipy", "jsonargparse"} & set(found["loaded"])


def test_first_use_of_the_public_names_does_nothing_else(tmp_path: Path) -> None:
    """(Folders that torch and matplotlib make for themselves are theirs.)"""
    found = state_after("import attnpool\nfor name in attnpool.__all__: getattr(attnpool, name)", tmp_path)
    assert [event for event in found["seen"] if event[0].startswith(("socket.", "subprocess."))] == []
    assert "timm" not in found["loaded"]
