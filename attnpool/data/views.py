"""From an image of any size to the network's square input, with keypoints and boxes carried along.

Coordinates are continuous: pixel i reaches from i to i + 1 and its centre is at i + 0.5, in images and in views
alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from attnpool.data.crops import SQUASHED, Crop, Jitter, eval_crops, train_crops
from attnpool.data.preprocessing import Preprocessing
from attnpool.keypoints.joints import MPII_FLIP, Box, Joint, Joints


@dataclass(frozen=True, eq=False)
class View:
    """What the network sees of an image, and where it lies in the image.

    Attributes:
        pixels: uint8 (3, S, S), RGB; (2L, S, S) of optical flow.
        matrix: (2, 3) float64, from `(x, y, 1)` in the image to `(x, y)` in the view.
        flipped: whether left and right are exchanged.
    """

    pixels: Tensor
    matrix: np.ndarray
    flipped: bool

    @property
    def inverse(self) -> np.ndarray:
        """(2, 3) float64, from `(x, y, 1)` in the view to `(x, y)` in the image."""
        linear = np.linalg.inv(self.matrix[:, :2])
        return np.concatenate([linear, -linear @ self.matrix[:, 2:]], axis=1)

    @property
    def area(self) -> Box:
        """The part of the image that the view shows: `(x1, y1, x2, y2)` in pixels of the image."""
        corners = np.array([[0, 0, 1], [self.pixels.shape[-1], self.pixels.shape[-2], 1]]) @ self.inverse.T
        (x1, y1), (x2, y2) = np.sort(corners, axis=0)
        return float(x1), float(y1), float(x2), float(y2)

    def points(self, joints: Sequence[Joint]) -> Joints:
        """One person's 16 joints in the view; a flip makes its left joints right ones.

        Joints outside the view are kept, with the coordinates they have there. No joints at all stay none.
        """
        assert len(joints) in (0, len(MPII_FLIP)), "a person has MPII's 16 joints or none"
        moved = [None if joint is None else self._move(*joint) for joint in joints]
        return tuple(moved[j] for j in MPII_FLIP) if self.flipped and moved else tuple(moved)

    def boxes(self, boxes: Iterable[Box]) -> list[Box]:
        """Boxes in the view, cut at its border; those of which nothing is left are dropped."""
        height, width = self.pixels.shape[-2:]
        kept: list[Box] = []
        for box in boxes:
            (xa, ya), (xb, yb) = self._move(*box[:2]), self._move(*box[2:])
            x1, x2 = max(0.0, min(xa, xb)), min(float(width), max(xa, xb))
            y1, y2 = max(0.0, min(ya, yb)), min(float(height), max(ya, yb))
            if x1 < x2 and y1 < y2:
                kept.append((x1, y1, x2, y2))
        return kept

    def _move(self, x: float, y: float) -> tuple[float, float]:
        moved = self.matrix @ (x, y, 1.0)
        return float(moved[0]), float(moved[1])


def eval_view(image: Image.Image, options: Preprocessing) -> View:
    """The middle of the image: short side resized to `short_side`, aspect kept, then a centre crop.

    Args:
        image: RGB, any size.
        options: what belongs to training alone (flip, jitter, random resized crop) is not looked at.
    """
    return eval_views([image], options)[0]


def eval_views(frames: Sequence[Image.Image], options: Preprocessing, crops: int = 1, flip: bool = False) -> list[View]:
    """What testing sees of an image, or of each frame of a clip.

    Args:
        frames: RGB, any size; one image or the frames of a clip.
        options: what belongs to training alone is not looked at. Corners differ from the middle along the short side
            only if `short_side` is larger than `image_size`.
        crops: 1, the middle, or 10: the middle, the four corners, and the mirror images of these five.
        flip: with one crop, also its mirror image.

    Returns:
        All views of the first frame, the middle first, then those of the next: 1, 2 or 10 a frame.

    Raises:
        ValueError: another number of crops.
    """
    return [cut([frame], options, crop) for frame in frames for crop in eval_crops(frame.size, options, crops, flip)]


def train_view(image: Image.Image, options: Preprocessing, rng: np.random.Generator) -> View:
    """A random view for training: the paper's resize, random crop and flip, plus the options' jitter and crops.

    Crop offsets are fractions of a pixel of the image. With `random_resized_crop`, which does not look at
    `short_side`, a rectangle of 25 to 100% of the image's area with sides from 3:4 to 4:3 is stretched to the
    square; an image in which ten tries find none (a panorama) gives its middle, with the nearest such shape.

    Args:
        image: RGB, any size.
        options: see `Preprocessing`.
        rng: where every random number comes from.
    """
    return train_views([image], options, rng)[0]


def train_views(frames: Sequence[Image.Image], options: Preprocessing, rng: np.random.Generator) -> list[View]:
    """`train_view` of a clip: one crop, one flip and one change of colours for all of its frames."""
    crops, jitter = train_crops([frame.size for frame in frames], options, rng)
    views = [cut([frame], options, crop) for frame, crop in zip(frames, crops, strict=True)]
    if options.color_jitter > 0:
        views = [replace(view, pixels=_jitter(view.pixels, options.color_jitter, jitter)) for view in views]
    return views


def cut(planes: Sequence[Image.Image], options: Preprocessing, crop: Crop) -> View:
    """Resample a rectangle of an image to the network's input: once, antialiased, bicubic.

    Args:
        planes: the image; or several of one size, such as optical flow, whose channels are put together.
        options: image_size, and what reduces the image first.
        crop: in pixels of the image.
    """
    size, (width, height) = options.image_size, planes[0].size
    # Rounding errors must not take the rectangle over the border.
    left = min(max(crop.left, 0.0), width - crop.width)
    top = min(max(crop.top, 0.0), height - crop.height)
    across, down = size / crop.width, size / crop.height
    matrix = np.array([[across, 0, -left * across], [0, down, -top * down]])
    reduced = [_reduce(plane, options) for plane in planes]
    # In pixels of the reduced image; the matrix is from the image itself.
    scale = np.tile(np.array(reduced[0].size) / (width, height), 2)
    box = np.array([left, top, left + crop.width, top + crop.height]) * scale
    x1, y1, x2, y2 = box.clip(0, np.tile(reduced[0].size, 2)).tolist()
    squares = [plane.resize((size, size), Image.Resampling.BICUBIC, box=(x1, y1, x2, y2)) for plane in reduced]
    if crop.flipped:
        squares = [square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for square in squares]
        matrix[0] = [-matrix[0, 0], 0, size - matrix[0, 2]]
    pixels = torch.from_numpy(np.concatenate([np.array(square).reshape(size, size, -1) for square in squares], axis=2))
    return View(pixels.permute(2, 0, 1).contiguous(), matrix, crop.flipped)


def _reduce(image: Image.Image, options: Preprocessing) -> Image.Image:
    """The only cases with a second resampling: losing detail, or the aspect, here is what these options are for."""
    if options.squash:
        image = image.resize(SQUASHED, Image.Resampling.BICUBIC)
    if options.max_width is not None and image.width > options.max_width:
        reduced = (options.max_width, max(1, round(image.height * options.max_width / image.width)))
        image = image.resize(reduced, Image.Resampling.BICUBIC)
    return image


def _jitter(pixels: Tensor, strength: float, jitter: Jitter) -> Tensor:
    """Brightness, contrast, saturation and hue in a random order."""
    for step in jitter.order:
        amount = strength * jitter.draws[step]
        if step == 0:
            pixels = functional.adjust_brightness(pixels, 1 + amount)
        elif step == 1:
            pixels = functional.adjust_contrast(pixels, 1 + amount)
        elif step == 2:
            pixels = functional.adjust_saturation(pixels, 1 + amount)
        else:
            pixels = functional.adjust_hue(pixels, 0.1 * amount)
    return pixels
