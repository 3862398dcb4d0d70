from __future__ import annotations

import json
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from command_line import attnpool, refused
from PIL import Image

from attnpool.data import read, read_splits

ROOT = Path(__file__).parents[3]
REAL = ROOT.parent / "shared" / "real"

CLIPS = {"wave": ["a (1)!&_é.avi", "b.avi", "c.avi", "d.avi"], "dive": ["a (1)!&_é.avi", "#b 100%.avi", "c.avi"]}
MARKS = {1: "1201", 2: "2110", 3: "1122"}


def write_lists(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for label, clips in CLIPS.items():
        for number, marks in MARKS.items():
            lines = [f"{clip} {mark} \n" for clip, mark in zip(clips, marks, strict=False)]
            (folder / f"{label}_test_split{number}.txt").write_text("".join(lines), encoding="utf-8")


def make(root: Path, clips: str = "", lists: str = "") -> str:
    """Empty clips, and the lists."""
    for label, names in CLIPS.items():
        (root / clips / label).mkdir(parents=True, exist_ok=True)
        for name in names:
            (root / clips / label / name).touch()
    write_lists(root / lists)
    return f"hmdb51:{root}"


def film(path: Path, frames: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(frames):
            image = av.VideoFrame.from_ndarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))


def message(source: str) -> str:
    outcome = attnpool("check", source)
    refused(outcome)
    return outcome.messages[0]


@pytest.mark.parametrize("clips", ["", "videos", "hmdb51_org"])
@pytest.mark.parametrize("lists", ["", "splits", "testTrainMulti_7030_splits", "test_train_splits"])
def test_splits(tmp_path: Path, clips: str, lists: str) -> None:
    source = make(tmp_path, clips, lists)
    train, val = read(source)
    prefix = f"{clips}/" if clips else ""
    assert train.classes == val.classes == ("dive", "wave")
    assert [(s.path.removeprefix(prefix), s.labels) for s in train] == [
        ("dive/a (1)!&_é.avi", (0,)), ("wave/a (1)!&_é.avi", (1,)), ("wave/d.avi", (1,)),
    ]  # fmt: skip
    assert [s.path.removeprefix(prefix) for s in val] == ["dive/#b 100%.avi", "wave/b.avi"]
    assert (train.media, train.task, train.split, val.split) == ("clips", "single", "train", "test")
    assert all(dataset.file(sample).is_file() for dataset in (train, val) for sample in dataset)
    splits = read_splits(source)
    assert list(splits) == ["train", "val", "test"]
    assert splits["test"] is splits["val"]
    second = read(f"hmdb51-2:{tmp_path}")[0]
    assert [s.path.removeprefix(prefix) for s in second] == [
        "dive/#b 100%.avi",
        "dive/c.avi",
        "wave/b.avi",
        "wave/c.avi",
    ]
    assert len(read(f"hmdb51-3:{tmp_path}")[1]) == 3


@pytest.mark.parametrize("folder", ["frames/{}/{}", "jpegs/{}/{}", "{}/{}", "frames/{1}"])
def test_folders_of_frames(tmp_path: Path, folder: str) -> None:
    write_lists(tmp_path)
    for label, names in CLIPS.items():
        for clip in names:
            place = tmp_path / folder.format(label, clip.removesuffix(".avi"))
            place.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(place / "image_00001.jpg")
    train, val = read(f"hmdb51:{tmp_path}")
    assert train.samples[0].path == folder.format("dive", "a (1)!&_é")
    assert all(dataset.file(sample).is_dir() for dataset in (train, val) for sample in dataset)


def test_a_video_comes_before_its_frames(tmp_path: Path) -> None:
    source = make(tmp_path)
    (tmp_path / "frames/dive/a (1)!&_é").mkdir(parents=True)
    (tmp_path / "keypoints/dive").mkdir(parents=True)
    train = read(source)[0]
    assert train.samples[0].path == "dive/a (1)!&_é.avi"
    assert [sample.keypoints for sample in train] == ["keypoints/dive/a (1)!&_é", "", ""]


def test_what_is_wrong(tmp_path: Path) -> None:
    assert "does not exist; give the directory with a folder of clips" in message(f"hmdb51:{tmp_path / 'no'}")
    assert "there are no lists such as wave_test_split1.txt (looked in it, splits/," in message(f"hmdb51:{tmp_path}")
    write_lists(tmp_path)
    assert "none of 5 files exists, such as dive/a (1)!&_é.avi; unpack" in message(f"hmdb51:{tmp_path}")
    source = make(tmp_path)
    listed = tmp_path / "wave_test_split1.txt"
    whole = listed.read_text()

    def problem(text: str) -> str:
        listed.write_text(text)
        found = message(source)
        listed.write_text(whole)
        return found

    assert f"{listed}: line 2: 'b.avi 3' is not a name.avi and 0, 1 or 2; correct" in problem("a.avi 1 \nb.avi 3 ")
    assert "line 1: 'b.avi' is not a name.avi and 0, 1 or 2" in problem("b.avi\n")
    assert "line 3: 'b.avi' is also in an earlier line" in problem("b.avi 1\n\nb.avi 2\n")
    assert "line 1: the clip '../b.avi' is not a file name" in problem("../b.avi 1\n")
    assert f"{listed}: the list is empty; get it again" in problem("")
    (tmp_path / "jump").mkdir()
    (tmp_path / "jump/x.avi").touch()
    found = message(source)
    assert f"{tmp_path / 'jump'}: a folder of clips without a list jump_test_split1.txt; add the list" in found
    (tmp_path / "jump/x.avi").unlink()
    (tmp_path / "walk_test_split1.txt").write_text("x.avi 1 \n")
    assert "1 of 3 classes have a list and no folder of clips, the first is 'walk'; add its folder" in message(source)
    for other in ("walk", "dive"):
        (tmp_path / f"{other}_test_split1.txt").unlink()
    assert "there is one list of split 1, of wave; two or more classes" in message(source)


def test_check(tmp_path: Path) -> None:
    source = make(tmp_path)
    for i, name in enumerate(("dive/a (1)!&_é", "wave/a (1)!&_é", "wave/b")):
        film(tmp_path / f"{name}.avi", 6, i)
    whole = (tmp_path / "wave/b.avi").read_bytes()
    (tmp_path / "wave/b.avi").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "wave/d.avi").unlink()
    folder = tmp_path / "keypoints/wave/a (1)!&_é"
    folder.mkdir(parents=True)
    for frame in (1, 2):
        body = {"joints": [20.0, 30.0, 0.9] * 18}
        (folder / f"image_{frame:05d}.json").write_text(json.dumps({"bodies": [body]}))
    value = attnpool("check", source, "--json").value()
    assert (value["media"], list(value["parts"])) == ("clips", ["train", "val"])
    train = value["parts"]["train"]
    assert (train["samples"], train["frames"], train["people"], train["missing"], train["broken"]) == (3, 12, 2, 1, 0)
    assert value["parts"]["val"]["broken"] == 1
    assert {entry["file"]: entry["reason"] for entry in value["unusable"]} == {
        "dive/#b 100%.avi": "the file is empty",
        "wave/d.avi": "missing",
    }
    assert [entry["file"] for entry in value["damaged"]] == ["wave/b.avi"]
    assert value["ignored"] == {".avi": 2}
    text = attnpool("check", source).text()
    assert "5 clips, 2 classes" in text
    assert "can be read in part: 1\n  wave/b.avi: " in text
    assert text.rstrip().endswith("3 of 5 clips can be used")


def test_real_lists(tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip("the real label files are not there")
    with zipfile.ZipFile(REAL / "hmdb51_splits.zip") as archive:
        archive.extractall(tmp_path)
    listed: dict[int, dict[str, str]] = {1: {}, 2: {}, 3: {}}
    for file in (tmp_path / "hmdb51_splits").glob("*_test_split?.txt"):
        label, number = file.stem[: -len("_test_split1")], int(file.stem[-1])
        for line in filter(str.strip, file.read_text().splitlines()):
            clip, mark = line.strip()[:-2].rstrip(), line.strip()[-1]
            listed[number][f"{label}/{clip}"] = mark
    assert listed[1].keys() == listed[2].keys() == listed[3].keys()
    assert len(listed[1]) == 6766
    for clip in listed[1]:
        (tmp_path / clip).parent.mkdir(exist_ok=True)
        (tmp_path / clip).touch()
    for number, scheme in ((1, "hmdb51"), (2, "hmdb51-2"), (3, "hmdb51-3")):
        train, val = read(f"{scheme}:{tmp_path}")
        assert (len(train), len(val), len(train.classes)) == (3570, 1530, 51)
        for dataset, mark in ((train, "1"), (val, "2")):
            assert {s.path for s in dataset} == {clip for clip, m in listed[number].items() if m == mark}
            assert all(
                dataset.file(s).is_file() and s.path.startswith(dataset.classes[s.labels[0]] + "/") for s in dataset
            )
