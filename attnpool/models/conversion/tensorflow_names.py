"""Names and layouts of the variables in the released checkpoints, and their names in the state dict of `Recognizer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

NET = "resnet_v1_101"
UNITS = (3, 4, 23, 3)  # numbers of units in blocks 1 to 4
ATTENTION = "PosePrelogitsBasedAttention"
BOTTOM_UP = f"{ATTENTION}/Conv2d_PrePose_Attn"
TOP_DOWN = f"{ATTENTION}/Conv"
# The preprocessing of the released networks. Their attention was trained with dropout on single positions.
VIEW = {"image_size": 450, "short_side": 480, "max_width": 512}
DROPOUT = {"dropout": 0.8, "dropout_on": "positions", "init": "official"}

# variant -> our pooling, its options, and its layers: scope in the checkpoint -> names of our weight and bias
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
    """The variables that a variant uses: name in the checkpoint -> name in the state dict of the `Recognizer`."""
    layers = HEADS[variant][2]
    return network_keys() | {
        f"{scope}/{kind}": f"head.{own}"
        for scope, both in layers.items()
        for kind, own in zip(("weights", "biases"), both, strict=True)
    }


def network_keys() -> dict[str, str]:
    """The variables of the backbone: name in the checkpoint -> name in our state dict."""
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
    """Whether a variable is expected in released checkpoints although the variant does not use it.

    See docs/tensorflow.md.
    """
    if name == "global_step" or name.endswith("/Momentum"):
        return True
    spare = ["PoseLogits/"] * (variant != "pose") + [f"{NET}/logits/"] * (variant != "baseline")
    return name.startswith(tuple(spare))


def tf_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape of one of our tensors in the checkpoint, where weights are `(H, W, in, out)`, also of linear layers."""
    shape = tuple(tensor.shape)
    if tensor.ndim == 4:
        return (*shape[2:], shape[1], shape[0])
    return (1, 1, shape[1], shape[0]) if tensor.ndim == 2 else shape


def ours(array: np.ndarray, like: Tensor) -> Tensor:
    """Converts a variable to the layout of one of our tensors: HWIO -> `(out, in, H, W)`, or `(out, in)` if linear."""
    turned = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    return torch.from_numpy(np.ascontiguousarray(turned, np.float32)).reshape(like.shape)


def kind_of(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The variant to which the variables of a checkpoint belong, or None."""
    weights = shapes.get(f"{BOTTOM_UP}/weights")
    if weights is None:
        attended = any(name.startswith(f"{ATTENTION}/") for name in shapes)
        return "baseline" if f"{NET}/logits/weights" in shapes and not attended else None
    if len(weights) != 4 or f"{BOTTOM_UP}1/weights" in shapes:  # the released code's rank above 1
        return None
    if weights[2] == 768:
        return "pose"
    return "linear" if weights[3] == 1 else "per-class"
