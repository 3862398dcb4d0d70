"""What is timed: a head's forward pass, and forward and backward, on features of one layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnpool.experiments.benchmark.heads import PASSES, Entry, Sizes
from attnpool.experiments.benchmark.measure import Step

COMPILED = ", compiled"


def make_features(sizes: Sizes, layout: str) -> Tensor:
    """Features of a network's last layer, which are not negative."""
    x = torch.rand(sizes.batch, sizes.channels, sizes.side, sizes.side, generator=torch.Generator().manual_seed(0))
    if layout == "NHWC":
        return x.contiguous(memory_format=torch.channels_last)
    return x.flatten(2).transpose(1, 2).contiguous() if layout == "tokens" else x


def passes(
    entries: Sequence[Entry], made: dict[str, nn.Module], features: Tensor, compiled: set[str]
) -> dict[tuple[str, str], Step]:
    """What is timed, by head and pass."""
    found = {}
    for entry in entries:
        module = made[entry.name]
        for which in PASSES:
            found[entry.name, which] = one_pass(module, module, features, which == PASSES[1])
        if entry.name in compiled:
            faster = torch.compile(module, dynamic=False, fullgraph=entry.ours)
            for which in PASSES:
                found[entry.name + COMPILED, which] = one_pass(faster, module, features, which == PASSES[1])
    return found


def one_pass(run: Any, head: nn.Module, features: Tensor, backward: bool) -> Step:
    """One pass; gradients are made anew each time, as after `zero_grad()`."""
    parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]

    def forward() -> None:
        with torch.no_grad():
            run(features)

    def both() -> None:
        out = run(features)
        logits = out if isinstance(out, Tensor) else out.logits
        loss = logits.sum() if isinstance(out, Tensor) or out.pose is None else logits.sum() + out.pose.sum()
        torch.autograd.grad(loss, [features, *parameters])

    return both if backward else forward
