"""A world in HMDB51's format: decoded by PyAV and OpenCV, lists and keypoints parsed by hand."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from attnpool.data import read
from attnpool.playground import CLASSES
from attnpool.playground.clip import compose_clip, render_clip
from attnpool.playground.write_hmdb51 import FILMS, clip_name, write_hmdb51, write_splits

CLIPS, FRAMES, SEED = 42, 5, 6


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data") / "hmdb51"
    write_hmdb51(directory, CLIPS, SEED, frames=FRAMES)
    return directory


def test_layout(world: Path) -> None:
    folders = {name.replace(" ", "_") for name in CLASSES}
    assert {path.name for path in world.iterdir()} == folders | {"splits", "keypoints", "annotations.json"}
    clips = sorted(world.rglob("*.avi"))
    assert Counter(path.parent.name for path in clips) == dict.fromkeys(folders, 3)
    for path in clips:
        film, _, rest = path.stem.partition(f"_{path.parent.name}_")
        part, camera, people, side, quality, number = rest.split("_")
        assert film in FILMS
        assert part in ("f", "u")
        assert camera in ("cm", "nm")
        assert people in ("np1", "np2", "np3")
        assert side in ("fr", "le", "ri")
        assert quality in ("goo", "med", "bad")
        assert 0 <= int(number) < CLIPS
    assert any(set(path.name) & set("!(&#[;+@~") for path in clips)


def test_clips_are_what_was_painted(world: Path) -> None:
    """Every frame is there, in its place: by PyAV's count, OpenCV's count and the pixels."""
    for index in (0, 17):
        clip = compose_clip(SEED, index, FRAMES)
        painted = list(render_clip(clip))
        name = clip_name(SEED, index, clip, painted[FRAMES // 2])
        path = world / clip.label.replace(" ", "_") / f"{name}.avi"
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.average_rate) == ("mpeg4", 30)
            decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(decoded) == FRAMES
        for mine, frame in zip(decoded, painted, strict=True):
            assert mine.shape == (240, 320, 3)
            assert np.abs(mine.astype(int) - frame.image).mean() < 12
        for number, mine in enumerate(decoded):
            distances = [np.abs(mine.astype(int) - frame.image).mean() for frame in painted]
            assert clip.noise > 4 or int(np.argmin(distances)) == number
        capture = cv2.VideoCapture(str(path))
        seen = 0
        while capture.read()[0]:
            seen += 1
        assert seen == FRAMES == int(capture.get(cv2.CAP_PROP_FRAME_COUNT))


def test_splits(world: Path) -> None:
    for split in (1, 2, 3):
        for label in CLASSES:
            folder = label.replace(" ", "_")
            lines = (world / "splits" / f"{folder}_test_split{split}.txt").read_text().split("\n")
            assert lines.pop() == ""
            assert all(line[-3:] in (" 0 ", " 1 ", " 2 ") for line in lines)
            assert {line[:-3] for line in lines} == {path.name for path in (world / folder).iterdir()}
            assert Counter(line[-2] for line in lines) == {"1": 2, "2": 1}


def test_splits_of_many_clips(tmp_path: Path) -> None:
    (tmp_path / "splits").mkdir()
    names = [f"a_{number}" for number in range(100)]
    texts = [(tmp_path / name).read_text() for name in write_splits(tmp_path, 0, CLASSES[0], names)]
    assert len(set(texts)) == 3
    for text in texts:
        assert Counter(line[-2] for line in text.splitlines()) == {"0": 10, "1": 63, "2": 27}


def test_keypoints_and_boxes_of_every_frame(world: Path) -> None:
    known = json.loads((world / "annotations.json").read_text())["clips"]
    assert len(known) == CLIPS
    for index in (3, 30):
        entry = known[index]
        assert (world / entry["file_name"]).is_file()
        folder = world / "keypoints" / entry["file_name"].removesuffix(".avi")
        assert sorted(path.name for path in folder.iterdir()) == [f"image_{k:05d}.json" for k in range(1, FRAMES + 1)]
        for number, frame in enumerate(render_clip(compose_clip(SEED, index, FRAMES)), start=1):
            bodies = json.loads((folder / f"image_{number:05d}.json").read_text())["bodies"]
            clear = [person for person in frame.people if (person.visible == 2).sum() >= 5]
            assert len(clear) <= len(bodies) <= len(frame.people)
            for body in bodies:
                joints = np.reshape(body["joints"], (18, 3))
                hip, seen = joints[8, :2], joints[8, 2] > 0  # the right hip, MPII's joint 2
                if seen:
                    assert min(np.abs(person.joints[2] - hip).max() for person in frame.people) < 0.01
            assert entry["objects"][number - 1] == (list(frame.things[0].box) if frame.things else None)
            actor = next((person.box for person in frame.people if person.actor), None)
            box = entry["evidence"][number - 1]
            assert (box is None) == (actor is None)
            if box is not None and actor is not None:
                assert box[0] <= actor[0]
                assert box[3] >= actor[3]


def test_the_reader_agrees(world: Path) -> None:
    for split in ("hmdb51", "hmdb51-2", "hmdb51-3"):
        train, val = read(f"{split}:{world}")
        assert (len(train), len(val), len(train.classes)) == (28, 14, 14)
        for part in (train, val):
            for sample in part:
                assert part.file(sample).is_file()
                assert part.classes[sample.labels[0]] == sample.path.split("/")[0]
                assert len(list((world / sample.keypoints).iterdir())) == FRAMES


def test_the_same_bytes_again(world: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_hmdb51(tmp_path / "b", 28, SEED, frames=FRAMES, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 28) for done in range(1, 29)]
    for path in (tmp_path / "b").rglob("*"):
        if path.suffix in (".avi", ".json") and path.name != "annotations.json":
            other = world / path.relative_to(tmp_path / "b")
            assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()
