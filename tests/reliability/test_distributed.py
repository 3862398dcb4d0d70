"""Two processes of `torchrun` train what one process trains with twice the batch.

.venv/bin/python -m pytest tests/reliability/test_distributed.py -o addopts=
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

SCRIPT = """
import sys
import attnpool as ap
source, out, batch = sys.argv[1:]
train, val = ap.read(source)
view = {"image_size": 96, "short_side": None, "max_width": None}
model = ap.Recognizer("lite0", classes=train.classes, preprocessing=view)
options = ap.TrainOptions(epochs=3, batch_size=int(batch))
ap.train(model, train, val, out=out, options=options, optimizer=ap.OptimizerOptions(lr=1e-3, optimizer="sgd"))
"""


def test_two_processes(world: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, start, batch in (("one", [sys.executable], 14), ("two", launch, 7)):
        command = [*start, str(script), f"folder:{world}", str(tmp_path / name), str(batch)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert (one["head.a"] - two["head.a"]).abs().max() < 1e-5
    ends = [json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[-1]) for name in ("one", "two")]
    assert ends[0]["mAP"] == pytest.approx(ends[1]["mAP"], abs=1e-6)
    assert ends[0]["loss"] == pytest.approx(ends[1]["loss"], rel=0.05)
