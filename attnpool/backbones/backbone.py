"""Backbones: networks of timm, of torchvision or our own, by name, that turn normalised pixels into features.

This module knows for every name which network it is, which weights it has and how its pixels are normalised. Weights
are never random unless that is asked for. The tokens of a ViT are returned as `(B, C, H, W)`, too, as a view of the
tokens on their grid; its class token is left out, or stands beside every patch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attnpool.backbones.bn_inception import BNInception
from attnpool.backbones.resnet_tf import resnet101_tf
from attnpool.backbones.torchvision_features import PREFIX, torchvision_trunk
from attnpool.backbones.weights import BUNDLED, load_weights

# EfficientNet-Lite was trained on (x - 127) / 128.
BUNDLED_PIXELS = {"lite0": ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))}
# Networks that timm does not have: name -> a function from the number of input channels to the network without its
# classifier. They have the attributes of timm's networks (`forward_features`, `num_features`, `pretrained_cfg`) and
# perhaps `rename`, see `load_weights`.
OWN: dict[str, Callable[[int], nn.Module]] = {"bn_inception": BNInception, "resnet101_tf": resnet101_tf}
# Stacks of optical flow are images in which the value 128 means no motion.
NO_MOTION = 128.0


class Backbone(nn.Module):
    """A network without its pooling and classifier: normalised pixels `(B, 3, H, W)` -> features `(B, C, h, w)`.

    Args:
        name: "lite0" (EfficientNet-Lite0, whose ImageNet weights are installed with attnpool), any timm model name,
            "torchvision:" and a torchvision model name, "bn_inception" (the network of temporal segment networks, TSN),
            or "resnet101_tf", the network of the paper's released checkpoints (`convert_tf`).
        weights: "pretrained" (bundled weights, or those of timm or torchvision from their hub), "random", or the path
            of a .safetensors, .pth or .pt file with the network's state dict (read without unpickling code).
        frozen: whether the network is not trained: its parameters get no gradient, and it stays in eval mode, so that
            batch-norm statistics do not change.
        seed: seed of random weights.
        tokens: which tokens of a vision transformer give the features, its patches, or its class token, too
            (cls+patches): every position then has the channels of its patch and behind them those of the class token.
            An encoder that pools its patches by attention and has no class token, such as SigLIP's, gives what its
            own pooling finds instead.
        in_channels: number of input channels, other than 3 for stacks of optical flow (10 in TSN). Weights for RGB are
            then adapted by TSN's cross-modality initialisation: every channel gets the mean of the first convolution's
            kernels over R, G and B.

    Attributes:
        out_channels: C, with the class token twice the network's.
        mean, std: mean and standard deviation of the pixels on the scale 0..255, one float for every input channel.
        report: what was loaded, or None for random weights.
        named: whether the network can be built again from `name` alone.

    Raises:
        ValueError: the name is unknown, or the weights cannot be reached or do not fit the network.
    """

    def __init__(
        self,
        name: str,
        weights: str | Path = "pretrained",
        *,
        frozen: bool = False,
        seed: int = 0,
        in_channels: int = 3,
        tokens: Literal["patches", "cls+patches"] = "patches",
    ) -> None:
        super().__init__()
        self.name = name
        self.named = True
        self.tokens = tokens
        self.in_channels = in_channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = build(name, in_channels)
        if tokens not in ("patches", "cls+patches"):
            raise ValueError(f"unknown tokens {tokens!r}: use patches or cls+patches")
        if self.has_token and not (self.has_class_token or self.pools_itself):
            raise ValueError(
                f"{name}: has neither a class token nor an attention pooling of its own; use tokens patches, or a "
                "vision transformer such as vit_small_patch16_224"
            )
        self.out_channels: int = self.net.num_features * (2 if self.has_token else 1)
        self.mean, self.std = pixel_statistics(name, self.net, in_channels)
        self.report = load_weights(self.net, name, weights)
        self.freeze(frozen)

    @classmethod
    def around(
        cls,
        net: nn.Module,
        name: str,
        out_channels: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        frozen: bool = False,
    ) -> Backbone:
        """Makes a backbone of an existing network that has `forward_features`. It cannot be saved.

        Args:
            net: the network.
            name: name for error messages.
            out_channels, mean, std: see `Backbone`.
            frozen: see `freeze`.
        """
        backbone = cls.__new__(cls)
        nn.Module.__init__(backbone)
        backbone.name, backbone.named, backbone.in_channels, backbone.report = name, False, len(mean), None
        backbone.tokens = "patches"
        backbone.net, backbone.out_channels, backbone.mean, backbone.std = net, out_channels, mean, std
        backbone.freeze(frozen)
        return backbone

    @property
    def has_token(self) -> bool:
        """Whether the second half of the channels is the class token's, or of the encoder's own pooling."""
        return self.tokens == "cls+patches"

    @property
    def has_class_token(self) -> bool:
        """Whether the network has a class token."""
        return getattr(self.net, "cls_token", None) is not None

    @property
    def pools_itself(self) -> bool:
        """Whether the network ends in an attention pooling, whose output has the channels of its tokens."""
        pooling = getattr(self.net, "attn_pool", None)
        return pooling is not None and getattr(pooling, "out_features", self.net.num_features) == self.net.num_features

    def required_name(self) -> str:
        """The name from which a run builds this backbone again.

        Raises:
            ValueError: the backbone has no such name.
        """
        if not self.named:
            raise ValueError(
                f"{self.name}: cannot be saved as a run or trained into one, which builds its backbone by name; use it "
                "in memory, or add it to attnpool.backbones.backbone.OWN"
            )
        return self.name

    def freeze(self, frozen: bool) -> None:
        """Freezes the network if `frozen`; else it is unchanged, as some have parameters without gradient."""
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False)
            self.eval()

    def train(self, mode: bool = True) -> Backbone:
        if self.frozen and not self.net.training:  # hundreds of modules that stay as they are
            return self
        super().train(mode and not self.frozen)
        return self

    def forward(self, x: Tensor) -> Tensor:
        try:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                features = self.net.forward_features(x)
        except AssertionError as error:  # timm's networks of a fixed input size raise this
            raise ValueError(
                f"{self.name}: cannot take {x.shape[2]}x{x.shape[3]} images ({error}); use another image_size"
            ) from error
        return self.as_map(features, x.shape[2], x.shape[3])

    def as_map(self, features: Tensor, height: int, width: int) -> Tensor:
        """Views the network's output for a `height x width` input as `(B, C, h, w)`."""
        if not isinstance(features, Tensor):  # networks with several branches, such as CrossViT
            raise ValueError(f"{self.name}: returns no single feature map to pool over; use another backbone")
        if features.ndim == 4:
            channels_last = getattr(self.net, "output_fmt", None) == "NHWC" or (
                features.shape[1] != self.out_channels and features.shape[3] == self.out_channels
            )
            return features.permute(0, 3, 1, 2) if channels_last else features
        if features.ndim != 3:
            raise ValueError(
                f"{self.name}: features of shape {tuple(features.shape)} have no positions; use another backbone"
            )
        tokens = features[:, int(getattr(self.net, "num_prefix_tokens", 0)) :]
        grid = token_grid(tokens.shape[1], height, width)
        if self.has_token:
            token = features[:, :1] if self.has_class_token else self.net.pool(features)[:, None]
            tokens = torch.cat([tokens, token.expand_as(tokens)], 2)
        return tokens.unflatten(1, grid).permute(0, 3, 1, 2)

    def digest(self) -> str:
        """A hash of the name and all weights; two backbones with the same digest compute the same features."""
        digest = hashlib.blake2b(self.name.encode(), digest_size=16)
        if self.has_token:
            digest.update(self.tokens.encode())
        for key, value in self.net.state_dict().items():
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def build(name: str, in_channels: int = 3) -> Any:
    """Builds a network with random weights and no classifier; ViTs are built for images of any size.

    Raises:
        ValueError: the name is unknown, or the network cannot be built for this number of channels.
    """
    if in_channels < 1:
        raise ValueError(f"in_channels is {in_channels}; give 3, or 10 for stacks of optical flow")
    if name in OWN:
        return OWN[name](in_channels)
    if name.startswith(PREFIX):
        return torchvision_trunk(name, in_channels)
    import timm

    known = BUNDLED.get(name, name)
    if not timm.is_model(known):
        close = timm.list_models(f"*{name}*")[:5] or ["resnet50", "convnext_tiny", "vit_small_patch16_224"]
        raise ValueError(
            f"unknown backbone {name!r}: use lite0 (needs no network), {', '.join(OWN)} or a timm name, such as "
            f"{', '.join(close)}"
        )
    net: Any
    try:
        net = timm.create_model(known, num_classes=0, in_chans=in_channels, dynamic_img_size=True)
    except TypeError:  # not a ViT, so it takes images of any size anyway
        net = timm.create_model(known, num_classes=0, in_chans=in_channels)
    if type(net).__name__ == "VGG":
        # Two layers with nine tenths of the weights follow the feature map; torchvision's files call them "classifier".
        net.pre_logits = nn.Identity()
        net.pretrained_cfg = {**net.pretrained_cfg, "classifier": ("head.fc", "pre_logits", "classifier")}
    return net


def token_grid(count: int, height: int, width: int) -> tuple[int, int]:
    """The numbers of rows and columns of `count` patch tokens of a `height x width` image.

    Raises:
        ValueError: the tokens do not form a grid of square patches.
    """
    patch = math.sqrt(height * width / count)
    rows, columns = round(height / patch), round(width / patch)
    if rows * columns != count:
        raise ValueError(
            f"{count} tokens of a {height}x{width} image do not form a grid: use a size the network's patches divide"
        )
    return rows, columns


def pixel_statistics(name: str, net: Any, in_channels: int = 3) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and standard deviation of the pixels that the network was trained on, on the scale 0..255.

    For optical flow the mean is 128 and the standard deviation is the average of those of R, G and B, as in TSN.
    """
    if name in BUNDLED_PIXELS:
        mean, std = BUNDLED_PIXELS[name]
    else:
        mean, std = (tuple(255.0 * value for value in net.pretrained_cfg[key]) for key in ("mean", "std"))
    if in_channels == 3:
        return mean, std
    return (NO_MOTION,) * in_channels, (sum(std) / len(std),) * in_channels
