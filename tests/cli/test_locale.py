"""Where the locale is not UTF-8, files are what they are elsewhere: UTF-8, whoever wrote or reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def command(*words: object, **more: str) -> subprocess.CompletedProcess[bytes]:
    """A command in a process of its own, in the locale C, where text is ASCII unless a program says otherwise."""
    given = [sys.executable, "-m", "attnpool", *map(str, words)]
    return subprocess.run(given, env=os.environ | ASCII | more, capture_output=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from attnpool.playground.write_folder import write_folder

    root = tmp_path_factory.mktemp("photos") / "ds"
    write_folder(root, 28, 3, size=64)
    return root


def test_the_locale_is_what_it_is_said_to_be() -> None:
    asked = [sys.executable, "-c", "import locale; print(locale.getpreferredencoding())"]
    found = subprocess.run(asked, env=os.environ | ASCII, capture_output=True, text=True, check=True).stdout
    assert "utf" not in found.lower()


def test_a_run_with_names_beyond_ascii_is_resumed_scored_and_explained(photos: Path, tmp_path: Path) -> None:
    """A run of elsewhere, as folders with such names cannot be listed here."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text("# été\nimage-size: 64\nepochs: 2\npooling: average\n", encoding="utf-8")
    run, out = tmp_path / "run", tmp_path / "out"
    for _ in range(2):
        done = command("train", f"folder:{photos}", "--recipe", recipe, "--out", run)
        assert done.returncode == 0, done.stderr
    text = (run / "run.json").read_text(encoding="utf-8")
    first = next((photos / "val").iterdir()).name
    about = json.loads(text.replace(f'"{first}"', '"été 走る"', 1))
    del about["check"]
    (run / "run.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
    photo = next((photos / "val" / first).iterdir())
    said = command("predict", run, photo, "--top", 14)
    assert (said.returncode, b"\\xe9t\\xe9" in said.stdout) == (0, True), said
    assert command("explain", run, photo, "--out", out, "--json").returncode == 0


def test_folders_that_cannot_be_named_there_are_refused_in_a_line(photos: Path, tmp_path: Path) -> None:
    for name in ("été", "plain"):
        (tmp_path / name).mkdir()
    done = command("check", f"folder:{tmp_path}")
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"holds characters that cannot be shown; rename it" in done.stderr


def test_no_text_file_is_opened_in_the_encoding_of_the_locale(photos: Path, tmp_path: Path) -> None:
    """Python warns where a program leaves the encoding to the locale; libraries may do so."""
    for words in (
        ["check", f"folder:{photos}"],
        ["train", f"folder:{photos}", "--image-size", 64, "--epochs", 1, "--out", tmp_path / "run"],
        ["evaluate", tmp_path / "run", f"folder:{photos}", "--deletion"],
        ["convert", "lite0", "--out", tmp_path / "converted"],
    ):
        done = command(*words, PYTHONWARNDEFAULTENCODING="1", PYTHONWARNINGS="always::EncodingWarning")
        assert done.returncode == 0, done.stderr
        own = [line for line in done.stderr.split(b"\n") if b"EncodingWarning" in line and b"/attnpool/" in line]
        assert not own, own
