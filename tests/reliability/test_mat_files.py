"""Damaged .mat files: whatever is in them, the process goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from matlab_files import try_damaged_files


def test_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNPOOL_CACHE", str(tmp_path / "cache"))
    assert 0 < try_damaged_files(tmp_path, 2000, seed=4) < 2000
