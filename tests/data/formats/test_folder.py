from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from attnpool.data import read, read_all, read_splits
from attnpool.data.splits import choose


def make(root: Path, names: Iterable[str]) -> Path:
    """Write small images (and whatever does not end in .jpg, as text)."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jpg"):
            Image.new("RGB", (4, 4)).save(root / name)
        else:
            (root / name).write_text("text")
    return root


def classes(count: int, *names: str, part: str = "") -> list[str]:
    return [f"{part}{name}/{i:03}.jpg" for name in names for i in range(count)]


def test_splits_on_disk(tmp_path: Path) -> None:
    make(tmp_path, [*classes(3, "b", "a", part="train/"), *classes(1, "a", part="val/"), "test/b/9.jpg"])
    train, val = read(f"folder:{tmp_path}")
    assert train.classes == val.classes == ("a", "b")
    assert [sample.path for sample in train] == [f"train/{c}/{i:03}.jpg" for c in "ab" for i in range(3)]
    assert [sample.labels for sample in train] == [(0,)] * 3 + [(1,)] * 3
    assert [sample.path for sample in val] == ["val/a/000.jpg"]
    assert (train.split, val.split, train.task) == ("train", "val", "single")
    assert train.name == f"folder:{tmp_path}"
    assert train.file(train.samples[0]).is_file()
    splits = read_splits(f"folder:{tmp_path}")
    assert list(splits) == ["train", "val", "test"]
    assert [sample.path for sample in splits["test"]] == ["test/b/9.jpg"]
    together = read_all(f"folder:{tmp_path}")
    assert [sample.path for sample in together] == sorted(sample.path for sample in (*train, *val))
    assert together.split == "all"


def test_a_stratified_split(tmp_path: Path) -> None:
    make(tmp_path, [*classes(10, "a", "b"), *classes(2, "few"), *classes(90, "many")])
    train, val = read(f"folder:{tmp_path}")
    counts = [sum(sample.labels == (k,) for sample in val) for k in range(4)]
    assert train.classes == ("a", "b", "few", "many")
    assert counts == [3, 3, 1, 23]
    paths = [sample.path for sample in (*train, *val)]
    assert len(paths) == len(set(paths)) == 112
    again = read(f"folder:{tmp_path}")
    assert (train, val) == again
    assert read(f"folder:{tmp_path}", split_seed=1)[1] != val
    assert len(read(f"folder:{tmp_path}", val_fraction=0.5)[1]) == 5 + 5 + 1 + 45


def test_the_split_depends_on_names_only_and_on_its_own_class_only(tmp_path: Path) -> None:
    make(tmp_path / "one", classes(12, "a", "b"))
    make(tmp_path / "two", [*reversed(classes(12, "a", "b")), *classes(5, "c"), "a/notes.txt"])
    vals = [{s.path for s in read(f"folder:{tmp_path / name}")[1] if s.path[0] in "ab"} for name in ("one", "two")]
    assert vals[0] == vals[1]


@given(st.lists(st.text("abc/ é", min_size=1), unique=True, min_size=2), st.integers(0, 99), st.floats(0.01, 0.99))
def test_choice(files: list[str], seed: int, fraction: float) -> None:
    chosen = choose(files, seed, fraction)
    assert 1 <= len(chosen) <= len(files) - 1
    assert chosen == choose(files[::-1], seed, fraction)
    # One more file moves at most one other across the border.
    more = choose([*files, "another"], seed, fraction)
    assert len(set(chosen) ^ (set(more) - {"another"})) <= 1


def test_nested_hidden_and_other_files(tmp_path: Path) -> None:
    odd = ["a/.hidden.jpg", ".cache/x/1.jpg", "a/.thumbs/1.jpg", "a/notes.txt", "stray.jpg", "__MACOSX/a/._1.jpg"]
    make(tmp_path, [*classes(2, "a", "b"), "a/deep/er/1.jpg", *odd])
    shutil.copy(tmp_path / "a/000.jpg", tmp_path / "a/CAPITALS.JPG")
    paths = {sample.path for sample in read_all(f"folder:{tmp_path}")}
    assert paths == {*classes(2, "a", "b"), "a/deep/er/1.jpg", "a/CAPITALS.JPG"}


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    make(tmp_path / "real", classes(3, "a"))
    make(tmp_path / "set", classes(2, "b"))
    (tmp_path / "set/a").symlink_to(tmp_path / "real/a")
    (tmp_path / "set/b/loop").symlink_to(tmp_path / "set/b")
    assert len(read_all(f"folder:{tmp_path / 'set'}")) == 5


def test_train_without_val_is_divided(tmp_path: Path) -> None:
    make(tmp_path, [*classes(4, "a", "b", part="train/"), "test/a/1.jpg"])
    train, val = read(f"folder:{tmp_path}")
    assert (len(train), len(val)) == (6, 2)
    assert list(read_splits(f"folder:{tmp_path}")) == ["train", "val", "test"]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "", "Test"),
        ("TRAIN", "VAL", "TEST"),
        ("training", "validation", ""),
        ("train_set", "", "test_set"),
        ("trainset", "valset", "testset"),
        ("seg_train", "", "seg_test"),
        ("seg_train/seg_train", "", "seg_test/seg_test"),
        ("train", "dev", "testing"),
        ("training-set", "eval", "test-set"),
    ],
)
def test_usual_names_of_the_parts(tmp_path: Path, train: str, val: str, test: str) -> None:
    """They are parts, never classes: what is to be tested on is not trained on."""
    named = {part: name for part, name in (("train", train), ("val", val), ("test", test)) if name}
    for name in named.values():
        make(tmp_path, classes(4, "a", "b", part=f"{name}/"))
    make(tmp_path, ["labels/list.txt"])
    splits = read_splits(f"folder:{tmp_path}")
    assert splits["train"].classes == ("a", "b")
    assert {
        part: {sample.path.rpartition("/")[0].rpartition("/")[0] for sample in splits[part]} for part in splits
    } == {
        "train": {train},
        "val": {val or train},
        **({"test": {test}} if test else {}),
    }
    assert len(splits["train"]) + len(splits["val"]) == (16 if val else 8)


def test_annotations_of_other_images_are_refused(tmp_path: Path) -> None:
    make(tmp_path, classes(4, "a", "b"))
    entry = {"id": 1, "file_name": "photos/a/0.jpg"}
    content = {"images": [entry], "annotations": [], "categories": []}
    for name in ("annotations.json", "poses.json"):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(
            ValueError, match=rf"{name}: none of its 1 images is in .*'photos/a/0\.jpg'; write file_name"
        ):
            read(f"folder:{tmp_path}")
        (tmp_path / name).unlink()


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    make(tmp_path, classes(4, "train", "bus"))
    assert read(f"folder:{tmp_path}")[0].classes == ("bus", "train")


def test_a_user_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make(tmp_path / "photos", classes(4, "a", "b"))
    assert len(read_all("folder:~/photos")) == 8


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"holds no images .* in class folders; put the images in one folder per class"),
        (["notes.txt", "a/notes.txt", "b/notes.txt"], r"holds no images"),
        (["1.jpg", "2.jpg"], r"holds 2 images or clips but no class folders; put the images in one folder per class"),
        (classes(3, "a"), r"a single class, 'a'; two or more are needed: add a folder"),
        (
            [*classes(3, "a"), "b/1.jpg"],
            r"class needs two images, one for train and one for val; too few has 'b' \(1\): add",
        ),
        ([*classes(3, "a"), "b/notes.txt"], r"too few has 'b' \(0\)"),
        ([*classes(2, "a", "b", part="train/"), "val/a/1.jpg", "val/c/1.jpg"], r"val: .* the first is 'c'; add"),
        ([*classes(2, "a", part="train/"), "val/a/1.jpg"], r"a single class, 'a'"),
        ([*classes(2, "a", "b", part="train/"), "val/1.jpg"], r"val: there are no images; put"),
        ([*classes(2, "a", "b", part="train/"), "val/a/1.txt"], r"val: there are no images; put"),
        (
            [*classes(2, "a", "b", part="train/"), "train/c/x.txt", "val/a/1.jpg"],
            r"an image for train; too few has 'c' \(0\)",
        ),
        (
            [*classes(2, "a", "b", part="train/"), "val/a/1.jpg", "Val/a/1.jpg"],
            r"Val and val are both names of val; rename",
        ),
        (
            [*classes(2, "a", "b", part="train/"), "val/a/1.jpg", "more/a/1.jpg"],
            r"more: holds 1 images or clips beside train; move",
        ),
        (
            [*classes(2, "a", "b", part="one/"), *classes(2, "a", part="two/")],
            r"one and two hold .* such as a, so they",
        ),
        ([*classes(2, "a", "b", part="Test/"), *classes(2, "a", part="val/")], r"there is Test and val, but no train"),
        ([*classes(2, "a", "b", part="val/")], r"there is val, but no train; add it"),
        ([*classes(2, "a"), "bad\nname/1.jpg"], r"characters that cannot be shown; rename it"),
        ([*classes(2, "a", "b"), "b/bad\udcff.jpg"], r"characters that cannot be shown; rename it"),
    ],
)
def test_unusable_layouts(tmp_path: Path, names: list[str], message: str) -> None:
    make(tmp_path, names)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(tmp_path))}.*{message}") as caught:
        read(f"folder:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_unusable_test_split_matters_to_those_who_ask_for_it(tmp_path: Path) -> None:
    make(tmp_path, [*classes(2, "a", "b", part="train/"), *classes(1, "a", part="val/"), "test/unknown/1.jpg"])
    assert len(read(f"folder:{tmp_path}")[0]) == 4
    with pytest.raises(ValueError, match="the first is 'unknown'"):
        read_splits(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{}", r"does not say which format to read \(folder, mpii, hico, .*\); write folder:/"),
        ("imagenet:{}", r"does not say which format to read \(folder, mpii, hico, .*\); write folder:DIR"),
        ("folder:", r"write folder:DIR"),
        ("", r"write folder:DIR"),
        ("folder:{}/nowhere", r"nowhere does not exist; give a directory"),
        ("folder:{}/file.txt", r"file.txt is a file, not a directory; give a directory"),
    ],
)
def test_unusable_sources(tmp_path: Path, source: str, message: str) -> None:
    make(tmp_path, ["file.txt"])
    with pytest.raises(ValueError, match=message):
        read(source.format(tmp_path))


def test_a_path_object_is_no_source_either(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="write folder:"):
        read(tmp_path)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_val_fraction(tmp_path: Path, fraction: float) -> None:
    make(tmp_path, classes(2, "a", "b"))
    with pytest.raises(ValueError, match=r"val_fraction .*; give a number between 0 and 1"):
        read(f"folder:{tmp_path}", val_fraction=fraction)


def test_order_of_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = classes(9, "a", "b")
    orders: list[Callable[[list[str]], Iterable[str]]] = [sorted, lambda n: sorted(n, reverse=True)]
    found = []
    for number, order in enumerate(orders):
        monkeypatch.chdir(make(tmp_path / str(number), order(names)))
        found.append(read("folder:."))
    assert found[0] == found[1]


def test_small_classes_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    make(tmp_path, [*classes(9, "a", "b"), *classes(4, "few"), *classes(1, "one"), "a/notes.txt", "b/c.psd", "b/d.psd"])
    (tmp_path / "none").mkdir()
    source = f"folder:{tmp_path}"
    with pytest.raises(
        ValueError, match=r"'none' \(0\), 'one' \(1\): .* or leave such classes out with min_per_class 2"
    ):
        read(source)
    train, val = read(source, min_per_class=2)
    assert (train.classes, train.left_out) == (("a", "b", "few"), ("none", "one"))
    assert len(train) + len(val) == 22
    assert train.notes == (f"{tmp_path}: left out, no images by their suffix: 2 x .psd, 1 x .txt, such as a/notes.txt",)
    assert read(source, min_per_class=5)[0].classes == ("a", "b")
    # A class keeps its split, whatever is left out beside it.
    assert set(read(source, min_per_class=5)[1].samples) == {s for s in val if s.path[0] in "ab"}
    again = read_splits(source, left_out=train.left_out)
    assert (again["train"].samples, again["val"].samples) == (train.samples, val.samples)
    with pytest.raises(ValueError, match="no class has 10 images; use a smaller min_per_class"):
        read(source, min_per_class=10)
    with pytest.raises(ValueError, match="holds a single class"):
        read_splits(source, left_out=("a", "few", "one", "none"))
    with pytest.raises(ValueError, match="min_per_class is 0; give at least 1"):
        read(source, min_per_class=0)


def test_small_classes_of_a_given_split(tmp_path: Path) -> None:
    """They count in train, and go from val and test, too."""
    names = [*classes(3, "a", "b", part="train/"), *classes(1, "c", part="train/")]
    make(tmp_path, [*names, *classes(5, "a", "b", "c", part="val/"), *classes(1, "c", part="test/")])
    splits = read_splits(f"folder:{tmp_path}", min_per_class=2)
    assert {part: len(found) for part, found in splits.items()} == {"train": 6, "val": 10, "test": 0}
    with pytest.raises(ValueError, match="is a published dataset with all its classes; leave out min_per_class"):
        read(f"mpii:{tmp_path}", min_per_class=2)
