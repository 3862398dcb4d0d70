"""What tests of the estimators share: a photo of a person, mediapipe's environment and a checkpoint."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch
from PIL import Image
from torchvision.models.detection import keypointrcnn_resnet50_fpn

PYTHON = Path(__file__).parents[1] / ".venv-pose" / "bin" / "python"  # made by `make test`


def photo() -> Image.Image:
    """Grace Hopper, 512 x 600, upright from the waist, which matplotlib carries among its samples."""
    with Image.open(str(files("matplotlib").joinpath("mpl-data/sample_data/grace_hopper.jpg"))) as image:
        return image.convert("RGB")


def save_checkpoint(file: Path) -> dict[str, torch.Tensor]:
    """A Keypoint R-CNN of seeded random weights, which takes a few places in the photo for persons, as a .pth file."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        state = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    state["roi_heads.box_predictor.cls_score.bias"] += torch.tensor([0.0, -4.75])
    torch.save(state, file)
    return state
