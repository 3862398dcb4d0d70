"""`hico:ROOT`: HICO as published, with 600 classes of people interacting with objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from attnpool.data.dataset import Dataset, Sample
from attnpool.data.decoding.matlab import MatFile, read_mat
from attnpool.data.formats.entry import Format, ReadOptions
from attnpool.data.formats.published import (
    KEYPOINTS,
    Malformed,
    file_name,
    find,
    need_folder,
    need_some,
    no_repeats,
    places,
    records,
    text,
    texts,
)

MAT = "anno.mat"
MAT_FOLDERS = ("", "annotations")
_VARIABLES = ("list_action", "list_train", "list_test", "anno_train", "anno_test")
_GET = "get hico_20150920.tar.gz from HICO's page and unpack it there"


def read_hico(root: Path, options: ReadOptions) -> dict[str, Dataset]:
    """Reads HICO: images with any number of 600 classes.

    The entries of an image give `Sample.labels` (1), `ambiguous` (0) and `negatives` (-1); NaN is unknown. Class names
    are such as "riding bicycle" and "no interaction with bicycle". HICO has two splits, and "val" is its test split:
    hold out a part of train (`hold_out`) to choose hyper-parameters. If there is a folder for the authors' keypoints,
    samples refer to its files, which are read with the images.

    Args:
        root: the directory with `anno.mat` and `images/{train,test}2015`; see docs/datasets.md.
        options: with `test`, "val" is also returned as "test".

    Returns:
        "train" and "val", and possibly "test", which is the same dataset as "val".

    Raises:
        ValueError: `anno.mat` is missing or malformed, or there are no images at all; the message is one line.
    """
    need_folder(root, f"{MAT}, images/train2015 and images/test2015")
    path = find(root, MAT_FOLDERS, [MAT])
    if path is None:
        raise ValueError(f"{root}: there is no {MAT} (looked in {places(MAT_FOLDERS)}); {_GET}")
    content = read_mat(path, _VARIABLES)
    try:
        classes = _class_names(content)
        parts = {part: _samples(root, content, part, len(classes)) for part in ("train", "test")}
        no_repeats([sample.path for samples in parts.values() for sample in samples], "list_train and list_test")
    except Malformed as error:
        raise ValueError(f"{path}: {error}; get the file again") from None
    train, val = (
        Dataset(options.name, root, classes, tuple(parts[part]), "multi", part, format=options.format)
        for part in ("train", "test")
    )
    need_some([train, val], "images", _GET)
    return {"train": train, "val": val} | ({"test": val} if options.test else {})


def keypoint_place(dataset: Dataset, sample: Sample) -> str:
    """`keypoints/train2015/NAME.json` for `images/train2015/NAME.jpg`, unless the reader has found another place."""
    return sample.keypoints or f"{KEYPOINTS}/{Path(sample.path).parent.name}/{Path(sample.path).stem}.json"


FORMAT = Format(read_hico, keypoint_place=keypoint_place)


def _class_names(content: MatFile) -> tuple[str, ...]:
    actions = records(content.tree.get("list_action"), "list_action")
    if len(actions) < 2:
        raise Malformed(f"list_action has {len(actions)} classes")
    names = [_class_name(action, f"list_action({k})", "vname_ing") for k, action in enumerate(actions, start=1)]
    if len(set(names)) < len(names):  # two verbs with the same -ing form, which the infinitives distinguish
        names = [_class_name(action, f"list_action({k})", "vname") for k, action in enumerate(actions, start=1)]
    no_repeats(names, "list_action")
    return tuple(names)


def _class_name(action: dict[str, Any], where: str, form: str) -> str:
    """The name of a class, such as "riding bicycle", or "ride bicycle" with `form="vname"`."""
    verb, thing = text(action.get("vname"), f"{where}.vname"), text(action.get("nname"), f"{where}.nname")
    if not verb or not thing:
        raise Malformed(f"{where} has no vname or no nname")
    shown = text(action.get(form), f"{where}.{form}") or verb
    words = "no interaction with" if verb == "no_interaction" else shown
    return f"{words} {thing}".replace("_", " ")


def _samples(root: Path, content: MatFile, part: str, count: int) -> list[Sample]:
    folder = f"{part}2015"
    names = [file_name(value, f"list_{part}") for value in texts(content.tree.get(f"list_{part}"), f"list_{part}")]
    if not names:
        raise Malformed(f"list_{part} is empty")
    entries = content.matrices.get(f"anno_{part}")
    if entries is None or entries.shape != (count, len(names)):
        found = "is missing" if entries is None else f"is {entries.shape[0]} x {entries.shape[1]}"
        raise Malformed(f"anno_{part} {found}, not classes x images ({count} x {len(names)})")
    positive, ambiguous, negative = (_positions(entries == value) for value in (1, 0, -1))
    known = np.isin(entries, (1, 0, -1)) | (np.isnan(entries) if entries.dtype.kind == "f" else False)
    if not known.all():
        raise Malformed(f"anno_{part} has an entry {entries[~known].flat[0]:g}; they are 1, 0, -1 and NaN")
    keypoints = ""
    for candidate in (f"{KEYPOINTS}/{folder}", KEYPOINTS):
        if not keypoints and (root / candidate).is_dir():
            keypoints = candidate
    return [
        Sample(
            f"images/{folder}/{name}",
            positive[i],
            ambiguous=ambiguous[i],
            negatives=negative[i],
            keypoints=f"{keypoints}/{Path(name).stem}.json" if keypoints else "",
        )
        for i, name in enumerate(names)
    ]


def _positions(entries: np.ndarray) -> list[tuple[int, ...]]:
    """For every column of a Boolean array (classes, images), the rows where it is true."""
    rows = np.nonzero(entries.T)[1]
    ends = np.cumsum(entries.sum(0)).tolist()
    # The same few hundred numbers occur millions of times, so each is one shared object.
    objects = np.arange(len(entries)).astype(object)[rows].tolist()
    return [tuple(objects[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
