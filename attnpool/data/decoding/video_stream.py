"""An open video file: all frames that libav can decode, in order, and counts of what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnpool.data.decoding.image import Unreadable

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Without this list libav would also open playlists, which name other files and addresses, and single images.
_FORMATS = "avi,mov,mp4,matroska,webm,mpeg,mpegts,mpegvideo,m4v,h264,hevc,flv,asf,ogg,nut,mjpeg,ivf,gif"

_MAX_PIXELS = 8192 * 4352  # limit per frame: a damaged header may claim any size, and several frames are in memory


class UnreadableVideo(Unreadable):
    """The error for a clip of which no frame, or not the requested one, can be read; `reason` says why."""

    kind = "a clip"


@dataclass
class OpenVideo:
    """An open video file, as a context manager. The counters refer to the frames that `frames()` has yielded so far."""

    path: Path
    claimed: int = 0  # number of frames that the container claims; 0 if it claims none
    expected: int = 0  # number of frames that follows from the length that the container claims
    fps: float = 0.0
    packets: int = 0
    errors: int = 0
    count: int = 0
    _container: InputContainer = field(init=False, repr=False)
    _stream: VideoStream = field(init=False, repr=False)

    def __enter__(self) -> OpenVideo:
        import av  # imported here, as only videos need libav

        try:
            if not self.path.is_file() and self.path.exists():
                raise ValueError("not a file")  # a pipe would be waited for
            if self.path.is_file() and not self.path.stat().st_size:
                raise ValueError("the file is empty")
            self._container = av.open(
                str(self.path.absolute()),  # a name such as "concat:a" must not be read as an address
                options={"format_whitelist": _FORMATS, "protocol_whitelist": "file", "ignore_editlist": "1"},
                metadata_errors="replace",
            )
        except Exception as error:
            raise UnreadableVideo(self.path, reason_of(error)) from error
        try:
            stream = self._container.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                raise ValueError("no video in it")
            self._stream, context = stream, stream.codec_context
            if context is None:
                raise ValueError("there is no decoder for its kind of video")
            if context.width * context.height > _MAX_PIXELS:
                raise ValueError(f"{context.width} x {context.height} pixels are more than {_MAX_PIXELS}")
            # One thread is enough, as several processes read clips, and makes the repair of damaged frames
            # deterministic.
            context.thread_count, context.thread_type = 1, "NONE"
            context.options = {"max_pixels": str(_MAX_PIXELS)}
            self.claimed, self.fps = max(0, stream.frames), float(stream.average_rate or 0)
            self.expected = max(0, round((self._container.duration or 0) / av.time_base * self.fps))
        except Exception as error:
            self._container.close()
            raise UnreadableVideo(self.path, reason_of(error)) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def frames(self) -> Iterator[Any]:
        """Yields all frames in the order of presentation; packets that cannot be decoded are counted and left out."""
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
        """Input of the decoder: packets in the order of the file, then `None` for the frames that it still holds."""
        try:
            for packet in self._container.demux(self._stream):
                # PyAV adds a last packet without a time. Empty packets before it stand for frames that the writer of
                # an AVI dropped: passed to the decoder, they would mean the end of the stream.
                self.packets += packet.size > 0 or packet.dts is not None
                if packet.size:
                    yield packet
        except Exception:  # the file cannot be read further; the frames so far are used
            self.errors += 1
        yield None


def reason_of(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if text.startswith(("Invalid data found", "Invalid argument", "End of file")):  # the second: none of _FORMATS
        return "no video in a known format"
    return " ".join(text.split()).lower()
