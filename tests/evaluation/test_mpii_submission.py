from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, whosmat

from attnpool.evaluation.mpii_submission import write_submission

CLASSES = ["curling", "yoga, Nauli", "bicycling, mountain"]
SCORES = np.random.default_rng(0).random((4, 3))
IDS = [3, 17, 24987, 9]


def test_what_matlab_finds(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.mat"
    write_submission(path, IDS, CLASSES, SCORES)
    assert sorted(whosmat(path)) == [
        ("class_ids", (1, 3), "cell"),
        ("sample_ids", (4, 1), "double"),
        ("scores", (4, 3), "double"),
    ]
    found = loadmat(path)
    assert found["sample_ids"][:, 0].tolist() == IDS
    assert [cell.item() for cell in found["class_ids"][0]] == CLASSES
    np.testing.assert_array_equal(found["scores"], SCORES)
    assert [file.name for file in path.parent.iterdir()] == ["scores.mat"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_ids": IDS[:3]}, r"here \(3, 3\)"),
        ({"sample_ids": [], "scores": SCORES[:0]}, "images, classes"),
        ({"sample_ids": [0, 1, 2, 3]}, "counted from 1"),
        ({"sample_ids": [1, 2, 2, 3]}, "a number of its own"),
        ({"scores": np.where(SCORES > 0.5, np.nan, SCORES)}, "not finite"),
    ],
)
def test_mistakes_leave_nothing(change: dict, message: str, tmp_path: Path) -> None:
    given = {"sample_ids": IDS, "classes": CLASSES, "scores": SCORES} | change
    with pytest.raises(ValueError, match=message):
        write_submission(tmp_path / "scores.mat", given["sample_ids"], given["classes"], given["scores"])
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "scores.mat").mkdir()
    with pytest.raises(OSError, match=r"scores\.mat"):
        write_submission(tmp_path / "scores.mat", IDS, CLASSES, SCORES)
    assert [file.name for file in tmp_path.iterdir()] == ["scores.mat"]
