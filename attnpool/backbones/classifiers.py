"""Classifiers by name, with their weights; and the names, classes and preprocessing of a given network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from attnpool.backbones.backbone import BUNDLED_PIXELS, OWN, build
from attnpool.backbones.torchvision_features import MEAN, PREFIX, STD, Trunk, torchvision_classifier
from attnpool.backbones.weights import BUNDLED, assign, bundled_weights, hub_weights, read_state_dict

TIMM = "timm:"
USUAL_SIZE, USUAL_CROP = 224, 0.875  # image size, and cropped fraction of the short side, as customary for ImageNet


def is_classifier(name: str) -> bool:
    """Whether a name is that of a network of timm or torchvision, not a run folder."""
    if name.startswith((TIMM, PREFIX)):
        return True
    if name in BUNDLED:
        return not Path(name).exists()
    if Path(name).exists() or "/" in name:
        return False
    import timm

    return bool(timm.is_model(name))


def classifier(name: str, weights: str | Path = "pretrained") -> nn.Module:
    """Builds a network with its classifier, in eval mode.

    Args:
        name: timm model name, with or without "timm:", or "torchvision:" and a torchvision model name. "lite0" and
            "tf_efficientnet_lite0" are the network whose weights are installed with attnpool.
        weights: "pretrained" (installed, or from the library's hub) or a .safetensors, .pth or .pt file, which also
            determines the number of classes.

    Raises:
        ValueError: the name is unknown, or the weights are missing or do not fit. Random weights are never used.
    """
    short = name.removeprefix(TIMM)
    if short.startswith(PREFIX):
        net: Any = torchvision_classifier(short)
        state = hub_weights(short) if weights == "pretrained" else read_weights(weights)
        layers = [key for key, layer in net.named_modules() if isinstance(layer, nn.Linear)]
        if (count := classes_in(state, layers[-1:])) not in (None, 1000):
            net = torchvision_classifier(short, count or 1000)
        # `assign` needs the description that timm's networks have; auxiliary classifiers are used only in training
        net.pretrained_cfg = {"classifier": Trunk(net).pretrained_cfg["classifier"]}
        assign(net, state, source_of(short, weights))
        return net.eval()
    import timm

    if short in OWN:
        raise ValueError(f"{name}: has no classifier here; give the name of a timm or torchvision network")
    known = next((own for own, theirs in BUNDLED.items() if short in (own, theirs)), short)
    backbone = build(known)  # raises for unknown names
    if weights == "pretrained":
        state = bundled_weights(backbone) if known in BUNDLED else hub_weights(short)
    else:
        state = read_weights(weights)
    named = backbone.pretrained_cfg.get("classifier")
    count = classes_in(state, [named] if isinstance(named, str) else list(named or ()))
    if count is None:
        raise ValueError(
            f"{source_of(name, weights)}: holds no classifier of {short}; give a file with the network and classifier"
        )
    net = timm.create_model(BUNDLED.get(known, short), num_classes=count)
    assign(net, state, source_of(name, weights))
    if known in BUNDLED_PIXELS:
        mean, std = (tuple(value / 255 for value in values) for values in BUNDLED_PIXELS[known])
        net.pretrained_cfg = {**net.pretrained_cfg, "architecture": known, "mean": mean, "std": std}
    return net.eval()


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a local file; see `weights.read_state_dict`."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such weights file; pass a .safetensors or .pth file, or 'pretrained'")
    return read_state_dict(Path(path))


def source_of(name: str, weights: str | Path) -> str:
    return name if weights == "pretrained" else str(weights)


def classes_in(state: dict[str, torch.Tensor], layers: Sequence[str]) -> int | None:
    """The number of classes of the first of these layers that a state dict holds; None if it holds none of them."""
    found = [state[f"{layer}.weight"] for layer in layers if f"{layer}.weight" in state]
    return len(found[0]) if found else None


def names_of(network: Any) -> Iterator[str]:
    """Yields the names of backbones that have the same tensors as a network; none for a network of the user's own.

    They are yielded one by one, because torchvision's networks do not know their names and have to be compared.
    """
    if hasattr(network, "forward_features"):
        if name := config_of(network).get("architecture"):
            yield name
        return
    if not type(network).__module__.startswith("torchvision.models."):
        return
    import torchvision

    shapes = {key: value.shape for key, value in Trunk(network).state_dict().items()}
    for short in torchvision.models.list_models(module=torchvision.models):
        builder = torchvision.models.get_model_builder(short)
        if builder.__module__ == type(network).__module__:
            with _Outline():
                other = Trunk(torchvision_classifier(short)).state_dict()
            if {key: value.shape for key, value in other.items()} == shapes:
                yield PREFIX + short


class _Outline(TorchFunctionMode):
    """Builds layers without memory. (A RegNet cannot be built entirely on the device "meta".)"""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        return func(*args, **(options | {"device": "meta"} if func is torch.empty else options))


def config_of(network: Any) -> dict[str, Any]:
    """timm's description of a network's input and weights; {} where there is none."""
    config = getattr(network, "pretrained_cfg", None)
    return config if isinstance(config, dict) else {}


def pixels_of(network: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and standard deviation, 0..255, of a network's training pixels; ImageNet's if it does not say them."""
    config = config_of(network)
    mean, std = (tuple(255.0 * v for v in config.get(key, usual)) for key, usual in (("mean", MEAN), ("std", STD)))
    return mean, std


def view_of(network: Any, image_size: int | None) -> dict[str, Any]:
    """The preprocessing of a network with a centre crop, as `Recognizer` takes it.

    Raises:
        ValueError: the size is not positive.
    """
    config = config_of(network)
    size = int(config.get("input_size", (3, USUAL_SIZE, USUAL_SIZE))[-1]) if image_size is None else image_size
    if size < 1:
        raise ValueError(f"image_size is {size}; give a positive number of pixels, such as 224")
    short_side = max(size, math.floor(size / config.get("crop_pct", USUAL_CROP)))
    return {"image_size": size, "short_side": short_side, "max_width": None}


def class_names(count: int, given: Sequence[str] | None, *, imagenet: bool) -> tuple[str, ...]:
    """The names of a network's classes: those given, else those of ImageNet if allowed and as many, else numbered.

    Raises:
        ValueError: the number of given names is not `count`.
    """
    if given is not None:
        if len(given) != count:
            raise ValueError(f"the network scores {count} classes, but classes has {len(given)} names; name each class")
        return tuple(given)
    if imagenet:
        from timm.data import ImageNetInfo, infer_imagenet_subset

        if subset := infer_imagenet_subset({"num_classes": count}):
            info = ImageNetInfo(subset)
            numbers = range(count)
            return distinct([info.index_to_description(i) for i in numbers], info.label_names())
    return tuple(f"class_{i}" for i in range(count))


def distinct(descriptions: Sequence[str], synsets: Sequence[str]) -> tuple[str, ...]:
    """The first name in each description, with its WordNet number where it is not unique, such as "crane".

    >>> distinct(["crane", "daisy", "crane, machine"], ["n1", "n2", "n3"])
    ('crane (n1)', 'daisy', 'crane (n3)')
    """
    words = [text.split(", ")[0] for text in descriptions]
    counts = Counter(words)
    return tuple(
        f"{word} ({synset})" if counts[word] > 1 else word for word, synset in zip(words, synsets, strict=True)
    )
