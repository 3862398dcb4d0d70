"""Reads frames of clips by number, from a video file or from a folder of images.

Frame i of a video is the i-th image that a decoder returns when it decodes the whole stream from its start. Nothing
that the container claims is trusted: not its number of frames, its length, its time stamps, its index or its edit
lists. That is why nothing here seeks. A clip of an action is a few seconds long, and one pass over it costs about as
much as jumping between key frames would; several hours of video should be cut into clips first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from attnpool.data.decoding.contents import frame_files
from attnpool.data.decoding.image import UnreadableImage, decode, quiet
from attnpool.data.decoding.video_stream import OpenVideo, UnreadableVideo, reason_of

if TYPE_CHECKING:
    import av

_UPRIGHT = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class VideoInfo:
    """The result of decoding a whole clip.

    Attributes:
        frames: number of frames.
        claimed_frames: number of frames that the container claims; `None` if it claims none.
        fps: frames per second; 0 if the container does not say.
        width: width of the first frame, upright, in pixels.
        height: height of the first frame, upright, in pixels.
        problem: what is wrong with the clip, such as "truncated: 51 of 90 frames"; "" for nothing.
    """

    frames: int
    claimed_frames: int | None
    fps: float
    width: int
    height: int
    problem: str


def count_frames(path: str | Path) -> int:
    """Counts the frames of a clip by decoding all of it, or the images in a folder.

    Frames of a damaged or truncated video that cannot be decoded are left out: frame i is then the i-th that can be.
    A caller that also needs frames saves half of the work with `read_clip`.

    Args:
        path: a video file, or a folder of frames (see `frame_files`).

    Raises:
        UnreadableVideo: (a ValueError) the file is missing, not a video, or has no frame that can be decoded.
    """
    return read_clip(path, lambda _: ()).frames


def read_frames(path: str | Path, indices: Sequence[int]) -> list[Image.Image]:
    """Reads the frames with these numbers, counted from 0, as 8-bit RGB, upright.

    Decoding ends with the last frame that is needed.

    Args:
        path: a video file, or a folder of frames (see `frame_files`).
        indices: numbers of the frames, in any order and possibly repeated.

    Returns:
        Images of mode "RGB" in the order of `indices`; a repeated number is the same image again.

    Raises:
        UnreadableVideo: (a ValueError) as in `count_frames`; or the clip has too few frames, or one of the requested
            images of a folder cannot be read.
        ValueError: a number is negative.
    """
    if min(indices, default=0) < 0:
        raise ValueError(f"{path}: indices holds {min(indices)}; frames are counted from 0")
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


class ReadClip(NamedTuple):
    """Attributes:
    frames: number of frames of the clip.
    images: those that were chosen, of mode "RGB".
    problem: as in `VideoInfo`.
    """

    frames: int
    images: list[Image.Image]
    problem: str


def read_clip(path: str | Path, choose: Callable[[int], Sequence[int]]) -> ReadClip:
    """Counts the frames and reads some of them in one pass.

    Args:
        path: a video file, or a folder of frames (see `frame_files`).
        choose: function from the number of frames to the numbers of the frames to read. It may be called twice, first
            with the number that the container claims, and must return the same for the same number: a random choice
            must create its generator inside. The frames are always those for the true number; a false claim costs a
            second pass.

    Returns:
        The number of frames, the images in the order of `choose(frames)`, and what is wrong with the clip.

    Raises:
        UnreadableVideo: (a ValueError) as in `read_frames`.
    """
    path = Path(path)
    if path.is_dir():
        files = frame_files(path)
        return ReadClip(len(files), _read_frames(path, files, choose(len(files))), "")
    with OpenVideo(path) as video:
        guess = video.claimed or video.expected
        # A false claim of billions of frames must not fill the memory; a frame takes at least a few bytes of the file.
        wanted = set(choose(guess)) if 0 < guess < path.stat().st_size // 4 else set()
        kept, broken = {}, 0
        for i, frame in enumerate(video.frames()):
            broken += frame.is_corrupt
            if i in wanted:
                kept[i] = frame
        count, problem = video.count, problem_of(video, broken)
    if count == 0:
        raise UnreadableVideo(path, "no frame can be decoded")
    indices = choose(count)
    if not kept.keys() >= {i for i in indices if i < count}:
        return ReadClip(count, read_frames(path, indices), problem)
    return ReadClip(count, _convert_frames(path, kept, indices, count), problem)


def probe(path: str | Path) -> VideoInfo:
    """Decodes all of a clip, or every image of a folder, and reports what is wrong with it.

    Raises:
        UnreadableVideo: (a ValueError) nothing of it can be read, or one of a folder's images cannot.
    """
    path = Path(path)
    if path.is_dir():
        files = frame_files(path)
        # One image at a time, so that they are not all held in memory.
        sizes = [_read_frames(path, files, [i])[0].size for i in range(len(files))]
        return VideoInfo(len(files), None, 0.0, *sizes[0], "")
    with OpenVideo(path) as video:
        frames = video.frames()
        first = next(frames, None)
        if first is None:
            raise UnreadableVideo(path, "no frame can be decoded")
        broken = int(first.is_corrupt) + sum(frame.is_corrupt for frame in frames)
        width, height = _image(path, first).size
        problem = problem_of(video, broken)
        return VideoInfo(video.count, video.claimed or None, video.fps, width, height, problem)


def problem_of(video: OpenVideo, broken: int) -> str:
    """What is wrong with a video that was decoded to its end, with so many incomplete frames; "" for nothing."""
    if video.packets < video.claimed:
        return f"truncated: {video.count} of {video.claimed} frames"
    if video.errors:
        return f"damaged: {video.errors} of {video.packets} frames cannot be decoded"
    return f"damaged: {broken} of {video.count} frames are incomplete" if broken else ""


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
    except Exception as error:  # a damaged header may claim impossible colours
        raise UnreadableVideo(path, f"its colours cannot be converted: {reason_of(error)}") from error
    # Phones store a rotation instead of rotating the pixels. Older versions of PyAV do not report it.
    turn = _UPRIGHT.get(round(getattr(frame, "rotation", 0)) % 360)
    return image if turn is None else image.transpose(turn)
