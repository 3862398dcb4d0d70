"""Target heatmaps for pose regularisation (Method 2 of the paper): the discs of its authors, or Gaussians."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from attnpool.keypoints.joints import MPII_JOINTS, Joint

CANVAS_WIDTH = 200  # the authors' canvas; it is drawn on and averaged down to the map
KINDS = ("disc", "gaussian")


def heatmaps(
    people: Sequence[Sequence[Sequence[Joint]]],
    image_size: tuple[int, int],
    map_size: tuple[int, int],
    *,
    kind: Literal["disc", "gaussian"] = "disc",
    radius: float = 0.05,
    sigma: float = 0.025,
) -> tuple[Tensor, Tensor]:
    """Target heatmaps of the 16 joints. All persons of an image share the same 16 channels.

    They are drawn on a canvas W = 200 pixels wide (its height keeps the image's aspect), whatever a person's size.
    With `d` the distance, in canvas pixels, of a canvas pixel's centre from the nearest joint of that kind:

    - "disc", the official target: 1 where `d <= radius * W`, else 0;
    - "gaussian": `exp(-d^2 / (2 s^2))` with `s = sigma * W`, and 0 from `d > 5 s` on. The default sigma, half of the
      disc's radius, spreads a person's joint as widely as the disc does: both have the variance `(radius * W)^2 / 4`
      along each axis.

    So several persons are combined by the maximum, not by the sum. The canvas is then averaged over the cells of the
    map, so values lie in 0..1. (Sampled at the centres of cells of 1/14 of the width, a Gaussian between them would
    nearly vanish.)

    A joint outside the image is neither drawn nor counted as labelled: the crop has lost it, and a map that is zero
    everywhere would teach the network that nobody has such a joint. So `labelled[b, j]` is true if at least one person
    of image b has joint j inside `0 <= x < width, 0 <= y < height`.

    Args:
        people: `people[b]` is a list of persons, each of them 16 entries `(x, y)` in the order of `MPII_JOINTS` or
            `None`, in pixels of the network's input (the centre of the first pixel is at 0.5, 0.5).
        image_size: (height, width) of the network's input.
        map_size: (h, w) of the maps.
        kind: shape that is drawn for a joint.
        radius: radius of the disc, as a fraction of the image's width.
        sigma: standard deviation of the Gaussian, as a fraction of the image's width.

    Returns:
        Heatmaps (B, 16, h, w) float32, and labelled (B, 16) bool.

    Raises:
        ValueError: `kind` is unknown, a size, radius or sigma is not positive, or a person does not have 16 entries.
    """
    height, width = image_size
    if kind not in KINDS:
        raise ValueError(f"unknown pose target {kind!r}: use {' or '.join(KINDS)}")
    if min(*image_size, *map_size) < 1 or not (radius > 0 and sigma > 0):
        raise ValueError(
            f"heatmaps need positive sizes, radius and sigma, not {image_size}, {map_size}, {radius} and {sigma}"
        )
    canvas_height = max(1, round(CANVAS_WIDTH * height / width))
    scale_x, scale_y = CANVAS_WIDTH / width, canvas_height / height
    spread = sigma * CANVAS_WIDTH
    reach = radius * CANVAS_WIDTH if kind == "disc" else 5 * spread
    columns, rows = np.arange(CANVAS_WIDTH) + 0.5, np.arange(canvas_height) + 0.5
    average_rows = _cell_averages(canvas_height, map_size[0])  # (h, canvas height)
    average_columns = _cell_averages(CANVAS_WIDTH, map_size[1])  # (w, canvas width)

    maps = np.zeros((len(people), len(MPII_JOINTS), *map_size), np.float32)
    labelled = np.zeros((len(people), len(MPII_JOINTS)), bool)
    for b, persons in enumerate(people):
        for person in persons:
            if len(person) != len(MPII_JOINTS):
                raise ValueError(f"a person has {len(person)} joints; give all {len(MPII_JOINTS)}, None where unknown")
        for j in range(len(MPII_JOINTS)):
            joints = [person[j] for person in persons]
            inside = np.array([p for p in joints if p is not None and 0 <= p[0] < width and 0 <= p[1] < height])
            if len(inside) == 0:
                continue
            labelled[b, j] = True
            x, y = inside.T * np.array([[scale_x], [scale_y]])
            # Only the part of the canvas around the joints is computed, as the rest is 0.
            near_x = (columns >= x.min() - reach) & (columns <= x.max() + reach)
            near_y = (rows >= y.min() - reach) & (rows <= y.max() + reach)
            across, down = columns[near_x] - x[:, None, None], rows[near_y, None] - y[:, None, None]
            nearest = (across**2 + down**2).min(axis=0)  # squared distances
            canvas = (nearest <= reach**2).astype(np.float64)
            if kind == "gaussian":
                canvas *= np.exp(-nearest / (2 * spread**2))
            maps[b, j] = average_rows[:, near_y] @ canvas @ average_columns[:, near_x].T
    return torch.from_numpy(maps), torch.from_numpy(labelled)


def _cell_averages(pixels: int, cells: int) -> np.ndarray:
    """A matrix (cells, pixels) that averages a line of pixels over equal cells; a pixel on a border counts partly."""
    edges = np.linspace(0, pixels, cells + 1)
    start, stop = np.arange(pixels), np.arange(1, pixels + 1)
    overlap = np.minimum(edges[1:, None], stop) - np.maximum(edges[:-1, None], start)
    return np.clip(overlap, 0, None) * (cells / pixels)
