"""Reading clips: three frames of each, ours against OpenCV's reader, on the same files in one run.

    python benchmarks/video.py --out docs/benchmarks

Writes clips of 320 x 240 pixels and 80 to 100 frames as AVI (MPEG-4, as HMDB51 has them) and reads the middle frame of
each of three parts of every clip, in two processes. What is compared:

- ours: `read_clip`, one pass that also counts the frames;
- OpenCV, jumps: believes the container's number of frames and sets the position (`CAP_PROP_POS_FRAMES`);
- OpenCV, in order: grabs frame after frame up to the last that is wanted;
- decoding alone: PyAV decodes the same frames and converts none to RGB.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np

from attnpool.data.decoding.video import read_clip
from attnpool.data.temporal_sampling import segment_positions
from attnpool.evaluation.tables import markdown_table

SEGMENTS = 3
PAGE = """# Reading clips

```
python benchmarks/video.py --clips {clips} --rounds {rounds} --out docs/benchmarks
```

{clips} clips of 320 x 240 pixels, 80 to 100 frames, MPEG-4 in AVI, {kilobytes:.0f} KB each; three frames of each, in
{processes} processes, best of {rounds} rounds. OpenCV {opencv}, PyAV {pyav}.

{table}

Ours counts the frames by decoding all of them and takes the three on the way, so it is right whatever the container
claims; decoding alone decodes the same frames and keeps none. Of the rate of decoding alone ours reaches {share:.0%}.
OpenCV believes the container's count: in order it stops at the last frame that is wanted, and jumps start at the key
frame before, of which these files have one in 12 frames.
"""


def write_clip(path: str, seed: int) -> None:
    """A textured ground that pans under a few moving discs, with some noise as cameras have it."""
    rng = np.random.default_rng(seed)
    ground = cv2.GaussianBlur(rng.integers(0, 256, (400, 500, 3)).astype(np.float32), (0, 0), 3)
    ground = cv2.normalize(ground, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    noise = rng.normal(0, 2, (4, 240, 320, 3)).astype(np.int16)
    discs = rng.uniform([20, 20, -2, -2, 10], [300, 220, 2, 2, 40], (4, 5))
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=30, options={"qscale": "4", "flags": "+qscale"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.global_quality = 4 * 118
        stream.codec_context.thread_count = 1
        for t in range(int(rng.integers(80, 101))):
            image = ground[t : t + 240, t : t + 320].copy()
            for x, y, dx, dy, radius in discs:
                cv2.circle(image, (int(x + dx * t), int(y + dy * t)), int(radius), (200, 80, 40), -1)
            image = (image + noise[t % 4]).clip(0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def middles(frames: int) -> list[int]:
    return segment_positions(frames, SEGMENTS)


def ours(path: str) -> np.ndarray:
    return np.stack([np.asarray(image) for image in read_clip(path, middles).images])


def opencv_jumps(path: str) -> np.ndarray:
    capture = cv2.VideoCapture(path)
    found = []
    for i in middles(int(capture.get(cv2.CAP_PROP_FRAME_COUNT))):
        capture.set(cv2.CAP_PROP_POS_FRAMES, i)
        found.append(capture.read()[1][..., ::-1])
    capture.release()
    return np.stack(found)


def opencv_in_order(path: str) -> np.ndarray:
    capture = cv2.VideoCapture(path)
    wanted = middles(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    found = []
    for i in range(wanted[-1] + 1):
        capture.grab()
        if i in wanted:
            found.append(capture.retrieve()[1][..., ::-1])
    capture.release()
    return np.stack(found)


def decoding_alone(path: str) -> np.ndarray:
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.thread_type = 1, "NONE"
        return np.array([sum(1 for _ in container.decode(stream))])


READERS: dict[str, Callable[[str], np.ndarray]] = {
    "attnpool": ours,
    "OpenCV, jumps": opencv_jumps,
    "OpenCV, in order": opencv_in_order,
    "decoding alone": decoding_alone,
}


def use(reader: Callable[[str], np.ndarray], path: str) -> int:
    """Read and throw away: sending the frames to another process is no part of reading."""
    return reader(path).size


def one_thread() -> None:
    cv2.setNumThreads(1)


def correct(reader: Callable[[str], np.ndarray], paths: list[str]) -> float:
    """The share of clips of which all frames are those that a plain decode from the start gives."""
    right = 0
    for path in paths:
        with av.open(path) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        expected = np.stack([frames[i] for i in middles(len(frames))]).astype(np.int16)
        right += bool(np.abs(reader(path) - expected).mean((1, 2, 3)).max() < 2)
    return right / len(paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1530, help="HMDB51's test split has 1530 (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of which the best counts (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder for video.json and video.md")
    options = parser.parse_args()
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder, context.Pool(options.processes, one_thread) as pool:
        paths = [f"{folder}/{n:04d}.avi" for n in range(options.clips)]
        pool.starmap(write_clip, [(path, n) for n, path in enumerate(paths)], chunksize=8)
        kilobytes = sum(Path(path).stat().st_size for path in paths) / len(paths) / 1000
        rates = dict.fromkeys(READERS, 0.0)
        for _ in range(options.rounds):
            for name, reader in READERS.items():
                start = time.perf_counter()
                for _ in pool.imap_unordered(partial(use, reader), paths, chunksize=8):
                    pass
                rates[name] = max(rates[name], len(paths) / (time.perf_counter() - start))
        right = {name: correct(READERS[name], paths[:100]) for name in READERS if name != "decoding alone"}
    result = {
        "clips": options.clips,
        "kilobytes": kilobytes,
        "processes": options.processes,
        "rounds": options.rounds,
        "opencv": cv2.__version__,
        "pyav": av.__version__,
        "clips_per_second": rates,
        "right": right,
        "share": rates["attnpool"] / rates["decoding alone"],
    }
    rows = [[n, f"{rate:.0f}", f"{right[n]:.0%}" if n in right else ""] for n, rate in rates.items()]
    table = markdown_table(["reader", "clips/s", "frames are right"], rows, "lll")
    page = PAGE.format(
        table="\n".join(table), **{k: v for k, v in result.items() if k not in ("clips_per_second", "right")}
    )
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "video.json").write_text(json.dumps(result, indent=1) + "\n")
        (options.out / "video.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
