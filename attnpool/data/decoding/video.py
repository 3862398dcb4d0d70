"""Frames of clips, by number, out of a video file or out of a folder of images.

Frame i of a video is the i-th image that a decoder gives away when it is fed the whole stream from its start.
Nothing that the container claims is believed on the way: not its number of frames, its length, its time stamps, its
index or its edit lists. That is why nothing here seeks. A clip of an action is a few seconds long, and one pass over
it costs about as much as the jumps between key frames would; several hours of video should be cut into clips first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from attnpool.data.decoding.image import IMAGE_SUFFIXES, UnreadableImage, decode, quiet
from attnpool.data.decoding.video_stream import OpenVideo, UnreadableVideo, reason_of

if TYPE_CHECKING:
    import av

VIDEO_SUFFIXES: tuple[str, ...] = (
    ".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp", ".ogv",
)  # fmt: skip
"""Names that count as videos, in any case. The format itself is told from the content, not from the name."""

_UPRIGHT = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class VideoInfo:
    """What a whole decode of a clip found.

    Attributes:
        frames: how many frames there are.
        claimed_frames: how many the container says there are; `None` where it says nothing.
        fps: frames a second; 0 where the container does not say.
        width: of the first frame, upright, in pixels.
        height: of the first frame, upright, in pixels.
        problem: what is wrong with the clip, such as "truncated: 51 of 90 frames"; "" for nothing.
    """

    frames: int
    claimed_frames: int | None
    fps: float
    width: int
    height: int
    problem: str


def count_frames(path: str | Path) -> int:
    """How many frames a clip has, by decoding all of it; of a folder, how many images it holds.

    What cannot be decoded of a damaged or truncated video is left out: frame i is then the i-th that can be.
    A caller that wants frames as well saves half of the work with `read_clip`.

    Args:
        path: a video file, or a folder of frames (see `frame_files`).

    Raises:
        UnreadableVideo: (a ValueError) the file is missing, no video, or has no frame that can be decoded.
    """
    return read_clip(path, lambda _: ())[0]


def read_frames(path: str | Path, indices: Sequence[int]) -> list[Image.Image]:
    """The frames with these numbers, counted from 0, as 8-bit RGB, upright.

    Decoding ends with the last frame that is asked for.

    Args:
        path: a video file, or a folder of frames (see `frame_files`).
        indices: in any order, also repeatedly.

    Returns:
        Images of mode "RGB" in the order of `indices`; a repeated number is the same image again.

    Raises:
        UnreadableVideo: (a ValueError) as `count_frames`; or the clip has fewer frames than were asked for, or one of
            the folder's images that were asked for cannot be read.
        ValueError: a negative number.
    """
    if min(indices, default=0) < 0:
        raise ValueError(f"{path}: frame {min(indices)} was asked for; frames are counted from 0")
    path = Path(path)
    if path.is_dir():
        return _read_frames(path, frame_files(path), indices)
    wanted, last = set(indices), max(indices, default=-1)
    with OpenVideo(path) as video:
        kept: dict[int, Any] = {}
        for i, frame in enumerate(video.frames()):
            if i in wanted:
                kept[i] = frame
            if i >= last:
                break
        return _convert_frames(path, kept, indices, video.count)


def read_clip(path: str | Path, choose: Callable[[int], Sequence[int]]) -> tuple[int, list[Image.Image]]:
    """Count the frames and read some of them in one pass.

    Args:
        path: a video file, or a folder of frames (see `frame_files`).
        choose: from the number of frames to the numbers of those which are wanted. It may be called twice, first with
            what the container claims, and must give the same for the same number: a random choice makes its generator
            inside. The frames are always those it gives for the true number; a false claim costs a second pass.

    Returns:
        `(frames, images)`: the number of frames, and images of mode "RGB" in the order of `choose(frames)`.

    Raises:
        UnreadableVideo: (a ValueError) as `read_frames`.
    """
    path = Path(path)
    if path.is_dir():
        files = frame_files(path)
        return len(files), _read_frames(path, files, choose(len(files)))
    with OpenVideo(path) as video:
        guess = video.claimed or video.expected
        # A claim of billions must not fill the memory, and a frame takes a few bytes at the least.
        wanted = set(choose(guess)) if 0 < guess < path.stat().st_size // 4 else set()
        kept = {i: frame for i, frame in enumerate(video.frames()) if i in wanted}
        count = video.count
    if count == 0:
        raise UnreadableVideo(path, "no frame can be decoded")
    indices = choose(count)
    if not kept.keys() >= {i for i in indices if i < count}:
        return count, read_frames(path, indices)
    return count, _convert_frames(path, kept, indices, count)


def probe(path: str | Path) -> VideoInfo:
    """Decode all of a clip and say what is wrong with it. Of a folder every image is read.

    Raises:
        UnreadableVideo: (a ValueError) nothing of it can be read, or one of a folder's images cannot.
    """
    path = Path(path)
    if path.is_dir():
        files = frame_files(path)
        # One at a time: all of them at once would be held in memory.
        sizes = [_read_frames(path, files, [i])[0].size for i in range(len(files))]
        return VideoInfo(len(files), None, 0.0, *sizes[0], "")
    with OpenVideo(path) as video:
        frames = video.frames()
        first = next(frames, None)
        if first is None:
            raise UnreadableVideo(path, "no frame can be decoded")
        broken = int(first.is_corrupt) + sum(frame.is_corrupt for frame in frames)
        width, height = _image(path, first).size
        problem = ""
        if video.packets < video.claimed:
            problem = f"truncated: {video.count} of {video.claimed} frames"
        elif video.errors:
            problem = f"damaged: {video.errors} of {video.packets} frames cannot be decoded"
        elif broken:
            problem = f"damaged: {broken} of {video.count} frames are incomplete"
        return VideoInfo(video.count, video.claimed or None, video.fps, width, height, problem)


def frame_files(folder: Path) -> list[Path]:
    """The frames of a folder, in natural order: `image_00001.jpg` (the usual name), `img_1.jpg`, `frame10.png`, ...

    Every file with an image's name counts, whatever number the first one has, but for hidden files and those whose
    name starts with `flow`, which is where programs that extract frames put optical flow.

    Raises:
        UnreadableVideo: there is none, or the folder cannot be listed.
    """
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError as error:
        raise UnreadableVideo(folder, (error.strerror or str(error)).lower()) from error
    frames = [
        name
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES
        and not name.startswith(".")
        and not name.lower().startswith("flow")
    ]
    if not frames:
        raise UnreadableVideo(folder, "the folder has no images such as image_00001.jpg")
    return [folder / name for name in sorted(frames, key=_natural)]


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Numbers inside of names by their value: img_2 before img_10."""
    stem = name.rpartition(".")[0]
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", stem) if part], name


def _read_frames(folder: Path, files: Sequence[Path], indices: Sequence[int]) -> list[Image.Image]:
    images: dict[int, Image.Image] = {}
    with quiet():
        for i in sorted(set(indices)):
            if i >= len(files):
                raise _beyond(folder, i, len(files))
            try:
                images[i] = decode(files[i])
            except UnreadableImage as error:
                raise UnreadableVideo(folder, f"{files[i].name}: {error.reason}") from error
    return [images[i] for i in indices]


def _convert_frames(path: Path, kept: dict[int, Any], indices: Sequence[int], count: int) -> list[Image.Image]:
    if count == 0 and indices:
        raise UnreadableVideo(path, "no frame can be decoded")
    for i in indices:
        if i not in kept:
            raise _beyond(path, i, count)
    images = {i: _image(path, kept[i]) for i in set(indices)}
    return [images[i] for i in indices]


def _beyond(path: Path, i: int, count: int) -> UnreadableVideo:
    return UnreadableVideo(path, f"it has {count} frames and frame {i}, counted from 0, is wanted")


def _image(path: Path, frame: av.VideoFrame) -> Image.Image:
    try:
        image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    except Exception as error:  # what a damaged header says of the colours may make no sense
        raise UnreadableVideo(path, f"its colours cannot be converted: {reason_of(error)}") from error
    # Telephones store a turn instead of turning. Older PyAV does not say.
    turn = _UPRIGHT.get(round(getattr(frame, "rotation", 0)) % 360)
    return image if turn is None else image.transpose(turn)
