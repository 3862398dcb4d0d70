"""Rank P really is rank P after training, and training a class-agnostic head builds no map with K channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from attnpool.pooling import POOLINGS, AttentionalPooling, PoolingHead


def trained(head: PoolingHead, make_optimizer: Any, steps: int, classes: int) -> PoolingHead:
    generator = torch.Generator().manual_seed(0)
    head.double().reset_parameters(generator)
    x = torch.randn(32, head.in_channels, 4, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (32,), generator=generator)
    optimizer = make_optimizer(head.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(head(x).logits, labels).backward()
        optimizer.step()
    return head.eval()


def assert_rank(matrix: np.ndarray, rank: int, *, of: str, above: float) -> None:
    """Numerical rank with room: the last of `rank` singular values is far above rounding, the next is rounding."""
    singular = np.linalg.svd(matrix, compute_uv=False)
    assert singular[rank - 1] > above * singular[0], f"{of}: {singular}"
    assert (singular[rank:] < 1e-12 * singular[0]).all(), f"{of}: {singular}"


@pytest.mark.parametrize("rank", [1, 2, 5])
@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_terms_stay_independent(rank: int, per_class: bool, optimizer: str) -> None:
    """A few steps from the average start. Equal starts would have equal gradients, and so stay rank one for ever."""
    make = {"adam": lambda p: torch.optim.Adam(p, lr=1e-2), "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)}
    classes = 6
    head = trained(AttentionalPooling(8, classes, rank=rank, per_class=per_class), make[optimizer], 30, classes)
    a = torch.column_stack([head.a, head.alpha]).detach().numpy().reshape(rank, classes, 9)
    b = torch.column_stack([head.b, head.beta]).detach().numpy().reshape(rank, -1, 9)
    for k in range(classes):
        own = b[:, k if per_class else 0]
        assert_rank(own[:, :-1], rank, of=f"b of class {k}", above=1e-3)
        assert_rank(sum(np.outer(a[p, k], own[p]) for p in range(rank)), rank, of=f"W_{k}", above=1e-6)

    x = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    maps = head(x, maps=True).bottom_up[0, :, 0].flatten(1).detach().numpy()
    assert_rank(maps, rank, of="bottom-up maps of a new image", above=1e-3)


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(value, torch.Tensor):
                self.numel = max(self.numel, value.numel())
        return out


def largest_in_training(head: PoolingHead, x: torch.Tensor, *, maps: bool = False) -> int:
    """Over the forward and the backward pass."""
    with LargestTensor() as seen:
        head(x, maps=maps).logits.sum().backward()
    return seen.numel


BATCH, CHANNELS, CLASSES, SIDE = 2, 4, 50, 7
K_CHANNEL_MAP = BATCH * CLASSES * SIDE * SIDE


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("key", "options"),
    [("average", {}), ("max", {}), ("pose", {"hidden": 5})]
    + [
        ("attentional", {"rank": rank, "activation": name})
        for rank in (1, 3)
        for name in (None, "relu", "sigmoid", "softmax")
    ]
    + [("attentional", {"dropout": 0.5, "dropout_on": where}) for where in ("pooled", "positions")],
    ids=str,
)
def test_training_builds_no_map_with_k_channels(key: str, options: dict[str, Any], layout: torch.memory_format) -> None:
    head = POOLINGS[key](CHANNELS, CLASSES, **options)
    x = torch.randn(BATCH, CHANNELS, SIDE, SIDE).to(memory_format=layout).requires_grad_()
    assert largest_in_training(head, x) < K_CHANNEL_MAP
    assert largest_in_training(head, x, maps=True) >= K_CHANNEL_MAP  # the check can see such maps


def test_per_class_attention_needs_maps_with_k_channels() -> None:
    x = torch.randn(BATCH, CHANNELS, SIDE, SIDE, requires_grad=True)
    assert largest_in_training(AttentionalPooling(CHANNELS, CLASSES, per_class=True), x) >= K_CHANNEL_MAP
