"""Frames of clips, by number, out of a video file or out of a folder of pictures.

Frame i of a video is the i-th picture that a decoder gives away when it is fed the whole stream from its start.
Nothing that the container claims is believed on the way: not its number of frames, its length, its time stamps, its
index or its edit lists. That is why nothing here seeks. A clip of an action is a few seconds long, and one pass over
it costs about as much as the jumps between key frames would; several hours of video should be cut into clips first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from attnpool.data.media import IMAGE_SUFFIXES, Unreadable, UnreadableImage, decode, quiet

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

VIDEO_SUFFIXES: tuple[str, ...] = (
    ".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp", ".ogv",
)  # fmt: skip
"""Names that count as videos, in any case. The format itself is told from the content, not from the name."""

# What libav would open otherwise includes playlists, which name other files and addresses, and single pictures.
_FORMATS = "avi,mov,mp4,matroska,webm,mpeg,mpegts,mpegvideo,m4v,h264,hevc,flv,asf,ogg,nut,mjpeg,ivf"

_MAX_PIXELS = 8192 * 4352  # of a frame: a damaged header may say anything, and several frames are held at a time

_UPRIGHT = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


class UnreadableVideo(Unreadable):
    """A clip of which no frame, or not the frame that was asked for, can be read; `reason` says why in a few words."""

    kind = "a clip"


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
    """How many frames a clip has, by decoding all of it; of a folder, how many pictures it holds.

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
            the folder's pictures that were asked for cannot be read.
        ValueError: a negative number.
    """
    if min(indices, default=0) < 0:
        raise ValueError(f"{path}: frame {min(indices)} was asked for; frames are counted from 0")
    path = Path(path)
    if path.is_dir():
        return _pictures(path, frame_files(path), indices)
    wanted, last = set(indices), max(indices, default=-1)
    with _Video(path) as video:
        kept: dict[int, Any] = {}
        for i, frame in enumerate(video.frames()):
            if i in wanted:
                kept[i] = frame
            if i >= last:
                break
        return _images(path, kept, indices, video.count)


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
        return len(files), _pictures(path, files, choose(len(files)))
    with _Video(path) as video:
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
    return count, _images(path, kept, indices, count)


def probe(path: str | Path) -> VideoInfo:
    """Decode all of a clip and say what is wrong with it. Of a folder every picture is read.

    Raises:
        UnreadableVideo: (a ValueError) nothing of it can be read, or one of a folder's pictures cannot.
    """
    path = Path(path)
    if path.is_dir():
        files = frame_files(path)
        # One at a time: all of them at once would be held in memory.
        sizes = [_pictures(path, files, [i])[0].size for i in range(len(files))]
        return VideoInfo(len(files), None, 0.0, *sizes[0], "")
    with _Video(path) as video:
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

    Every file with a picture's name counts, whatever number the first one has, but for hidden files and those whose
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
        raise UnreadableVideo(folder, "the folder has no pictures such as image_00001.jpg")
    return [folder / name for name in sorted(frames, key=_natural)]


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Numbers inside of names by their value: img_2 before img_10."""
    stem = name.rpartition(".")[0]
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", stem) if part], name


def _pictures(folder: Path, files: Sequence[Path], indices: Sequence[int]) -> list[Image.Image]:
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


def _images(path: Path, kept: dict[int, Any], indices: Sequence[int], count: int) -> list[Image.Image]:
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
        raise UnreadableVideo(path, f"its colours cannot be converted: {_reason(error)}") from error
    # Telephones store a turn instead of turning. Older PyAV does not say.
    turn = _UPRIGHT.get(round(getattr(frame, "rotation", 0)) % 360)
    return image if turn is None else image.transpose(turn)


@dataclass
class _Video:
    """An open video file; a context manager. The counters are those of the `frames()` that were taken so far."""

    path: Path
    claimed: int = 0  # by the container; 0: it does not say
    expected: int = 0  # from the length that the container claims
    fps: float = 0.0
    packets: int = 0
    errors: int = 0
    count: int = 0
    _container: InputContainer = field(init=False, repr=False)
    _stream: VideoStream = field(init=False, repr=False)

    def __enter__(self) -> _Video:
        import av  # libav is worth loading only where there are videos

        try:
            if not self.path.is_file() and self.path.exists():
                raise ValueError("not a file")  # a pipe would be waited for
            if self.path.is_file() and not self.path.stat().st_size:
                raise ValueError("the file is empty")
            self._container = av.open(
                str(self.path.absolute()),  # a name like "concat:a" must not be taken for an address
                options={"format_whitelist": _FORMATS, "protocol_whitelist": "file", "ignore_editlist": "1"},
                metadata_errors="replace",
            )
        except Exception as error:
            raise UnreadableVideo(self.path, _reason(error)) from error
        try:
            stream = self._container.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                raise ValueError("no video in it")
            self._stream, context = stream, stream.codec_context
            if context is None:
                raise ValueError("there is no decoder for its kind of video")
            if context.width * context.height > _MAX_PIXELS:
                raise ValueError(f"{context.width} x {context.height} pixels are more than {_MAX_PIXELS}")
            # One thread: clips are read by several processes, and how a damaged frame is patched up must not depend
            # on which thread came first.
            context.thread_count, context.thread_type = 1, "NONE"
            context.options = {"max_pixels": str(_MAX_PIXELS)}
            self.claimed, self.fps = max(0, stream.frames), float(stream.average_rate or 0)
            self.expected = max(0, round((self._container.duration or 0) / av.time_base * self.fps))
        except Exception as error:
            self._container.close()
            raise UnreadableVideo(self.path, _reason(error)) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def frames(self) -> Iterator[Any]:
        """All frames in the order of presentation; packets that cannot be decoded are counted and left out."""
        for packet in self._packets():
            try:
                frames = self._stream.codec_context.decode(packet)
            except Exception:
                self.errors += 1
                continue
            for frame in frames:
                self.count += 1
                yield frame

    def _packets(self) -> Iterator[Any]:
        """What the decoder is to be fed: packets in the order of the file, then `None`, for what it still holds."""
        try:
            for packet in self._container.demux(self._stream):
                # The last one, without a time, is PyAV's own. Empty ones before it stand for frames that the
                # writer of an AVI dropped: given to the decoder they would mean that the stream ends here.
                self.packets += packet.size > 0 or packet.dts is not None
                if packet.size:
                    yield packet
        except Exception:  # the file cannot be read any further; the frames so far count
            self.errors += 1
        yield None


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if text.startswith(("Invalid data found", "Invalid argument", "End of file")):  # the second: none of _FORMATS
        return "no video in a known format"
    return " ".join(text.split()).lower()
