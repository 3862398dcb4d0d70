"""Shards that are written: everything is in them, WebDataset itself reads them, and an interrupted call goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from clips import write_clip
from command_line import Process, attnpool, failed, refused
from PIL import Image

from attnpool.data import Dataset, check, read_image, read_splits
from attnpool.data.people import people_of
from attnpool.data.shards.prepare import QUALITY, resized
from attnpool.data.shards.write import shard


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def content(dataset: Dataset, path: str) -> bytes:
    (sample,) = [sample for sample in dataset if sample.path == path]
    with dataset.opened(sample) as file:
        return file.read_bytes()


def test_everything_is_there(world: Path, tmp_path: Path) -> None:
    said = attnpool("shard", f"folder:{world}", tmp_path / "out", "--per-shard", 10, "--json").value()
    assert (said["shards"], said["samples"], said["failed"]) == (5, {"train": 28, "val": 14}, [])
    before, after = read_splits(f"folder:{world}"), read_splits(f"wds:{tmp_path / 'out'}")
    assert before.keys() == after.keys()
    for part, dataset in before.items():
        stored = after[part]
        assert (stored.classes, stored.task, stored.media) == (dataset.classes, "single", "images")
        assert sorted(stored.samples, key=lambda sample: sample.path) == sorted(dataset, key=lambda sample: sample.path)
        assert any(sample.people and sample.evidence and sample.objects for sample in stored)
        assert all(content(stored, sample.path) == dataset.file(sample).read_bytes() for sample in dataset)
        first = [sample.labels for sample in stored][:10]
        assert len(set(first)) > 4, "the first shard has many classes"
    result = check(f"wds:{tmp_path / 'out'}")
    assert not result.unusable
    assert result.people == check(f"folder:{world}").people


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves its files open
def test_webdataset_reads_them(world: Path, tmp_path: Path) -> None:
    shard(f"folder:{world}", tmp_path, per_shard=10)
    found = {}
    for name in sorted(tmp_path.glob("*.tar")):
        for item in webdataset.WebDataset(str(name), shardshuffle=False):
            record = json.loads(item["json"])
            found[record["path"]] = (item["jpg"], int(item["cls"]), record["labels"])
    (train, val) = (read_splits(f"folder:{world}")[part] for part in ("train", "val"))
    assert found == {
        sample.path: (train.file(sample).read_bytes(), sample.labels[0], [train.classes[sample.labels[0]]])
        for sample in (*train, *val)
    }


@pytest.mark.parametrize("style", ["mpii", "hico"])
def test_published_datasets(style: Any, tmp_path: Path) -> None:
    """With their test splits, ambiguous and unknown labels, and the joints of their keypoint files."""
    attnpool("playground", tmp_path / "play", "--style", style, "--images", 66, "--size", 64).text()
    shard(f"{style}:{tmp_path / 'play'}", tmp_path / "out")
    before, after = read_splits(f"{style}:{tmp_path / 'play'}"), read_splits(f"wds:{tmp_path / 'out'}")
    assert before.keys() == after.keys()
    assert (after["test"] is after["val"]) == (before["test"] is before["val"])
    for part, dataset in before.items():
        stored = {sample.path: sample for sample in after[part]}
        assert (after[part].task, after[part].classes) == (dataset.task, dataset.classes)
        for sample in dataset:
            other = stored[sample.path]
            assert replace(other, people=(), keypoints="") == replace(sample, people=(), keypoints="")
            assert people_of(after[part], other) == people_of(dataset, sample)
    if style == "hico":
        assert any(sample.ambiguous and sample.negatives for sample in after["train"])
        assert any(sample.people for sample in after["train"])


@pytest.mark.parametrize("frames", [False, True])
def test_clips(frames: bool, tmp_path: Path) -> None:
    """Videos, or folders of frames among which there is optical flow, with the joints of every frame."""
    play = tmp_path / "play"
    attnpool("playground", play, "--style", "hmdb51", "--images", 28, "--frames", 4).text()
    if frames:
        for number, video in enumerate(sorted(play.glob("*/*.avi"))):
            folder = video.with_suffix("")
            write_clip(folder.with_suffix(".avi"), 3)
            folder.mkdir(exist_ok=True)
            video.unlink()
            for frame in range(3):
                pixels = np.full((40, 50, 3), 20 * frame + number, np.uint8)
                Image.fromarray(pixels).save(folder / f"image_{frame + 1:05d}.jpg")
                Image.fromarray(pixels).save(folder / f"flow_x_{frame + 1:05d}.jpg")
    source, made = f"hmdb51:{play}", f"wds:{tmp_path / 'out'}"
    done = shard(source, tmp_path / "out")
    assert not done.failed
    before, after = read_splits(source), read_splits(made)
    stored = {sample.path: sample for sample in after["train"]}
    assert stored.keys() == {sample.path for sample in before["train"]}
    seen = 0
    for sample in before["train"]:
        for frame in range(4):
            people = people_of(before["train"], sample, frame)
            assert people_of(after["train"], stored[sample.path], frame) == ([] if frames and frame == 3 else people)
            seen += len(people)
        with after["train"].opened(stored[sample.path]) as path:
            assert path.is_dir() == frames
            if frames:
                own = sorted(before["train"].file(sample).glob("image_*"))
                assert [file.read_bytes() for file in sorted(path.iterdir())] == [file.read_bytes() for file in own]
            else:
                assert path.read_bytes() == before["train"].file(sample).read_bytes()
    assert seen > 10
    assert check(made).people == sum(
        len(people_of(after[part], sample, frame))
        for part in ("train", "val")
        for sample in after[part]
        for frame in range(4)
    )


def test_reduced(world: Path, tmp_path: Path) -> None:
    """Larger images are reduced, with their joints and boxes; smaller ones are left as they are."""
    shutil.copytree(world, tmp_path / "play")
    first = next((tmp_path / "play").glob("train/*/*.jpg"))
    small = read_image(first).resize((40, 36))
    small.save(first)
    shard(f"folder:{tmp_path / 'play'}", tmp_path / "out", short_side=48)
    before, after = read_splits(f"folder:{tmp_path / 'play'}")["train"], read_splits(f"wds:{tmp_path / 'out'}")["train"]
    stored = {sample.path: sample for sample in after}
    for sample in before:
        other = stored[sample.path]
        if before.file(sample) == first:
            assert content(after, sample.path) == first.read_bytes()
            assert other == sample
            continue
        with after.opened(other) as file:
            image = read_image(file)
        assert image.size == (48, 48)
        found, expected = (np.asarray(each, np.float64) for each in (image, read_image(before.file(sample)).reduce(2)))
        assert abs((found - expected).mean()) < 1
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.97
        for person, half in zip(sample.people, other.people, strict=True):
            assert half.box == (person.box and tuple(value / 2 for value in person.box))
            assert half.joints == tuple(joint and (joint[0] / 2, joint[1] / 2) for joint in person.joints)
        assert other.evidence == tuple(tuple(value / 2 for value in box) for box in sample.evidence)
    said = attnpool("shard", f"folder:{tmp_path / 'play'}", tmp_path / "out", "--short-side", 48).text()
    assert "41 of 42 images were larger and are reduced" in said
    assert resized(Image.new("RGB", (301, 100)), 10).size == (30, 10)
    assert QUALITY == 95


def test_what_cannot_be_read_is_named(world: Path, tmp_path: Path) -> None:
    """In the first call and in the next, and everything else is there."""
    shutil.copytree(world, tmp_path / "play")
    names = sorted(tmp_path.glob("play/train/*/*.jpg"))
    names[0].write_bytes(names[0].read_bytes()[:300])
    names[1].write_bytes(b"")
    Image.new("RGB", (30, 30)).save(
        names[2].with_name("two.gif"), save_all=True, append_images=[Image.new("RGB", (30, 30), "red")]
    )
    for kept in (0, 3):
        outcome = attnpool("shard", f"folder:{tmp_path / 'play'}", tmp_path / "out", "--per-shard", 14)
        assert outcome.code == 1
        assert outcome.messages == ["attnpool: 2 files are in no shard, because they cannot be read"]
        for name in names[:2]:
            assert f"cannot be read: {name.relative_to(tmp_path / 'play').as_posix()} (" in outcome.out
        assert "two.gif (the first of its 2 images counts)" in outcome.out
        assert ("3 of them by an earlier call" in outcome.out) == bool(kept) or kept == 3
        assert len(read_splits(f"wds:{tmp_path / 'out'}")["train"]) == 27


def test_the_same_call_goes_on(world: Path, tmp_path: Path) -> None:
    """After any shard, also after kill -9, and the result is the same to the byte."""
    source = f"folder:{world}"
    shard(source, tmp_path / "whole", per_shard=4)
    whole = hashes(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    for name in ("index.jsonl", "train-000003.tar", "val-000001.tar"):
        (tmp_path / "part" / name).unlink()
    (tmp_path / "part" / "train-000004.tar.partial").write_bytes(b"torn")
    refused(
        attnpool("check", f"wds:{tmp_path / 'part'}"), "its shards were not all written; run the same attnpool shard"
    )
    shutil.copy(tmp_path / "whole" / ".attnpool.json", tmp_path / "part")
    assert shard(source, tmp_path / "part", per_shard=4).kept == 9
    (tmp_path / "part" / "train-000004.tar.partial").unlink()
    assert hashes(tmp_path / "part") == whole
    for number, wait in enumerate((1, 4, 9)):
        out = tmp_path / f"killed{number}"
        process = Process("shard", source, out, "--per-shard", 4, folder=tmp_path / "log")
        process.until(lambda out=out, wait=wait: len(list(out.glob("*.tar*"))) >= wait)
        process.send(signal.SIGKILL)
        process.wait()
        attnpool("shard", source, out, "--per-shard", 4).text()
        assert hashes(out) == whole


def test_other_data_are_refused(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "play")
    source, out = f"folder:{tmp_path / 'play'}", tmp_path / "out"
    command = ("shard", source, out, "--per-shard", 10)
    attnpool(*command).text()
    before = hashes(out)
    refused(attnpool(*command, "--short-side", 48), "--short-side 48", "give a new folder")
    refused(attnpool("shard", source, out), "1000 a shard", "give a new folder")
    first = sorted(tmp_path.glob("play/train/*/*.jpg"))[0]
    image = first.read_bytes()
    Image.new("RGB", (50, 50)).save(first)
    refused(attnpool(*command), first.name, "give a new folder")
    first.write_bytes(image)
    annotations = tmp_path / "play" / "annotations.json"
    text = annotations.read_text(encoding="utf-8")
    changed = json.loads(text)
    changed["annotations"][0]["bbox"][0] += 3
    annotations.write_text(json.dumps(changed), encoding="utf-8")
    refused(attnpool(*command), "is not as it was written", "give a new folder")
    annotations.write_text(text, encoding="utf-8")
    Image.new("RGB", (50, 50)).save(first.with_name("more.jpg"))
    refused(attnpool(*command), "the data have changed")
    first.with_name("more.jpg").unlink()
    assert attnpool(*command).code == 0
    assert hashes(out) == before


def test_a_damaged_shard_is_not_gone_on_with(world: Path, tmp_path: Path) -> None:
    attnpool("shard", f"folder:{world}", tmp_path / "out").text()
    file = tmp_path / "out" / "train-000000.tar"
    file.write_bytes(file.read_bytes()[:2000])
    refused(
        attnpool("shard", f"folder:{world}", tmp_path / "out"),
        file,
        "cannot be read as a shard",
        "delete it, and the same command writes it again",
    )


def test_two_calls_at_once(world: Path, tmp_path: Path) -> None:
    """The second says that the first writes there, which is not disturbed."""
    command = ("shard", f"folder:{world}", tmp_path / "out", "--per-shard", 1)
    process = Process(*command, folder=tmp_path / "log")
    process.until(lambda: len(list((tmp_path / "out").glob("*.tar"))) > 2)
    refused(attnpool(*command), "another attnpool shard writes there; wait")
    assert process.wait().code == 0
    assert len(read_splits(f"wds:{tmp_path / 'out'}")["train"]) == 28
    assert not list((tmp_path / "out").glob("*.lock"))


def test_mistakes(photos: Path, world: Path, tmp_path: Path) -> None:
    refused(attnpool("shard", f"folder:{photos}", photos / "out"), "inside the dataset")
    refused(attnpool("shard", f"folder:{photos}", tmp_path / "o", "--per-shard", 0), "at least 1")
    refused(attnpool("shard", f"folder:{photos}", tmp_path / "o", "--short-side", 0), "at least 1")
    refused(attnpool("shard", f"folder:{world}", tmp_path / "o", "--split-seed", 1), "own split")
    refused(attnpool("shard", f"folder:{photos}", tmp_path), "holds files that are not by attnpool")
    (photos / "a\nb").mkdir()
    assert not (tmp_path / "o").exists()


def test_shards_of_shards(world: Path, tmp_path: Path) -> None:
    """They can be written anew, in another number."""
    shard(f"folder:{world}", tmp_path / "many", per_shard=3)
    shard(f"wds:{tmp_path / 'many'}", tmp_path / "few", per_shard=20)
    shard(f"folder:{world}", tmp_path / "same", per_shard=20)
    with (
        tarfile.open(tmp_path / "few" / "train-000000.tar") as few,
        tarfile.open(tmp_path / "same" / "train-000000.tar") as same,
    ):
        assert few.getnames() == same.getnames()
    assert (
        read_splits(f"wds:{tmp_path / 'few'}")["val"].samples == read_splits(f"wds:{tmp_path / 'same'}")["val"].samples
    )


def test_a_split_by_seed(photos: Path, tmp_path: Path) -> None:
    shard(f"folder:{photos}", tmp_path / "out", split_seed=3, val_fraction=0.5)
    before, after = (
        read_splits(f"folder:{photos}", split_seed=3, val_fraction=0.5),
        read_splits(f"wds:{tmp_path / 'out'}"),
    )
    for part, dataset in before.items():
        assert {sample.path for sample in dataset} == {sample.path for sample in after[part]}
    failed(attnpool("check", f"wds:{tmp_path / 'out'}", "--split-seed", 1), 2, "own split")


def test_images_without_a_suffix(photos: Path, tmp_path: Path) -> None:
    file = sorted(photos.rglob("*.jpg"))[0]
    file.rename(file.with_suffix(""))
    shard(f"folder:{photos}", tmp_path / "out")
    before, after = read_splits(f"folder:{photos}"), read_splits(f"wds:{tmp_path / 'out'}")
    for part, dataset in before.items():
        assert {sample.path for sample in dataset} == {sample.path for sample in after[part]}
    assert not check(f"wds:{tmp_path / 'out'}").unusable
