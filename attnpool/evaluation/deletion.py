"""The deletion test: is the evidence that a map shows also what the network needs?

A combined map adds up to the score, given the features. But a cell's features have seen much of the image, so a map
need not say what would happen without a part of the image. The test covers the cells where a map is highest and scores
the image again, beside cells in the order of a gradient and in a random order (Petsiuk et al., RISE, BMVC 2018).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attnpool.data import batches
from attnpool.evaluation.tables import text_table
from attnpool.features.batches import Images
from attnpool.models.recognizer import Recognizer
from attnpool.progress import bar

COVERED = (0.1, 0.25, 0.5)  # parts of the cells
ORDERS = ("maps", "gradient", "random")
BATCH = 8


@dataclass(frozen=True)
class Deletion:
    """What covering cells does to the score of the class that scores highest.

    Attributes:
        images: number of images.
        before: mean probability of that class.
        drops: for each of `ORDERS` the mean loss of probability at each of `covered`, positive where it falls.
        covered: parts of the cells.
    """

    images: int
    before: float
    drops: dict[str, tuple[float, ...]]
    covered: tuple[float, ...] = COVERED

    def to_json(self) -> dict[str, Any]:
        found = {name: list(values) for name, values in self.drops.items()}
        return {"images": self.images, "before": self.before, "covered": list(self.covered), "drops": found}

    def lines(self) -> list[str]:
        """A table in points of probability."""
        header = ["cells covered by", *(f"{100 * part:.0f} %" for part in self.covered)]
        rows = [[name, *(f"{-100 * value:+.1f}" for value in self.drops[name])] for name in ORDERS]
        before = f"deletion: the best class has {100 * self.before:.1f} % on average; the table has points of that"
        return [before, *text_table(header, rows)]


def deletion(
    model: Recognizer,
    source: Images,
    *,
    covered: tuple[float, ...] = COVERED,
    seed: int = 0,
    device: torch.device | None = None,
    progress: bool = False,
) -> Deletion:
    """The deletion test on images.

    Cells are covered with the backbone's mean colour. The orders are that of the class's combined map (with a softmax
    its difference from the mean of all classes' maps, because only differences decide), of the gradient of its logit,
    `sum |d s / d pixel|` in a cell (Simonyan et al., 2014), and a random one.

    Args:
        model: the recognizer.
        source: the images, a single view of each.
        covered: parts of the cells to cover.
        seed: seed of the random order.
        device: where the model is.
        progress: show a progress bar.

    Raises:
        ValueError: there is no image that can be read, or no combined map.
    """
    was_training, generator = model.training, torch.Generator().manual_seed(seed)
    model.eval()
    before: list[Tensor] = []
    drops: dict[str, list[Tensor]] = {name: [] for name in ORDERS}
    shapes, blocks = source.shapes, source.blocks
    order = batches(len(source.dataset), BATCH, seed=0, epoch=0, shuffle=False, groups=shapes, blocks=blocks)
    with bar(len(source.dataset), "deletion", "images", hidden=not progress) as shown:
        for batch in source.batches(order, seed=0, epoch=0, train=False):
            shown.update(len(batch.paths) + len(batch.failed))
            if not batch.paths:
                continue
            x = model.normalize(batch.inputs.to(device) if device else batch.inputs)
            chosen, score, cells = look(model, x)
            cells["random"] = torch.rand(cells["maps"].shape, generator=generator).to(x.device)
            before.append(score)
            for name in ORDERS:
                after = [probabilities(model, cover(x, cells[name], part), chosen) for part in covered]
                drops[name].append(score - torch.stack(after))
    model.train(was_training)
    if not before:
        raise ValueError(f"{source.dataset.name}: none of its images can be read; see attnpool check")
    return Deletion(
        sum(map(len, before)),
        float(torch.cat(before).mean()),
        {name: tuple(torch.cat(values, 1).mean(1).tolist()) for name, values in drops.items()},
        covered,
    )


def look(model: Recognizer, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The best class of each image, its probability, and the cells `(B, h, w)` of the map and of the gradient."""
    with torch.enable_grad(), gradients_through(model):
        x = x.detach().requires_grad_()
        out = model(x, maps=True)
        if out.combined is None:
            raise ValueError("this model has no combined maps, so that there is nothing to delete")
        chosen = out.logits.argmax(1)
        (gradient,) = torch.autograd.grad(out.logits.gather(1, chosen[:, None]).sum(), x)
    combined = out.combined.detach()
    own = combined[torch.arange(len(x)), chosen]
    if model.scores == "softmax":
        own = own - combined.mean(1)
    cells = F.adaptive_avg_pool2d(gradient.abs().sum(1, keepdim=True), own.shape[-2:])[:, 0]
    return chosen, probability(model, out.logits.detach(), chosen), {"maps": own, "gradient": cells}


@contextmanager
def gradients_through(model: Recognizer) -> Iterator[None]:
    """Lets a frozen backbone pass gradients on to the image; its own weights get none."""
    frozen, model.backbone.frozen = model.backbone.frozen, False
    try:
        yield
    finally:
        model.backbone.frozen = frozen


def cover(x: Tensor, cells: Tensor, part: float) -> Tensor:
    """Normalised images `(B, 3, H, W)` with the highest cells at their mean colour, which is 0."""
    count = math.ceil(part * cells[0].numel())
    highest = cells.flatten(1).topk(count, 1).indices
    kept = torch.ones_like(cells.flatten(1)).scatter_(1, highest, 0.0).view_as(cells)
    return x * F.interpolate(kept[:, None], x.shape[-2:], mode="nearest")


@torch.no_grad()
def probabilities(model: Recognizer, x: Tensor, chosen: Tensor) -> Tensor:
    return probability(model, model(x).logits, chosen)


def probability(model: Recognizer, logits: Tensor, chosen: Tensor) -> Tensor:
    """The probability of a class in each image, `(B,)`."""
    found = logits.double().softmax(1) if model.scores == "softmax" else logits.double().sigmoid()
    return found.gather(1, chosen[:, None])[:, 0].cpu()
