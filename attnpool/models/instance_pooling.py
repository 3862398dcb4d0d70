"""Multiple-instance learning over person boxes: the head scores every person's region, and the best score counts.

The label of an image says that somebody in it acts, but not who. The whole image and the regions of its persons are the
instances. Each is pooled by the same head, so that attention is learned within a person's box and its surroundings, and
the score of a class is that of its best instance. This is the setting of R*CNN (Gkioxari et al., ICCV 2015) and of
Mallya & Lazebnik (ECCV 2016) on HICO, with attentional pooling (the Discussion of Girdhar & Ramanan, NIPS 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import roi_align

from attnpool.keypoints.joints import Box
from attnpool.pooling import PoolingHead

Boxes = Sequence[Sequence[Box]]  # boxes of the persons in each image

GRID = 7  # positions along the side of a region, as in the heads of Fast R-CNN
SAMPLES = 2  # sampling points along the side of a position


class Instances(NamedTuple):
    """Logits of images, as the maximum over their instances.

    Attributes:
        logits: `(B, K)`, for every class the maximum over the image and its boxes.
        winners: int64 `(B, K)`, the instance with that maximum: 0 is the whole image, i the image's box i - 1. In a tie
            it is the first.
        pose: `(B, 16, H, W)` joint heatmaps of the whole image from heads that predict them.
    """

    logits: Tensor
    winners: Tensor
    pose: Tensor | None = None


def pool_instances(
    head: PoolingHead, features: Tensor, boxes: Boxes, size: tuple[int, int], context: float = 1.5
) -> Instances:
    """Scores images by their best instance: `score_k = max_r head(X_r)_k`, where r is the image or one of its boxes.

    Args:
        head: head that scores both the whole image and the regions.
        features: `(B, C, H, W)`.
        boxes: boxes of the persons in each of the B images, `(x1, y1, x2, y2)` in pixels of the network's input. An
            image without boxes has the score of the whole image.
        size: height and width of the network's input in pixels.
        context: see `regions`.

    Raises:
        ValueError: the features have another shape, such as those of clips, or there are boxes for another number of
            images.
    """
    if features.ndim != 4:
        raise ValueError(
            f"instances need features (B, C, H, W), not {tuple(features.shape)}: boxes are known only in images with "
            "one view, not in clips or several crops"
        )
    if len(boxes) != len(features):
        raise ValueError(
            f"boxes has {len(boxes)} lists for the features of {len(features)} images: give one list per image"
        )
    whole = head(features)
    counts = [len(own) for own in boxes]
    if not any(counts):
        return Instances(whole.logits, torch.zeros_like(whole.logits, dtype=torch.long), whole.pose)
    each = head(regions(features, boxes, size, context)).logits
    # A table of all instances of every image, filled up with -infinity where an image has fewer than another.
    rows = [b for b, count in enumerate(counts) for _ in range(count)]
    columns = [i + 1 for count in counts for i in range(count)]
    table = each.new_full((len(boxes), max(counts) + 1, each.shape[1]), -torch.inf)
    table[:, 0] = whole.logits
    table[rows, columns] = each
    best = table.max(1)
    return Instances(best.values, best.indices, whole.pose)


def regions(features: Tensor, boxes: Boxes, size: tuple[int, int], context: float = 1.5) -> Tensor:
    """The features of boxes, interpolated from the map: `(R, C, 7, 7)`, in the order of the images.

    Args:
        features: `(B, C, H, W)`.
        boxes: boxes of each image, in pixels of the network's input.
        size: height and width of the network's input in pixels.
        context: factor by which every box's width and height are enlarged about its centre; the result is clipped at
            the border.

    Raises:
        ValueError: `context` is not positive.
    """
    if not context > 0:
        raise ValueError(f"context is {context}: give a positive number, such as 1.5 for half as much again")
    flat = [(b, *box) for b, own in enumerate(boxes) for box in own]
    table = torch.tensor(flat, dtype=torch.float64).reshape(-1, 5)
    middle, half = (table[:, 1:3] + table[:, 3:]) / 2, (table[:, 3:] - table[:, 1:3]) / 2
    (rows, columns), (height, width) = features.shape[2:], size
    limits = torch.tensor([width, height, width, height])
    corners = torch.cat([middle - context * half, middle + context * half], 1).clamp_min(0).minimum(limits)
    corners = corners * torch.tensor([columns, rows, columns, rows]) / limits
    places = torch.cat([table[:, :1], corners], 1).to(features)
    # With `aligned`, pixel i of the map reaches from i to i + 1, as everywhere in this package.
    return roi_align(features, places, GRID, sampling_ratio=SAMPLES, aligned=True)
