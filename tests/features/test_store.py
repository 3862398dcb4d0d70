"""Rows of features on disk: found by their image, and nothing that was half written counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attnpool.features.store import FeatureStore, check_space


def features_of(*numbers: int) -> np.ndarray:
    return np.stack([np.full((2, 3), number, np.float16) for number in numbers])


def add(store: FeatureStore, *numbers: int) -> None:
    with store.lock(), store.appending(len(numbers)) as rows:
        matrices = np.stack([number * np.ones((2, 3)) for number in numbers])
        rows.write(features_of(*numbers), [f"image {number}" for number in numbers], matrices, [1] * len(numbers))


def assert_holds(store: FeatureStore, *numbers: int) -> None:
    rows, array = store.rows(), store.array()
    assert list(rows) == [f"image {number}" for number in numbers]
    for number in numbers:
        row = rows[f"image {number}"]
        assert (array[row.number] == number).all()
        assert row.matrix == [[number] * 3] * 2
        assert row.frames == 1


def test_rows_are_found_by_their_image(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store")
    assert store.rows() == {}
    add(store, 3, 1)
    add(store, 7)
    assert_holds(store, 3, 1, 7)
    assert_holds(FeatureStore(tmp_path / "store"), 3, 1, 7)
    assert store.array().dtype == np.float16


@pytest.mark.parametrize("torn", ["line", "row", "both"])
def test_what_was_half_written_is_dropped(tmp_path: Path, torn: str) -> None:
    store = FeatureStore(tmp_path)
    add(store, 3, 1)
    if torn in ("row", "both"):
        with store.data.open("ab") as file:
            file.write(features_of(9).tobytes()[:7] if torn == "row" else features_of(9).tobytes())
    if torn in ("line", "both"):
        with store.lines.open("a") as file:
            file.write('{"digest": "image 9", "mat')
    add(store, 5)
    assert_holds(store, 3, 1, 5)


def test_a_full_disk_is_known_beforehand(tmp_path: Path) -> None:
    check_space(tmp_path, 1)
    with pytest.raises(OSError, match=r"the features need 1099511627776 MiB and only \d+ MiB are free"):
        check_space(tmp_path, 2**60)
