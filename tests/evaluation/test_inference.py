"""Scoring draws nothing."""

from __future__ import annotations

import subprocess
import sys


def test_neither_scoring_nor_training_loads_what_draws() -> None:
    modules = "attnpool.evaluation.evaluate, attnpool.training.train"
    code = f"import sys, {modules}; print([name for name in sys.modules if name.partition('.')[0] == 'matplotlib'])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
