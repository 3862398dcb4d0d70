"""Folds the batch norms of a frozen network into the convolutions before them, for the same features in less time.

In eval mode batch norm is an affine map of every channel, so it can be merged into the convolution's weights. On a CPU
this saves a pass over every activation: EfficientNet-Lite0 at 448 px runs 1.3 to 1.7 times as fast.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from attnpool.backbones.backbone import Backbone

# Largest difference of the features, relative to their size, that counts as rounding.
TOLERANCE = 1e-3


class _Activation(nn.Module):
    """What remains of a folded batch norm: timm's batch-norm layers include an activation."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(x))


def folded(backbone: Backbone, device: torch.device) -> Backbone:
    """A copy of a frozen backbone for inference, on a device and in channels-last memory, with folded batch norms.

    Which batch norm follows which convolution is guessed from the order of the modules. The guess is tested: if the
    features of a random image differ by more than rounding, or the network does not take images of the tested size, an
    unfolded copy is returned.

    Args:
        backbone: a frozen backbone in eval mode.
        device: device on which the copy is to run.
    """
    quick = copy.deepcopy(backbone).eval()
    if fold(quick.net) and not agree(backbone, quick):
        quick = copy.deepcopy(backbone).eval()
    quick.to(device)
    quick.to(memory_format=torch.channels_last)
    return quick


@torch.inference_mode()
def agree(backbone: Backbone, quick: Backbone) -> bool:
    """Whether both compute the same features of a random image; False if they do not take images of its size."""
    x = torch.randn(1, backbone.in_channels, 224, 224, generator=torch.Generator().manual_seed(0)).to(
        next(backbone.parameters())
    )
    try:
        expected, found = backbone(x), quick(x)
    except (AssertionError, RuntimeError, ValueError):
        return False
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


def fold(module: nn.Module) -> int:
    """Folds every batch norm that directly follows a convolution among the children of a module, in place.

    Returns:
        The number of folded batch norms.
    """
    before: nn.Module | None = None
    count = 0
    for name, child in list(module.named_children()):
        if (
            isinstance(before, nn.Conv2d)
            and isinstance(child, nn.BatchNorm2d)
            and child.num_features == before.out_channels
            and child.running_mean is not None
            and child.running_var is not None
        ):
            before.weight, before.bias = fuse_conv_bn_weights(
                before.weight, before.bias, child.running_mean, child.running_var, child.eps, child.weight, child.bias
            )
            setattr(module, name, _Activation(child))
            before = None
            count += 1
        else:
            before = child
            count += fold(child)
    return count
