"""Chooses the rectangle of an image that becomes the network's input, in training and in testing.

Coordinates are continuous, as in `views`: a crop may begin inside a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from attnpool.data.preprocessing import CELL, Preprocessing

SQUASHED = (340, 256)
"""Width and height to which the authors' code resizes the images of HICO and HMDB51, whatever their aspect ratio."""

_AREA = (0.25, 1.0)
_RATIO = (3 / 4, 4 / 3)
# Positions of a crop as fractions of its horizontal and vertical freedom: the centre, then the four corners.
_PLACES = ((0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))

ZOOM = 1.25
"""How much larger than in the centre crop things are in the crop of its middle."""

# Width to height of the shapes of whole views: square, 4:3, 3:2, 16:9, 5:2, and upright.
ASPECTS = (2 / 5, 9 / 16, 2 / 3, 3 / 4, 1.0, 4 / 3, 3 / 2, 16 / 9, 5 / 2)


@dataclass(frozen=True)
class Crop:
    """A rectangle in pixels of the image that is resized to the network's input, and mirrored if `flipped`.

    That of a whole view holds the image, and is larger than it.
    """

    left: float
    top: float
    width: float
    height: float
    flipped: bool = False


@dataclass(frozen=True)
class Jitter:
    """The random numbers of a colour jitter: four numbers in -1..1 and the order of the four steps."""

    draws: tuple[float, ...]
    order: tuple[int, ...]


def input_size(size: tuple[int, int], options: Preprocessing) -> tuple[int, int]:
    """Width and height of the network's input for an image of a width and height, in pixels.

    With view "whole" it is the one of a few shapes whose aspect is nearest, with about as many cells as the square.
    """
    side = options.image_size
    if options.view != "whole":
        return side, side
    cells = side / CELL
    shapes = [
        (max(1, round(cells * math.sqrt(aspect))), max(1, round(cells / math.sqrt(aspect)))) for aspect in ASPECTS
    ]
    wanted = math.log(size[0] / size[1])
    across, down = min(shapes, key=lambda shape: abs(math.log(shape[0] / shape[1]) - wanted))
    return across * CELL, down * CELL


def detail(size: tuple[int, int], options: Preprocessing, crops: int = 1) -> float:
    """How many pixels of an image of a width and height become one of the network's input, in a row, at the least.

    Options that resample an image before it is cut, as the paper's do, need all of its pixels: 1.
    """
    if options.squash or options.max_width is not None:
        return 1.0
    (width, height), (across, down) = _area(size, zoomed(options) if crops == 2 else options), input_size(size, options)
    least = min(width / across, height / down)
    return least * math.sqrt(_AREA[0] * _RATIO[0]) if options.random_resized_crop else least


def eval_crops(size: tuple[int, int], options: Preprocessing, crops: int = 1, flip: bool = False) -> list[Crop]:
    """The crops of the test-time views, see `views.eval_views`."""
    require_crops(crops, options)
    areas = [_area(size, options)] * (5 if crops == 10 else 1)
    if crops == 2:
        areas.append(_area(size, zoomed(options)))
    places = _PLACES if crops == 10 else _PLACES[:1] * 2
    plain = [
        Crop(across * (size[0] - width), down * (size[1] - height), width, height)
        for (width, height), (across, down) in zip(areas, places, strict=False)
    ]
    return plain + [replace(crop, flipped=True) for crop in plain if flip or crops == 10]


def zoomed(options: Preprocessing) -> Preprocessing:
    """The preprocessing whose centre crop is the middle of the centre crop, enlarged."""
    return replace(options, short_side=round(ZOOM * (options.short_side or options.image_size)))


def require_crops(crops: int, options: Preprocessing) -> None:
    """Checks that there are such test-time crops, and that they differ.

    Raises:
        ValueError: there are none.
    """
    if crops not in (1, 2, 10):
        raise ValueError(
            f"crops is {crops}; use 1 (the middle), 2 (and its middle, enlarged), or 10 (the middle, the corners, and "
            "their mirror images)"
        )
    if crops != 1 and options.view == "whole":
        raise ValueError(f"crops is {crops}, but the view whole cuts nothing; use 1, or a model with view crop")
    if crops == 10 and options.view == "squash" and (options.short_side or 0) <= options.image_size:
        raise ValueError(
            "crops is 10, but the squashed image is not larger than the network's input, so that all crops are the "
            "same; use 1 or 2, or a model with a larger short_side"
        )


def train_crops(
    sizes: Sequence[tuple[int, int]], options: Preprocessing, rng: np.random.Generator
) -> tuple[list[Crop], Jitter]:
    """A random crop and jitter for all frames of a clip, with the same random numbers whatever the frames' sizes."""
    # The jitter is always drawn, before the crop, so that no option changes the random numbers of another.
    flip, *draws = rng.random(5)
    jitter = Jitter(tuple(2 * u - 1 for u in draws), tuple(rng.permutation(4).tolist()))
    across, down = rng.random(2)
    state = rng.bit_generator.state
    found = []
    for size in sizes:
        place = across, down
        if options.random_resized_crop:
            rng.bit_generator.state = state
            width, height, fits = _rectangle(size, options, rng)
            place = place if fits else (0.5, 0.5)
        else:
            width, height = _area(size, options)
        if options.view == "whole":
            place = 0.5, 0.5
        left, top = place[0] * (size[0] - width), place[1] * (size[1] - height)
        found.append(Crop(left, top, width, height, bool(flip < options.flip)))
    return found, jitter


def _area(size: tuple[int, int], options: Preprocessing) -> tuple[float, float]:
    """The sides of the crop in pixels of the image, which become `image_size` when the short side is `short_side`.

    The crop is a square of the image, or of the squashed image. With view "squash" it has the aspect of the image, and
    with "whole" that of the network's input, and holds the image.
    """
    if options.view == "whole":
        across, down = input_size(size, options)
        scale = min(across / size[0], down / size[1])
        return across / scale, down / scale
    if options.view == "squash":
        part = options.image_size / (options.short_side or options.image_size)
        return part * size[0], part * size[1]
    width, height = SQUASHED if options.squash else size
    side = min(width, height) * options.image_size / (options.short_side or options.image_size)
    return side * size[0] / width, side * size[1] / height


def _rectangle(size: tuple[int, int], options: Preprocessing, rng: np.random.Generator) -> tuple[float, float, bool]:
    """The size of a random rectangle in pixels of the image, and whether ten tries found one."""
    whole = SQUASHED if options.squash else size
    across, down = size[0] / whole[0], size[1] / whole[1]
    for _ in range(10):
        area = whole[0] * whole[1] * rng.uniform(*_AREA)
        ratio = math.exp(rng.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
        width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if width <= whole[0] and height <= whole[1]:
            return width * across, height * down, True
    narrow, wide = _RATIO
    return min(whole[0], whole[1] * wide) * across, min(whole[1], whole[0] / narrow) * down, False
