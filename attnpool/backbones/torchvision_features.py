"""Networks that are a row of layers, an average pooling and a classifier, as torchvision's are: their features alone.

timm's networks have a method for their features; torchvision's have only names that differ. What they share is the
order of their children.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PREFIX = "torchvision:"
# What torchvision's published weights were trained on, 0..1.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Trunk(nn.Module):
    """The children of a network in their order, up to its average pooling or its classifier.

    Children keep their names, so a state dict of the network fits once its classifier is left out. Auxiliary
    classifiers, which play a part in training alone, are left out too; DenseNet's last ReLU, which is no child of the
    network, is added. Whether this really is how the network computes its features is for the caller to test.

    Args:
        net: the network; its children are shared, not copied.

    Attributes:
        num_features: C, channels of the features; 0 until `measure`.
        pretrained_cfg: in timm's terms, what the weights of the network go with.
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
        """Finds out `num_features` from a small image."""
        with torch.inference_mode():
            self.num_features = int(self.eval().forward_features(torch.zeros(1, 3, 96, 96)).shape[1])
        self.train()
        return self


def is_end(child: nn.Module) -> bool:
    """Whether a child of a network is its pooling or its classifier."""
    parts = [child, *(child.children() if isinstance(child, nn.Sequential) else ())]
    return any(isinstance(part, nn.Linear | nn.AdaptiveAvgPool2d) for part in parts)


def torchvision_classifier(name: str, num_classes: int = 1000) -> Any:
    """One of torchvision's networks with random weights, by its name behind "torchvision:".

    Raises:
        ValueError: torchvision has no such classifier.
    """
    import torchvision

    short = name.removeprefix(PREFIX)
    known = torchvision.models.list_models(module=torchvision.models)
    if short not in known:
        close = [other for other in known if short[:4] in other][:5] or ["resnet50", "densenet121", "efficientnet_b0"]
        raise ValueError(f"unknown network {name!r}: torchvision has {', '.join(close)} and others")
    options = {"init_weights": False} if short in ("googlenet", "inception_v3") else {}  # else they warn
    return torchvision.models.get_model(short, weights=None, num_classes=num_classes, **options)


def torchvision_trunk(name: str, in_channels: int = 3) -> Trunk:
    """The features of one of torchvision's networks, with random weights.

    Raises:
        ValueError: torchvision has no such classifier, or it has no plain row of layers.
    """
    if in_channels != 3:
        raise ValueError(f"{name}: takes images of 3 channels; for {in_channels} use a backbone of timm")
    try:
        return Trunk(torchvision_classifier(name)).measure()
    except (AssertionError, RuntimeError, NotImplementedError, TypeError, IndexError) as error:
        raise ValueError(f"{name}: is no row of layers that ends in a feature map; use a backbone of timm") from error
