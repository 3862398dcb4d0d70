from __future__ import annotations

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import number_of, numbered, write_clip
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from attnpool.data.decoding.contents import frame_files
from attnpool.data.decoding.image import Unreadable
from attnpool.data.decoding.video import (
    UnreadableVideo,
    VideoInfo,
    count_frames,
    probe,
    read_clip,
    read_frames,
)

FRAMES = 40
# name, encoder, its options; h264 has B-frames, among them such that others refer to
KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "h264.mp4": ("libx264", {"bf": "3", "b-pyramid": "normal"}),
    "mpeg4.mp4": ("mpeg4", {"bf": "2"}),
    "mpeg4.avi": ("mpeg4", {}),
    "b_frames.avi": ("mpeg4", {"bf": "2"}),
    "h264.avi": ("libx264", {"bf": "3"}),
    "mjpeg.avi": ("mjpeg", {}),
    "mjpeg.mov": ("mjpeg", {}),
    "h264.mkv": ("libx264", {"bf": "2"}),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "mpeg2.mpg": ("mpeg2video", {"bf": "2"}),
    "h264.ts": ("libx264", {"bf": "2", "x264-params": "open-gop=1"}),
    "bare.h264": ("libx264", {"bf": "2"}),
    "wmv2.wmv": ("wmv2", {}),
    "flv.flv": ("flv", {}),
}


def numbers(images: list[Image.Image]) -> list[int]:
    return [number_of(image) for image in images]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name, (codec, options) in KINDS.items():
        write_clip(folder / name, FRAMES, codec, options=options)
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_counted_and_found(clips: Path, name: str) -> None:
    path = clips / name
    assert count_frames(path) == FRAMES
    assert numbers(read_frames(path, range(FRAMES))) == list(range(FRAMES))
    assert numbers(read_frames(str(path), [17, 3, 39, 3, 0, 18])) == [17, 3, 39, 3, 0, 18]
    assert [number_of(read_frames(path, [i])[0]) for i in (0, 1, 12, 38, 39)] == [0, 1, 12, 38, 39]
    count, images, _ = read_clip(path, lambda n: [n - 1, n // 2, 0])
    assert (count, numbers(images)) == (FRAMES, [39, 20, 0])
    assert {image.mode for image in images} == {"RGB"}
    info = probe(path)
    assert (info.frames, info.width, info.height, info.problem) == (FRAMES, 120, 64, "")
    assert info.claimed_frames in (FRAMES, None)
    assert info.fps == pytest.approx(25 if name == "bare.h264" else 30)


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.avi", "mjpeg.avi", "b_frames.avi"])
def test_pixels_against_opencv(clips: Path, name: str) -> None:
    capture = cv2.VideoCapture(str(clips / name))
    theirs = []
    while (got := capture.read())[0]:
        theirs.append(got[1][..., ::-1])
    capture.release()
    ours = read_frames(clips / name, range(FRAMES))
    assert len(theirs) == len(ours)
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(np.asarray(a, np.int16) - b).mean() < 2


def test_a_single_frame_and_no_frame_asked(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", 1)
    assert count_frames(path) == 1
    assert numbers(read_frames(path, [0, 0])) == [0, 0]
    assert read_frames(path, []) == []
    assert read_clip(path, lambda n: []) == (1, [], "")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_at_uneven_times(tmp_path: Path, suffix: str) -> None:
    times = np.cumsum(np.random.default_rng(1).integers(1, 40, FRAMES)).tolist()
    path = write_clip(tmp_path / f"a{suffix}", FRAMES, "libx264", options={"bf": "3"}, times=times)
    assert count_frames(path) == FRAMES
    assert numbers(read_frames(path, range(FRAMES))) == list(range(FRAMES))


# What the container claims


def patched(source: Path, to: Path, mark: bytes, change: dict[int, bytes], last: bool = False) -> Path:
    """A copy with bytes changed at places relative to the first (or last) `mark`."""
    content = bytearray(source.read_bytes())
    start = content.rfind(mark) if last else content.find(mark)
    assert start >= 0
    for offset, new in change.items():
        content[start + offset : start + offset + len(new)] = new
    to.write_bytes(content)
    return to


def chunks(content: bytes) -> list[int]:
    """Where the frames of an AVI begin: 00dc, their size, their bytes."""
    places, place = [], content.index(b"movi") + 4
    while content[place : place + 4] == b"00dc":
        places.append(place)
        size = struct.unpack_from("<I", content, place + 4)[0]
        place += 8 + size + size % 2
    return places


def same_as_before(path: Path, claimed: int | None = FRAMES) -> None:
    assert count_frames(path) == FRAMES
    assert numbers(read_frames(path, range(FRAMES))) == list(range(FRAMES))
    count, images, _ = read_clip(path, lambda n: [n - 1, n // 2, 0])
    assert (count, numbers(images)) == (FRAMES, [39, 20, 0])
    assert probe(path).frames == FRAMES
    assert probe(path).claimed_frames == claimed


@pytest.mark.parametrize("claim", [0, 7, 39, 41, 9000])
@pytest.mark.parametrize("name", ["mpeg4.avi", "b_frames.avi", "mjpeg.avi"])
def test_an_avi_that_claims_another_number(clips: Path, tmp_path: Path, name: str, claim: int) -> None:
    number = struct.pack("<I", claim)
    path = patched(clips / name, tmp_path / "a.avi", b"avih", {24: number})
    path = patched(path, path, b"strh", {8 + 32: number})
    same_as_before(path, claim or None)
    assert probe(path).problem == (f"truncated: 40 of {claim} frames" if claim > FRAMES else "")


def test_an_avi_without_its_index(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    content = (clips / "mpeg4.avi").read_bytes()
    path.write_bytes(content[: content.rfind(b"idx1")])
    same_as_before(path)


def test_an_avi_with_an_index_of_nonsense(clips: Path, tmp_path: Path) -> None:
    content = (clips / "mpeg4.avi").read_bytes()
    start = content.rfind(b"idx1")
    size = struct.unpack_from("<I", content, start + 4)[0]
    noise = np.random.default_rng(1).bytes(size)
    path = patched(clips / "mpeg4.avi", tmp_path / "a.avi", b"idx1", {8: noise}, last=True)
    same_as_before(path)


def test_an_avi_with_dropped_frames(clips: Path, tmp_path: Path) -> None:
    """Empty chunks, with which writers of AVIs mark frames that were dropped, are no frames and no end."""
    content = (clips / "mpeg4.avi").read_bytes()
    content, places = content[: content.rfind(b"idx1")], chunks(content)
    assert len(places) == FRAMES
    for place in (places[30], places[11], places[10]):
        content = content[:place] + b"00dc\0\0\0\0" + content[place:]
    path = tmp_path / "a.avi"
    path.write_bytes(content)
    assert count_frames(path) == FRAMES
    assert numbers(read_frames(path, range(FRAMES))) == list(range(FRAMES))
    assert probe(path).problem == ""


@pytest.mark.parametrize("skip", [0, 5000, 12000])
def test_an_mp4_with_an_edit_list_that_hides_frames(clips: Path, tmp_path: Path, skip: int) -> None:
    # elst: version and flags, number of entries, then duration and start of the first
    path = patched(clips / "h264.mp4", tmp_path / "a.mp4", b"elst", {16: struct.pack(">I", skip)})
    same_as_before(path)


def test_an_mp4_with_false_lengths(clips: Path, tmp_path: Path) -> None:
    path = patched(clips / "h264.mp4", tmp_path / "a.mp4", b"mvhd", {20: struct.pack(">I", 3)})
    path = patched(path, path, b"mdhd", {20: struct.pack(">I", 5)})
    same_as_before(path)


def test_an_mp4_whose_times_are_all_the_same(clips: Path, tmp_path: Path) -> None:
    path = patched(clips / "mjpeg.mov", tmp_path / "a.mov", b"stts", {12: struct.pack(">I", 0)})
    assert count_frames(path) == FRAMES
    assert numbers(read_frames(path, range(FRAMES))) == list(range(FRAMES))


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_turned_as_a_telephone_says(clips: Path, tmp_path: Path, angle: int) -> None:
    one = 1 << 16
    a, b = {90: (0, one), 180: (-one, 0), 270: (0, -one)}[angle]
    matrix = struct.pack(">5i", a, b, 0, -b, a)
    path = patched(clips / "h264.mp4", tmp_path / "a.mp4", b"tkhd", {44: matrix})
    (image,) = read_frames(path, [13])
    _, theirs = cv2.VideoCapture(str(path)).read()
    (first,) = read_frames(path, [0])
    assert np.abs(np.asarray(first, np.int16) - theirs[..., ::-1]).mean() < 2
    assert number_of(image.rotate(angle, expand=True)) == 13
    assert (probe(path).width, probe(path).height) == image.size


# Damage


def test_a_truncated_avi(clips: Path, tmp_path: Path) -> None:
    content = (clips / "mpeg4.avi").read_bytes()
    path = tmp_path / "a.avi"
    path.write_bytes(content[: chunks(content)[25] + 20])
    info = probe(path)
    assert info.frames in (25, 26)
    assert info.problem == f"truncated: {info.frames} of 40 frames"
    assert count_frames(path) == info.frames
    whole = range(info.frames - 1)  # of the last one, only a part is there
    assert numbers(read_frames(path, whole)) == list(whole)
    with pytest.raises(UnreadableVideo, match=rf"a.avi: .* \(it has {info.frames} frames and frame 39, counted from 0"):
        read_frames(path, [0, 39])
    count, images, _ = read_clip(path, lambda n: [n // 2])
    assert (count, numbers(images)) == (info.frames, [info.frames // 2])


def test_a_truncated_mp4(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_clip(path, FRAMES, "libx264", options={"bf": "2"})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.6)])  # its table of contents is at the end
    with pytest.raises(UnreadableVideo, match="no video in a known format"):
        count_frames(path)


def test_a_damaged_avi(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", FRAMES, "mjpeg")
    content = bytearray(path.read_bytes())
    start, end = chunks(content)[20:22]
    content[start + 8 : end] = bytes(end - start - 8)
    path.write_bytes(content)
    info = probe(path)
    assert info.frames == FRAMES - 1
    assert info.problem == "damaged: 1 of 40 frames cannot be decoded"
    expected = [i for i in range(FRAMES) if i != 20]
    assert numbers(read_frames(path, range(FRAMES - 1))) == expected
    count, images, _ = read_clip(path, lambda n: [n - 1])
    assert (count, numbers(images)) == (FRAMES - 1, [39])


@given(st.sampled_from(["h264.mp4", "mpeg4.avi", "mjpeg.avi", "h264.mkv"]), st.integers(0, 10**6))
def test_any_damage_is_one_line_or_frames(clips: Path, name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    content = bytearray((clips / name).read_bytes())
    for place in rng.integers(0, len(content), rng.integers(1, 40)):
        content[place] = rng.integers(256)
    if rng.random() < 0.3:
        del content[rng.integers(len(content)) :]
    path = clips / f"mutant-{name}"
    path.write_bytes(content)
    try:
        frames = count_frames(path)
    except UnreadableVideo as error:
        lines = str(error).splitlines()
        assert len(lines) == 1
        return
    info = probe(path)
    assert info.frames == frames >= 1
    again, images, _ = read_clip(path, lambda n: range(n))
    assert again == len(images) == frames
    alone = read_frames(path, [frames - 1, 0])
    if name == "mjpeg.avi":  # its decoder leaves what is missing of a frame as it finds the memory
        return
    assert alone[0].tobytes() == images[-1].tobytes()
    assert alone[1].tobytes() == images[0].tobytes()


def audio(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.avi", b"", "the file is empty"),
        ("a.avi", b"some text\n" * 99, "no video in a known format"),
        ("a.avi", b"ffconcat version 1.0\nfile mpeg4.avi\n", "no video in a known format"),
        ("a.m3u8", b"#EXTM3U\n#EXTINF:1,\nmpeg4.avi\n", "no video in a known format"),
        ("a.avi", None, "no such file or directory"),
    ],
)
def test_what_is_no_video(clips: Path, name: str, content: bytes | None, reason: str) -> None:
    path = clips / name
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    for read in (count_frames, probe, partial(read_frames, indices=[0]), partial(read_clip, choose=range)):
        with pytest.raises(UnreadableVideo, match=rf"{name}: cannot be read as a clip \({reason}") as caught:
            read(path)
        assert caught.value.reason == reason
        assert isinstance(caught.value, Unreadable)


def test_images_sound_and_pipes_are_no_videos(tmp_path: Path) -> None:
    numbered(1).save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(tmp_path / "image.avi")
    audio(tmp_path / "sound.mp4")
    os.mkfifo(tmp_path / "pipe.avi")
    for name, reason in [
        ("image.avi", "no video in a known format"),
        ("sound.mp4", "no video in it"),
        ("pipe.avi", "not a file"),
    ]:
        with pytest.raises(UnreadableVideo, match=rf"\({reason}\)"):
            count_frames(tmp_path / name)


def test_numbers_outside_of_the_clip(clips: Path) -> None:
    with pytest.raises(UnreadableVideo, match="it has 40 frames and frame 40, counted from 0, is wanted"):
        read_frames(clips / "h264.mp4", [40])
    with pytest.raises(ValueError, match="indices holds -1"):
        read_frames(clips / "h264.mp4", [3, -1])


@pytest.mark.parametrize(
    "name", ["pick!_up (1) & #2 %05d.avi", "http:a.avi", "concat:a|b.avi", "ünï\udcff.avi", "-i.avi", "a b.avi"]
)
def test_any_name(clips: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes((clips / "mpeg4.avi").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert count_frames(Path(name)) == FRAMES


# Processes, threads, handles, noise


class Middle:
    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[int, int]:
        count, images, _ = read_clip(self.paths[i], lambda n: [n // 2])
        return count, number_of(images[0])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_in_worker_processes_and_threads(clips: Path) -> None:
    paths = [clips / name for name in KINDS] * 2
    expected = [(FRAMES, FRAMES // 2)] * len(paths)
    data = Middle(paths)
    assert [data[i] for i in range(len(paths))] == expected
    assert [tuple(item) for item in DataLoader(data, batch_size=None, num_workers=2)] == expected  # type: ignore[arg-type]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(data.__getitem__, range(len(paths)))) == expected


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files where Linux lists them")
def test_no_file_stays_open_and_nothing_is_printed(clips: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = clips / "broken.avi"
    content = bytearray((clips / "b_frames.avi").read_bytes())
    start, end = chunks(content)[3], chunks(content)[-1]
    for place in np.random.default_rng(1).integers(start, end, 300):
        content[place] = 77
    broken.write_bytes(content)
    audio(clips / "sound.mp4")

    def all_ways() -> None:
        for name in ("mpeg4.avi", "h264.mp4", "sound.mp4", "broken.avi", "none.avi"):
            for read in (count_frames, probe, partial(read_frames, indices=[1, 0]), partial(read_clip, choose=range)):
                try:
                    read(clips / name)
                except UnreadableVideo:
                    assert name in ("sound.mp4", "none.avi")

    all_ways()
    before = os.listdir("/proc/self/fd")
    all_ways()
    assert os.listdir("/proc/self/fd") == before
    assert capfd.readouterr() == ("", "")


# Folders of frames


@pytest.mark.parametrize(
    "pattern", ["image_{:05d}.jpg", "img_{}.jpg", "frame{:04d}.png", "{}.JPG", "frame_{:06d}.jpeg", "v_1_{}.png"]
)
@pytest.mark.parametrize("first", [0, 1, 98])
def test_a_folder_of_frames(tmp_path: Path, pattern: str, first: int) -> None:
    for i in (3, 0, 12, 7, 1, 2, 4, 5, 6, 8, 9, 10, 11):
        numbered(i).save(tmp_path / pattern.format(i + first), quality=95)
    for name in ("flow_x_00001.jpg", "flow_y_00001.jpg", ".hidden_00001.jpg"):
        numbered(500).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    assert count_frames(tmp_path) == 13
    assert numbers(read_frames(tmp_path, [12, 0, 3, 3])) == [12, 0, 3, 3]
    count, images, _ = read_clip(tmp_path, range)
    assert (count, numbers(images)) == (13, list(range(13)))
    assert probe(tmp_path) == VideoInfo(13, None, 0.0, 120, 64, "")
    assert frame_files(tmp_path)[0].name == pattern.format(first)


def test_a_folder_with_a_broken_frame(tmp_path: Path) -> None:
    for i in range(3):
        numbered(i).save(tmp_path / f"image_{i + 1:05d}.jpg")
    (tmp_path / "image_00002.jpg").write_bytes(b"nothing")
    assert count_frames(tmp_path) == 3
    assert numbers(read_frames(tmp_path, [0, 2])) == [0, 2]
    with pytest.raises(UnreadableVideo, match=r"image_00002.jpg: not an image in a known format"):
        read_frames(tmp_path, [0, 1])
    with pytest.raises(UnreadableVideo, match=r"it has 3 frames and frame 3, counted from 0, is wanted"):
        read_clip(tmp_path, lambda n: [n])
    with pytest.raises(UnreadableVideo, match=r"image_00002\.jpg"):
        probe(tmp_path)


def test_a_folder_without_frames(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match=r"the folder has no images such as image_00001\.jpg"):
        count_frames(tmp_path)
