"""ResNet-101 of TensorFlow's slim library, the network of the paper's released checkpoints."""

from __future__ import annotations

from typing import Any

from torch import nn

# The released code subtracts 128 from RGB 0..255 and leaves the scale; `pretrained_cfg` is on the scale 0..1.
PIXELS = {"mean": (128 / 255,) * 3, "std": (1 / 255,) * 3, "first_conv": "conv1", "classifier": "fc"}
# slim's decay of the moving averages is 0.997.
MOMENTUM = 0.003


def resnet101_tf(in_channels: int = 3) -> Any:
    """timm's ResNet-101, with random weights and no classifier, changed to compute what `resnet_v1_101` computes.

    Two things differ from timm's (and torchvision's) network:

    - slim puts the stride 2 into the last unit of blocks 1 to 3: on its 3x3 convolution and on the subsampling of its
      shortcut. The output consists of rows and columns 0, 2, 4, ... of the unit with stride 1. The next unit starts
      with 1x1 convolutions, for which that selection is a stride of 2. So here the stride is on `conv1` and on the
      convolution of the shortcut in the first unit of layers 2 to 4, which is the same for images of any size.
    - the max pooling of the stem pads like TensorFlow's SAME: by one row and column on each side of a map of odd size,
      and only below and on the right of a map of even size.

    The convolutions pad like timm's, because slim pads explicitly before convolutions with a stride.
    """
    import timm
    from timm.layers.pool2d_same import MaxPool2dSame

    net: Any = timm.create_model("resnet101", num_classes=0, in_chans=in_channels)
    net.maxpool = MaxPool2dSame(3, stride=2)
    for layer in (net.layer2, net.layer3, net.layer4):
        first = layer[0]
        first.conv1.stride, first.conv2.stride = (2, 2), (1, 1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-5, MOMENTUM
    net.pretrained_cfg = PIXELS
    return net
