"""The worked examples of CONTRIBUTING.md: applied to a copy of the package, they do what the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r'^```(python|diff) title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
# What the page promises of the examples, besides the tests that they bring along.
PROMISES = """
import pytest

import attnpool as ap
from attnpool.cli.main import main
from attnpool.training.config import Options


def test_flags(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--temperature X attentional: what the bottom-up scores are divided by" in said
    assert "--power X gem: exponent p of the generalised mean" in said
    assert "{average,max,gem," in said


def test_recipes():
    chosen = Options.of({"activation": "softmax", "temperature": "5e-1"})
    assert chosen.model["pooling_options"] == {"activation": "softmax", "temperature": 0.5}


def test_recognizer(tmp_path):
    options = {"activation": "softmax", "temperature": 2.0}
    model = ap.Recognizer("lite0", classes=["a", "b"], weights="random", pooling_options=options)
    ap.save_run(model, tmp_path)
    assert ap.Run.load(tmp_path).model.head.temperature == 2
"""


def changed(text: str, diff: str) -> str:
    """A text with the hunks of a diff applied, each where its old lines stand, which must be one place.

    Hunks are parted by lines `@@`.
    """
    for hunk in re.split(r"^@@\n", diff, flags=re.MULTILINE)[1:]:
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] or "\n" for line in lines if line[0] in " -\n")
        new = "".join(line[1:] or "\n" for line in lines if line[0] in " +\n")
        assert text.count(old) == 1, f"{text.count(old)} places in the file have the lines of the hunk\n{hunk}"
        text = text.replace(old, new)
    return text


def test_worked_examples(tmp_path: Path) -> None:
    for name in ("attnpool", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    own = []
    blocks = BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    for kind, name, text in blocks:
        path = tmp_path / name
        if kind == "diff":
            text = changed(path.read_text(encoding="utf-8"), text)
        else:
            assert not path.exists(), f"{name} is there already"
        path.write_text(text, encoding="utf-8")
        own += [name] if name.startswith("tests/") else []
    (tmp_path / "tests" / "test_promises.py").write_text(PROMISES)
    assert len(own) == 4

    # the tests of the examples, and those of others that must find what was added
    others = ("tests/contracts/test_heads.py", "tests/cli/test_verbs.py", "tests/test_promises.py")
    chosen = (
        "temperature or between or lines or counts or test_promises or every_option_has_help or of_their_constructors "
        "or (gem and not compile and not export)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *own, *others, "-k", chosen, "-rN"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
