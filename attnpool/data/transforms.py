"""From a picture of any size to the network's square input, with keypoints and boxes carried along.

Coordinates are continuous: pixel i reaches from i to i + 1 and its centre is at i + 0.5, in pictures and in views
alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from attnpool.data.index import Box
from attnpool.pose.joints import MPII_FLIP

_CROP_AREA = (0.25, 1.0)
_CROP_RATIO = (3 / 4, 4 / 3)

Joint = tuple[float, float] | None


@dataclass(frozen=True)
class ViewOptions:
    """How a picture becomes the network's input. The paper's recipe: image_size=450, short_side=480, max_width=512."""

    image_size: int = field(default=448, metadata={"help": "side of the network's square input, in pixels"})
    short_side: int | None = field(
        default=None,
        metadata={"help": "the picture's short side is resized to this before cropping (default: image_size)"},
    )
    max_width: int | None = field(
        default=None,
        metadata={"help": "wider pictures are first reduced to this width, as in the paper (512); costs detail"},
    )
    flip: float = field(default=0.5, metadata={"help": "training: probability of a horizontal flip"})
    color_jitter: float = field(
        default=0.0,
        metadata={"help": "training: strength 0..1 of random brightness, contrast, saturation and (a tenth of it) hue"},
    )
    segments: int = field(default=3, metadata={"help": "clips, training: frames drawn from a clip, one a segment"})
    frames: int = field(default=25, metadata={"help": "clips, testing: frames taken from a clip"})
    random_resized_crop: bool = field(
        default=False,
        metadata={"help": "training: crop a random 25 to 100% of the picture, sides 3:4 to 4:3, instead of a square"},
    )

    def __post_init__(self) -> None:
        for name in ("segments", "frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.image_size < 1:
            raise ValueError(f"image_size is {self.image_size}; give a positive number of pixels, such as 448")
        if self.short_side is not None and self.short_side < self.image_size:
            raise ValueError(
                f"short_side {self.short_side} is smaller than image_size {self.image_size}; "
                "make it at least as large, or leave it out"
            )
        if self.max_width is not None and self.max_width < 1:
            raise ValueError(f"max_width is {self.max_width}; give a positive number of pixels, or leave it out")
        for name in ("flip", "color_jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number from 0 to 1")

    def of_model(self) -> dict[str, Any]:
        """What belongs to a trained model, as `Recognizer(view=...)` takes it: all that testing looks at."""
        return {name: getattr(self, name) for name in OF_MODEL}


OF_MODEL = ("image_size", "short_side", "max_width", "frames")


@dataclass(frozen=True, eq=False)
class View:
    """What the network sees of a picture, and where it lies in the picture.

    Attributes:
        pixels: uint8 (3, S, S), RGB.
        matrix: (2, 3) float64, from `(x, y, 1)` in the picture to `(x, y)` in the view.
        flipped: whether left and right are exchanged.
    """

    pixels: Tensor
    matrix: np.ndarray
    flipped: bool

    @property
    def inverse(self) -> np.ndarray:
        """(2, 3) float64, from `(x, y, 1)` in the view to `(x, y)` in the picture."""
        linear = np.linalg.inv(self.matrix[:, :2])
        return np.concatenate([linear, -linear @ self.matrix[:, 2:]], axis=1)

    @property
    def area(self) -> Box:
        """The part of the picture that the view shows: `(x1, y1, x2, y2)` in pixels of the picture."""
        corners = np.array([[0, 0, 1], [self.pixels.shape[-1], self.pixels.shape[-2], 1]]) @ self.inverse.T
        (x1, y1), (x2, y2) = np.sort(corners, axis=0)
        return float(x1), float(y1), float(x2), float(y2)

    def points(self, joints: Sequence[Joint]) -> tuple[Joint, ...]:
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


def eval_view(image: Image.Image, options: ViewOptions) -> View:
    """The middle of the picture: short side resized to `short_side`, aspect kept, then a centre crop.

    Args:
        image: RGB, any size.
        options: what belongs to training alone (flip, jitter, random resized crop) is not looked at.
    """
    crop_width, crop_height = _square(image, options)
    left, top = (image.width - crop_width) / 2, (image.height - crop_height) / 2
    return _view(image, options, left, top, crop_width, crop_height, flipped=False)


def train_view(image: Image.Image, options: ViewOptions, rng: np.random.Generator) -> View:
    """A random view for training: the paper's resize, random crop and flip, plus the options' jitter and crops.

    Crop offsets are fractions of a pixel of the picture. With `random_resized_crop`, which does not look at
    `short_side`, a rectangle of 25 to 100% of the picture's area with sides from 3:4 to 4:3 is stretched to the
    square; a picture in which ten tries find none (a panorama) gives its middle, with the nearest such shape.

    Args:
        image: RGB, any size.
        options: see `ViewOptions`.
        rng: where every random number comes from.
    """
    # Drawn always and before the crop, so that switching one option on leaves the others' numbers as they were.
    flip, *jitter = rng.random(5)
    order = rng.permutation(4)
    across, down = rng.random(2)
    if options.random_resized_crop:
        crop_width, crop_height, fits = _rectangle(image, rng)
        across, down = (across, down) if fits else (0.5, 0.5)
    else:
        crop_width, crop_height = _square(image, options)
    left, top = across * (image.width - crop_width), down * (image.height - crop_height)
    view = _view(image, options, left, top, crop_width, crop_height, flipped=bool(flip < options.flip))
    if options.color_jitter > 0:
        pixels = _jitter(view.pixels, options.color_jitter, [2 * u - 1 for u in jitter], order)
        return View(pixels, view.matrix, view.flipped)
    return view


def _square(image: Image.Image, options: ViewOptions) -> tuple[float, float]:
    """Side of the crop in pixels of the picture: what becomes `image_size` when the short side becomes `short_side`."""
    side = min(image.size) * options.image_size / (options.short_side or options.image_size)
    return side, side


def _rectangle(image: Image.Image, rng: np.random.Generator) -> tuple[float, float, bool]:
    for _ in range(10):
        area = image.width * image.height * rng.uniform(*_CROP_AREA)
        ratio = math.exp(rng.uniform(math.log(_CROP_RATIO[0]), math.log(_CROP_RATIO[1])))
        width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if width <= image.width and height <= image.height:
            return width, height, True
    narrow, wide = _CROP_RATIO
    return min(image.width, image.height * wide), min(image.height, image.width / narrow), False


def _view(
    image: Image.Image, options: ViewOptions, left: float, top: float, width: float, height: float, *, flipped: bool
) -> View:
    """Resample a rectangle of the picture to the network's input: once, antialiased, bicubic."""
    size = options.image_size
    # Rounding errors must not take the rectangle over the border.
    left, top = min(max(left, 0.0), image.width - width), min(max(top, 0.0), image.height - height)
    matrix = np.array([[size / width, 0, -left * size / width], [0, size / height, -top * size / height]])
    box = np.array([left, top, left + width, top + height])
    if options.max_width is not None and image.width > options.max_width:
        # The only case with a second resampling: losing detail here is what the option is for.
        reduced = (options.max_width, max(1, round(image.height * options.max_width / image.width)))
        box *= np.tile(np.array(reduced) / image.size, 2)
        image = image.resize(reduced, Image.Resampling.BICUBIC)
    box = box.clip(0, np.tile(image.size, 2))
    square = image.resize((size, size), Image.Resampling.BICUBIC, box=tuple(box.tolist()))
    if flipped:
        square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        matrix[0] = [-matrix[0, 0], 0, size - matrix[0, 2]]
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()  # (3, S, S)
    return View(pixels, matrix, flipped)


def _jitter(pixels: Tensor, strength: float, draws: Sequence[float], order: Iterable[int]) -> Tensor:
    """Brightness, contrast, saturation and hue in a random order; `draws` lie in -1..1."""
    for step in order:
        amount = strength * draws[step]
        if step == 0:
            pixels = functional.adjust_brightness(pixels, 1 + amount)
        elif step == 1:
            pixels = functional.adjust_contrast(pixels, 1 + amount)
        elif step == 2:
            pixels = functional.adjust_saturation(pixels, 1 + amount)
        else:
            pixels = functional.adjust_hue(pixels, 0.1 * amount)
    return pixels
