"""The formats a world can be written in, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attnpool.playground.staging import Progress
from attnpool.playground.write_hico import write_hico
from attnpool.playground.write_hmdb51 import write_hmdb51
from attnpool.playground.write_mpii import write_mpii
from attnpool.playground.writer import write_folder

Style = Literal["folder", "mpii", "hico", "hmdb51"]

# Style -> its unit and how many a world has if nothing is said.
STYLES: dict[Style, tuple[str, int]] = {
    "folder": ("images", 600),
    "mpii": ("images", 600),
    "hico": ("images", 600),
    "hmdb51": ("clips", 140),
}


def write_style(
    directory: Path,
    style: Style,
    count: int,
    seed: int,
    *,
    size: int | None = None,
    frames: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a world in a format by its name: `write_folder`, `write_mpii`, `write_hico` or `write_hmdb51`.

    Args:
        directory: where to; must not exist, be empty, or hold this very world.
        style: the format.
        count: images, or clips with "hmdb51".
        seed: the world, at least 0.
        size: side of the images in pixels, 448 if not said; clips always have 320 x 240.
        frames: of each clip, 40 if not said; images have none.
        progress: called with (done, in all).

    Raises:
        ValueError: no such style, an option the style does not have, numbers out of range, or a directory that holds
            something else.
        OSError: the disk refused; nothing is left behind.
    """
    if style not in STYLES:
        raise ValueError(f"style {style!r}: choose one of {', '.join(STYLES)}")
    if style == "hmdb51":
        if size is not None:
            raise ValueError("clips of style hmdb51 have 320 x 240 pixels: leave size out")
        write_hmdb51(directory, count, seed, frames=40 if frames is None else frames, progress=progress)
        return
    if frames is not None:
        raise ValueError(f"images of style {style} have no frames: leave that out, or choose hmdb51")
    write = {"folder": write_folder, "mpii": write_mpii, "hico": write_hico}[style]
    write(directory, count, seed, size=448 if size is None else size, progress=progress)
