"""What a user names to be looked at: a model by its name, and images, clips and folders of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from attnpool.data.decoding.image import IMAGE_SUFFIXES
from attnpool.data.decoding.video import VIDEO_SUFFIXES, UnreadableVideo, frame_files
from attnpool.models.conversion.open_model import open_model
from attnpool.models.recognizer import Recognizer


def open_with_files(
    model: Recognizer | str | Path,
    files: Iterable[str | Path],
    *,
    weights: str | Path | None = None,
    classes: str | Path | None = None,
    image_size: int | None = None,
) -> tuple[Recognizer, list[Path]]:
    """A recognizer, and the images and clips that it is to look at.

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
        return opened, expand(files, media)
    for option, value in (("weights", weights), ("classes", classes), ("image_size", image_size)):
        if value is not None:
            raise ValueError(f"{option} is for classifiers by name, such as timm:resnet50; a recognizer has its own")
    return model, [Path(file) for file in files]


def expand(files: Iterable[str | Path], media: Literal["images", "clips"] = "images") -> list[Path]:
    """Files as they are, folders as the images and videos in them.

    Args:
        files: images, clips, and folders of them.
        media: what the run was trained on. For one that was trained on clips, a folder that holds images is the
            frames of a clip, and one that holds others the clips in it.

    Raises:
        ValueError: files do not exist, or folders hold nothing that can be scored; all of them are named.
    """
    found: list[Path] = []
    problems: list[str] = []
    for name in files:
        path = Path(name)
        try:
            if path.is_dir():
                found += clips_in(path) if media == "clips" else images_in(path)
            else:
                found.append(existing(path))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems))
    return found


def existing(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"{path}: no such file; name an image or a clip, or a folder of them")
    return path


def images_in(folder: Path) -> list[Path]:
    """The images and videos of a folder; see `expand`."""
    known = IMAGE_SUFFIXES + VIDEO_SUFFIXES
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in known and not p.name.startswith("."))
    if not files:
        raise ValueError(f"{folder}: no images in this folder; name images, or a folder that holds some itself")
    return files


def clips_in(folder: Path) -> list[Path]:
    """The folder itself if it holds frames, else its videos and its folders of frames; see `expand`."""

    def is_frames(path: Path) -> bool:
        try:
            return path.is_dir() and bool(frame_files(path))
        except UnreadableVideo:
            return False

    if is_frames(folder):
        return [folder]
    inside = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    clips = [path for path in inside if path.suffix.lower() in VIDEO_SUFFIXES or is_frames(path)]
    if not clips:
        raise ValueError(f"{folder}: no clips in this folder; name videos, or folders of frames (image_00001.jpg)")
    return clips
