"""Writes a world in HMDB51's format: a folder of .avi clips for each class, three splits and OpenPose keypoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from attnpool.keypoints.joints import MPII_JOINTS, Box
from attnpool.playground.annotation import DESCRIPTION, VERSION
from attnpool.playground.clip import HEIGHT, RATE, WIDTH, Clip, Frame, compose_clip, render_clip
from attnpool.playground.compose import CLASSES
from attnpool.playground.openpose import detections, write_bodies
from attnpool.playground.staging import RECORD, Progress, make_world
from attnpool.playground.write_folder import check_numbers

SPLITS = (1, 2, 3)
# The beginnings of HMDB51's names: the film, in any characters that its uploader used.
FILMS = (
    "A_Day_Out", "Two_Left_Feet", "Kitchen_Stories_#3", "AMAZING!!!_Tricks", "Home_Video_(Part_2)", "Salt_&_Pepper",
    "Holiday_2009_[HQ]", "Sunday;Monday", "Practice+Repeat", "Meet_me_@_noon", "Rain~Shine", "(What)_a_Game!",
)  # fmt: skip
# Separate random streams for names and splits.
NAMES, DEALS = 32_452_843, 49_979_687


def folder_of(label: str) -> str:
    """The folder of a class: its name with underscores."""
    return label.replace(" ", "_")


def write_hmdb51(directory: Path, clips: int, seed: int, *, frames: int = 40, progress: Progress | None = None) -> None:
    """Writes a world in HMDB51's format below `directory`, either completely or not at all.

    - `CLASS/NAME.avi`: MPEG-4 clips of 320 x 240 pixels, 30 frames per second, without sound. As in HMDB51 a name gives
      the visible part of the body (f all of it, u not the feet), whether the camera moves (cm, nm), the number of
      people, the side from which the actor is seen (fr, le, ri) and the quality (goo, med, bad). Some names have
      unusual characters.
    - `splits/CLASS_test_split{1,2,3}.txt`: `NAME.avi 1 ` for train, 2 for test and 0 for neither, 70 to 30 of those
      that are used.
    - `keypoints/CLASS/NAME/image_00001.json` ...: the people of every frame as OpenPose's JSON.
    - `annotations.json`: for every clip the label and, for every frame, the box around actor and thing, and that of
      the thing alone; `null` where it is not in the frame.

    Args:
        directory: folder to write, which must be new or empty, or hold exactly this world already.
        clips: number of clips, at least two per class.
        seed: seed of the world, at least 0.
        frames: number of frames of each clip, 2 to 3000.
        progress: function that is called with (clips done, total clips).

    Raises:
        ValueError: a number is out of range, or the directory holds something else.
        OSError: the files cannot be written; nothing is left behind.
    """
    check_numbers(clips, seed, what="clips")
    if not 2 <= frames <= 3000:
        raise ValueError(f"frames {frames}: a clip of the playground has 2 to 3000; choose one of them")
    info = {
        "description": DESCRIPTION,
        "version": VERSION,
        "style": "hmdb51",
        "seed": seed,
        "clips": clips,
        "frames": frames,
    }

    def fill(world: Path) -> None:
        entries, files = [], []
        names: dict[str, list[str]] = {label: [] for label in CLASSES}
        for index in range(clips):
            clip = compose_clip(seed, index, frames)
            seen = render_clip(clip)
            images, known = [], []
            for frame in seen:
                images.append(frame.image)
                known.append(frame)
            name = clip_name(seed, index, clip, known[frames // 2])
            file = f"{folder_of(clip.label)}/{name}.avi"
            (world / file).parent.mkdir(exist_ok=True)
            write_avi(world / file, iter(images), 1_500_000 if clip.noise < 4 else 400_000)
            for number, frame in enumerate(known, start=1):
                files.append(f"keypoints/{folder_of(clip.label)}/{name}/image_{number:05d}.json")
                write_bodies(world / files[-1], map(detections, frame.people))
            names[clip.label].append(name)
            entries.append({"id": index + 1, "file_name": file, "label": clip.label, **_boxes(known)})
            if progress is not None:
                progress(index + 1, clips)
        (world / "splits").mkdir()
        for label in CLASSES:
            files += write_splits(world, seed, label, names[label])
        content = {"info": info, "width": WIDTH, "height": HEIGHT, "rate": RATE, "clips": entries, "files": files}
        (world / RECORD).write_text(json.dumps(content), encoding="utf-8")

    make_world(directory, info, clips, fill, progress)


def clip_name(seed: int, index: int, clip: Clip, middle: Frame) -> str:
    """The name of a clip in HMDB51's style, without .avi; it describes the frame `middle`."""
    film = FILMS[int(np.random.default_rng([seed, index, NAMES]).integers(len(FILMS)))]
    actor = next((person for person in middle.people if person.actor), None)
    feet = [MPII_JOINTS.index("right_ankle"), MPII_JOINTS.index("left_ankle")]
    part = "f" if actor is not None and actor.visible[feet].all() else "u"
    camera = "nm" if clip.camera.shake == 0 and clip.camera.pan == (0.0, 0.0) else "cm"
    heading = clip.performers[0].start.heading
    side = "fr" if abs(heading) < 0.5 else "ri" if heading > 0 else "le"
    quality = "bad" if clip.noise > 4 else "med" if clip.noise > 1 else "goo"
    count = max(len(middle.people), 1)
    return f"{film}_{folder_of(clip.label)}_{part}_{camera}_np{count}_{side}_{quality}_{index}"


def write_avi(path: Path, images: Iterator[np.ndarray], bits: int) -> None:
    """Writes frames (H, W, 3) uint8 as MPEG-4 to an .avi file with `bits` per second, reproducibly."""
    import av

    with av.open(str(path), "w", format="avi", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", bits
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = 12
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_splits(world: Path, seed: int, label: str, names: list[str]) -> list[str]:
    """Assigns the clips of a class to train and test, in each split anew; a tenth is not used. Returns the files."""
    made = []
    for split in SPLITS:
        rng = np.random.default_rng([seed, CLASSES.index(label), split, DEALS])
        unused = len(names) // 10
        test = max(1, round(0.3 * (len(names) - unused)))
        parts = np.array([0] * unused + [2] * test + [1] * (len(names) - unused - test))
        parts = rng.permutation(parts)
        lines = sorted(f"{name}.avi {part} \n" for name, part in zip(names, parts, strict=True))
        made.append(f"splits/{folder_of(label)}_test_split{split}.txt")
        (world / made[-1]).write_text("".join(lines), encoding="utf-8")
    return made


def _boxes(frames: list[Frame]) -> dict[str, list[Any]]:
    evidence, objects = [], []
    for frame in frames:
        actor = [person.box for person in frame.people if person.actor]
        things = [thing.box for thing in frame.things]
        evidence.append(_around(actor + things) if actor else None)
        objects.append(_around(things))
    return {"evidence": evidence, "objects": objects}


def _around(boxes: list[Box]) -> Box | None:
    if not boxes:
        return None
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return (min(x1), min(y1), max(x2), max(y2))
