"""Prepares a sample for a shard: its files and its record, decoded once and reduced if that is asked for."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from attnpool.data.dataset import Dataset, Person, Sample
from attnpool.data.decoding.contents import frame_files
from attnpool.data.decoding.image import Unreadable, decode, only_first
from attnpool.data.decoding.video import probe
from attnpool.data.people import UnreadableKeypoints, keypoint_files, people_of
from attnpool.data.shards.index import KEYPOINTS, Record, record_of
from attnpool.files import digest_of
from attnpool.keypoints.joints import Box, Joints

QUALITY = 95  # of reduced images, as JPEG


@dataclass
class Prepared:
    """A sample as it is written: its files by suffix, and its record; neither, and a reason, if it cannot be read."""

    sample: Sample
    files: dict[str, bytes] = field(default_factory=dict)
    record: Record = field(default_factory=dict)
    reason: str = ""


def prepare(dataset: Dataset, sample: Sample, short_side: int | None) -> Prepared:
    """Reads and decodes a sample."""
    try:
        with dataset.opened(sample) as path:
            if dataset.media == "clips":
                clip = probe(path)
                size, frames, notes = (clip.width, clip.height), clip.frames, [clip.problem]
            else:
                image = decode(path)
                size, frames, notes = image.size, 0, [only_first(path)]
            files = contents_of(path)
            source = source_of(dataset, sample, files)
    except Unreadable as error:
        return Prepared(sample, reason=error.reason)
    sample, of_frames, problem = with_joints(dataset, sample, frames)
    if of_frames:
        files[KEYPOINTS] = json.dumps(of_frames).encode()
    reduced = short_side is not None and min(size) > short_side
    if short_side is not None and reduced:
        small = resized(image, short_side)
        files = {"jpg": as_jpeg(small)}
        sample, size = scaled(sample, small.width / size[0], small.height / size[1]), small.size
    note = "; ".join(filter(None, [*notes, problem]))
    said = {
        "task": dataset.task,
        "media": dataset.media,
        "size": size,
        "source": source,
        "note": note,
        "reduced": reduced,
    }
    return Prepared(sample, files, record_of(sample, dataset.classes) | said)


def contents_of(path: Path) -> dict[str, bytes]:
    """The files of a sample by what follows its number in the shard: `jpg`, or `000001.jpg` for a frame."""
    if not path.is_dir():  # without a suffix it would be no file of the sample; readers go by the content
        return {path.suffix.lower().removeprefix(".") or "jpg": path.read_bytes()}
    frames = enumerate(frame_files(path), 1)
    return {f"{number:06d}{frame.suffix.lower()}": frame.read_bytes() for number, frame in frames}


def source_of(dataset: Dataset, sample: Sample, files: Mapping[str, bytes]) -> str:
    """What tells the files of a sample, from `contents_of`, and its annotations from any others."""
    points = [dataset.root / name for name in keypoint_files(dataset, sample)]
    people = dataset.storage.people(sample.path, None) if dataset.storage and sample.keypoints else []
    digests = [digest_of(content) for content in (*files.values(), *(p.read_bytes() for p in points if p.is_file()))]
    return digest_of(json.dumps([digests, people, record_of(sample, dataset.classes)]).encode())


def with_joints(dataset: Dataset, sample: Sample, frames: int) -> tuple[Sample, dict[str, list[Joints]], str]:
    """A sample with the joints of its keypoint file, or the joints in each of its frames; and what cannot be read."""
    of_frames: dict[str, list[Joints]] = {}
    try:
        if dataset.media == "images":
            joints = people_of(dataset, sample)[sum(bool(person.joints) for person in sample.people) :]
            return replace(sample, people=(*sample.people, *map(Person, joints))), {}, ""
        if sample.keypoints:
            found = {str(frame): people_of(dataset, sample, frame) for frame in range(frames)}
            of_frames = {frame: people for frame, people in found.items() if people}
    except UnreadableKeypoints as error:
        return sample, {}, f"without its joints, {error.reason}"
    return sample, of_frames, ""


def resized(image: Image.Image, short_side: int) -> Image.Image:
    """An image whose shorter side has so many pixels."""
    scale = short_side / min(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def as_jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)  # colours at full resolution
    return buffer.getvalue()


def scaled(sample: Sample, x: float, y: float) -> Sample:
    """A sample whose joints and boxes are those of the image enlarged x and y times."""

    def box(corners: Box) -> Box:
        x1, y1, x2, y2 = corners
        return x1 * x, y1 * y, x2 * x, y2 * y

    def person(each: Person) -> Person:
        joints = tuple(None if joint is None else (joint[0] * x, joint[1] * y) for joint in each.joints)
        return Person(joints, None if each.box is None else box(each.box))

    return replace(
        sample,
        people=tuple(map(person, sample.people)),
        evidence=tuple(map(box, sample.evidence)),
        objects=tuple(map(box, sample.objects)),
    )
