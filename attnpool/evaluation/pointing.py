"""Where a map is highest, and whether that is where the evidence is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from attnpool.keypoints.joints import Box


def peak(map_: Tensor | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The position of each map's highest cell.

    Args:
        map_: `(..., h, w)`, any number of maps.
        size: `(height, width)` of the network's input in pixels, which the maps cover.

    Returns:
        `(..., 2)` float64, x and y of the centre of the highest cell in pixels of the network's input. Of equal cells
        the first in reading order counts, so that a flat map, which says nothing, points to the corner.

    Raises:
        ValueError: a map is empty or holds NaN.
    """
    values = as_array(map_)
    if values.ndim < 2 or 0 in values.shape[-2:]:
        raise ValueError(f"a map of shape {values.shape} has no peak: give maps of shape (..., h, w)")
    if np.isnan(values).any():
        raise ValueError("the map holds NaN: the network diverged, train it again with a lower learning rate")
    h, w = values.shape[-2:]
    rows, columns = np.divmod(values.reshape(*values.shape[:-2], h * w).argmax(-1), w)
    return np.stack([(columns + 0.5) * size[1] / w, (rows + 0.5) * size[0] / h], -1)


def pointing(peaks: np.ndarray, boxes: Sequence[Sequence[Box]]) -> np.ndarray:
    """Pointing accuracy, image by image: does the peak lie in the evidence?

    Args:
        peaks: `(n, 2)` x and y.
        boxes: for each image its boxes `(x1, y1, x2, y2)`, in the same pixels; edges belong to the box.

    Returns:
        `(n,)` float64: 1 in one of the boxes, 0 outside all, NaN where the image has none. Average it with
        `np.nanmean`: the denominator is the number of images that have a box.

    Raises:
        ValueError: the numbers of peaks and images differ.
    """
    peaks = np.asarray(peaks, dtype=np.float64).reshape(-1, 2)
    if len(peaks) != len(boxes):
        raise ValueError(f"{len(peaks)} peaks for the boxes of {len(boxes)} images: give one peak an image")
    inside = [
        float(any(x1 <= x <= x2 and y1 <= y <= y2 for x1, y1, x2, y2 in of_image)) if len(of_image) else np.nan
        for (x, y), of_image in zip(peaks, boxes, strict=True)
    ]
    return np.array(inside, dtype=np.float64)


def as_array(values: Any) -> np.ndarray:
    """A tensor on any device and of any precision, or an array, as a float64 array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)
