"""`write_playground` writes a world to disk in one of several formats of datasets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from attnpool.playground.write_folder import write_folder
from attnpool.playground.write_hico import write_hico
from attnpool.playground.write_hmdb51 import write_hmdb51
from attnpool.playground.write_mpii import write_mpii
from attnpool.progress import bar

STYLES = ("folder", "mpii", "hico", "hmdb51")
IMAGES, CLIPS = 600, 140
SIZE, FRAMES = 448, 40


@dataclass(frozen=True)
class Playground:
    """A world on disk.

    Attributes:
        directory: the folder of the world.
        style: the format.
        seed: the seed of the world.
        count: number of images or clips.
        size: side of the images in pixels; `None` for clips.
        frames: number of frames of each clip; `None` for images.
    """

    directory: str
    style: str
    seed: int
    count: int
    size: int | None = None
    frames: int | None = None

    @property
    def unit(self) -> str:
        """ "images" or "clips"."""
        return "images" if self.frames is None else "clips"

    def to_json(self) -> dict[str, Any]:
        """The fields as values that `json.dumps` takes."""
        value = {"directory": self.directory, "style": self.style, self.unit: self.count, "seed": self.seed}
        return value | ({"size": self.size} if self.frames is None else {"frames": self.frames})

    def __str__(self) -> str:
        """For people to read."""
        made = f"{self.directory}: {self.count} {self.unit}"
        return f"{made}; next: attnpool train {self.style}:{self.directory} --out runs/play"


def write_playground(
    directory: str | Path,
    *,
    style: Literal["folder", "mpii", "hico", "hmdb51"] = "folder",
    images: int | None = None,
    seed: int = 0,
    size: int | None = None,
    frames: int | None = None,
    progress: bool = False,
) -> Playground:
    """Writes a generated world of people who do things, either completely or not at all.

    `write_folder`, `write_mpii`, `write_hico` and `write_hmdb51` describe the files of each style. A directory that
    already holds exactly this world is not changed.

    Args:
        directory: folder to write, which must be new or empty, or hold exactly this world already.
        style: format of the dataset, folder for class folders or the format of a benchmark.
        images: number of images, or of clips with style hmdb51 (default: 600 images, 140 clips).
        seed: seed of the world, 0 or more; the same arguments give the same bytes.
        size: side of the images in pixels (default: 448); clips always have 320 x 240 pixels.
        frames: number of frames of each clip, with style hmdb51 (default: 40).
        progress: show a progress bar.

    Raises:
        ValueError: the style is unknown or does not have an option, a number is out of range, or the directory holds
            something else.
        OSError: the files cannot be written; nothing is left behind.
    """
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}: use one of {', '.join(STYLES)}")
    clips = style == "hmdb51"
    if clips and size is not None:
        raise ValueError("clips of style hmdb51 have 320 x 240 pixels: leave size out")
    if not clips and frames is not None:
        raise ValueError(f"images of style {style} have no frames: leave that out, or choose hmdb51")
    directory = Path(directory)
    if clips:
        count, length = CLIPS if images is None else images, FRAMES if frames is None else frames
        made = Playground(str(directory), style, seed, count, frames=length)
    else:
        count, side = IMAGES if images is None else images, SIZE if size is None else size
        made = Playground(str(directory), style, seed, count, size=side)
    with bar(count, "playground", made.unit, hidden=not progress) as shown:

        def done(number: int, total: int) -> None:
            shown.update(number - shown.n)

        if clips:
            write_hmdb51(directory, count, seed, frames=length, progress=done)
        else:
            write = {"folder": write_folder, "mpii": write_mpii, "hico": write_hico}[style]
            write(directory, count, seed, size=side, progress=done)
    return made
