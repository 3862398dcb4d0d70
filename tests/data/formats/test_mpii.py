from __future__ import annotations

import csv
import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import attnpool, refused
from matlab_files import EMPTY, image, points, save_mpii, struct
from PIL import Image
from scipy.io import savemat

from attnpool.data import Dataset, Person, read_splits
from attnpool.keypoints import Joints

ROOT = Path(__file__).parents[3]
REAL = ROOT.parent / "shared" / "real"
MAT = "mpii_human_pose_v1_u12_1.mat"

DEFAULT = [
    image("02.jpg", "b", {"scale": 1.0, "objpos": struct({"x": 100.5, "y": 200.5})}),
    image("01.jpg", "a, with words"),
    image("unlisted.jpg", "c"),
    image("03.jpg", "b", act_id=7),
    image("04.jpg", "a, with words"),
    image("05.jpg", "", act_id=-1),
]


def make(
    root: Path, images: list[dict[str, Any]] | None = None, *, train: str = "01\n02\n", val: str = "03\n04\n"
) -> str:
    """A set of small images and the lists."""
    images = DEFAULT if images is None else images
    (root / "images").mkdir(parents=True, exist_ok=True)
    for entry in images:
        name = entry["annolist"]["image"]["name"][0, 0]
        seed = [len(name), *name.encode()]
        noise = np.random.default_rng(seed).integers(0, 256, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "images" / name)
    save_mpii(root / MAT, images)
    (root / "images_mpii_train.txt").write_text(train)
    (root / "images_mpii_val.txt").write_text(val)
    return f"mpii:{root}"


def labels(dataset: Dataset) -> list[tuple[str, ...]]:
    return [(Path(sample.path).name, *(dataset.classes[label] for label in sample.labels)) for sample in dataset]


def test_classes_splits_and_order(tmp_path: Path) -> None:
    source = make(tmp_path)
    splits = read_splits(source)
    assert list(splits) == ["train", "val"]
    assert splits["train"].classes == splits["val"].classes == ("b", "a, with words")
    assert labels(splits["train"]) == [("02.jpg", "b"), ("01.jpg", "a, with words")]
    assert labels(splits["val"]) == [("03.jpg", "b"), ("04.jpg", "a, with words")]
    for split, dataset in splits.items():
        assert (dataset.name, dataset.root, dataset.task, dataset.split, dataset.media) == (
            source, tmp_path, "single", split, "images",
        )  # fmt: skip
        assert all(dataset.file(sample).is_file() for sample in dataset)
    (tmp_path / "images_mpii_test.txt").write_text("05\n")
    assert labels(read_splits(source)["test"]) == [("05.jpg",)]
    assert list(read_splits(source, test=False)) == ["train", "val"]


def test_people(tmp_path: Path) -> None:
    """All shapes in which the published file has them."""
    many = points({0: (11, 21), 15: (31.5, 41), 9: (-1, 50), 8: (50, -3), 7: (0.5, 0)}, is_visible="1")
    people: list[dict[str, Any]] = [
        {"scale": 2.0, "objpos": struct({"x": 300.5, "y": 250.5}), "annopoints": many, "x1": 1, "y1": 2},
        {"annopoints": points({3: (7, 8)})},  # a single point; is_visible is not there
        {"scale": 1.5},
        {"scale": EMPTY, "objpos": EMPTY, "annopoints": points({6: (1, 2)}, is_visible=EMPTY)},
        {"scale": 0.5, "objpos": struct({"x": 1, "y": 2}), "annopoints": points({1: (-1, -1)}, is_visible=0)},
    ]
    images = [image("01.jpg", "a", *people), image("02.jpg", "b"), *DEFAULT[2:]]
    images[2:] = [image("03.jpg", "b", {"annopoints": EMPTY}), image("04.jpg", "a")]
    images[3]["annolist"]["annorect"] = struct({"x1": 1})[:, :0]  # a struct array without elements
    splits = read_splits(make(tmp_path, images))

    def joints(**known: tuple[float, float]) -> Joints:
        return tuple(known.get(f"j{j}") for j in range(16))

    assert splits["train"].samples[0].people == (
        Person(joints(j0=(10.5, 20.5), j15=(31, 40.5), j7=(0, -0.5)), (100, 50, 500, 450)),
        Person(joints(j3=(6.5, 7.5))),
        Person(joints(j6=(0.5, 1.5))),
        Person((), (-49.5, -48.5, 50.5, 51.5)),
    )
    assert [sample.people for dataset in splits.values() for sample in dataset][1:] == [(), (), ()]


@pytest.mark.parametrize("folder", ["", "mpii_human_pose_v1_u12_2", "mpii_human_pose_v1_u12_1", "annotations"])
@pytest.mark.parametrize("lists", ["", "lists", "splits"])
def test_where_files_may_lie(tmp_path: Path, folder: str, lists: str) -> None:
    source = make(tmp_path)
    expected = read_splits(source)
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / MAT).rename(tmp_path / folder / MAT)
    (tmp_path / lists).mkdir(exist_ok=True)
    for split in ("train", "val"):
        plain = tmp_path / f"images_mpii_{split}.txt"
        lines = "".join(f"{line}.jpg\r\n" for line in plain.read_text().split()) + "\r\n"
        plain.unlink()
        (tmp_path / lists / f"{plain.name}.gz").write_bytes(gzip.compress(lines.encode()))
    assert read_splits(source) == expected


def message(source: str) -> str:
    """The one line of the command line."""
    outcome = attnpool("check", source)
    refused(outcome)
    return outcome.messages[0]


def test_missing_parts(tmp_path: Path) -> None:
    assert f"{tmp_path / 'no'} does not exist; give the directory with {MAT}" in message(f"mpii:{tmp_path / 'no'}")
    source = make(tmp_path)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    found = message(source)
    assert f"{tmp_path / 'images'}: none of 4 files exists, such as images/02.jpg; get mpii_human_pose_v1" in found
    (tmp_path / "images_mpii_val.txt").unlink()
    found = message(source)
    assert f"{tmp_path}: there is no images_mpii_val.txt, also not as .gz (looked in it, lists/ and splits/); " in found
    assert "copy the lists there from src/data/mpii/lists of github.com/rohitgirdhar/AttentionalPoolingAction" in found
    (tmp_path / MAT).unlink()
    assert f"{tmp_path}: there is no {MAT} (looked in it, mpii_human_pose_v1_u12_2/, " in message(source)


@pytest.mark.parametrize(
    ("train", "val", "expected"),
    [
        ("01\n\n02\n99\n", "03\n", "_train.txt: line 4: mpii_human_pose_v1_u12_1.mat has no image '99'; correct"),
        ("01\n02\n", "03\n02\n", "_val.txt: '02' is also in images_mpii_train.txt; correct the lists"),
        ("01\n02\n01.jpg\n", "03\n", "_train.txt: lines 1 and 3 both name '01'; correct the list"),
        ("\n", "03\n", "_train.txt: the list is empty; get it again"),
        ("01\n05\n", "03\n", f"{MAT}: 05.jpg has no act_name, but is in images_mpii_train.txt; get"),
        ("01\n04\n", "03\n", "_val.txt: no image in train shows 'b', as images/03.jpg does; correct it"),
        ("01\n", "04\n", "_train.txt: all images show 'a, with words'; two or more classes are needed"),
    ],
)
def test_lists_that_do_not_fit(tmp_path: Path, train: str, val: str, expected: str) -> None:
    assert expected in message(make(tmp_path, train=train, val=val))


def test_lists_that_cannot_be_read(tmp_path: Path) -> None:
    source = make(tmp_path)
    (tmp_path / "images_mpii_train.txt").write_bytes(b"01\n\xff\xfe\n")
    assert "images_mpii_train.txt: is not text in UTF-8; get the file again" in message(source)
    whole = gzip.compress(b"01\n02\n" * 50)
    for data in (whole[:20], whole[:12] + b"\xff\xff\xff" + whole[15:]):
        (tmp_path / "images_mpii_train.txt").write_bytes(data)
        assert "images_mpii_train.txt: cannot be read (" in message(source)


def test_malformed_annotations(tmp_path: Path) -> None:
    def problem(release: Any) -> str:
        savemat(tmp_path / MAT, {"RELEASE": release})
        return message(source)

    source = make(tmp_path)
    good = image("01.jpg", "a")
    entry, act = struct(good["annolist"]), struct(good["act"])
    assert f"{MAT}: RELEASE has 0 images in annolist and 0 in act; get the file again" in problem(1.0)
    assert "RELEASE has 1 images in annolist and 0 in act" in problem(struct({"annolist": entry}))
    assert "RELEASE is not a struct" in problem("text")
    assert "annolist names '01.jpg' twice" in problem(
        struct({"annolist": np.hstack([entry, entry]), "act": np.hstack([act, act])})
    )
    for name in ("../01.jpg", "", "a\nb.jpg", "a\x9bb.jpg"):
        strange = struct(image(name, "a")["annolist"])
        assert "is not a file name" in problem(struct({"annolist": strange, "act": act}))
    for person, words in (
        ({"annopoints": points({16: (1, 1)})}, "annolist(1).annorect(1) has a joint 16; MPII's are 0 to 15"),
        ({"annopoints": points({0: ("left", 1)})}, "annolist(1).annorect(1) point.x is not a number"),  # type: ignore[dict-item]
        ({"annopoints": "text"}, "annolist(1).annorect(1).annopoints is not a struct"),
        ({"scale": np.ones((1, 2)), "objpos": EMPTY}, "annolist(1).annorect(1).scale is not a number"),
    ):
        marked = struct(image("01.jpg", "a", person)["annolist"])
        assert words in problem(struct({"annolist": marked, "act": act}))
    (tmp_path / MAT).write_text("no such file")
    assert f"{tmp_path / MAT}: is not a .mat file; get the file again" in message(source)


def test_check(tmp_path: Path) -> None:
    near = {"objpos": struct({"x": 100, "y": 40}), "scale": 1.0, "annopoints": points({0: (5, 6), 1: (8, 9)})}
    far = {"annopoints": points({0: (500, 10)})}
    images = [
        image("01.jpg", "a", near, {"scale": 3.0, "objpos": struct({"x": 60, "y": 50})}),
        image("02.jpg", "b"),
        image("03.jpg", "b", far),
        image("04.jpg", "a"),
        image("05.jpg", "", act_id=-1),
        image("06.jpg", "a"),
    ]
    source = make(tmp_path, images)
    (tmp_path / "images_mpii_test.txt").write_text("05\n")
    (tmp_path / "images/02.jpg").unlink()
    (tmp_path / "images/04.jpg").write_bytes(b"broken")
    value = attnpool("check", source, "--json").value()
    assert value["parts"]["train"] == {
        "samples": 2, "classes": 2, "labels": 2, "ambiguous": 0, "frames": 0, "people": 2, "joints": 2, "missing": 1,
        "broken": 0,
    }  # fmt: skip
    assert (value["parts"]["val"]["joints"], value["parts"]["val"]["broken"]) == (1, 1)
    assert (value["parts"]["test"]["samples"], value["parts"]["test"]["labels"]) == (1, 0)
    assert value["images"] == {"train": {"a": 1, "b": 1}, "val": {"a": 1, "b": 1}, "test": {"a": 0, "b": 0}}
    assert value["unusable"] == [
        {"file": "images/02.jpg", "reason": "missing"},
        {"file": "images/04.jpg", "reason": "not an image in a known format"},
    ]
    assert value["outside"] == ["images/03.jpg"]
    assert value["ignored"] == {".jpg": 1}
    text = attnpool("check", source).text().splitlines()
    assert "train: 2 images of 2 classes, 2 people, 2 joints, 1 missing, 0 broken" in text
    assert "test: 1 images, no labels, 0 missing, 0 broken" in text
    assert text[text.index("missing: 1") + 1] == "  images/02.jpg"
    assert text[-1] == "3 of 5 images can be used"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real names, activities, scales and lists in a .mat; joints of every 50th image, as writing takes long."""
    if not REAL.is_dir():
        pytest.skip("the real label files are not there")
    root = tmp_path_factory.mktemp("mpii")
    with gzip.open(REAL / "mpii_train_actions.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    joints = [name.removesuffix(" x") for name in rows[0] if name.endswith(" x")]
    images = []
    for i, row in enumerate(rows):
        people: list[dict[str, Any]] = []
        if i % 10 == 0 and row["scale"]:
            people.append({"scale": float(row["scale"]), "objpos": struct({"x": 10, "y": 20}), "annopoints": EMPTY})
        if i % 50 == 0 and row["scale"]:
            known = {j: (float(row[f"{name} x"] or -1), float(row[f"{name} y"] or -1)) for j, name in enumerate(joints)}
            people[0]["annopoints"] = points(known if i % 100 else {0: known[0]}, is_visible="1")
            people.append({"scale": 1.0, "objpos": struct({"x": 30, "y": 40})})
        entry = image(row["image"], row["act_name"], *people, act_id=int(row["act_id"]), category=row["cat_name"])
        del entry["annolist"]["frame_sec"], entry["annolist"]["vididx"]
        images.append(entry)
    save_mpii(root / MAT, images, compressed=False)
    for split in ("train", "val"):
        shutil.copy(REAL / f"images_mpii_{split}.txt.gz", root)
    (root / "images").mkdir()
    Image.new("RGB", (8, 8)).save(root / "images" / rows[0]["image"])
    return root


def test_real_names_and_lists(published: Path) -> None:
    splits = read_splits(f"mpii:{published}")
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 8219, "val": 6988}
    lists = {s: gzip.decompress((REAL / f"images_mpii_{s}.txt.gz").read_bytes()).decode().split() for s in splits}
    with gzip.open(REAL / "mpii_train_actions.csv.gz", "rt") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    listed = {f"{stem}.jpg" for stems in lists.values() for stem in stems}
    names = list(dict.fromkeys(row["act_name"] for image, row in rows.items() if image in listed))
    assert len(names) == 393
    assert list(splits["train"].classes) == names
    assert len({sample.labels for sample in splits["train"]}) == 393
    assert len({sample.labels for sample in splits["val"]}) == 371
    for split, dataset in splits.items():
        assert {sample.path for sample in dataset} == {f"images/{stem}.jpg" for stem in lists[split]}
        for sample in dataset:
            assert names[sample.labels[0]] == rows[sample.path.removeprefix("images/")]["act_name"]
    people = [sample.people for dataset in splits.values() for sample in dataset]
    assert {len(group) for group in people} == {0, 1, 2}
    labelled = {len([joint for joint in group[0].joints if joint]) for group in people if group and group[0].joints}
    assert labelled >= {1, 16}
    for dataset in splits.values():
        for sample in dataset:
            row = rows[sample.path.removeprefix("images/")]
            joints = sample.people[0].joints if sample.people else ()
            if joints and joints[15]:
                assert joints[15] == (float(row["l wrist x"]) - 0.5, float(row["l wrist y"]) - 0.5)
            if sample.people:
                assert sample.people[0].box is not None
                assert sample.people[0].box[2] - sample.people[0].box[0] == pytest.approx(200 * float(row["scale"]))
