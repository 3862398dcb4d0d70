"""An index, and the records of samples in it."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpool.data import Person, Sample
from attnpool.data.shards.index import Header, entry_of, lines_of, read_index, record_of, sample_of

CLASSES = ("a", "b, c", "été")
NUMBERS = {name: number for number, name in enumerate(CLASSES)}
MEMBERS = {"members": [["0.jpg", 512, 10, "d" * 32]], "media": "images", "size": [4, 3], "keypoints": None}

numbers = st.floats(-1e4, 1e4)
labels = st.lists(st.integers(0, 2), max_size=3).map(tuple)
boxes = st.tuples(numbers, numbers, numbers, numbers)
people = st.builds(Person, st.lists(st.none() | st.tuples(numbers, numbers), max_size=16).map(tuple), st.none() | boxes)
samples = st.builds(
    Sample,
    path=st.text(min_size=1, max_size=9),
    labels=labels,
    people=st.lists(people, max_size=2).map(tuple),
    evidence=st.lists(boxes, max_size=2).map(tuple),
    objects=st.lists(boxes, max_size=2).map(tuple),
    ambiguous=labels,
    negatives=st.none() | labels,
)


@given(samples)
def test_a_sample_comes_back(sample: Sample) -> None:
    assert sample_of(json.loads(json.dumps(record_of(sample, CLASSES))), NUMBERS) == sample


@given(st.lists(samples, max_size=5))
def test_an_index_comes_back(found: list[Sample]) -> None:
    header = Header(CLASSES, "multi", "images", {"train-0.tar": 10240, "val-0.tar": 512}, True)
    records = {"train-0.tar": [record_of(sample, CLASSES) | MEMBERS for sample in found], "val-0.tar": []}
    lines = list(lines_of(header, records))
    again, read = read_index(iter(lines), "x")
    assert again == header
    assert [sample_of(record, NUMBERS) for record in read["train-0.tar"]] == found
    assert read["val-0.tar"] == []
    for line in range(len(lines)):
        with pytest.raises(ValueError, match="x: is no index of shards"):
            read_index(itertools.chain(lines[:line], lines[line + 1 :]), "x")


@pytest.mark.parametrize(
    ("frames", "media", "names"),
    [
        (False, "images", ["0.left.jpg"]),
        (False, "clips", ["0.gif"]),
        (True, "clips", ["0.000001.jpg"]),
        (True, "clips", ["0.1.jpg", "0.2.jpg"]),
    ],
)
def test_frames(frames: bool, media: str, names: list[str]) -> None:
    entry = entry_of({"members": [[name, 0, 1, "d"] for name in names], "media": media}, 3)
    assert (entry.shard, entry.frames, entry.size, entry.keypoints) == (3, frames, None, None)


def test_frames_in_another_order_are_another_clip() -> None:
    one, other = (
        entry_of({"members": [[f"0.{i}.jpg", 0, 1, d] for i, d in enumerate(digests)], "media": "clips"}, 0)
        for digests in ("ab", "ba")
    )
    assert one.digest != other.digest
    assert entry_of(MEMBERS, 0).digest == "d" * 32


@pytest.mark.parametrize(
    "change", [{"members": []}, {"members": [["a", -1, 2, "d"]]}, {"members": [["a", 1]]}, {"size": [1]}]
)
def test_malformed_records(change: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError, IndexError)):
        entry_of(MEMBERS | change, 0)
