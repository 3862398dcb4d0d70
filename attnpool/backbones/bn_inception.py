"""BN-Inception (Inception-V2), whose layers have the names of its published weights (files of TSN and of Cadene)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The mean of RGB pixels on the scale 0..255. Pixels are not divided by a standard deviation.
MEAN = (128.0, 117.0, 104.0)
# Prefixes of wrappers around the network in published files, outermost first.
PREFIXES = ("module.", "base_model.", "backbone.")
# Names of the classifier in files of Cadene, of TSN (for ImageNet and for actions) and of mmaction.
CLASSIFIERS = ("last_linear", "fc", "fc_action", "new_fc", "cls_head")


class Block(NamedTuple):
    """The output channels of the convolutions of an inception block.

    A block of stride 2 has no 1x1 branch, and no convolution after its pooling.
    """

    one: int
    three: tuple[int, int]  # 1x1 "reduce", 3x3
    double: tuple[int, int, int]  # 1x1 "reduce", 3x3, 3x3
    pool: int


BLOCKS = {
    "3a": Block(64, (64, 64), (64, 96, 96), 32),
    "3b": Block(64, (64, 96), (64, 96, 96), 64),
    "3c": Block(0, (128, 160), (64, 96, 96), 0),
    "4a": Block(224, (64, 96), (96, 128, 128), 128),
    "4b": Block(192, (96, 128), (96, 128, 128), 128),
    "4c": Block(160, (128, 160), (128, 160, 160), 128),
    "4d": Block(96, (128, 192), (160, 192, 192), 128),
    "4e": Block(0, (128, 192), (192, 256, 256), 0),
    "5a": Block(352, (192, 320), (160, 224, 224), 128),
    "5b": Block(352, (192, 320), (192, 224, 224), 128),
}
MAX_POOLED = "5b"  # the only block of stride 1 with max pooling; the others have average pooling


class BNInception(nn.Module):
    """The network of Ioffe & Szegedy without pooling and classifier: `(B, 3, H, W)` -> `(B, 1024, h, w)`, stride 32.

    Images are RGB, 0..255 minus (128, 117, 104). The published weights were trained in Caffe on BGR, so the order of
    three channels is reversed before the first convolution, and the weights stay as they are in the files. The channels
    of stacks of optical flow (`in_channels` other than 3) are not reordered.

    Every convolution has a bias and is followed by a batch norm and a ReLU. At sizes where the published network fails
    (an odd map before 3c or 4e, whose branches of stride 2 then differ by one), the pooling has one more window, which
    is cut off at the border as its last window is at even sizes.

    Args:
        in_channels: number of input channels.

    Source: Ioffe & Szegedy, "Batch Normalization", ICML 2015, in the variant of Wang et al., "Temporal Segment
    Networks", ECCV 2016.
    """

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_features = 1024
        self.pretrained_cfg = {
            "mean": tuple(value / 255 for value in MEAN),
            "std": (1 / 255,) * 3,
            "first_conv": "conv1_7x7_s2",
            "classifier": CLASSIFIERS,
            "files": "bn_inception-239d2248.pth of pretrained-models.pytorch, or one of TSN",
        }
        self.add("conv1_7x7_s2", in_channels, 64, kernel=7, stride=2)
        self.add("conv2_3x3_reduce", 64, 64)
        self.add("conv2_3x3", 64, 192, kernel=3)
        channels = 192
        for name, block in BLOCKS.items():
            channels = self.add_block(f"inception_{name}", channels, block)
        assert channels == self.num_features

    def add(self, name: str, channels: int, out: int, *, kernel: int = 1, stride: int = 1) -> None:
        """Adds a convolution and its batch norm under their published names."""
        conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.add_module(name, conv)
        # Caffe's moving average keeps 0.9 of the old value, which is a momentum of 0.1 here.
        self.add_module(f"{name}_bn", nn.BatchNorm2d(out, eps=1e-5, momentum=0.1))

    def add_block(self, name: str, channels: int, block: Block) -> int:
        """Adds the convolutions of a block; returns the number of its output channels."""
        stride = 1 if block.one else 2
        if block.one:
            self.add(f"{name}_1x1", channels, block.one)
        self.add(f"{name}_3x3_reduce", channels, block.three[0])
        self.add(f"{name}_3x3", *block.three, kernel=3, stride=stride)
        self.add(f"{name}_double_3x3_reduce", channels, block.double[0])
        self.add(f"{name}_double_3x3_1", *block.double[:2], kernel=3)
        self.add(f"{name}_double_3x3_2", *block.double[1:], kernel=3, stride=stride)
        if block.pool:
            self.add(f"{name}_pool_proj", channels, block.pool)
        return block.one + block.three[-1] + block.double[-1] + (block.pool or channels)

    def apply_conv(self, name: str, x: Tensor) -> Tensor:
        return F.relu(self.get_submodule(f"{name}_bn")(self.get_submodule(name)(x)))

    def apply_block(self, name: str, x: Tensor) -> Tensor:
        """Applies one inception block; `name` is a key of `BLOCKS`."""
        block, at = BLOCKS[name], f"inception_{name}"
        parts = [self.apply_conv(f"{at}_1x1", x)] if block.one else []
        parts.append(self.apply_conv(f"{at}_3x3", self.apply_conv(f"{at}_3x3_reduce", x)))
        double = self.apply_conv(f"{at}_double_3x3_1", self.apply_conv(f"{at}_double_3x3_reduce", x))
        parts.append(self.apply_conv(f"{at}_double_3x3_2", double))
        if not block.pool:
            odd = (0, x.shape[3] % 2, 0, x.shape[2] % 2)
            # Padding with 0 does not change a maximum, as x is the output of a ReLU.
            parts.append(F.max_pool2d(F.pad(x, odd) if any(odd) else x, 3, 2, ceil_mode=True))
        else:
            pool = F.max_pool2d if name == MAX_POOLED else F.avg_pool2d
            parts.append(self.apply_conv(f"{at}_pool_proj", pool(x, 3, 1, 1)))
        return torch.cat(parts, 1)

    def forward_features(self, x: Tensor) -> Tensor:
        """Computes features `(B, 1024, h, w)` of normalised pixels `(B, in_channels, H, W)`.

        Raises:
            ValueError: the image is smaller than 32 pixels.
        """
        if min(x.shape[2:]) < 32:
            raise ValueError(f"bn_inception: takes images of at least 32x32 pixels, not {x.shape[2]}x{x.shape[3]}")
        if self.in_channels == 3:
            x = x.flip(1)
        x = F.max_pool2d(self.apply_conv("conv1_7x7_s2", x), 3, 2, ceil_mode=True)
        x = self.apply_conv("conv2_3x3", self.apply_conv("conv2_3x3_reduce", x))
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        for name in BLOCKS:
            x = self.apply_block(name, x)
        return x

    def rename(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Converts a published state dict to this network's names and shapes: without wrappers, batch norms as vectors.

        Files of PyTorch 0.1 hold batch norms as `(1, C)`.
        """
        own = self.state_dict()
        renamed = {}
        for key, value in state.items():
            for prefix in PREFIXES:
                key = key.removeprefix(prefix)
            flat = key in own and value.ndim == 2 and own[key].ndim == 1
            renamed[key] = value.reshape(-1) if flat else value
        return renamed
