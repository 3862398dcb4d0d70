"""Released checkpoints at many sizes, each against TensorFlow, and checkpoints whose index is damaged.

Prints the largest differences: `.venv/bin/python -m pytest tests/reliability/test_tf_sizes.py -s -o addopts=`
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from test_tf_checkpoint import CLASSES, STEP, TENSORFLOW, convert, differences, features, write

import attnpool as ap
from attnpool.models.conversion.tensorflow_names import HEADS

# 33 to 64 have both parities at every one of the network's five halvings
SIZES = [f"{height}x{97 - height}" for height in range(33, 65)] + [
    "450x450",
    "224x224",
    "225x449",
    "300x451",
    "480x512",
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tensorflow")
    write(folder, SIZES)
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.timeout(900)
def test_every_size(written: Path) -> None:
    models = {}
    for variant in HEADS:
        out = written / "runs" / variant
        ap.convert_tf(written / variant / STEP, variant=variant, classes=CLASSES, out=out, python=TENSORFLOW)
        models[variant] = ap.Run.load(out).model
    largest: dict[str, dict[str, float]] = {}
    for size in SIZES:
        expected = np.load(written / f"{size}.npz")
        pooled = features(models["pose"], expected)
        for variant, model in models.items():
            with torch.inference_mode():
                for what, value in differences(variant, model.pool(pooled, maps=True), expected).items():
                    row = "33..64" if size in SIZES[:32] else size
                    cells = largest.setdefault(row, {})
                    cells[f"{variant} {what}"] = max(cells.get(f"{variant} {what}", 0.0), value)
    for row, cells in largest.items():
        print(f"\n{row:>9}", *(f"{name} {value:.1e}" for name, value in cells.items()), sep="  ")
    assert max(value for cells in largest.values() for value in cells.values()) < 1e-4


@pytest.mark.timeout(900)
def test_a_damaged_index(written: Path, tmp_path: Path) -> None:
    """Never more than a line; an index that still says the same thing may be read."""
    source = written / "baseline" / STEP
    Path(f"{tmp_path / STEP}.data-00000-of-00001").symlink_to(f"{source}.data-00000-of-00001")
    content = Path(f"{source}.index").read_bytes()
    random = np.random.default_rng(0)
    failures = 0
    for number in range(30):
        damaged = bytearray(content)
        if number % 3:
            for at in random.integers(0, len(damaged), 20):
                damaged[at] = random.integers(0, 256)
        else:
            del damaged[random.integers(0, len(damaged)) :]
        Path(f"{tmp_path / STEP}.index").write_bytes(damaged)
        outcome = convert(written, "baseline", tmp_path / "run", str(tmp_path / STEP))
        if outcome.code == 0:
            shutil.rmtree(tmp_path / "run")
            continue
        failures += 1
        assert outcome.code == 2, outcome
        assert len(outcome.messages) == 1, outcome
        assert not (tmp_path / "run").exists()
    assert failures > 20
