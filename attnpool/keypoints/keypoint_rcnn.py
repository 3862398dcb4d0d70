"""The pose estimator Keypoint R-CNN of torchvision."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from attnpool.files import read_tensors
from attnpool.keypoints.detections import Estimate, check_score, estimate, first_line
from attnpool.keypoints.joints import COCO_JOINTS


class KeypointRCNN:
    """torchvision's `keypointrcnn_resnet50_fpn`: it finds everybody in an image, with COCO's 17 joints and a box.

    A person is kept if the score of the box is at least `min_score`, and a joint if the sigmoid of the peak of its
    heatmap is. (The published network gives the peak as a logit.)

    Args:
        weights: "pretrained", which torchvision downloads once (COCO; 226 MB), or a .pth or .safetensors file with a
            state dict of the network, such as the published `keypointrcnn_resnet50_fpn_coco-fc266e95.pth`.
        min_score: least score of a person and of a joint, from 0 to 1.
        short_side: short side in pixels to which images are resized; half of it takes a quarter of the time.
        device: device on which the network runs; by default a GPU if there is one.

    Raises:
        ValueError: a number is out of range, the file does not hold such a network, or the download failed.
    """

    def __init__(
        self,
        weights: str | Path = "pretrained",
        *,
        min_score: float = 0.5,
        short_side: int = 800,
        device: str | None = None,
    ) -> None:
        import torch
        from torchvision.models.detection import keypointrcnn_resnet50_fpn

        check_score(min_score)
        if short_side < 32:
            raise ValueError(f"short_side is {short_side}; give at least 32 pixels, such as 800")
        self.min_score = min_score
        # The weights are random only until all of them are loaded below.
        with torch.random.fork_rng([]):  # keeps torch's generator as it was
            self.model = keypointrcnn_resnet50_fpn(
                weights=None,
                weights_backbone=None,
                min_size=short_side,
                max_size=round(short_side * 1333 / 800),
                box_score_thresh=min_score,
            )
        file = _published() if str(weights) == "pretrained" else Path(weights)
        state = read_tensors(file)
        try:
            self.model.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{file}: not the weights of keypointrcnn_resnet50_fpn ({first_line(error)}); give another file"
            ) from error
        self.name = f"keypointrcnn_resnet50_fpn {file.name}, torchvision {version('torchvision')}"
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model.to(self.device).eval()

    def __call__(self, image: Image.Image) -> list[Estimate]:
        import torch

        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float().div(255)
        with torch.inference_mode():
            (found,) = self.model([pixels.to(self.device)])
        points = torch.cat([found["keypoints"][..., :2], found["keypoints_scores"].sigmoid().unsqueeze(-1)], dim=-1)
        # (people, 17, 3): x, y and score
        return [
            person
            for joints, score, box in zip(
                points.tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True
            )
            if (person := estimate(COCO_JOINTS, joints, image.size, self.min_score, score, tuple(box)))
        ]

    def close(self) -> None:
        pass


def _published() -> Path:
    """The file of the published weights in the cache of torch's hub; downloads it if it is missing."""
    import torch
    from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights

    url = KeypointRCNN_ResNet50_FPN_Weights.DEFAULT.url
    name = url.rpartition("/")[2]
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=name.removesuffix(".pth").rpartition("-")[2])
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"the weights of Keypoint R-CNN cannot be downloaded ({first_line(error)}); get {name} "
                "from torchvision's model hub elsewhere and give that file as weights"
            ) from error
    return file
