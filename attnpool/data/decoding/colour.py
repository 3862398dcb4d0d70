"""Brings a decoded image to 8-bit RGB in sRGB, whatever its mode and colour profile."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

# What profiles of one colour space can be applied to, and the mode of the pixels.
_MODES = {"RGB ": ("RGB", "RGBA"), "GRAY": ("L",), "CMYK": ("CMYK",)}


def to_srgb(image: Image.Image) -> Image.Image:
    """8-bit RGB in sRGB, on white.

    Raises:
        ValueError: the pixels are floating-point numbers.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # "I;16" and its byte orders; "I" is how 16-bit PGM arrives
        wide = np.asarray(image).clip(0, 65535).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    profile = image.info.get("icc_profile")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        layer = transformed(layer, profile) or layer
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    if image.mode in ("P", "1", "YCbCr", "RGBX"):
        image = image.convert("RGB")
    rgb = transformed(image, profile) or image.convert("RGB")
    # `convert` keeps the EXIF block, whose orientation is wrong for the upright image, and the profile.
    rgb.info = {}
    return rgb


def transformed(image: Image.Image, profile: bytes | None) -> Image.Image | None:
    """An image in sRGB, by relative colorimetry; None if its profile changes nothing or is not for it."""
    if not profile:
        return None
    target = "RGBA" if image.mode == "RGBA" else "RGB"
    change = transform(profile, image.mode, target)
    if change is None:
        return None
    try:
        return ImageCms.applyTransform(image, change)
    except (ImageCms.PyCMSError, ValueError):
        return None


@lru_cache(maxsize=64)
def transform(profile: bytes, source: str, target: str) -> ImageCms.ImageCmsTransform | None:
    """The change from a profile to sRGB for pixels of a mode; None if it changes nothing, or is damaged."""
    try:
        found = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source not in _MODES.get(found.profile.xcolor_space, ()):
            return None
        return ImageCms.buildTransform(
            found,
            ImageCms.createProfile("sRGB"),
            source,
            target,
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.NONE,
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
