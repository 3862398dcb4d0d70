"""What tests of conversion share: networks of timm and torchvision as if they were trained."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from attnpool.backbones.torchvision_features import PREFIX, torchvision_classifier
from attnpool.models.recognizer import Recognizer

CLASSES = 7


def as_if_trained(network: Any) -> Any:
    """Batch norms with statistics, and a classifier whose scores depend on the image; in eval mode."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.running_mean.normal_(0, 0.1, generator=generator)
                layer.running_var.uniform_(0.5, 2, generator=generator)
                layer.weight.uniform_(0.5, 1.5, generator=generator)
                layer.bias.normal_(0, 0.1, generator=generator)
            elif isinstance(layer, nn.Linear) and layer.out_features == CLASSES:
                layer.weight.normal_(0, 0.1, generator=generator)
                if layer.bias is not None:
                    layer.bias.normal_(0, 1, generator=generator)
    return network.eval()


def network(name: str, **options: Any) -> Any:
    """A network by name, "torchvision:..." or timm's, with seeded weights and `CLASSES` classes."""
    torch.manual_seed(0)
    if name.startswith(PREFIX):
        return as_if_trained(torchvision_classifier(name, CLASSES))
    return as_if_trained(timm.create_model(name, num_classes=CLASSES, **options))


def noise(size: int, images: int = 2) -> Tensor:
    return torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(2))


def arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a recognizer and of its pooling, side by side, as arguments of `Recognizer`."""
    own = inspect.signature(Recognizer).parameters
    found = {name: value for name, value in options.items() if name in own}
    given = {name: value for name, value in options.items() if name not in own}
    return found | ({"pooling_options": given} if given else {})
