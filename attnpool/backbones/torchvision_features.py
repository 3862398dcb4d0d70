"""The features of networks that are a sequence of layers, an average pooling and a classifier, as torchvision's are.

timm's networks have a method that computes their features. In torchvision's the names of the layers differ; what they
share is the order of their children.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PREFIX = "torchvision:"
# The mean and standard deviation of pixels, on the scale 0..1, that torchvision's published weights were trained with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Trunk(nn.Module):
    """The layers of a network before its average pooling or its classifier: its children, in their order.

    Children keep their names, so the network's state dict without its classifier fits. Auxiliary classifiers, which are
    used only in training, are left out, too; the last ReLU of DenseNet, which is not a child, is added. The caller must
    test whether the network really computes its features in this way.

    Args:
        net: the network; its children are shared, not copied.

    Attributes:
        num_features: number C of channels of the features; 0 until `measure`.
        pretrained_cfg: the input of the network and the names of its layers, in timm's terms.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        children = list(net.named_children())
        names = [name for name, _ in children]
        end = next((i for i, (_, child) in enumerate(children) if is_end(child)), len(children))
        left_out = [name for name, child in children if type(child).__name__ == "InceptionAux"] + names[end:]
        for name, child in children[:end]:
            if name not in left_out:
                self.add_module(name, child)
        if type(net).__name__ == "DenseNet":
            self.add_module("last_relu", nn.ReLU())
        self.num_features = 0
        self.pretrained_cfg = {"mean": MEAN, "std": STD, "classifier": tuple(left_out), "first_conv": None}

    def forward_features(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x

    def measure(self) -> Trunk:
        """Determines `num_features` by running the network on a small image."""
        with torch.inference_mode():
            self.num_features = int(self.eval().forward_features(torch.zeros(1, 3, 96, 96)).shape[1])
        self.train()
        return self


def is_end(child: nn.Module) -> bool:
    """Whether a child of a network is its average pooling or its classifier."""
    parts = [child, *(child.children() if isinstance(child, nn.Sequential) else ())]
    return any(isinstance(part, nn.Linear | nn.AdaptiveAvgPool2d) for part in parts)


def torchvision_classifier(name: str, num_classes: int = 1000) -> Any:
    """Builds the torchvision network "torchvision:NAME" with random weights.

    Raises:
        ValueError: torchvision has no such classifier.
    """
    import torchvision

    short = name.removeprefix(PREFIX)
    known = torchvision.models.list_models(module=torchvision.models)
    if short not in known:
        close = [other for other in known if short[:4] in other][:5] or ["resnet50", "densenet121", "efficientnet_b0"]
        raise ValueError(f"unknown network {name!r}: use one of torchvision's, such as {', '.join(close)}")
    options = {"init_weights": False} if short in ("googlenet", "inception_v3") else {}  # these warn otherwise
    return torchvision.models.get_model(short, weights=None, num_classes=num_classes, **options)


def torchvision_trunk(name: str, in_channels: int = 3) -> Trunk:
    """Builds the layers before the pooling of the torchvision network "torchvision:NAME", with random weights.

    Raises:
        ValueError: torchvision has no such classifier, or its layers are not a plain sequence.
    """
    if in_channels != 3:
        raise ValueError(f"{name}: takes images of 3 channels; for {in_channels} use a backbone of timm")
    try:
        return Trunk(torchvision_classifier(name)).measure()
    except (AssertionError, RuntimeError, NotImplementedError, TypeError, IndexError) as error:
        raise ValueError(
            f"{name}: is not a sequence of layers that ends in a feature map; use a backbone of timm"
        ) from error
