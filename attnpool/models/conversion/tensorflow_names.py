"""Names and layouts of the variables in the released checkpoints, and where each of them goes in a `Recognizer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

NET = "resnet_v1_101"
UNITS = (3, 4, 23, 3)  # of blocks 1 to 4
ATTENTION = "PosePrelogitsBasedAttention"
BOTTOM_UP = f"{ATTENTION}/Conv2d_PrePose_Attn"
TOP_DOWN = f"{ATTENTION}/Conv"
# How the released networks look at an image; attention was trained with dropout on single positions.
VIEW = {"image_size": 450, "short_side": 480, "max_width": 512}
DROPOUT = {"dropout": 0.8, "dropout_on": "positions", "init": "official"}

# variant -> our pooling, its options, and its layers: the scope in the checkpoint -> our weight and bias
HEADS: dict[str, tuple[str, dict[str, Any], dict[str, tuple[str, str]]]] = {
    "baseline": ("average", {}, {f"{NET}/logits": ("a", "alpha")}),
    "linear": ("attentional", DROPOUT, {TOP_DOWN: ("a", "alpha"), BOTTOM_UP: ("b", "beta")}),
    "pose": (
        "pose",
        DROPOUT,
        {
            TOP_DOWN: ("a", "alpha"),
            BOTTOM_UP: ("b", "beta"),
            "PoseLogits/ExtraConv2d_1x1": ("mlp_weight", "mlp_bias"),
            "PoseLogits/Conv2d_1c_1x1": ("pose_weight", "pose_bias"),
        },
    ),
    "per-class": (
        "attentional",
        {"per_class": True, **DROPOUT},
        {TOP_DOWN: ("a", "alpha"), BOTTOM_UP: ("b", "beta")},
    ),
}
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def variables(variant: str) -> dict[str, str]:
    """All that a variant uses: name in the checkpoint -> name in the state dict of the `Recognizer`."""
    layers = HEADS[variant][2]
    return network_keys() | {
        f"{scope}/{kind}": f"head.{own}"
        for scope, both in layers.items()
        for kind, own in zip(("weights", "biases"), both, strict=True)
    }


def network_keys() -> dict[str, str]:
    """The backbone's variables: name in the checkpoint -> name in our state dict."""
    convolutions = {f"{NET}/conv1": ("conv1", "bn1")}
    for block, units in enumerate(UNITS, 1):
        for unit in range(1, units + 1):
            scope, ours = f"{NET}/block{block}/unit_{unit}/bottleneck_v1", f"layer{block}.{unit - 1}"
            for i in (1, 2, 3):
                convolutions[f"{scope}/conv{i}"] = (f"{ours}.conv{i}", f"{ours}.bn{i}")
            if unit == 1:
                convolutions[f"{scope}/shortcut"] = (f"{ours}.downsample.0", f"{ours}.downsample.1")
    keys = {}
    for scope, (convolution, norm) in convolutions.items():
        keys[f"{scope}/weights"] = f"backbone.net.{convolution}.weight"
        keys |= {f"{scope}/BatchNorm/{name}": f"backbone.net.{norm}.{own}" for name, own in NORM.items()}
    return keys


def unused(name: str, variant: str) -> bool:
    """Whether a variable that a variant does not use is in every released checkpoint (see docs/tensorflow.md)."""
    if name == "global_step" or name.endswith("/Momentum"):
        return True
    spare = ["PoseLogits/"] * (variant != "pose") + [f"{NET}/logits/"] * (variant != "baseline")
    return name.startswith(tuple(spare))


def tf_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape that a tensor of ours has in the checkpoint: weights `(H, W, in, out)`, also of linear layers."""
    shape = tuple(tensor.shape)
    if tensor.ndim == 4:
        return (*shape[2:], shape[1], shape[0])
    return (1, 1, shape[1], shape[0]) if tensor.ndim == 2 else shape


def ours(array: np.ndarray, like: Tensor) -> Tensor:
    """A variable in the layout of a tensor of ours: HWIO -> `(out, in, H, W)`, or `(out, in)` of a linear layer."""
    turned = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    return torch.from_numpy(np.ascontiguousarray(turned, np.float32)).reshape(like.shape)


def kind_of(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The variant that the variables of a checkpoint tell, or None."""
    weights = shapes.get(f"{BOTTOM_UP}/weights")
    if weights is None:
        attended = any(name.startswith(f"{ATTENTION}/") for name in shapes)
        return "baseline" if f"{NET}/logits/weights" in shapes and not attended else None
    if len(weights) != 4 or f"{BOTTOM_UP}1/weights" in shapes:  # the released code's rank above 1
        return None
    if weights[2] == 768:
        return "pose"
    return "linear" if weights[3] == 1 else "per-class"
