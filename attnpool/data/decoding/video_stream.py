"""An open video file: every frame that libav's decoder gives away, in order, and what went wrong on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnpool.data.decoding.image import Unreadable

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# What libav would open otherwise includes playlists, which name other files and addresses, and single images.
_FORMATS = "avi,mov,mp4,matroska,webm,mpeg,mpegts,mpegvideo,m4v,h264,hevc,flv,asf,ogg,nut,mjpeg,ivf"

_MAX_PIXELS = 8192 * 4352  # of a frame: a damaged header may say anything, and several frames are held at a time


class UnreadableVideo(Unreadable):
    """A clip of which no frame, or not the frame that was asked for, can be read; `reason` says why in a few words."""

    kind = "a clip"


@dataclass
class OpenVideo:
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

    def __enter__(self) -> OpenVideo:
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
            # One thread: clips are read by several processes, and how a damaged frame is patched up must not depend
            # on which thread came first.
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


def reason_of(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if text.startswith(("Invalid data found", "Invalid argument", "End of file")):  # the second: none of _FORMATS
        return "no video in a known format"
    return " ".join(text.split()).lower()
