"""What shards hold: a record of every sample, in `index.jsonl` beside them, or from a scan of the shards themselves.

A shard is a tar file in WebDataset's layout: files whose names agree up to the first dot are one sample, as in
`00000012.jpg`, `00000012.cls` (the number or name of its class) and `00000012.json`. In ours the JSON is the sample's
record: everything that `Sample` has, with classes by name. The index has the same records, and where in its shard each
file lies, so that a dataset is opened without its shards being read.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from attnpool.data.dataset import Person, Sample
from attnpool.data.decoding.contents import VIDEO_SUFFIXES
from attnpool.data.decoding.image import IMAGE_SUFFIXES
from attnpool.files import MARK, digest_of, mark

NAME = "index.jsonl"
SHARDS = "shards of"  # what a folder holds that `attnpool shard` has begun
# A list of classes in the order of their numbers, a name a line, as other programs write it beside shards.
CLASS_LISTS = ("classes.txt", "classnames.txt")
KEYPOINTS = "keypoints.json"
Record = dict[str, Any]


class Member(NamedTuple):
    """A file in a shard: its name, where its bytes are, and their checksum (`files.digest_of`)."""

    name: str
    offset: int
    size: int
    digest: str


class Entry(NamedTuple):
    """Where a sample is.

    Attributes:
        shard: the number of its shard.
        members: the image or video, or the frames of a clip.
        frames: whether the members are the frames of a clip.
        size: width and height of the upright image, or of the clip's first frame; None if they are not known.
        keypoints: the joints in the frames of a clip; None for none.
    """

    shard: int
    members: tuple[Member, ...]
    frames: bool
    size: tuple[int, int] | None
    keypoints: Member | None

    @property
    def digest(self) -> str:
        """What tells the sample's content from any other."""
        if len(self.members) == 1:
            return self.members[0].digest
        return digest_of(json.dumps([member.digest for member in self.members]).encode())


@dataclass(frozen=True)
class Header:
    """What an index says about all shards.

    Attributes:
        classes: names of the classes.
        task, media: as in `Dataset`.
        shards: name -> its size in bytes.
        test_is_val: whether val is also the test split.
    """

    classes: tuple[str, ...]
    task: str
    media: str
    shards: Mapping[str, int]
    test_is_val: bool = False


def record_of(sample: Sample, classes: Sequence[str]) -> Record:
    """A sample as JSON. Joints are lists of `[x, y]` or null, boxes `[x1, y1, x2, y2]`."""

    def names(labels: Sequence[int]) -> list[str]:
        return [classes[label] for label in labels]

    return {
        MARK: mark(),
        "path": sample.path,
        "labels": names(sample.labels),
        "ambiguous": names(sample.ambiguous),
        "negatives": None if sample.negatives is None else names(sample.negatives),
        "people": [{"joints": person.joints, "box": person.box} for person in sample.people],
        "evidence": sample.evidence,
        "objects": sample.objects,
    }


def sample_of(record: Record, numbers: Mapping[str, int]) -> Sample:
    """The sample of a record; `numbers` are those of the classes.

    Raises:
        KeyError, TypeError, ValueError: the record is malformed.
    """

    def labels(names: Sequence[str]) -> tuple[int, ...]:
        return tuple(numbers[name] for name in names)

    def box(values: Sequence[float]) -> tuple[float, float, float, float]:
        x1, y1, x2, y2 = map(float, values)
        return x1, y1, x2, y2

    def joint(values: Sequence[float] | None) -> tuple[float, float] | None:
        return None if values is None else (float(values[0]), float(values[1]))

    people = [
        Person(tuple(map(joint, each["joints"])), None if each["box"] is None else box(each["box"]))
        for each in record.get("people", ())
    ]
    negatives = record.get("negatives")
    return Sample(
        str(record["path"]),
        labels(record["labels"]),
        tuple(people),
        tuple(map(box, record.get("evidence", ()))),
        tuple(map(box, record.get("objects", ()))),
        labels(record.get("ambiguous", ())),
        None if negatives is None else labels(negatives),
        KEYPOINTS if record.get("keypoints") else "",
    )


def entry_of(record: Record, shard: int) -> Entry:
    """Where the sample of a record is.

    Raises:
        KeyError, TypeError, ValueError: the record is malformed.
    """
    members = [Member(str(name), int(at), int(size), str(digest)) for name, at, size, digest in record["members"]]
    size, keypoints = record.get("size"), record.get("keypoints")
    if not members or min(min(member.offset, member.size) for member in members) < 0:
        raise ValueError("it has no files")
    return Entry(
        shard,
        tuple(members),
        record["media"] == "clips" and members[0].name.count(".") > 1,  # 000000001.000001.jpg
        None if size is None else (int(size[0]), int(size[1])),
        None if keypoints is None else Member(*keypoints),
    )


def scan(file: Path, shard: str) -> list[Record]:
    """The records of all samples of a shard, by reading the whole of it.

    Raises:
        ValueError: it is damaged, or a sample is none; the message is one line with the sample.
    """
    found: dict[str, dict[str, Member]] = {}
    texts: dict[str, bytes] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for info in tar:
                if not info.isfile() or PurePosixPath(info.name).name.startswith("."):
                    continue
                folder, _, name = info.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                opened = tar.extractfile(info)
                content = opened.read() if opened else b""
                member = Member(name, info.offset_data, len(content), digest_of(content))
                found.setdefault(key, {})[suffix.lower()] = member
                if suffix.lower() in ("cls", "json"):
                    texts[f"{key}.{suffix.lower()}"] = content
            end = tar.offset
        with file.open("rb") as raw:
            raw.seek(end)
            if raw.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # which tarfile does not miss
                raise tarfile.ReadError("it ends early")
    except (OSError, tarfile.TarError, ValueError, EOFError) as error:
        raise ValueError(f"{shard}: cannot be read as a shard ({error}); copy or write it again") from error
    return [record_at(shard, key, members, texts) for key, members in found.items()]


def record_at(shard: str, key: str, members: Mapping[str, Member], texts: Mapping[str, bytes]) -> Record:
    """The record of the sample with a key: our own, or what `.cls` says of that of another program.

    Raises:
        ValueError: there is no image or clip, or no label.
    """
    where = f"{shard}: sample {key!r}"
    shown = [member for suffix, member in members.items() if f".{suffix}".endswith((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))]
    if not shown:
        raise ValueError(f"{where} has no image and no clip, only .{', .'.join(members)}; write the shards again")
    record: Record = {}
    try:
        content = json.loads(texts.get(f"{key}.json", b"null"))
        if isinstance(content, dict) and MARK in content:
            record = content
    except ValueError as error:
        raise ValueError(f"{where}: its .json is not JSON ({error}); write the shards again") from error
    if not record:
        if "cls" not in members:
            raise ValueError(f"{where} has no label; a file .cls must hold the number or the name of its class")
        if len(shown) > 1:
            names = ", ".join(member.name for member in shown)
            raise ValueError(f"{where} has {len(shown)} images or clips ({names}); write one into each sample")
        label = texts[f"{key}.cls"].decode("utf-8", errors="replace").strip()
        media = "clips" if shown[0].name.lower().endswith(VIDEO_SUFFIXES) else "images"
        record = {"path": f"{PurePosixPath(shard).stem}/{key}", "labels": [label], "task": "single", "media": media}
    shown.sort(key=lambda member: member.offset)
    for member in (*shown, members.get(KEYPOINTS)):
        if member and member.digest != record.get("digests", {}).get(member.name, member.digest):
            raise ValueError(f"{where}: {member.name} is damaged; copy or write the shard again")
    return record | {"members": shown, "keypoints": members.get(KEYPOINTS)}


def lines_of(header: Header, records: Mapping[str, Sequence[Record]]) -> Iterator[bytes]:
    """The lines of an index, the last of which is a checksum of those before it."""
    digest = hashlib.blake2b(digest_size=16)
    first = {
        MARK: mark(),
        "classes": header.classes,
        "task": header.task,
        "media": header.media,
        "shards": dict(header.shards),
        "test_is_val": header.test_is_val,
    }
    every = (record | {"shard": shard} for shard, found in records.items() for record in found)
    for content in (first, *every):
        line = json.dumps({key: value for key, value in content.items() if key != MARK or content is first}).encode()
        digest.update(line + b"\n")
        yield line + b"\n"
    yield json.dumps({"check": digest.hexdigest()}).encode() + b"\n"


def header_of(line: bytes) -> Header:
    """The first line of an index.

    Raises:
        KeyError, TypeError, ValueError, RecursionError: it is malformed.
    """
    content = json.loads(line)
    if content["task"] not in ("single", "multi") or content["media"] not in ("images", "clips"):
        raise ValueError("its task or its media are none")
    return Header(
        tuple(map(str, content["classes"])),
        content["task"],
        content["media"],
        {str(name): int(size) for name, size in content["shards"].items()},
        bool(content["test_is_val"]),
    )


def read_index(lines: Iterator[bytes], place: str) -> tuple[Header, dict[str, list[Record]]]:
    """Reads an index: its header, and the records of every shard.

    Raises:
        ValueError: it is malformed or damaged.
    """
    digest = hashlib.blake2b(digest_size=16)
    records: dict[str, list[Record]] = {}
    header, check = None, ""
    try:
        for line in lines:
            if header is None:
                header = header_of(line)
                records = {shard: [] for shard in header.shards}
            elif line.startswith(b'{"check"'):
                check = str(json.loads(line)["check"])
                break
            else:
                record = json.loads(line)
                records[record["shard"]].append(record)
            digest.update(line)
        if header is None or check != digest.hexdigest():
            raise ValueError("it is cut short, or was changed")
    except (KeyError, TypeError, ValueError, RecursionError, AttributeError, OverflowError) as error:
        raise ValueError(f"{place}: is no index of shards ({error}); write or copy the shards again") from error
    return header, records
