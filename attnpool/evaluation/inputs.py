"""What a user names to be looked at: a model by its name, and images, clips and folders of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from attnpool.data.decoding.contents import Media, contents
from attnpool.models.conversion.open_model import open_model
from attnpool.models.recognizer import Recognizer


@dataclass
class Inputs:
    """The images and clips that a recognizer is to look at.

    Attributes:
        model: the recognizer.
        files: images, videos and folders of frames, in the order in which they were named.
        media: what the recognizer was trained on, where that is known.
        notes: what of the folders is left out, a line for each reason.
        failed: `(folder, reason)` of folders in which there is nothing to look at, beside others.
    """

    model: Recognizer
    files: list[Path]
    media: Media = "images"
    notes: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


def open_with_files(
    model: Recognizer | str | Path,
    files: Iterable[str | Path],
    *,
    weights: str | Path | None = None,
    classes: str | Path | None = None,
    image_size: int | None = None,
) -> Inputs:
    """Opens a recognizer, and finds the images and clips that it is to look at.

    Args:
        model: a recognizer, or what `open_model` opens.
        files: images, clips and folders. Of a model by its name a folder is looked through, see `expand`; for a
            recognizer every folder is one clip, whose frames lie in it.
        weights, classes, image_size: of a classifier by its name, see `open_model`.

    Raises:
        ValueError: from `open_model` and `expand`, or a recognizer is given what only a classifier by its name takes.
    """
    if not isinstance(model, Recognizer):
        opened, media = open_model(model, weights=weights, classes=classes, image_size=image_size)
        return Inputs(opened, *expand(files, media))
    for option, value in (("weights", weights), ("classes", classes), ("image_size", image_size)):
        if value is not None:
            raise ValueError(f"{option} is for classifiers by name, such as timm:resnet50; a recognizer has its own")
    return Inputs(model, [Path(file) for file in files])


def expand(
    files: Iterable[str | Path], media: Media = "images"
) -> tuple[list[Path], Media, list[str], list[tuple[str, str]]]:
    """Files as they are, and what `contents` finds in folders.

    Args:
        files: images, clips, and folders of them.
        media: what the run was trained on.

    Returns:
        The files, `media`, what is left out, and folders in which there is nothing, see `Inputs`.

    Raises:
        ValueError: files do not exist, or all folders hold nothing that can be scored; all of them are named.
    """
    found: list[Path] = []
    notes: list[str] = []
    problems: list[str] = []
    empty: list[tuple[str, str]] = []
    for name in files:
        path = Path(name)
        try:
            if not path.is_dir():
                found.append(existing(path))
                continue
            inside = contents(path, media)
            notes += inside.notes(path)
            found += inside.media
            if not inside.media:
                only = f" ({', '.join(inside.unused)})" if inside.unused else ""
                empty.append((str(name), f"{path}: no {media} in this folder{only}; {ADVICE[media]}"))
        except ValueError as error:
            problems.append(str(error))
    if problems or not found:
        raise ValueError("; ".join([*problems, *(reason for _, reason in empty)]))
    return found, media, notes, empty


ADVICE = {
    "images": "name images, or a folder of them",
    "clips": "name videos, or folders of frames (image_00001.jpg)",
}


def existing(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"{path}: no such file; name an image or a clip, or a folder of them")
    return path
