"""Optical flow as the input of a network: stacks of flow images, as in temporal segment networks (TSN).

Source: Wang et al., "Temporal Segment Networks", ECCV 2016 (stacks of 5, values clipped to 20 pixels). The flow is
computed by OpenCV's DIS (Kroeger et al., ECCV 2016) in its medium setting. The authors of TSN used TV-L1, which is fast
only on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

from attnpool.data.crops import eval_crops, train_crops
from attnpool.data.preprocessing import Preprocessing
from attnpool.data.views import View, cut

FLOW_LENGTH = 5
"""Number L of flow fields in a stack, which needs 6 consecutive frames."""

FLOW_BOUND = 20.0
"""Motion from one frame to the next, in pixels of the video, at the ends of the 8-bit scale."""

_SMALLEST = 16  # DIS fails for images that are hardly larger than its patches of 8 pixels


def require_opencv() -> Any:
    """Imports and returns the module cv2.

    Raises:
        ValueError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise ValueError("optical flow needs OpenCV; install it with: pip install 'attnpool[flow]'") from error
    return cv2


def flow_stack(frames: Sequence[Image.Image], bound: float = FLOW_BOUND) -> np.ndarray:
    """Optical flow between consecutive frames, as 8-bit images at the video's resolution.

    A motion of f pixels to the right (x) or down (y) becomes

        round((clip(f, -bound, bound) + bound) * 255 / (2 * bound))

    so 128 is no motion. With the 20 pixels of TSN a step of the scale is 0.16 pixels.

    Args:
        frames: L + 1 consecutive frames of one size, RGB.
        bound: largest motion in pixels; larger ones are clipped.

    Returns:
        uint8 `(2L, H, W)`: x and y of the first flow field, x and y of the second, ...

    Raises:
        ValueError: there are fewer than two frames, their sizes differ, `bound` is not positive, or OpenCV is not
            installed.
    """
    if len(frames) < 2 or len({frame.size for frame in frames}) > 1:
        sizes = sorted({f"{frame.width}x{frame.height}" for frame in frames})
        raise ValueError(f"optical flow needs two or more frames of one size, not {len(frames)} of {', '.join(sizes)}")
    if not bound > 0:
        raise ValueError(f"bound is {bound}; give a positive number of pixels, such as 20")
    cv2 = require_opencv()
    # OpenCV's number of threads is not set: it does not change the result, and setting it in a forked process, such as
    # a worker, crashes if OpenCV was used before the fork.
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [np.asarray(frame.convert("L")) for frame in frames]
    height, width = grey[0].shape
    room = [(0, max(0, _SMALLEST - height)), (0, max(0, _SMALLEST - width))]
    grey = [np.ascontiguousarray(np.pad(image, room, mode="edge")) for image in grey]
    steps = [method.calc(before, after, None)[:height, :width] for before, after in pairwise(grey)]
    flow = np.concatenate([step.transpose(2, 0, 1) for step in steps])
    return np.rint((flow.clip(-bound, bound) + bound) * (255 / (2 * bound))).astype(np.uint8)


def flow_stacks(frames: Sequence[Image.Image], length: int = FLOW_LENGTH) -> list[np.ndarray]:
    """Computes a `flow_stack` for every `length + 1` frames, as `segment_frames(..., length=length + 1)` chooses them.

    Args:
        frames: T * (length + 1) frames.
        length: number L of flow fields in a stack.

    Returns:
        T arrays uint8 `(2L, H, W)`.
    """
    assert len(frames) % (length + 1) == 0
    return [flow_stack(frames[first : first + length + 1]) for first in range(0, len(frames), length + 1)]


def flow_views(
    stacks: Sequence[np.ndarray],
    options: Preprocessing,
    rng: np.random.Generator | None = None,
    crops: int = 1,
    flip: bool = False,
) -> list[View]:
    """Crops views from the flow stacks of a clip, like those of its frames; flipped views also negate horizontal
    motion.

    Motion stays in pixels of the video, whatever the size of the view, as in TSN.

    Args:
        stacks: stacks of one clip, see `flow_stack`.
        options: see `Preprocessing`; there is no colour jitter.
        rng: random generator for training, which gives the same crop and flip as in `train_views`; `None` for testing.
        crops, flip: test-time views, see `eval_views`.

    Returns:
        The views of every stack, one after the other, with pixels uint8 `(2L, S, S)`.
    """
    views = []
    sizes = [(stack.shape[2], stack.shape[1]) for stack in stacks]
    if rng is not None:
        chosen = [[crop] for crop in train_crops(sizes, options, rng)[0]]
    else:
        chosen = [eval_crops(size, options, crops, flip) for size in sizes]
    for stack, places in zip(stacks, chosen, strict=True):
        planes = [Image.fromarray(channel) for channel in stack]
        for crop in places:
            view = cut(planes, options, crop)
            if view.flipped:
                view.pixels[0::2] = 255 - view.pixels[0::2]
            views.append(view)
    return views
