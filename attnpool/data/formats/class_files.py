"""What the folders of classes hold: images or clips, which are told apart here."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from attnpool.data.decoding.contents import VIDEO_SUFFIXES, Media, frames_among, is_animated_gif, is_visible
from attnpool.data.decoding.image import is_image, upright_size


@dataclass
class ClassFiles:
    """The files below the folder of a class, as paths relative to the root of the dataset.

    Attributes:
        images, videos: the files that count as such.
        frames: folder -> those of the images in it, if it holds the frames of a clip and lies below the class's.
        beside: images that lie among frames and are none.
        others: the other files.
    """

    images: list[str] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)
    frames: dict[str, list[str]] = field(default_factory=dict)
    beside: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def add(self, other: ClassFiles) -> None:
        """Adds what another folder of the same class holds."""
        self.images += other.images
        self.videos += other.videos
        self.frames |= other.frames
        self.beside += other.beside
        self.others += other.others

    def loose(self) -> list[str]:
        """The images that are no frames."""
        framed = {path for paths in self.frames.values() for path in paths}
        return [path for path in self.images if path not in framed]


def look_through(root: Path, folder: str) -> ClassFiles:
    """Looks through the folder of a class at any depth; hidden files and folders are left out."""
    found = ClassFiles()
    below: dict[str, list[str]] = {}
    # A link to a folder above would bring in the images of other classes.
    above = tuple(os.path.realpath(root / parent) for parent in PurePosixPath(folder).parents)
    for path in walk(root, folder, above):
        if PurePosixPath(path).suffix.lower() in VIDEO_SUFFIXES:
            found.videos.append(path)
        elif is_image(root / path):
            found.images.append(path)
            below.setdefault(path.rpartition("/")[0], []).append(path)
        else:
            found.others.append(path)
    if folder not in below:  # where images lie in the class's own folder, other folders only sort them
        found.frames = {place: paths for place, paths in below.items() if are_frames(root, paths)}
        for paths in found.frames.values():
            _, others = frames_among([root / path for path in paths])
            found.beside += [path.relative_to(root).as_posix() for path in others]
    return found


def holds_frames(root: Path, folder: str) -> bool:
    """Whether a folder holds the frames of a clip, and no folders."""
    found = entries(root / folder)
    images = [f"{folder}/{name}" for name, is_folder in found if not is_folder and is_image(root / folder / name)]
    return not any(is_folder for _, is_folder in found) and are_frames(root, images)


def are_frames(root: Path, paths: Sequence[str]) -> bool:
    """Whether images of one folder are the frames of a clip: of one size, and numbered without a gap from 0 or 1.

    Optical flow may lie beside them. Photos that were numbered differ in size.
    """
    frames, _ = frames_among([root / path for path in paths])
    if len(frames) < 2:
        return False
    stems = [frame.stem for frame in frames]
    heads = {stem.rstrip("0123456789") for stem in stems}
    tails = [stem[len(stem.rstrip("0123456789")) :] for stem in stems]
    if len(heads) > 1 or not all(tails) or int(tails[0]) > 1:
        return False
    if [int(tail) for tail in tails] != list(range(int(tails[0]), int(tails[0]) + len(tails))):
        return False
    sizes = {upright_size(frames[i]) for i in (0, len(frames) // 2, -1)}
    return len(sizes) == 1 and None not in sizes


def told_apart(root: Path, classes: Sequence[ClassFiles]) -> Media:
    """Whether the folders of classes hold images or clips: videos, folders of frames, animated GIFs.

    Raises:
        ValueError: they hold both.
    """
    videos, frames = sum(len(found.videos) for found in classes), sum(len(found.frames) for found in classes)
    loose = [path for found in classes for path in found.loose()]
    if not videos and not frames and not any(path.lower().endswith(".gif") for path in loose):
        return "images"
    still = [path for path in loose if not is_animated_gif(root / path)]
    if videos and still:
        raise ValueError(
            f"{root}: its classes hold {len(still)} images, such as {still[0]}, and {videos} videos; keep one kind "
            "in a dataset, and move the other"
        )
    return "images" if still or not (videos or frames or loose) else "clips"


def samples_in(found: ClassFiles, media: Media) -> list[str]:
    """The paths of the samples of a class, sorted."""
    return sorted(found.images if media == "images" else [*found.videos, *found.frames, *found.loose()])


def class_order(name: str) -> tuple[int, int, str]:
    """A sort key for names of classes: numbers by their value, before words."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def one_name(name: str) -> str:
    """A name in one spelling: macOS writes the accents of letters apart from them."""
    return unicodedata.normalize("NFC", name)


def notes_of(root: Path, classes: Sequence[ClassFiles], media: Media) -> tuple[str, ...]:
    """What is to be said of the folders of classes: how their folders are read, and what files are not used."""
    others = [path for found in classes for path in found.others]
    kinds = Counter(PurePosixPath(path).suffix.lower() or "no suffix" for path in others)
    frames = sum(len(found.frames) for found in classes)
    said = []
    if others:
        counted = ", ".join(f"{count} x {suffix}" for suffix, count in sorted(kinds.items()))
        said.append(f"{root}: left out, no {media} by their suffix: {counted}, such as {others[0]}")
    if frames and media == "clips":
        said.append(f"{root}: {frames} folders of numbered images of one size are read as the frames of clips")
        if beside := [path for found in classes for path in found.beside]:
            said.append(f"{root}: left out, not frames of their clips: {len(beside)} images, such as {beside[0]}")
    elif frames:
        loose = next(path for found in classes for path in found.loose())
        said.append(
            f"{root}: {frames} folders hold numbered images of one size, as the frames of a clip are; but {loose} is "
            "no such frame, so that all are read as images"
        )
    return tuple(said)


def folders(root: Path) -> list[str]:
    """The visible folders in a folder, by name."""
    return sorted(name for name, is_folder in entries(root) if is_folder)


def walk(root: Path, part: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields the files below `root/part` in order of name; it follows links, but not in circles."""
    here = os.path.realpath(root / part)
    if here in above:
        return
    for name, is_folder in sorted(entries(root / part)):
        path = f"{part}/{name}" if part else name
        if is_folder:
            yield from walk(root, path, (*above, here))
        else:
            yield path


def entries(folder: Path) -> list[tuple[str, bool]]:
    """What is in a folder and not hidden: names, and whether they are folders.

    Raises:
        ValueError: it cannot be listed, or a name cannot be shown.
    """
    try:
        with os.scandir(folder) as listed:
            found = [(entry.name, entry.is_dir()) for entry in listed if is_visible(entry.name)]
    except OSError as error:
        raise ValueError(f"{folder}: cannot be listed ({(error.strerror or str(error)).lower()})") from error
    for name, is_folder in found:
        # Control characters, and bytes that are not UTF-8, would break logs and reports later.
        strange = any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in name)
        if strange and (is_folder or Path(name).suffix.lower() in VIDEO_SUFFIXES or is_image(folder / name)):
            raise ValueError(f"{folder}: the name {name!r} holds characters that cannot be shown; rename it")
    return found
