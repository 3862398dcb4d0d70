"""How far a converted checkpoint's numbers are from TensorFlow's, for every variant and several sizes of images.

    make .venv-tf/.ready && python benchmarks/tf_checkpoints.py

TensorFlow runs the released network with seeded weights (`tests/tf_network.py`), writes its checkpoints and its
results; `convert_tf` makes runs of the checkpoints. Prints the largest difference of each output, relative to the
largest number of that output.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

import attnpool as ap

ROOT = Path(__file__).parents[1]
TENSORFLOW = ROOT / ".venv-tf" / "bin" / "python"
VARIANTS = ("baseline", "linear", "pose", "per-class")
CLASSES = [f"action {i}" for i in range(7)]


def differences(model: ap.Recognizer, variant: str, expected: np.lib.npyio.NpzFile) -> dict[str, float]:
    """Output -> the largest difference from TensorFlow's, relative to its largest number."""
    pixels = torch.from_numpy(expected["pixels"]).permute(2, 0, 1)[None]
    with torch.inference_mode():
        out = model(model.normalize(pixels), maps=True)
    found = {"logits": out.logits}
    if variant != "baseline":
        found["bottom_up"] = out.bottom_up[:, 0].permute(0, 2, 3, 1)
    if variant == "pose":
        found["pose"] = out.pose.permute(0, 2, 3, 1)
    relative = {}
    for what, tensor in found.items():
        theirs = expected[f"{variant}/{what}"]
        relative[what] = float(np.abs(tensor.numpy() - theirs).max() / np.abs(theirs).max())
    return relative


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["450x450", "224x224", "301x450", "97x130"], metavar="HxW")
    sizes = parser.parse_args().sizes
    with tempfile.TemporaryDirectory() as folder:
        script = ROOT / "tests" / "tf_network.py"
        subprocess.run([TENSORFLOW, script, folder, str(len(CLASSES)), *sizes], check=True)
        print(f"| variant | {' | '.join(sizes)} |\n|---|{'---|' * len(sizes)}")
        for variant in VARIANTS:
            prefix, out = Path(folder, variant, "model.ckpt-12000"), Path(folder, "runs", variant)
            made = ap.convert_tf(prefix, variant=variant, classes=CLASSES, out=out, python=TENSORFLOW)
            cells = []
            for size in sizes:
                found = differences(made.run.model, variant, np.load(Path(folder, f"{size}.npz")))
                cells.append(", ".join(f"{what} {value:.1e}" for what, value in found.items()))
            print(f"| {variant} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
