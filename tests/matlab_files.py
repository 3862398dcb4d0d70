"""MATLAB files of the published layouts, written with scipy, and ways to damage them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from attnpool.data import read_splits
from attnpool.data.decoding.matlab import MatReader

VARIABLES = {
    "mpii": ("RELEASE",),
    "hico": ("list_action", "list_train", "list_test", "anno_train", "anno_test"),
}
EMPTY = np.zeros((0, 0))


def struct(*entries: dict[str, Any]) -> np.ndarray:
    """A (1, n) struct array. Its fields are those of all entries; where one lacks a field it is empty, as in MATLAB."""
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    made = np.zeros((1, len(entries)), [(name, object) for name in names])
    for number, entry in enumerate(entries):
        made[0, number] = tuple(entry.get(name, EMPTY) for name in names)
    return made


def cells(values: Sequence[Any]) -> np.ndarray:
    """A (n, 1) cell array."""
    made = np.empty((len(values), 1), object)
    for number, value in enumerate(values):
        made[number, 0] = value
    return made


def points(joints: dict[int, tuple[float, float]], **more: Any) -> np.ndarray:
    """`annopoints` with these joints; one joint is a struct, not an array of them."""
    return struct({"point": struct(*({"x": x, "y": y, "id": j} | more for j, (x, y) in joints.items()))})


def image(name: str, act: str, *people: dict[str, Any], act_id: int = 1, category: str = "sports") -> dict[str, Any]:
    """An image of MPII for `save_mpii`; `people` are the elements of `annorect`."""
    return {
        "annolist": {
            "image": struct({"name": name}),
            "annorect": struct(*people) if people else EMPTY,
            "frame_sec": EMPTY,
            "vididx": EMPTY,
        },
        "act": {"cat_name": category, "act_name": act, "act_id": act_id},
    }


def save_mpii(path: Path, images: Iterable[dict[str, Any]], *, compressed: bool = True) -> None:
    """RELEASE with these images, in their order."""
    images = list(images)
    release = {
        "annolist": struct(*(entry["annolist"] for entry in images)),
        "img_train": np.ones((1, len(images))),
        "version": "12",
        "single_person": cells([EMPTY] * len(images)),
        "act": struct(*(entry["act"] for entry in images)).T,
        "video_list": cells(["a", "b"]),
    }
    savemat(path, {"RELEASE": struct(release)}, do_compression=compressed)


def save_hico(
    path: Path,
    actions: Sequence[tuple[str, str, str]],
    train: tuple[Sequence[str], np.ndarray],
    test: tuple[Sequence[str], np.ndarray],
    *,
    compressed: bool = True,
) -> None:
    """anno.mat with classes (nname, vname, vname_ing) and, for each part, names and (classes, images) entries."""
    content = {
        "list_action": struct(
            *({"nname": n, "nid": "n1", "vname": v, "vname_ing": ing, "syn": cells([v])} for n, v, ing in actions)
        ).T,
        "list_train": cells(train[0]),
        "anno_train": np.asarray(train[1], np.float64),
        "list_test": cells(test[0]),
        "anno_test": np.asarray(test[1], np.float64),
    }
    savemat(path, content, do_compression=compressed)


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The file with one to a few random changes: bytes, numbers, lost, repeated or exchanged pieces, an early end."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        size = len(changed)
        at, other = (int(value) for value in rng.integers(0, max(size, 1), 2))
        length = int(rng.integers(1, 64))
        match rng.integers(0, 8):
            case 0:
                changed[at : at + 1] = rng.bytes(1)
            case 1:  # a tag, a size or a dimension
                value = int(rng.choice([0, 1, 5, 9, 14, 15, 16, 255, 2**16, 2**28, 2**31 - 1, 2**32 - 1]))
                changed[at // 4 * 4 : at // 4 * 4 + 4] = value.to_bytes(4, "little")
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[other : other + length]
            case 4:
                changed[at : at + length] = changed[other : other + length]
            case 5:
                changed[at : at + length] = rng.bytes(length)
            case 6:
                changed[at] ^= 1 << int(rng.integers(0, 8))
            case 7 if rng.random() < 0.3:
                del changed[at:]
        if not changed:
            break
    return bytes(changed)


def write_bases(root: Path) -> list[tuple[str, str, bytes]]:
    """Small sets in MPII's and HICO's format, packed and not: (format, name of the .mat, its bytes)."""
    bases = []
    images = [
        image(
            f"{i}.jpg",
            f"act {i % 2}",
            {"scale": 1.5, "objpos": struct({"x": 1, "y": 2}), "annopoints": points({j: (j, 5) for j in range(i + 1)})},
            {"scale": 2.0},
        )
        for i in range(6)
    ]
    actions = [(f"n{k}", f"v{k}", f"v{k}ing") for k in range(5)]
    parts = [([f"{part}{i}.jpg" for i in range(n)], np.eye(5, n) - 1) for part, n in (("a", 9), ("b", 4))]
    for scheme, name in (("mpii", "mpii_human_pose_v1_u12_1.mat"), ("hico", "anno.mat")):
        (root / scheme / "images/train2015").mkdir(parents=True)
        for compressed in (False, True):
            file = root / scheme / name
            if scheme == "mpii":
                save_mpii(file, images, compressed=compressed)
            else:
                save_hico(file, actions, *parts, compressed=compressed)
            bases.append((scheme, name, file.read_bytes()))
    (root / "mpii/images/0.jpg").touch()
    (root / "hico/images/train2015/a0.jpg").touch()
    (root / "mpii/images_mpii_train.txt").write_text("0\n1\n2\n")
    (root / "mpii/images_mpii_val.txt").write_text("3\n4\n5\n")
    return bases


def try_damaged_files(root: Path, count: int, seed: int) -> int:
    """Reads that many damaged files: each gives a dataset or one line. Says how many gave a dataset."""
    bases = write_bases(root)
    whole = 0
    for scheme in ("mpii", "hico"):
        assert len(read_splits(f"{scheme}:{root / scheme}")) == (2 if scheme == "mpii" else 3)
    with MatReader(seconds=20) as reader:
        for i in range(count):
            scheme, name, data = bases[i % len(bases)]
            file = root / scheme / name
            file.write_bytes(damaged(data, np.random.default_rng([seed, i])))
            problem = ""
            try:
                reader.read(file, VARIABLES[scheme])  # and so the reader finds it in the cache
                read_splits(f"{scheme}:{root / scheme}")
                whole += 1
            except ValueError as error:
                problem = str(error)
            assert not problem or problem.startswith(str(root)), (i, problem)
            assert "\n" not in problem, i
    return whole
