"""Converts a trained classifier with average pooling to one with attention, which has maps and the same predictions.

Average pooling is attentional pooling with the bottom-up map 1, so the classifier's weights become the top-down weights
and nothing has to be learned: the top-down maps are the network's class activation maps (Eq. 12).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnpool.backbones.backbone import Backbone
from attnpool.backbones.classifiers import class_names, names_of, pixels_of, view_of
from attnpool.backbones.torchvision_features import Trunk
from attnpool.backbones.weights import LoadReport
from attnpool.models.conversion.linear_head import Tail, evaluating, read_tail
from attnpool.models.feature_norm import PooledNorm
from attnpool.models.recognizer import Recognizer

# Largest accepted difference of the logits; for logits beyond 1 it is relative to the largest.
TOLERANCE = 1e-5


def convert(
    network: nn.Module,
    *,
    classes: Sequence[str] | None = None,
    pooling_options: Mapping[str, Any] | None = None,
    task: Literal["single", "multi"] = "single",
    image_size: int | None = None,
    freeze_backbone: bool = True,
) -> Recognizer:
    """Puts attentional pooling in place of the average pooling of a classifier; no prediction changes.

    `score_k = w_k . mean_i x_i + c_k` is `1/N * sum_i h_i (x_i . a_k + alpha_k)` with `a_k = w_k`, `alpha_k = c_k` and
    the bottom-up map `h_i = x_i . b + beta = 1` (Eq. 10), where the head starts: `b = 0`, `beta = 1`. Its top-down maps
    `x_i . a_k + alpha_k` are the network's class activation maps (Eq. 12). Terms 2..P start at 0.

    The network is run on random images to observe which layers it applies between its features and its logits. Dropout,
    flattening and batch norms there become part of `a` and `alpha`. A layer norm of the average, as in ConvNeXt, is a
    shift and a scale per image, which can be applied to the features before they are pooled (`PooledNorm`). With
    anything else, such as the activation of MobileNetV3, the score is not a sum over positions, and an error is raised.
    The result is compared with the network before it is returned. It is a copy; the network is not changed.

    Args:
        network: a classifier of timm or torchvision, trained or not, with any number of classes; another network whose
            children are a sequence of layers, `nn.AdaptiveAvgPool2d` and a linear classifier, or that has timm's
            methods; or a `Recognizer` with average pooling.
        classes: names of the classes; by default those of ImageNet where timm or torchvision have a network of 1000 (or
            11221, 11821, 21841, 21843) classes, else class_0, class_1, ...
        pooling_options: options of the head, see `AttentionalPooling`, such as `{"rank": 2}`.
        task: "single" or "multi", see `Recognizer`. (A `Recognizer` keeps its task and its classes.)
        image_size: side in pixels of the images that the recognizer takes, and on which it is compared; by default that
            of the network.
        freeze_backbone: whether the backbone is frozen, see `Backbone`; False to train all of the network.

    Returns:
        A recognizer in eval mode, without `Standardize`. It computes the same logits from pixels as the network does
        after the normalisation that it was trained with (timm's `pretrained_cfg`, torchvision's for ImageNet).

    Raises:
        ValueError: the network cannot be converted; the message says why, in one line.

    Source: Girdhar & Ramanan, "Attentional Pooling for Action Recognition", NIPS 2017, Sec. 3.1; class activation maps:
    Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.
    """
    head = dict(pooling_options or {})
    if isinstance(network, Recognizer):
        return of_recognizer(network, classes, head, freeze_backbone)
    names = names_of(network)
    name = next(names, None)
    label = name or type(network).__name__
    parameter = next(network.parameters(), torch.empty(0))
    if parameter.dtype != torch.float32:
        raise ValueError(f"{label}: its weights are {parameter.dtype}; convert it in float32: network.float()")
    if getattr(network, "transform_input", False):
        raise ValueError(f"{label}: cannot be converted: it rescales its input first (transform_input)")
    view = view_of(network, image_size)
    x, other = (made(view["image_size"]).to(parameter.device) for made in (noise, lifelike))
    with evaluating(network):
        source: Any = network if hasattr(network, "forward_features") else Trunk(network)
        mean, std = pixels_of(source)

        def as_map(found: Any, channels: int) -> Tensor:
            return Backbone.around(source, label, channels, mean, std).as_map(found, *x.shape[2:])

        try:
            tail, logits = read_tail(network, source.forward_features, as_map, x)
        except ValueError as error:
            raise ValueError(f"{label}: cannot be converted: {error}") from error
        except Exception as error:  # a network of the user's can raise anything
            if hasattr(network, "class_token"):
                raise ValueError(f"{label}: cannot be converted: its classifier sees a class token") from error
            reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
            raise ValueError(
                f"{label}: cannot be converted: it cannot be run on {x.shape[3]} px images as layers in a row, then "
                f"an average pooling and a linear classifier ({reason[:120]})"
            ) from error
        apart = 0.0
        for backbone in copies(
            source,
            label,
            chain([name] if name else [], names),
            tail.weight.shape[1],
            (mean, std),
            frozen=freeze_backbone,
        ):
            model = Recognizer(
                backbone,
                classes=class_names(len(tail.bias), classes, imagenet=name is not None),
                task=task,
                scores="softmax" if task == "single" else "sigmoid",
                standardize=False if tail.eps is None else "pooled",
                preprocessing=view,
                pooling_options=head,
            )
            if isinstance(model.standardize, PooledNorm) and tail.eps is not None:
                model.standardize.eps.fill_(tail.eps)
            put(model.to(parameter.device), tail)
            model.eval()
            apart = difference(model(x).logits, logits)
            if apart <= TOLERANCE:
                apart = difference(model(other).logits, network(other))
            if apart <= TOLERANCE:
                return model
    raise ValueError(
        f"{label}: cannot be converted: the logits of the conversion differ by {apart:.1g}; it is not just a sequence "
        "of layers, an average pooling and a linear classifier"
    )


def of_recognizer(
    network: Recognizer, classes: Sequence[str] | None, head: dict[str, Any], freeze_backbone: bool
) -> Recognizer:
    """`convert` for a `Recognizer` with average pooling, of which only the pooling changes.

    Raises:
        ValueError: it has another pooling, `classes` are given, or its backbone cannot be built by name.
    """
    if network.pooling != "average":
        raise ValueError(f"its pooling is {network.pooling}, not average; there is nothing to convert")
    if classes is not None and tuple(classes) != network.classes:
        raise ValueError("its classes have names already; leave out classes")
    own: Any = network.head
    old = network.backbone
    backbone = Backbone(old.required_name(), "random", frozen=freeze_backbone, in_channels=old.in_channels)
    backbone.load_state_dict(old.state_dict())
    backbone.mean, backbone.std, backbone.report = old.mean, old.std, old.report
    model = Recognizer(
        backbone,
        classes=network.classes,
        task=network.task,
        scores=network.scores,
        instances=network.instances,
        context=network.context,
        standardize=False,
        preprocessing=network.preprocessing,
        pooling_options={"dropout": network.head.dropout} | head,
    )
    model.standardize = copy.deepcopy(network.standardize)
    model.to(next(network.head.parameters()).device).eval()
    bias = torch.zeros(len(own.a)) if own.alpha is None else own.alpha
    put(model, Tail(own.a.detach(), bias.detach()))
    with evaluating(network):
        x = noise(network.preprocessing["image_size"], backbone.in_channels).to(own.a.device)
        assert difference(model(x).logits, network(x).logits) <= TOLERANCE
    return model


def noise(size: int, channels: int = 3) -> Tensor:
    """Makes two random images on which a network and its conversion are compared."""
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))


def lifelike(size: int, channels: int = 3) -> Tensor:
    """Makes smooth images of different contrast and brightness, on which a network that scales its input shows it."""
    small = torch.randn(4, channels, 5, 5, generator=torch.Generator().manual_seed(1))
    smooth = F.interpolate(small, (size, size), mode="bicubic")
    contrast, brightness = torch.tensor([[0.1, 0.5, 1.0, 1.5], [1.5, -1.0, 0.0, 0.5]])[:, :, None, None, None]
    return contrast * smooth + brightness


@torch.no_grad()
def put(model: Recognizer, tail: Tail) -> None:
    """Copies a classifier into the first term of a head that starts as average pooling; the other terms stay 0."""
    head: Any = model.head
    head.a[: len(tail.weight)] = tail.weight.to(head.a)
    head.alpha[: len(tail.bias)] = tail.bias.to(head.alpha)


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference of logits, relative to the largest logit if that is beyond 1; infinite if any is NaN."""
    if found.shape != expected.shape:
        return float("inf")
    apart = float((found - expected).abs().max() / expected.abs().max().clamp_min(1))
    return apart if apart == apart else float("inf")


def copies(
    source: Any, label: str, names: Iterable[str], channels: int, pixels: Any, *, frozen: bool
) -> Iterator[Backbone]:
    """Yields backbones with a network's weights: one for each of the names that it may have, then the network itself.

    A backbone that is built by name can be saved and loaded. A network that was built with special options may have the
    same tensors as the one of this name and yet compute something else, so the caller must compare the results.
    """
    state = source.state_dict()
    for name in names:
        try:
            backbone = Backbone(name, "random", frozen=frozen)
        except ValueError:
            continue
        own = backbone.net.state_dict()
        if backbone.out_channels == channels and all(
            key in state and state[key].shape == value.shape for key, value in own.items()
        ):
            backbone.net.load_state_dict({key: state[key] for key in own})
            backbone.mean, backbone.std = pixels
            backbone.report = LoadReport(f"{name} (converted)", len(own))
            yield backbone
    net = copy.deepcopy(source)
    if hasattr(net, "reset_classifier"):  # a network of timm, whose classifier is not part of the backbone
        net.reset_classifier(0)
    yield Backbone.around(net, label, channels, *pixels, frozen=frozen)
