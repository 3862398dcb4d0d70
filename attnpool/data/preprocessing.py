"""The options of preprocessing and augmentation; `crops` and `views` apply them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

CELL = 32  # sides of whole views are multiples of this many pixels, which is the stride of most networks


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input. The paper uses image_size=450, short_side=480, max_width=512.

    Args:
        image_size: side of the network's square input in pixels (with view whole: of the square with as many cells).
        view: what the network sees of an image, the middle square (crop), all of it at its own shape (whole) or all of
            it stretched to the square (squash) (default: whole in a training, or crop beside options that cut and where
            32 does not divide image_size). See docs/views.md.
        short_side: short side in pixels to which images are resized before they are cropped (default: image_size).
        max_width: width in pixels to which wider images are reduced first, which loses detail, 512 in the paper
            (default: no reduction).
        squash: resize images to 340x256 first, as the released code does for HICO and HMDB51, which loses detail.
        flip: probability of a horizontal flip in training.
        color_jitter: strength of random brightness, contrast, saturation and (a tenth of it) hue in training, from 0 to
            1.
        cached_views: views of each image that are kept of a frozen backbone and drawn from in training, the image
            alone (1), with its mirror image (2), or these two and the middle of the image enlarged (4). See
            docs/views.md.
        segments: number of segments of a clip, from each of which training draws a frame.
        modality: input from clips, rgb frames or stacks of optical flow (flow needs the extra flow).
        frames: number of frames of a clip that testing uses.
        random_resized_crop: crop a random rectangle of 25 to 100% of the image, with sides from 3:4 to 4:3, instead of
            a square in training.

    Raises:
        ValueError: a number is out of range, or the modality is unknown.
    """

    image_size: int = 448
    view: Literal["crop", "whole", "squash"] = "crop"
    short_side: int | None = None
    max_width: int | None = None
    squash: bool = False
    flip: float = 0.5
    color_jitter: float = 0.0
    cached_views: Literal[1, 2, 4] = 1
    segments: int = 3
    modality: Literal["rgb", "flow"] = "rgb"
    frames: int = 25
    random_resized_crop: bool = False

    def __post_init__(self) -> None:
        for name in ("segments", "frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.modality not in ("rgb", "flow"):
            raise ValueError(f"unknown modality {self.modality!r}: use rgb or flow")
        if self.image_size < 1:
            raise ValueError(f"image_size is {self.image_size}; give a positive number of pixels, such as 448")
        if self.short_side is not None and self.short_side < self.image_size:
            raise ValueError(
                f"short_side {self.short_side} is smaller than image_size {self.image_size}; "
                "make it at least as large, or leave it out"
            )
        if self.view not in ("crop", "whole", "squash"):
            raise ValueError(f"unknown view {self.view!r}: use crop, whole or squash")
        if self.view == "whole":
            if self.image_size % CELL:
                raise ValueError(f"image_size is {self.image_size}; view whole takes multiples of {CELL}, such as 448")
            for name in ("short_side", "squash", "random_resized_crop"):
                if getattr(self, name):
                    raise ValueError(f"{name} does not go together with view whole, which cuts and stretches nothing")
            if self.modality == "flow":
                raise ValueError("view whole is for images; use crop or squash for optical flow")
        if self.cached_views not in (1, 2, 4):
            raise ValueError(f"cached_views is {self.cached_views}; use 1, 2 or 4")
        if self.cached_views == 4 and self.view == "whole":
            raise ValueError("cached_views is 4, but view whole cuts nothing and cannot show the middle alone; use 2")
        if self.view == "squash" and self.squash:
            raise ValueError("view squash and squash are both given; leave squash out")
        if self.max_width is not None and self.max_width < 1:
            raise ValueError(f"max_width is {self.max_width}; give a positive number of pixels, or leave it out")
        for name in ("flip", "color_jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number from 0 to 1")

    @classmethod
    def default_view(cls, given: Mapping[str, Any]) -> Literal["crop", "whole"]:
        """The view of a training that none is given for: whole, unless another option that is given rules it out."""
        try:
            cls(**dict(given), view="whole")
        except ValueError:
            return "crop"
        return "whole"

    @property
    def kept(self) -> tuple[int, bool]:
        """What `cached_views` stands for: the crops of an image, and whether their mirror images are kept, too."""
        return {1: (1, False), 2: (1, True), 4: (2, True)}[self.cached_views]

    def of_model(self) -> dict[str, Any]:
        """The options that testing uses, which belong to a trained model, as `Recognizer(preprocessing=...)` takes
        them.
        """
        return {name: getattr(self, name) for name in OF_MODEL}


OF_MODEL = ("image_size", "view", "short_side", "max_width", "squash", "frames", "modality")
"""The fields that testing uses; the others are only for training."""
