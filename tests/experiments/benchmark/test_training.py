"""`attnpool benchmark training` in its small form, run for real, and what it writes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from command_line import attnpool, refused

from attnpool.experiments.benchmark import benchmark_training
from attnpool.files import MARK

PNG = b"\x89PNG\r\n\x1a\n"


def test_training(tmp_path: Path) -> None:
    words = ("benchmark", "training", "--quick", "--rounds", 1, "--threads", 1, "--pooling", "max")
    found = attnpool(*words, "--out", tmp_path, "--json").value()
    assert found | {MARK: MARK} == json.loads((tmp_path / "training.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert len(rows) == 5
    for row in rows.values():
        assert math.isclose(row["images_per_s"], 1e3 * found["sizes"]["batch"] / row["ms"])
    assert rows["plain timm + PyTorch loop"]["ratio"] == 1
    assert found["feature_shape"] == [512, 1, 1]
    assert rows["attnpool, head on cached features"]["ms"] < rows["attnpool, whole network"]["ms"]
    page = (tmp_path / "training.md").read_text()
    assert "`attnpool benchmark training --quick --rounds 1 --threads 1 --pooling max`" in page
    assert (tmp_path / "training.png").read_bytes().startswith(PNG)
    for name in rows:
        assert f"| {name} |" in page


def test_options_that_cannot_be() -> None:
    def mistake(**options: Any) -> str:
        with pytest.raises(ValueError) as caught:
            benchmark_training(**options, quick=True, progress=False)
        return str(caught.value)

    assert mistake(batch_size=0) == "batch_size is 0; give at least 1"
    assert mistake(rounds=0) == "rounds is 0; give at least 1"
    assert "unknown pooling 'maximum'" in (found := mistake(pooling="maximum"))
    assert "attentional" in found
    assert "resnet51" in mistake(backbone="resnet51")
    refused(attnpool("benchmark", "training", "--heads", "max"), "--heads")
