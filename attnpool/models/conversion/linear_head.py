"""Finds the layers between a network's features and its logits, and merges them into one linear map.

The layers are not taken from the code of a library: the network is run, and its calls after the features are recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# Layers that in eval mode change nothing or only the shape.
TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten)
# Largest difference between the classifier's input and the average of the features, relative to the largest feature,
# that counts as rounding.
ROUNDING = 1e-5
# timm's names of poolings -> the input of a classifier after them, for error messages.
OTHERS = {
    "token": "a class token",
    "map": "the output of an attention pooling",
    "max": "the maximum over the positions",
    "avgmax": "the mean of average and maximum",
    "catavgmax": "average and maximum, one after the other",
    "prr": "the output of an attention pooling",
}


class Step(NamedTuple):
    """One call of a layer: its name in the network, the layer, and its input."""

    name: str
    layer: nn.Module
    given: Tensor

    @property
    def title(self) -> str:
        return f"{self.name} ({type(self.layer).__name__})"


@dataclass(frozen=True)
class Tail:
    """A classifier of averaged features z, in double precision: `logits = weight z + bias`.

    With `eps`, a layer norm first normalises z over its channels: `(z - mean(z)) / sqrt(var(z) + eps)`.
    """

    weight: Tensor
    bias: Tensor
    eps: float | None = None


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Puts a network into eval mode without gradients; afterwards every module is in its former mode again."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def watching(network: nn.Module) -> Iterator[list[Step]]:
    """Records every call of a layer of the network that has no children, or has parameters of its own."""
    steps: list[Step] = []

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(layer: nn.Module, given: Any, _: Any) -> None:
            if given and isinstance(given[0], Tensor):
                steps.append(Step(name, layer, given[0]))

        return note

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in network.named_modules()
        if name and (not list(module.children()) or list(module.parameters(recurse=False)))
    ]
    try:
        yield steps
    finally:
        for handle in handles:
            handle.remove()


def read_tail(
    network: nn.Module, features: Callable[[Tensor], Any], as_map: Callable[[Any, int], Tensor], x: Tensor
) -> tuple[Tail, Tensor]:
    """The layers after a network's features as one linear map, and the network's logits of some images.

    Args:
        network: a network in eval mode.
        features: function that computes the network's features of images, with layers of the network.
        as_map: function that brings the features to `(B, C, h, w)`, given C.
        x: some images.

    Raises:
        ValueError: the logits are not a linear map of the average of the features; the message says why.
    """
    with watching(network) as steps:
        found = features(x)
        before = len(steps)
        steps.clear()
        logits = network(x)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise ValueError("it does not return logits (B, K) as a classifier does")
    after = steps[before:]
    tail, classified = fold(after)
    mapped = as_map(found, tail.weight.shape[1])
    if mapped.shape[2] * mapped.shape[3] == 1:
        raise ValueError("its features have a single position: a class token, or images are too small (image_size)")
    average = mapped.mean((2, 3))
    seen = classified.flatten(1)
    if seen.shape != average.shape or not close(seen, average):
        what = OTHERS.get(pool_type(network), "something else")
        raise ValueError(f"its classifier sees {what} and not the average of its last feature map")
    return tail, logits


def close(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors are equal up to rounding; False where one is not finite."""
    return bool((found - expected).abs().max() <= ROUNDING * expected.abs().max())


def fold(steps: Sequence[Step]) -> tuple[Tail, Tensor]:
    """The layers after the features as one linear map, and the input of the first of them.

    Several classifiers with the same input, as in distilled networks, are averaged.

    Raises:
        ValueError: the layers are not a linear map; the message names the layer.
    """
    tails: list[Tail] = []
    classified = torch.empty(0)
    for step in steps:
        if isinstance(step.layer, TRANSPARENT) or is_pooling(step.layer):
            continue
        if has_positions(step.given):
            raise ValueError(f"{step.title} stands between its feature map and the pooling")
        found = linear(step.layer)
        if found is None:
            raise ValueError(
                f"{step.title} stands between its average pooling and its scores, so they are no sum over positions"
            )
        if not tails or (step.given.shape == classified.shape and torch.equal(step.given, classified)):
            classified = step.given
            tails.append(found)
        elif found.eps is not None:
            raise ValueError(f"{step.title} is a layer norm of something other than its averaged features")
        elif found.weight.shape[1] != tails[-1].weight.shape[0]:
            raise ValueError(f"{step.title} is a classifier of other features, beside its first")
        else:
            first = tails.pop()
            tails.append(Tail(found.weight @ first.weight, found.weight @ first.bias + found.bias, first.eps))
    if not any(isinstance(step.layer, nn.Linear | nn.Conv2d) for step in steps):
        raise ValueError("it does not end in a linear classifier")
    if len({(tail.weight.shape, tail.eps) for tail in tails}) > 1:
        raise ValueError("it has classifiers of several kinds")
    weight, bias = (torch.stack([getattr(tail, name) for tail in tails]).mean(0) for name in ("weight", "bias"))
    return Tail(weight, bias, tails[0].eps), classified


def is_pooling(layer: nn.Module) -> bool:
    """Whether a layer is a pooling over all positions, of PyTorch or timm, such as `FastAdaptiveAvgPool`."""
    return type(layer).__name__.removeprefix("Fast").startswith("Adaptive") and not list(layer.parameters())


def has_positions(x: Tensor) -> bool:
    """Whether a tensor has more than one vector per image, in any order of its axes."""
    return sum(length > 1 for length in x.shape[1:]) > 1


def linear(layer: Any) -> Tail | None:
    """A layer as a linear map of a vector, after a layer norm if it is one (`Tail.eps`); None for other layers."""
    if isinstance(layer, nn.Linear) or (
        isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1
    ):
        matrix = layer.weight.detach().cpu().double().flatten(1)
        return Tail(matrix, matrix.new_zeros(len(matrix)) if layer.bias is None else layer.bias.detach().cpu().double())
    if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1:
        channels = layer.normalized_shape[0]
        ones = torch.ones(channels, dtype=torch.float64)
        scale = ones if layer.weight is None else layer.weight.detach().cpu().double()
        shift = torch.zeros_like(scale) if layer.bias is None else layer.bias.detach().cpu().double()
        return Tail(torch.diag(scale), shift, layer.eps)
    # (timm's subclasses of batch norm include an activation)
    if type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d) and layer.running_mean is not None:
        scale = (layer.running_var.cpu().double() + layer.eps).rsqrt()
        shift = torch.zeros_like(scale)
        if layer.affine:
            scale, shift = scale * layer.weight.detach().cpu().double(), layer.bias.detach().cpu().double()
        return Tail(torch.diag(scale), shift - layer.running_mean.cpu().double() * scale)
    return None


def pool_type(network: Any) -> str:
    """timm's name of a network's pooling; "" if it has none."""
    for owner in (network, getattr(network, "head", None)):
        pooling = getattr(owner, "global_pool", None)
        name = pooling if isinstance(pooling, str) else getattr(pooling, "pool_type", None)
        if isinstance(name, str):
            return name
    return ""
