"""Clips for tests: every frame carries its number as a bar code of black and white blocks, which survives any codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

BITS = 10
BLOCK = 12
WIDTH, HEIGHT = BITS * BLOCK, 64  # 120 x 64


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """An image with `number` in it: upper half the bits from the highest to the lowest, lower half their opposites."""
    bits = np.array([number >> (BITS - 1 - bit) & 1 for bit in range(BITS)], dtype=np.uint8)
    code = np.stack([bits, 1 - bits]) * 200 + 28
    return Image.fromarray(np.stack([code] * 3, axis=-1)).resize((width, height), Image.Resampling.NEAREST)


def number_of(image: Image.Image) -> int:
    """The number in an image of any size; fails if the two halves contradict each other."""
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    height, width = grey.shape
    upper, lower = (
        [grey[rows, (2 * bit + 1) * width // (2 * BITS) - 2 :][:, :4].mean() > 128 for bit in range(BITS)]
        for rows in (slice(height // 8, 3 * height // 8), slice(5 * height // 8, 7 * height // 8))
    )
    assert [not bit for bit in upper] == lower, "no bar code"
    return sum(1 << (BITS - 1 - bit) for bit, on in enumerate(upper) if on)


def write_clip(
    path: Path,
    frames: int | Sequence[Image.Image],
    codec: str = "mpeg4",
    *,
    options: Mapping[str, str] | None = None,
    gop: int = 12,
    times: Sequence[int] | None = None,
) -> Path:
    """Write a video file, numbered frames unless they are given.

    Args:
        path: the suffix says which container.
        frames: how many, or which.
        codec: libav's name of the encoder.
        options: of the encoder.
        gop: at most so many frames from one key frame to the next.
        times: of every frame, in thirtieths of a second; 0, 1, 2, ... by default.
    """
    images = [numbered(i) for i in range(frames)] if isinstance(frames, int) else frames
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=dict(options or {}))
        stream.width, stream.height = images[0].size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.gop_size = gop
        stream.codec_context.thread_count = 1
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = (times[i] if times else i), Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
