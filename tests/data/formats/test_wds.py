"""`wds:` on shards of other programs, on patterns, and on shards that are damaged, changed or none."""

from __future__ import annotations

import io
import itertools
import json
import shlex
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import braceexpand
import numpy as np
import pytest
import webdataset
from clips import write_clip
from command_line import attnpool, refused
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from attnpool.data import check, load, read_splits
from attnpool.data.formats.wds import expanded
from attnpool.data.preprocessing import Preprocessing
from attnpool.data.shards.write import shard


def image(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(file: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def foreign(tmp_path: Path) -> Callable[..., Path]:
    """Writes shards by WebDataset's own writer: 24 samples whose class is that of their number modulo 3."""

    def made(name: str, label: Callable[[int], object], count: int = 24) -> Path:
        (tmp_path / "shards").mkdir(exist_ok=True)
        pattern = str(tmp_path / "shards" / name)
        with webdataset.ShardWriter(pattern, maxcount=10, verbose=0) as sink:
            for number in range(count):
                sink.write({"__key__": f"n{number:05d}", "png": image(number), "cls": label(number % 3)})
        return tmp_path / "shards"

    return made


def test_shards_of_webdataset(foreign: Callable[..., Path]) -> None:
    folder = foreign("imagenet-train-%04d.tar", str)
    foreign("imagenet-validation-%04d.tar", str, 6)
    splits = read_splits(f"wds:{folder}")
    train, val = splits["train"], splits["val"]
    assert (len(train), len(val), train.classes, train.task, train.media) == (
        24,
        6,
        ("0", "1", "2"),
        "single",
        "images",
    )
    assert [sample.path for sample in train][:2] == ["imagenet-train-0000/n00000", "imagenet-train-0000/n00001"]
    assert [sample.labels for sample in train] == [(number % 3,) for number in range(24)]
    options = Preprocessing(image_size=20)
    (batch,) = load(train, options, [range(24)], seed=0, epoch=0, train=False)
    for number, pixels in enumerate(batch.pixels):
        cut = np.asarray(Image.open(io.BytesIO(image(number))).convert("RGB"))[:, 2:22]
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), cut)
    assert [len(read_splits(f"wds:{folder}/imagenet-{names}")["train"]) for names in ("train-0000.tar", "t*.tar")] == [
        7,
        18,
    ]


@pytest.mark.parametrize("name", ["classes.txt", "classnames.txt"])
def test_classes_by_a_list(foreign: Callable[..., Path], name: str) -> None:
    folder = foreign("%03d.tar", str)
    (folder / name).write_text("\ufeffwalking\nrunning a race\nété\nstanding\n", encoding="utf-8")
    splits = read_splits(f"wds:{folder}", split_seed=1, val_fraction=0.5)
    assert splits["train"].classes == ("walking", "running a race", "été", "standing")
    assert sorted((*splits["train"], *splits["val"]), key=lambda sample: sample.path)[5].labels == (2,)
    assert [len(splits[part]) for part in ("train", "val")] == [12, 12]
    assert read_splits(f"wds:{folder}", split_seed=2)["val"].samples != read_splits(f"wds:{folder}")["val"].samples
    (folder / name).write_text("walking\nrunning\n", encoding="utf-8")
    refused(attnpool("check", f"wds:{folder}"), folder, "class 2 of its shards is not in the list of 2")


def test_classes_by_name(foreign: Callable[..., Path]) -> None:
    folder = foreign("%03d.tar", lambda label: ("b", "a", "10")[label].encode())
    assert read_splits(f"wds:{folder}")["train"].classes == ("10", "a", "b")


def test_videos(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.avi", 5)
    video = (tmp_path / "clip.avi").read_bytes()
    write(
        tmp_path / "a.tar",
        {
            f"{number}.{kind}": video if kind == "avi" else b"%d" % (number % 2)
            for number in range(4)
            for kind in ("avi", "cls")
        },
    )
    splits = read_splits(f"wds:{tmp_path}")
    assert splits["train"].media == "clips"
    result = check(f"wds:{tmp_path}")
    assert (sum(part.frames for part in result.parts.values()), result.unusable) == (20, ())


PNG = image(1)
MALFORMED = {
    "no image": ({"a.cls": b"1", "a.txt": b"x"}, "sample 'a' has no image and no clip, only .cls, .txt"),
    "no label": ({"a.png": PNG}, "sample 'a' has no label; a file .cls must hold"),
    "two images": ({"a.png": PNG, "a.jpg": PNG, "a.cls": b"0"}, "sample 'a' has 2 images or clips (a.png, a.jpg)"),
    "no JSON": ({"a.png": PNG, "a.cls": b"0", "a.json": b"{"}, "sample 'a': its .json is not JSON"),
    "clips and images": (
        {"a.png": PNG, "a.cls": b"0", "b.avi": PNG, "b.cls": b"0"},
        "clips with single labels and images with",
    ),
    "nothing": ({}, "there are no samples"),
    "no record": (
        {"a.png": PNG, "a.json": b'{"written by attnpool": "", "task": "single", "media": "images"}'},
        "a record of it is malformed (KeyError: 'path')",
    ),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_shards(tmp_path: Path, kind: str) -> None:
    members, words = MALFORMED[kind]
    write(tmp_path / "a.tar", members)
    refused(attnpool("check", f"wds:{tmp_path}"), words)


def test_what_is_no_shard(tmp_path: Path, foreign: Callable[..., Path]) -> None:
    refused(attnpool("check", f"wds:{tmp_path}/nothing"), "there are no shards; give a folder of shards")
    refused(attnpool("check", f"wds:{tmp_path}/a.tar"), "a.tar: no such file")
    (tmp_path / "a.tar").write_bytes(b"none" * 1000)
    refused(attnpool("check", f"wds:{tmp_path}"), "a.tar: cannot be read as a shard", "copy or write it again")
    folder = foreign("%03d.tar", str)
    file = folder / "001.tar"
    with tarfile.open(file) as tar:
        last = tar.getmembers()[-1]
    file.write_bytes(file.read_bytes()[: last.offset])
    refused(attnpool("check", f"wds:{folder}"), "001.tar: cannot be read as a shard", "copy or write it again")


def test_names_of_parts(foreign: Callable[..., Path]) -> None:
    folder = foreign("test-%03d.tar", str)
    refused(attnpool("check", f"wds:{folder}"), "test-000.tar: is not to train on", "name those of train, too")
    shutil.copy(folder / "test-000.tar", folder / "other-000.tar")
    refused(attnpool("check", f"wds:{folder}"), "other-000.tar: its name does not say train, val or test")
    refused(attnpool("check", f"wds:{folder}/other-{{000,000}}.tar"), "names", "twice")
    (folder / "sub").mkdir()
    refused(attnpool("check", f"wds:{folder}/{{sub/,}}a.tar"), "names shards in several folders")


def test_patterns_name_a_part_of_ours(world: Path, tmp_path: Path) -> None:
    shard(f"folder:{world}", tmp_path, per_shard=10)
    whole = read_splits(f"wds:{tmp_path}")
    part = read_splits(f"wds:{tmp_path}/train-{{000000..000001}}.tar", split_seed=0)
    assert {s.path for s in (*part["train"], *part["val"])} == {s.path for s in whole["train"].samples[:20]}
    assert part["train"].classes == whole["train"].classes
    both = read_splits(f"wds:{tmp_path}/{{train,val}}-000000.tar")
    assert (both["train"].samples, both["val"].samples) == (whole["train"].samples[:10], whole["val"].samples[:10])


def damage_index(folder: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    file = folder / "index.jsonl"
    file.write_bytes(b"".join(change(file.read_bytes().splitlines(keepends=True))))


@pytest.mark.parametrize("change", ["cut", "changed", "dropped", "empty", "none", "nested"])
def test_a_damaged_index(world: Path, tmp_path: Path, change: str) -> None:
    shard(f"folder:{world}", tmp_path)
    changes: dict[str, Callable[[list[bytes]], list[bytes]]] = {
        "cut": lambda lines: lines[:-1],
        "changed": lambda lines: [line.replace(b"drinking from a mug", b"drinking from a jug") for line in lines],
        "dropped": lambda lines: [*lines[:3], *lines[4:]],
        "empty": lambda lines: [],
        "none": lambda lines: [b"null\n", *lines],
        "nested": lambda lines: [b"[" * 100_000 + b"\n", *lines],
    }
    damage_index(tmp_path, changes[change])
    refused(
        attnpool("check", f"wds:{tmp_path}"), "index.jsonl: is no index of shards", "write or copy the shards again"
    )


def test_changed_shards(world: Path, tmp_path: Path) -> None:
    """A shard of another size is refused; a sample whose bytes are not those of the index is left out and named."""
    shard(f"folder:{world}", tmp_path, per_shard=20)
    file = tmp_path / "train-000000.tar"
    good = file.read_bytes()
    file.write_bytes(good[:-512])
    refused(
        attnpool("check", f"wds:{tmp_path}"), f"{file}: has {len(good) - 512} bytes, not {len(good)}", "copy it again"
    )
    file.unlink()
    refused(attnpool("check", f"wds:{tmp_path}"), f"{file}: is not there, as the index", "run the same attnpool shard")
    sample = read_splits(f"wds:{tmp_path}" if file.write_bytes(good) else "")["train"].samples[3]
    record = json.loads((tmp_path / "index.jsonl").read_bytes().splitlines()[4])
    assert record["path"] == sample.path
    torn = bytearray(good)
    torn[record["members"][0][1] + 100] ^= 1
    file.write_bytes(bytes(torn))
    result = check(f"wds:{tmp_path}")
    assert result.unusable == ((sample.path, "train-000000.tar is damaged or was changed since it was written"),)
    (batch,) = load(
        read_splits(f"wds:{tmp_path}")["train"], Preprocessing(image_size=32), [[2, 3]], seed=0, epoch=0, train=True
    )
    assert [path for path, _ in batch.failed] == [sample.path]


def test_a_sample_in_two_shards(tmp_path: Path) -> None:
    for name in ("a", "b"):
        record = {"written by attnpool": "", "path": "x.png", "labels": ["c"], "task": "single", "media": "images"}
        write(tmp_path / f"{name}.tar", {"0.png": PNG, "0.json": json.dumps(record).encode()})
    refused(attnpool("check", f"wds:{tmp_path}"), "b.tar: x.png is in it and in another shard")


def test_joints_are_not_added(world: Path, tmp_path: Path) -> None:
    shard(f"folder:{world}", tmp_path)
    refused(attnpool("pose", f"wds:{tmp_path}"), "label what it was written from")
    refused(attnpool("check", f"wds:{tmp_path}", "--min-per-class", 2), "all its classes")


@given(
    st.lists(
        st.sampled_from(["a", "train-", "{0..3}", "{08..11}", "{x,yy,z}", "{000..002}", "/", "{5..5}"]), max_size=4
    )
)
def test_braces_are_those_of_a_shell(pieces: list[str]) -> None:
    pattern = "".join(pieces)
    assert expanded(pattern) == list(braceexpand.braceexpand(pattern))


def test_braces_that_are_too_many() -> None:
    with pytest.raises(ValueError, match="no range of at most"):
        expanded("a-{0..99999999999}.tar")
    with pytest.raises(ValueError, match="names 1000000 shards"):
        expanded("{0..999}{0..999}.tar")
    assert list(itertools.islice(expanded("{0..999}{0..9}.tar"), 2)) == ["00.tar", "01.tar"]


@pytest.mark.parametrize("name", ["a[1]", "a{1,2}", "q?x", "a*b", "with blanks", "été"])
def test_a_folder_is_a_folder_whatever_its_name(world: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "aXb").mkdir()
    said = attnpool("shard", f"folder:{world}", tmp_path / name).text()
    assert said.splitlines()[-1] == f"read them as {shlex.quote(f'wds:{tmp_path / name}')}"
    assert len(read_splits(f"wds:{tmp_path / name}")["train"]) == 28
    assert len(read_splits(f"wds:{tmp_path / name}/train-000000.tar")["train"]) == 14
    for file in (tmp_path / name).glob("*[ln]"):
        file.unlink()
    assert len(read_splits(f"wds:{tmp_path / name}")["train"]) == 28


def test_an_address_on_this_disk(world: Path, tmp_path: Path) -> None:
    shard(f"folder:{world}", tmp_path / "out")
    assert len(read_splits(f"wds:file://{tmp_path / 'out'}")["train"]) == 28


def test_a_part_of_train_becomes_val_and_that_is_said(world: Path, tmp_path: Path) -> None:
    shard(f"folder:{world}", tmp_path)
    (tmp_path / "val-000000.tar").unlink()
    splits = read_splits(f"wds:{tmp_path}/train-000000.tar")
    assert splits["train"].notes == (
        f"{tmp_path}/train-000000.tar: there are no shards to validate on; a part of every class of train becomes val",
    )


def test_a_shard_proves_itself(world: Path, tmp_path: Path) -> None:
    """Without an index, too, and when the same command is run again."""
    shard(f"folder:{world}", tmp_path / "out", short_side=48)
    file = tmp_path / "out" / "train-000000.tar"
    torn = bytearray(file.read_bytes())
    record = json.loads((tmp_path / "out" / "index.jsonl").read_bytes().splitlines()[3])
    torn[record["members"][0][1] + 100] ^= 1
    file.write_bytes(bytes(torn))
    words = (f"{file}: sample '000000002': 000000002.jpg is damaged", "delete it, and the same command writes it again")
    refused(attnpool("shard", f"folder:{world}", tmp_path / "out", "--short-side", 48), *words)
    shutil.copy(file, tmp_path / "train-000000.tar")
    refused(attnpool("check", f"wds:{tmp_path}/train-000000.tar"), "000000002.jpg is damaged")
