"""Decodes images; no other file does so."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

IMAGE_SUFFIXES: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Suffixes of names that count as images, in upper or lower case. The format is recognised by the content."""

MAX_PIXELS = 89_478_485
"""Images with more pixels than this (Pillow's own threshold, a quarter of a gigabyte) are not read."""

# Pillow knows many more formats, some of which start other programs (EPS).
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM")


class Unreadable(ValueError):
    """The error for a sample that cannot be read; `reason` says why in a few words."""

    kind = "an image or a clip"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: cannot be read as {self.kind} ({reason}); remove or replace it")
        self.reason = reason


class UnreadableImage(Unreadable):
    """The error for a file that is not a usable image; `reason` says why in a few words."""

    kind = "an image"


def read_image(path: str | Path) -> Image.Image:
    """Reads an image as 8-bit RGB, upright.

    The EXIF orientation is applied. Transparent parts become white, the first frame of animated files and multi-page
    TIFFs is used, 16 bits per channel become 8 (65535 becomes 255), CMYK and greyscale become RGB; colour profiles are
    ignored. A damaged EXIF block counts as "upright". The format is recognised by the content, whatever the file's
    name.

    To read in several threads call `decode` inside one `quiet()`: Python's warning filters are shared by all threads.

    Args:
        path: a file in one of the formats of `IMAGE_SUFFIXES`.

    Returns:
        A loaded image of mode "RGB"; the file is closed.

    Raises:
        UnreadableImage: (a ValueError) the file is missing, not an image, truncated, damaged or larger than
            `MAX_PIXELS`; the message is one line with the reason.
    """
    with quiet():
        return decode(path)


def upright_size(path: str | Path) -> tuple[int, int] | None:
    """Width and height of an image as `read_image` returns it, from its header; None if it is not an image."""
    if not Path(path).is_file():  # reading a pipe would wait
        return None
    with suppress(Exception), Image.open(path, formats=_FORMATS) as image:
        with suppress(Exception):  # a damaged EXIF block
            # Pillow's size of a TIFF is that of the upright image already.
            if image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8):
                return image.height, image.width
        return image.size
    return None


def frames_in(path: str | Path) -> int:
    """The number of images in a file, of which `read_image` returns the first; 0 if it is not an image."""
    if not Path(path).is_file():
        return 0
    with suppress(Exception), quiet(), Image.open(path, formats=_FORMATS) as image:
        # The second image of a photo is a preview or another exposure.
        return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
    return 0


def only_first(path: str | Path) -> str:
    """What to say of a file with several images, of which `read_image` returns the first; "" for a file with one."""
    count = frames_in(path)
    return f"the first of its {count} images counts" if count > 1 else ""


@contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings while images are decoded: a problem of a file either is an error or does not matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode(path: str | Path) -> Image.Image:
    """`read_image` without `quiet()`, for use in several threads."""
    path = Path(path)
    # Decoders raise nearly every kind of exception on malformed files, so all of them are caught.
    try:
        if not path.is_file() and path.exists():
            raise ValueError("not a file")  # reading a pipe would wait
        with path.open("rb") as file:
            if not file.read(1):
                raise ValueError("the file is empty")
            file.seek(0)
            with Image.open(file, formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}")
                image.load()
                # In place, the pixels are rotated before the EXIF block is rewritten, so a damaged EXIF block does not
                # lose the image.
                with suppress(Exception):
                    ImageOps.exif_transpose(image, in_place=True)
                return _rgb(image)
    except Exception as error:
        raise UnreadableImage(path, _reason(error)) from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # "I;16" and its byte orders; "I" is how 16-bit PGM arrives
        wide = np.asarray(image).clip(0, 65535).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    rgb = image.convert("RGB")
    # `convert` keeps the EXIF block, whose orientation is wrong for the upright image.
    rgb.info = {}
    return rgb


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS} pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__
