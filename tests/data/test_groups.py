"""Groups stay on one side of every split; where they do not, it is said."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from command_line import attnpool, refused
from hypothesis import event, given
from hypothesis import strategies as st
from PIL import Image

from attnpool.data import Dataset, Sample, fold_numbers, hold_out, read
from attnpool.data.groups import group_of, in_series, note_on_names
from attnpool.data.splits import choose, choose_groups


@pytest.mark.parametrize(
    ("name", "series"),
    [
        *(("vidA_0001.jpg", "vidA"), ("a/vidA_0002.png", "vidA"), ("clip12_frame_003.jpg", "clip12_frame")),
        *(("IMG (3).jpg", "IMG"), ("été-7.jpg", "été"), ("v1a2.jpg", "v1a"), ("walk.12.jpg", "walk")),
        *(("0001.jpg", ""), ("12_34.jpg", ""), ("photo.jpg", ""), ("a1/photo.jpg", ""), ("_1.jpg", "")),
    ],
)
def test_series(name: str, series: str) -> None:
    assert in_series(name) == series
    assert group_of(name, "video") == (series or name)


def test_other_groups() -> None:
    assert group_of("train/a/x/1.jpg", "parent") == "train/a/x"
    assert group_of("a/p07_3.jpg", r"p(\d+)_") == "07"
    assert group_of("a/p07_3.jpg", r"p\d+") == "p07"
    assert group_of("a/other.jpg", r"p\d+") == "a/other.jpg"
    with pytest.raises(ValueError, match="no regular expression"):
        group_of("a.jpg", "(")


samples = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("uvwxyz")), min_size=6, max_size=60).map(
    lambda found: {f"{number:02}.jpg": pair for number, pair in enumerate(found)}
)


@given(samples, st.integers(0, 5), st.floats(0.1, 0.6))
def test_no_group_is_divided(found: dict[str, tuple[str, str]], seed: int, fraction: float) -> None:
    try:
        chosen = choose_groups(found, seed, fraction)
    except ValueError as error:
        reason = str(error)
        event("one group" if "of one group" in reason else "no way" if "without dividing" in reason else reason)
        return
    groups = {found[path][1] for path in chosen}
    assert chosen == {path for path, (_, group) in found.items() if group in groups}
    counts, taken = Counter(label for label, _ in found.values()), Counter(found[path][0] for path in chosen)
    assert all(0 < taken[label] < count for label, count in counts.items())
    assert choose_groups(dict(reversed(found.items())), seed, fraction) == chosen


@given(st.integers(2, 30), st.integers(2, 30), st.integers(0, 5), st.floats(0.1, 0.6))
def test_groups_of_one_are_no_groups(a: int, b: int, seed: int, fraction: float) -> None:
    names = {"a": [f"a/{i}.jpg" for i in range(a)], "b": [f"b/{i}.jpg" for i in range(b)]}
    chosen = choose_groups({path: (label, "") for label, paths in names.items() for path in paths}, seed, fraction)
    assert chosen == {path for paths in names.values() for path in choose(paths, seed, fraction)}


def test_the_part_is_about_as_large_as_is_asked_for() -> None:
    found = {f"{i}.jpg": ("ab"[i % 2], f"g{i // 4}") for i in range(400)}
    parts = [len(choose_groups(found, seed, 0.25)) for seed in range(20)]
    assert all(96 <= count <= 104 for count in parts)


@given(samples, st.integers(2, 5))
def test_folds_keep_groups_whole(found: dict[str, tuple[str, str]], count: int) -> None:
    each = tuple(Sample(path, ("abc".index(label),), group=group) for path, (label, group) in found.items())
    folds = fold_numbers(Dataset("folder:x", Path("x"), ("a", "b", "c"), each), count)
    assert len({(sample.group, fold) for sample, fold in zip(each, folds, strict=True)}) == len({s.group for s in each})
    assert set(folds) <= set(range(count))


def test_folds_of_groups_are_even() -> None:
    each = tuple(Sample(f"{i}.jpg", (i % 2,), group=f"g{i // 4}") for i in range(200))
    folds = fold_numbers(Dataset("folder:x", Path("x"), ("a", "b"), each), 5)
    assert sorted(Counter(folds).values()) == [40] * 5


def test_what_is_held_out_is_of_other_groups() -> None:
    each = tuple(Sample(f"{i}.jpg", (i % 2,), group=f"g{i // 4}") for i in range(80))
    rest, held = hold_out(Dataset("folder:x", Path("x"), ("a", "b"), each), 0.25)
    assert not {s.group for s in rest} & {s.group for s in held}
    assert len(held) == 20


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Two classes of five videos, of each of which there are four images."""
    for label in "ab":
        for video in range(5):
            for number in range(4):
                file = tmp_path / "photos" / label / f"{label}vid{'uvwxy'[video]}_{number:03}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (32, 32), (50 * video, 60 * number, 100 * (label == "a"))).save(file)
    return tmp_path / "photos"


def test_from_the_command_line(frames: Path, tmp_path: Path) -> None:
    """The split, what is said without it, and that a run does not go on with other groups."""
    source = f"folder:{frames}"
    train, val = read(source, group_by="video")
    assert not {in_series(s.path) for s in train} & {in_series(s.path) for s in val}
    assert (len(train), len(val)) == (32, 8)
    said = attnpool("check", source).text()
    assert "of val are named as some of train are, such as a/avid" in said
    assert "named as some" not in attnpool("check", source, "--group-by", "video").text()
    words = ["train", source, "--epochs", 1, "--image-size", 32, "--pooling", "average", "--out"]
    assert any("unless they are grouped" in line for line in attnpool(*words, tmp_path / "plain").messages)
    attnpool(*words, tmp_path / "run", "--group-by", "video").text()
    about = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["split"]
    assert not {in_series(path) for path in about["train"]} & {in_series(path) for path in about["val"]}
    refused(attnpool(*words, tmp_path / "run", "--group-by", r"vid(\w)"), "other options", "split")


def test_groups_that_cannot_be(frames: Path) -> None:
    check = ("check", f"folder:{frames}", "--group-by")
    refused(attnpool(*check, "parent"), "all 20 samples of class 'a' are of one group", "use another")
    refused(attnpool(*check, "["), "no regular expression")
    refused(attnpool(*check, "(.*)"), "no two samples", "belong together")


def test_a_split_that_divides_groups_says_so(frames: Path, tmp_path: Path) -> None:
    """A dataset with a split of its own keeps it; folds and held-out parts keep groups whole."""
    for number, file in enumerate(sorted(frames.rglob("*.jpg"))):
        target = tmp_path / "own" / ("val" if number % 4 == 3 else "train") / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    train, val = read(f"folder:{tmp_path / 'own'}", group_by="video")
    assert (len(train), len(val)) == (30, 10)
    assert "10 of 10 images of val are of groups of train" in train.notes[0]
    assert note_on_names({"train": train, "val": val})


def test_persons_who_are_in_every_class(tmp_path: Path) -> None:
    """They are named, too; shards may keep them together when they are written."""
    for label in "ab":
        for number in range(12):
            file = tmp_path / "photos" / label / f"person{'uvw'[number % 3]}_{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng([number, ord(label)]).integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(noise).save(file)
    source = f"folder:{tmp_path / 'photos'}"
    assert "of val are named as some of train are" in attnpool("check", source).text()
    attnpool("shard", source, tmp_path / "out", "--group-by", "video").text()
    train, val = read(f"wds:{tmp_path / 'out'}")
    assert not {in_series(s.path) for s in train} & {in_series(s.path) for s in val}


def test_cameras_and_classes_are_no_series(photos: Path, world: Path) -> None:
    for source in (f"folder:{photos}", f"folder:{world}"):
        train, val = read(source)
        assert note_on_names({"train": train, "val": val}) == []
