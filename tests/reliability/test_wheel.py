"""What is installed from a wheel has everything: every module, every recipe, the page of the report."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import attnpool

PACKAGE = Path(attnpool.__file__).parent


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    """Building one needs hatchling, which pip gets."""
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, PACKAGE.parent]
    subprocess.run(words, check=True)
    (wheel,) = tmp_path.glob("attnpool-*.whl")
    files = {
        str(path.relative_to(PACKAGE.parent)): path.read_bytes()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if name.startswith("attnpool/")}
    assert held == files
    assert {
        f"attnpool/experiments/paper/recipes/{name}" for name in ("mpii.yaml", "table1/rank2.yaml", "table3/pose.yaml")
    } <= set(held)
    assert "attnpool/explain/report_template.html" in held
