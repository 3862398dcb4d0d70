"""Turns an image of any size into the network's square input, and maps keypoints and boxes with it.

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

from attnpool.data.crops import SQUASHED, Crop, Jitter, eval_crops, input_size, train_crops
from attnpool.data.decoding.image import full_size
from attnpool.data.preprocessing import Preprocessing
from attnpool.keypoints.joints import MPII_FLIP, Box, Joint, Joints

MEAN = (124, 116, 104)  # red, green and blue


@dataclass(frozen=True, eq=False)
class View:
    """The network's input from an image, and its place in the image.

    Attributes:
        pixels: uint8 (3, S, S), RGB; (2L, S, S) for optical flow. Whole views are (3, H, W).
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
        """The rectangle of the image that the view shows: `(x1, y1, x2, y2)` in pixels of the image."""
        corners = np.array([[0, 0, 1], [self.pixels.shape[-1], self.pixels.shape[-2], 1]]) @ self.inverse.T
        (x1, y1), (x2, y2) = np.sort(corners, axis=0)
        return float(x1), float(y1), float(x2), float(y2)

    def points(self, joints: Sequence[Joint]) -> Joints:
        """Maps the 16 joints of a person to the view; a flip exchanges left and right joints.

        Joints outside the view are kept. An empty sequence stays empty.
        """
        assert len(joints) in (0, len(MPII_FLIP)), "a person has MPII's 16 joints or none"
        moved = [None if joint is None else self._move(*joint) for joint in joints]
        return tuple(moved[j] for j in MPII_FLIP) if self.flipped and moved else tuple(moved)

    def boxes(self, boxes: Iterable[Box]) -> list[Box]:
        """Maps boxes to the view and clips them at its border; boxes that lie outside are dropped."""
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
    """The test-time view: the short side is resized to `short_side` with the aspect kept, followed by a centre crop.

    Args:
        image: an RGB image of any size.
        options: the preprocessing; options for training (flip, jitter, random resized crop) are ignored.
    """
    return eval_views([image], options)[0]


def eval_views(
    frames: Sequence[Image.Image],
    options: Preprocessing,
    crops: int = 1,
    flip: bool = False,
    size: tuple[int, int] | None = None,
) -> list[View]:
    """The test-time views of an image, or of each frame of a clip.

    Args:
        frames: one RGB image of any size, or the frames of a clip; see `full_size` for one decoded at a smaller scale.
        options: the preprocessing; options for training are ignored. Corner crops differ from the centre crop along the
            short side only if `short_side` is larger than `image_size`.
        crops: 1, the centre, 2: the centre and its middle, enlarged, or 10: the centre, the four corners, and the
            mirror images of these five.
        flip: whether to add the mirror images of one or two crops.
        size: width and height of whole views, which all frames of a clip share (default: those of the frame's own).

    Returns:
        All views of the first frame, the centre first, then those of the next: 1, 2, 4 or 10 views per frame.

    Raises:
        ValueError: from `require_crops`.
    """
    return [
        cut([frame], options, crop, size)
        for frame in frames
        for crop in eval_crops(full_size(frame), options, crops, flip)
    ]


def train_view(image: Image.Image, options: Preprocessing, rng: np.random.Generator) -> View:
    """A random view for training: the paper's resize, random crop and flip, plus the jitter and crops in `options`.

    Crops may start at fractions of a pixel. With `random_resized_crop`, which ignores `short_side`, a rectangle of 25
    to 100% of the image's area with sides from 3:4 to 4:3 is resized to the square; if ten tries find no such rectangle
    (in a panorama), it is the centre of the image with the nearest such shape.

    Args:
        image: an RGB image of any size.
        options: see `Preprocessing`.
        rng: random generator.
    """
    return train_views([image], options, rng)[0]


def train_views(
    frames: Sequence[Image.Image],
    options: Preprocessing,
    rng: np.random.Generator,
    size: tuple[int, int] | None = None,
) -> list[View]:
    """`train_view` for a clip: all of its frames share one crop, one flip, one colour jitter and one `size`."""
    crops, jitter = train_crops([full_size(frame) for frame in frames], options, rng)
    views = [cut([frame], options, crop, size) for frame, crop in zip(frames, crops, strict=True)]
    if options.color_jitter > 0:
        views = [replace(view, pixels=_jitter(view.pixels, options.color_jitter, jitter)) for view in views]
    return views


def cut(
    planes: Sequence[Image.Image], options: Preprocessing, crop: Crop, size_of_whole: tuple[int, int] | None = None
) -> View:
    """Resamples a rectangle of an image to the network's input, in one step, with antialiased bicubic interpolation.

    Args:
        planes: the image, or several images of one size, such as optical flow, whose channels are concatenated.
        options: the preprocessing, of which image_size, max_width and squash are used.
        crop: the rectangle, in pixels of the image.
        size_of_whole: width and height of a whole view (default: those of the image's own shape).
    """
    if options.view == "whole":
        return cut_whole(planes, options, crop.flipped, size_of_whole or input_size(full_size(planes[0]), options))
    size, (width, height) = options.image_size, full_size(planes[0])
    # Rounding errors must not move the rectangle over the border.
    left = min(max(crop.left, 0.0), width - crop.width)
    top = min(max(crop.top, 0.0), height - crop.height)
    across, down = size / crop.width, size / crop.height
    matrix = np.array([[across, 0, -left * across], [0, down, -top * down]])
    reduced = [_reduce(plane, options) for plane in planes]
    # This is in pixels of the reduced image; the matrix maps from the image itself.
    scale = np.tile(np.array(reduced[0].size) / (width, height), 2)
    box = np.array([left, top, left + crop.width, top + crop.height]) * scale
    x1, y1, x2, y2 = box.clip(0, np.tile(reduced[0].size, 2)).tolist()
    squares = [plane.resize((size, size), Image.Resampling.BICUBIC, box=(x1, y1, x2, y2)) for plane in reduced]
    if crop.flipped:
        squares = [square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for square in squares]
        matrix = mirror(matrix, size)
    pixels = torch.from_numpy(np.concatenate([np.array(square).reshape(size, size, -1) for square in squares], axis=2))
    return View(pixels.permute(2, 0, 1).contiguous(), matrix, crop.flipped)


def cut_whole(planes: Sequence[Image.Image], options: Preprocessing, flipped: bool, size: tuple[int, int]) -> View:
    """All of an image in the middle of the network's input, with its aspect kept to a pixel.

    What is left at two sides has the mean colour of ImageNet, which to the network is as its own padding with zeros.
    """
    (width, height), (across, down) = full_size(planes[0]), size
    scale = min(across / width, down / height)
    w, h = (min(max(1, round(scale * side)), most) for side, most in ((width, across), (height, down)))
    left, top = (across - w) // 2, (down - h) // 2
    parts = [np.asarray(_reduce(plane, options).resize((w, h), Image.Resampling.BICUBIC)) for plane in planes]
    inside = np.concatenate([part.reshape(h, w, -1) for part in parts], axis=2)
    pixels = np.full((down, across, inside.shape[2]), MEAN, np.uint8)
    pixels[top : top + h, left : left + w] = inside
    matrix = np.array([[w / width, 0, left], [0, h / height, top]])
    if flipped:
        pixels = pixels[:, ::-1]
        matrix = mirror(matrix, across)
    return View(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), matrix, flipped)


def mirror(matrices: np.ndarray, width: int) -> np.ndarray:
    """The matrices `(..., 2, 3)` of views of a width after left and right were exchanged."""
    mirrored = matrices.copy()
    mirrored[..., 0, :] *= -1
    mirrored[..., 0, 2] += width
    return mirrored


def _reduce(image: Image.Image, options: Preprocessing) -> Image.Image:
    """Applies max_width or squash, the only options with a second resampling, whose purpose is to lose detail."""
    if options.squash:
        image = image.resize(SQUASHED, Image.Resampling.BICUBIC)
    if options.max_width is not None and image.width > options.max_width:
        reduced = (options.max_width, max(1, round(image.height * options.max_width / image.width)))
        image = image.resize(reduced, Image.Resampling.BICUBIC)
    return image


def _jitter(pixels: Tensor, strength: float, jitter: Jitter) -> Tensor:
    """Changes brightness, contrast, saturation and hue in a random order."""
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
