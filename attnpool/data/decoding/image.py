"""Decodes images; no other file does so."""

from __future__ import annotations

import ctypes
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pi_heif
import PIL
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from attnpool.data.decoding.colour import to_srgb

IMAGE_SUFFIXES: tuple[str, ...] = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".avifs", ".heic", ".heif", ".hif",
    ".jp2", ".j2k", ".jpx", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
)  # fmt: skip
"""Suffixes of names that count as images, in upper or lower case. The format is recognised by the content."""

MAX_PIXELS = 89_478_485
"""Images with more pixels than this (Pillow's own threshold, a quarter of a gigabyte) are not read."""

# Pillow knows many more formats, some of which start other programs (EPS).
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "JPEG2000", "BMP", "DIB", "GIF", "TIFF", "PPM")

Detail = Callable[[tuple[int, int]], float]
"""From the width and height of an image to how many of its pixels become one, such as `crops.detail` says it."""

pi_heif.register_heif_opener()


class Unreadable(ValueError):
    """The error for a sample that cannot be read; `reason` says why in a few words."""

    kind = "an image or a clip"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: cannot be read as {self.kind} ({reason}); remove or replace it")
        self.reason = reason


class UnreadableImage(Unreadable):
    """The error for a file that is not a usable image; `reason` says why in a few words."""

    kind = "an image"


def read_image(path: str | Path, detail: Detail | None = None) -> Image.Image:
    """Reads an image as 8-bit RGB, upright.

    The EXIF orientation is applied. Transparent parts become white, the first frame of animated files and multi-page
    TIFFs is used, 16 bits per channel become 8 (65535 becomes 255), CMYK and greyscale become RGB. Colours are brought
    from the profile in the file to sRGB, by relative colorimetry. A damaged EXIF block counts as "upright", a damaged
    profile as none. The format is recognised by the content, whatever the file's name.

    To read in several threads call `decode` inside one `quiet()`: Python's warning filters are shared by all threads.

    Args:
        path: a file in one of the formats of `IMAGE_SUFFIXES`.
        detail: how many of its pixels become one. With it a JPEG file may be decoded at 1/2, 1/4 or 1/8 of its size, as
            long as twice the pixels that are needed are left.

    Returns:
        A loaded image of mode "RGB"; the file is closed. Its own width and height are `full_size`.

    Raises:
        UnreadableImage: (a ValueError) the file is missing, not an image, truncated, damaged or larger than
            `MAX_PIXELS`; the message is one line with the reason.
    """
    with quiet():
        return decode(path, detail)


def upright_size(path: str | Path) -> tuple[int, int] | None:
    """Width and height of an image as `read_image` returns it, from its header; None if it is not an image."""
    if not Path(path).is_file():  # reading a pipe would wait
        return None
    with suppress(Exception), Image.open(path, formats=_FORMATS) as image:
        return _upright(image)
    return None


def is_image(path: str | Path) -> bool:
    """Whether a file counts as an image: by the suffix of its name, or if it has none by its content."""
    suffix = Path(path).suffix.lower()
    return suffix in IMAGE_SUFFIXES or (not suffix and upright_size(path) is not None)


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


def decode(path: str | Path, detail: Detail | None = None) -> Image.Image:
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
                if image.format == "TIFF":
                    silence_tiff()
                size = None if detail is None else _draft(image, detail)
                image.load()
                # In place, the pixels are rotated before the EXIF block is rewritten, so a damaged EXIF block does not
                # lose the image.
                with suppress(Exception):
                    ImageOps.exif_transpose(image, in_place=True)
                rgb = to_srgb(image)
                if size is not None:
                    rgb.info["size"] = size
                return rgb
    except Exception as error:
        raise UnreadableImage(path, _reason(error)) from error


@cache
def silence_tiff() -> None:
    """Stops Pillow and libtiff from writing about damaged files to standard error; what matters is in the exception.

    Pillow leaves the handlers of messages with which libtiff starts. They are taken away in the copy that Pillow brings
    along; where it uses one of the system, the messages stay.
    """
    logging.getLogger("PIL.TiffImagePlugin").addHandler(logging.NullHandler())
    package = Path(PIL.__file__).parent
    for place in (package.with_name("pillow.libs"), package / ".dylibs"):
        for file in place.glob("libtiff*"):
            with suppress(OSError, AttributeError):
                library = ctypes.CDLL(str(file))
                library.TIFFSetErrorHandler(None)
                library.TIFFSetWarningHandler(None)


def full_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an image that may have been decoded at a smaller scale, in whose pixels its boxes are."""
    width, height = image.info.get("size", image.size)
    return int(width), int(height)


def _draft(image: Image.Image, detail: Detail) -> tuple[int, int] | None:
    """Has a JPEG decoded at a smaller scale, with twice the pixels that are needed; then returns its full size."""
    if image.format not in ("JPEG", "MPO"):
        return None
    size, before = _upright(image), image.size
    factor = detail(size) / 2
    if factor > 1:
        image.draft(None, (math.ceil(image.width / factor), math.ceil(image.height / factor)))
    return None if image.size == before else size


def _upright(image: Image.Image) -> tuple[int, int]:
    """Width and height of an image that is not loaded yet, as it will be."""
    with suppress(Exception):  # a damaged EXIF block
        # Pillow's size of a TIFF is that of the upright image already.
        if image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8):
            return image.height, image.width
    return image.size


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS} pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__
