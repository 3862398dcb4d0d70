"""Classifiers by name, with the weights and classes that they were trained with; and what is known of given ones."""

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
USUAL_SIZE, USUAL_CROP = 224, 0.875  # of images, and the part of the short side that is seen: ImageNet's custom


def is_classifier(name: str) -> bool:
    """Whether a name means a network of timm or torchvision, and not a run folder."""
    if name.startswith((TIMM, PREFIX)):
        return True
    if name in BUNDLED:
        return not Path(name).exists()
    if Path(name).exists() or "/" in name:
        return False
    import timm

    return bool(timm.is_model(name))


def classifier(name: str, weights: str | Path = "pretrained") -> nn.Module:
    """A network with its classifier, in eval mode.

    Args:
        name: timm's name, with or without "timm:", or "torchvision:" and torchvision's. "lite0" and
            "tf_efficientnet_lite0" are the network whose weights are installed with attnpool.
        weights: "pretrained" (installed, or from the library's hub) or a .safetensors, .pth or .pt file. How many
            classes the network has is read from the file.

    Raises:
        ValueError: the name is unknown, or the weights cannot be had or do not fit. Random weights are never used.
    """
    short = name.removeprefix(TIMM)
    if short.startswith(PREFIX):
        net: Any = torchvision_classifier(short)
        state = hub_weights(short) if weights == "pretrained" else read_weights(weights)
        layers = [key for key, layer in net.named_modules() if isinstance(layer, nn.Linear)]
        if (count := classes_in(state, layers[-1:])) not in (None, 1000):
            net = torchvision_classifier(short, count or 1000)
        # `assign` asks for what timm's networks say of themselves; auxiliary classifiers count in training alone
        net.pretrained_cfg = {"classifier": Trunk(net).pretrained_cfg["classifier"]}
        assign(net, state, source_of(short, weights))
        return net.eval()
    import timm

    if short in OWN:
        raise ValueError(f"{name}: has no classifier here; name one of timm's networks, or torchvision's")
    known = next((own for own, theirs in BUNDLED.items() if short in (own, theirs)), short)
    backbone = build(known)  # refuses unknown names, and says what there is
    if weights == "pretrained":
        state = bundled_weights(backbone) if known in BUNDLED else hub_weights(short)
    else:
        state = read_weights(weights)
    named = backbone.pretrained_cfg.get("classifier")
    count = classes_in(state, [named] if isinstance(named, str) else list(named or ()))
    if count is None:
        raise ValueError(
            f"{source_of(name, weights)}: holds no classifier of {short}: it is of another network, or features alone"
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
    """How many classes the first of some classifiers has in a state dict; None if none of them is there."""
    found = [state[f"{layer}.weight"] for layer in layers if f"{layer}.weight" in state]
    return len(found[0]) if found else None


def names_of(network: Any) -> Iterator[str]:
    """The names by which a backbone could be built that has the tensors of a network; none for one of the user's own.

    One after the other, because torchvision's networks do not know their names, and have to be compared.
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
    """Builds layers without memory. (On the device "meta" as a whole RegNet cannot compute its widths.)"""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        return func(*args, **(options | {"device": "meta"} if func is torch.empty else options))


def config_of(network: Any) -> dict[str, Any]:
    """timm's description of how a network is to be used, {} where there is none."""
    config = getattr(network, "pretrained_cfg", None)
    return config if isinstance(config, dict) else {}


def pixels_of(network: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation, 0..255, of the pixels a network was trained on: as it says itself, else ImageNet's."""
    config = config_of(network)
    mean, std = (tuple(255.0 * v for v in config.get(key, usual)) for key, usual in (("mean", MEAN), ("std", STD)))
    return mean, std


def view_of(network: Any, image_size: int | None) -> dict[str, Any]:
    """How images are brought to a network's input, as a `Recognizer` keeps it: the middle of the image.

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
    """Names of a network's classes: those given, else ImageNet's if it may be that and there are as many, or numbers.

    Raises:
        ValueError: other than `count` names are given.
    """
    if given is not None:
        if len(given) != count:
            raise ValueError(f"the network scores {count} classes, and {len(given)} names are given; name each of them")
        return tuple(given)
    if imagenet:
        from timm.data import ImageNetInfo, infer_imagenet_subset

        if subset := infer_imagenet_subset({"num_classes": count}):
            info = ImageNetInfo(subset)
            numbers = range(count)
            return distinct([info.index_to_description(i) for i in numbers], info.label_names())
    return tuple(f"class_{i}" for i in range(count))


def distinct(descriptions: Sequence[str], synsets: Sequence[str]) -> tuple[str, ...]:
    """The first word of each description, with its WordNet number where others have the same: two classes are cranes.

    >>> distinct(["crane", "daisy", "crane, machine"], ["n1", "n2", "n3"])
    ('crane (n1)', 'daisy', 'crane (n3)')
    """
    words = [text.split(", ")[0] for text in descriptions]
    counts = Counter(words)
    return tuple(
        f"{word} ({synset})" if counts[word] > 1 else word for word, synset in zip(words, synsets, strict=True)
    )
