from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import attnpool, refused
from matlab_files import save_hico
from PIL import Image
from scipy.io import loadmat, savemat

from attnpool.data import read, read_splits

ROOT = Path(__file__).parents[3]
REAL = ROOT.parent / "shared" / "real"

ACTIONS = [
    ("bicycle", "hop_on", "hopping_on"),
    ("bicycle", "ride", "riding"),
    ("bicycle", "no_interaction", "no_interaction"),
    ("potted_plant", "hold", "holding"),
]
NAN = np.nan
TRAIN = np.array([[1, -1, NAN], [1, 0, NAN], [-1, NAN, NAN], [NAN, 1, 1]])
TEST = np.array([[0, NAN], [-1, NAN], [1, NAN], [NAN, 1]])


def name(part: str, number: int) -> str:
    return f"HICO_{part}2015_{number:08}.jpg"


def make(root: Path, train: np.ndarray = TRAIN, test: np.ndarray = TEST, actions: Any = ACTIONS) -> str:
    parts = {
        part: ([name(part, i + 1) for i in range(entries.shape[1])], entries)
        for part, entries in (("train", train), ("test", test))
    }
    root.mkdir(parents=True, exist_ok=True)
    save_hico(root / "anno.mat", actions, parts["train"], parts["test"])
    for part, (names, _) in parts.items():
        (root / f"images/{part}2015").mkdir(parents=True, exist_ok=True)
        for file in names:
            noise = np.random.default_rng([*file.encode()]).integers(0, 256, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / f"images/{part}2015" / file)
    return f"hico:{root}"


def message(source: str) -> str:
    outcome = attnpool("check", source)
    refused(outcome)
    return outcome.messages[0]


def test_labels(tmp_path: Path) -> None:
    source = make(tmp_path)
    train, val = read(source)
    assert train.classes == (
        "hopping on bicycle", "riding bicycle", "no interaction with bicycle", "holding potted plant",
    )  # fmt: skip
    assert [(s.path, s.labels, s.ambiguous, s.negatives) for s in train] == [
        (f"images/train2015/{name('train', 1)}", (0, 1), (), (2,)),
        (f"images/train2015/{name('train', 2)}", (3,), (1,), (0,)),
        (f"images/train2015/{name('train', 3)}", (3,), (), ()),
    ]
    assert [(s.path, s.labels, s.ambiguous, s.negatives) for s in val] == [
        (f"images/test2015/{name('test', 1)}", (2,), (0,), (1,)),
        (f"images/test2015/{name('test', 2)}", (3,), (), ()),
    ]
    assert (train.task, train.split, val.split, val.classes) == ("multi", "train", "test", train.classes)
    splits = read_splits(source)
    assert list(splits) == ["train", "val", "test"]
    assert splits["test"] is splits["val"]
    assert all(not sample.keypoints for sample in train)


@pytest.mark.parametrize("folder", ["keypoints/{}2015", "keypoints"])
def test_keypoints_are_named_where_there_is_a_folder(tmp_path: Path, folder: str) -> None:
    source = make(tmp_path)
    for part in ("train", "test"):
        (tmp_path / folder.format(part)).mkdir(parents=True, exist_ok=True)
    train, val = read(source)
    assert train.samples[0].keypoints == f"{folder.format('train')}/HICO_train2015_00000001.json"
    assert val.samples[1].keypoints == f"{folder.format('test')}/HICO_test2015_00000002.json"


def test_names_are_told_apart(tmp_path: Path) -> None:
    actions = [("cup", "lie_to", "lying_to"), ("cup", "lay_to", "lying_to"), ("cup", "dry", ""), ("pen", "dry", "")]
    assert read(make(tmp_path, actions=actions))[0].classes == ("lie to cup", "lay to cup", "dry cup", "dry pen")
    without = [(noun, verb, "") for noun, verb, _ in ACTIONS]
    assert read(make(tmp_path, actions=without))[0].classes[:2] == ("hop on bicycle", "ride bicycle")


def test_what_is_wrong(tmp_path: Path) -> None:
    assert "does not exist; give the directory with anno.mat, images/train2015" in message(f"hico:{tmp_path / 'no'}")
    assert f"{tmp_path}: there is no anno.mat (looked in it and annotations/); get hico" in message(f"hico:{tmp_path}")
    source = make(tmp_path)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    assert f"{tmp_path / 'images'}: none of 5 files exists, such as images/train2015/HICO_" in message(source)
    (tmp_path / "elsewhere").rename(tmp_path / "images")

    mat = tmp_path / "anno.mat"
    whole = {key: value for key, value in loadmat(mat).items() if not key.startswith("__")}

    def problem(**changes: Any) -> str:
        content = {key: value for key, value in {**whole, **changes}.items() if value is not None}
        savemat(mat, content)
        found = message(source)
        assert f"{mat}: " in found
        assert found.endswith("; get the file again")
        return found

    assert "anno_train is missing, not classes x images (4 x 3)" in problem(anno_train=None)
    assert "anno_test is 2 x 4, not classes x images (4 x 2)" in problem(anno_test=TEST.T)
    assert "anno_train has an entry 2; they are 1, 0, -1 and NaN" in problem(anno_train=np.where(TRAIN == 0, 2, TRAIN))
    assert "list_action has 0 classes" in problem(list_action=None)
    assert "list_action has 1 classes" in problem(list_action=whole["list_action"][:1])
    assert "list_action names 'ride bicycle' twice" in problem(list_action=whole["list_action"][[0, 1, 1, 3]])
    assert "list_train is not a cell array of texts" in problem(list_train=None)
    assert "list_test(1) is not text" in problem(list_test=np.array([[1.0], ["a"]], object))
    twice = np.array([["a.jpg"], ["a.jpg"]], object)
    assert "list_train and list_test names 'images/test2015/a.jpg' twice" in problem(list_test=twice)
    outside = np.array([["a.jpg"], ["../b.jpg"]], object)
    assert "list_test '../b.jpg' is not a file name" in problem(list_test=outside)


def test_check(tmp_path: Path) -> None:
    source = make(tmp_path)
    folder = tmp_path / "keypoints/train2015"
    folder.mkdir(parents=True)
    joints = [20.0, 30.0, 0.9] * 5 + [0.0] * 39
    for number, content in ((1, {"bodies": [{"joints": joints}, {"joints": joints}]}), (2, {"people": []})):
        (folder / f"HICO_train2015_{number:08}.json").write_text(json.dumps(content))
    (folder / "HICO_train2015_00000003.json").write_text(
        json.dumps({"bodies": [{"joints": [900.0 if v else 0.0 for v in joints]}]})
    )
    (tmp_path / "images/test2015/HICO_test2015_00000002.jpg").unlink()
    (tmp_path / "images/test2015/more.jpg").write_bytes(b"")
    value = attnpool("check", source, "--json").value()
    assert list(value["parts"]) == ["train", "val"]  # the test part once
    part = value["parts"]["train"]
    assert (part["samples"], part["labels"], part["ambiguous"], part["people"]) == (3, 4, 1, 3)
    assert value["joints"] == part["joints"] > 0
    assert [entry["file"] for entry in value["keypoints"]] == ["keypoints/train2015/HICO_train2015_00000002.json"]
    assert 'no list of "bodies"' in value["keypoints"][0]["reason"]
    assert value["outside"] == ["images/train2015/HICO_train2015_00000003.jpg"]
    assert value["unusable"] == [{"file": "images/test2015/HICO_test2015_00000002.jpg", "reason": "missing"}]
    assert value["ignored"] == {".jpg": 1}
    text = attnpool("check", source).text()
    assert "train: 3 images of 3 classes, 4 labels, 1 ambiguous, 3 people," in text
    assert "keypoint files that cannot be read: 1\n" in text
    assert "4 of 5 images can be used" in text


def test_real_positives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """600 x 38118 and 600 x 9658 entries; the other verbs of an image's objects are -1, some 0, all else NaN."""
    if not REAL.is_dir():
        pytest.skip("the real label files are not there")
    monkeypatch.setenv("ATTNPOOL_CACHE", str(tmp_path / "cache"))
    lines = [line.split() for line in (REAL / "hico_hoi_list.txt").read_text().splitlines()]
    pairs = [(noun, verb) for number, noun, verb in (line for line in lines if len(line) == 3 and line[0].isdigit())]
    nouns = np.array([noun for noun, _ in pairs])
    same = (nouns[:, None] == nouns).astype(np.float32)
    with np.load(REAL / "hico_positives.npz") as file:
        positives = {part: file[f"pos_{part}"] > 0 for part in ("train", "test")}
        names = {part: file[f"list_{part}"].tolist() for part in ("train", "test")}
    rng = np.random.default_rng(0)
    entries = {}
    for part, positive in positives.items():
        looked = same @ positive.astype(np.float32) > 0
        filled = np.where(looked, np.where(rng.random(positive.shape, np.float32) < 0.05, 0.0, -1.0), NAN)
        entries[part] = np.where(positive, 1.0, filled)
    root = tmp_path / "hico"
    (root / "images/train2015").mkdir(parents=True)
    (root / "images/train2015" / names["train"][0]).touch()
    actions = [(noun, verb, "no_interaction" if verb == "no_interaction" else f"{verb}ing") for noun, verb in pairs]
    save_hico(root / "anno.mat", actions, *((names[part], entries[part]) for part in ("train", "test")))
    for attempt in ("first", "from the cache"):
        start = time.monotonic()
        splits = read_splits(f"hico:{root}")
        print(f"HICO, {attempt}: {time.monotonic() - start:.1f} s")
    assert (len(splits["train"]), len(splits["val"]), len(splits["train"].classes)) == (38118, 9658, 600)
    assert len(set(splits["train"].classes)) == 600
    assert sum(len(sample.labels) for sample in splits["train"]) == 69324
    assert sum(len(sample.labels) for sample in splits["val"]) == 19984
    for part, split in (("train", "train"), ("test", "val")):
        assert [Path(sample.path).name for sample in splits[split]] == names[part]
        for value, lists in (
            (1, [sample.labels for sample in splits[split]]),
            (0, [sample.ambiguous for sample in splits[split]]),
            (-1, [sample.negatives or () for sample in splits[split]]),
        ):
            again = np.zeros(entries[part].shape, bool)
            columns = np.repeat(np.arange(len(lists)), [len(rows) for rows in lists])
            again[[row for rows in lists for row in rows], columns] = True
            np.testing.assert_array_equal(again, entries[part] == value)
