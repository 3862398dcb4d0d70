"""How an image becomes the network's input: the options; what they do stands in `crops` and `views`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input. The paper's recipe: image_size=450, short_side=480, max_width=512.

    Args:
        image_size: side of the network's square input, in pixels.
        short_side: the image's short side is resized to this many pixels before cropping (default: image_size).
        max_width: wider images are first reduced to this width in pixels, as in the paper (512); costs detail.
        squash: first squash to 340x256 as the released code does for HICO and HMDB51; costs detail.
        flip: training: probability of a horizontal flip.
        color_jitter: training: strength 0..1 of random brightness, contrast, saturation and (a tenth of it) hue.
        segments: clips, training: frames drawn from a clip, one a segment.
        modality: clips: frames, or stacks of optical flow (needs the extra flow).
        frames: clips, testing: frames taken from a clip.
        random_resized_crop: training: crop a random 25 to 100% of the image, sides 3:4 to 4:3, instead of a square.

    Raises:
        ValueError: a number is out of range, or there is no such modality.
    """

    image_size: int = 448
    short_side: int | None = None
    max_width: int | None = None
    squash: bool = False
    flip: float = 0.5
    color_jitter: float = 0.0
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
        if self.max_width is not None and self.max_width < 1:
            raise ValueError(f"max_width is {self.max_width}; give a positive number of pixels, or leave it out")
        for name in ("flip", "color_jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number from 0 to 1")

    def of_model(self) -> dict[str, Any]:
        """What belongs to a trained model, as `Recognizer(preprocessing=...)` takes it: all that testing looks at."""
        return {name: getattr(self, name) for name in OF_MODEL}


OF_MODEL = ("image_size", "short_side", "max_width", "squash", "frames", "modality")
"""The fields that testing looks at; the others belong to training alone."""
