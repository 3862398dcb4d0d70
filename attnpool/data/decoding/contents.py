"""What a folder holds: the frames of one clip, or images and clips by themselves; and what of it is not used."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from attnpool.data.decoding.image import IMAGE_SUFFIXES, frames_in, is_image
from attnpool.data.decoding.video_stream import UnreadableVideo
from attnpool.files import is_ours

VIDEO_SUFFIXES: tuple[str, ...] = (
    ".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp", ".ogv",
)  # fmt: skip
"""Suffixes of names that count as videos, in upper or lower case. The format is recognised by the content."""

Media = Literal["images", "clips"]

# What programs that extract frames call optical flow: flow_x_00001.jpg, x_00001.jpg, u_1.png.
_FLOW = re.compile(r"flow(?![a-z]).*|([xyuv])[_-]?\d+", re.IGNORECASE)
_NAMED = 3  # files that a message names


@dataclass
class Contents:
    """What a folder holds, at any depth.

    Attributes:
        media: images, videos, and folders of frames.
        unused: reason -> the files that are left out.
    """

    media: list[Path] = field(default_factory=list)
    unused: dict[str, list[Path]] = field(default_factory=dict)

    def leave(self, reason: str, files: Sequence[Path]) -> None:
        if files:
            self.unused.setdefault(reason, []).extend(files)

    def add(self, other: Contents) -> None:
        self.media += other.media
        for reason, files in other.unused.items():
            self.leave(reason, files)

    def notes(self, folder: Path) -> list[str]:
        """A line for every reason, with the number of files and the first names."""
        lines = []
        for reason, files in self.unused.items():
            names = [file.relative_to(folder).as_posix() for file in files[:_NAMED]]
            more = f" and {len(files) - len(names)} more" if len(files) > len(names) else ""
            lines.append(f"{folder}: left out, {reason}: {', '.join(names)}{more}")
        return lines


def is_clip(path: Path, media: Media = "images") -> bool:
    """Whether a path counts as a clip: a folder, a file with the name of a video, and among clips an animated GIF."""
    return path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES or (media == "clips" and is_animated_gif(path))


def is_media(path: Path) -> bool:
    """Whether a file counts as an image or a video by its name."""
    return path.suffix.lower() in VIDEO_SUFFIXES or is_image(path)


def is_animated_gif(path: Path) -> bool:
    return path.suffix.lower() == ".gif" and frames_in(path) > 1


def contents(folder: Path, media: Media, above: tuple[str, ...] = ()) -> Contents:
    """What is to be looked at in a folder and the folders in it; hidden files are left out.

    Among images every image and every video counts. Among clips these count: videos, animated GIFs, and folders of
    frames. A folder holds frames if its images are numbered, or if it holds nothing else to look at; there are no
    frames beside videos.

    Raises:
        ValueError: the folder cannot be listed.
    """
    here = os.path.realpath(folder)
    found = Contents()
    if here in above:  # a link in a circle
        return found
    entries = listed(folder)
    files = [entry for entry in entries if not entry.is_dir()]
    images = [file for file in files if is_image(file)]
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    known = {*images, *videos}
    found.leave("neither an image nor a video by its suffix", [file for file in files if file not in known])
    panels = {image for image in images if is_ours(image)}
    found.leave("drawn by attnpool", sorted(panels))
    images = [image for image in images if image not in panels]
    below = Contents()
    for entry in entries:
        if entry.is_dir():
            below.add(contents(entry, media, (*above, here)))
    if media == "images":
        flow = flow_among(images)
        found.leave("optical flow by its name", sorted(flow))
        found.media += sorted([*(image for image in images if image not in flow), *videos])
    else:
        moving = {image for image in images if is_animated_gif(image)}
        clips = sorted([*videos, *moving])
        images = [image for image in images if image not in moving]
        frames, others = frames_among(images)
        if not clips and frames and (is_numbered(frames) or not below.media):
            found.media.append(folder)
            found.leave("not a frame of the clip", others)
        else:
            found.leave("an image beside clips", images)
        found.media += clips
    found.add(below)
    return found


def listed(folder: Path) -> list[Path]:
    """What is in a folder and not hidden, by name.

    Raises:
        ValueError: it cannot be listed.
    """
    try:
        return sorted(entry for entry in folder.iterdir() if is_visible(entry.name))
    except OSError as error:
        raise ValueError(f"{folder}: cannot be listed ({(error.strerror or str(error)).lower()})") from error


def is_visible(name: str) -> bool:
    """Whether a file or folder of this name counts."""
    # macOS puts a folder __MACOSX into archives, with an unreadable copy of every name.
    return not name.startswith(".") and name != "__MACOSX"


def frame_files(folder: Path) -> list[Path]:
    """The frames of a folder, in natural order: `image_00001.jpg` (the most common name), `img_1.jpg`, `frame10.png`.

    Every file with the suffix of an image counts, whatever number the first one has, except hidden files, optical flow
    (`flow_x_00001.jpg`, `x_00001.jpg` beside `y_00001.jpg`), and, where there are numbered images, those without a
    number (`cover.jpg`).

    Raises:
        UnreadableVideo: there are no frames, or the folder cannot be listed.
    """
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError as error:
        raise UnreadableVideo(folder, (error.strerror or str(error)).lower()) from error
    images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")]
    frames, _ = frames_among([folder / name for name in images])
    if not frames:
        raise UnreadableVideo(folder, "the folder has no images such as image_00001.jpg")
    return frames


def frames_among(images: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The images that are frames, in natural order, and the others; see `frame_files`."""
    flow = flow_among(images)
    frames = [image for image in images if image not in flow]
    if is_numbered(frames):
        frames = [image for image in frames if has_number(image)]
    chosen = set(frames)
    return sorted(frames, key=lambda path: natural(path.name)), [image for image in images if image not in chosen]


def flow_among(images: Sequence[Path]) -> set[Path]:
    """The images that are optical flow by their names."""
    words = {image: _FLOW.fullmatch(image.stem) for image in images}
    axes = {found[1].lower() for found in words.values() if found and found[1]}
    paired = {axis for pair in ("xy", "uv") if set(pair) <= axes for axis in pair}
    return {image for image, found in words.items() if found and (found[1] is None or found[1].lower() in paired)}


def is_numbered(images: Sequence[Path]) -> bool:
    """Whether several of these images have a number, as frames do."""
    return sum(map(has_number, images)) > 1


def has_number(image: Path) -> bool:
    return any(character.isdecimal() for character in image.stem)


def natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """A sort key that compares numbers inside names by their value: img_2 before img_10."""
    stem = name.rpartition(".")[0]
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", stem) if part], name
