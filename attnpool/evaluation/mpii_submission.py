"""The file that MPII's evaluation server takes for the activities of the test part, whose labels are not public."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attnpool.data import READERS, Dataset
from attnpool.files import mark, write_bytes


def image_numbers(path: Path, dataset: Dataset) -> dict[str, int]:
    """What a submission needs, before the long work: the number of every image of a dataset.

    Raises:
        ValueError: the dataset's benchmark has no test server, or the file's name does not end in .mat.
    """
    if path.suffix != ".mat":
        raise ValueError(f"{path}: a submission is a MATLAB file; let its name end in .mat")
    servers = {name: entry.image_numbers for name, entry in READERS.items() if entry.image_numbers is not None}
    if dataset.format not in servers:
        raise ValueError(
            f"{dataset.name}: only {', '.join(servers)} has a test server; leave out submission, or use "
            f"{next(iter(servers))}:ROOT"
        )
    return servers[dataset.format](dataset.root)


def write_submission(path: Path, sample_ids: Sequence[int], classes: Sequence[str], scores: np.ndarray) -> None:
    """Writes a MATLAB file of three variables, whole or not at all.

    `sample_ids` (N x 1 double) are the images, `class_ids` (1 x K cell) the names of the classes and `scores`
    (N x K double) what each image was given for each class, rows and columns in that order.

    Args:
        path: checked by `image_numbers`; missing folders are made.
        sample_ids: N positions in `RELEASE.annolist`, counted from 1, from `image_numbers`.
        classes: K names; 393 for MPII.
        scores: `(N, K)`, higher is more certain.

    Raises:
        ValueError: the shapes do not fit together, an id is not positive or is given twice, or scores are not finite.
        OSError: the file cannot be written.
    """
    from scipy.io import savemat

    ids, table = np.asarray(sample_ids, dtype=np.int64), np.asarray(scores, dtype=np.float64)
    if ids.ndim != 1 or not len(ids) or table.shape != (len(ids), len(classes)):
        raise ValueError(f"scores {table.shape} must be (images, classes), here ({len(ids)}, {len(classes)})")
    if (ids < 1).any() or len(np.unique(ids)) < len(ids):
        raise ValueError("every image of a submission needs a number of its own, counted from 1")
    if not np.isfinite(table).all():
        raise ValueError("the scores are not finite: the network diverged, train it again with a lower learning rate")
    names = np.empty((1, len(classes)), dtype=object)
    names[0, :] = list(classes)
    file = io.BytesIO()
    savemat(file, {"sample_ids": ids[:, None].astype(np.float64), "class_ids": names, "scores": table})
    data = bytearray(file.getvalue())
    about = f"MATLAB 5.0 MAT-file, {mark()}".encode()  # a text of 116 bytes, at the beginning
    data[:116] = about.ljust(116)
    write_bytes(path, bytes(data))
