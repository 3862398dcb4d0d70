"""Rows of features on disk: found by their image, written side by side, and nothing that was damaged counts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from attnpool.features.store import FeatureStore, check_space


def features_of(*numbers: int) -> np.ndarray:
    return np.stack([np.full((2, 3), number, np.float16) for number in numbers])


def names_of(*numbers: int) -> list[str]:
    return [f"image {number}" for number in numbers]


def add(store: FeatureStore, *numbers: int) -> None:
    with store.claim(names_of(*numbers)) as rows:
        assert rows is not None
        assert rows.digests == names_of(*numbers)
        matrices = np.stack([number * np.ones((2, 3)) for number in numbers])
        rows.write(features_of(*numbers), names_of(*numbers), matrices, [1] * len(numbers))


def held(store: FeatureStore, among: range = range(10)) -> list[int]:
    """The numbers that are in a store, each of them as it was written."""
    arrays, rows = store.read(names_of(*among))
    for number in among:
        if f"image {number}" in rows:
            array, row = rows[f"image {number}"]
            assert (arrays[array][row.number] == number).all()
            assert arrays[array].dtype == np.float16
            assert row.matrix == [[number] * 3] * 2
            assert row.frames == 1
    return [number for number in among if f"image {number}" in rows]


@contextlib.contextmanager
def working(store: FeatureStore, *numbers: int) -> Iterator[None]:
    """What another process leaves while it works."""
    with FileLock(store.folder / "other.lock"):
        (store.folder / "other.todo").write_text(json.dumps(names_of(*numbers)))
        yield


def test_rows_are_found_by_their_image(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "made" / "store")
    assert held(store) == []
    add(store, 3, 1)
    add(store, 7)
    assert held(store) == held(FeatureStore(tmp_path / "made" / "store")) == [1, 3, 7]
    assert store.read(["image 1"])[1].keys() == {"image 1"}
    assert sorted(path.suffix for path in store.folder.iterdir() if path.suffix) == [".f16", ".f16", ".jsonl", ".jsonl"]


def test_nobody_computes_what_another_computes_and_nobody_waits_to_read(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    add(store, 1)
    with working(store, 2, 3):
        assert held(store) == [1]
        with store.claim(names_of(2, 3, 4)) as rows:
            assert rows is not None
            assert rows.digests == names_of(4)
            with FeatureStore(tmp_path).claim(names_of(3, 4)) as others:
                assert others is None
    with store.claim(names_of(2, 4)) as rows:  # the others have died, and have written nothing
        assert rows is not None
        assert rows.digests == names_of(2, 4)
    assert not list(tmp_path.glob("*.todo"))
    assert held(store) == [1]


def test_an_error_ends_a_claim(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)

    def fail() -> None:
        with store.claim(names_of(1, 2)) as rows:
            assert rows is not None
            rows.write(features_of(1), names_of(1), np.ones((1, 2, 3)), [1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert held(store) == [1]
    with store.claim(names_of(2)) as rows:
        assert rows is not None


@pytest.mark.parametrize("torn", ["line", "row", "both", "rows and no lines", "lines and no rows"])
def test_what_was_half_written_is_not_there(tmp_path: Path, torn: str) -> None:
    store = FeatureStore(tmp_path)
    add(store, 3, 1)
    (data,), (lines,) = tmp_path.glob("*.f16"), tmp_path.glob("*.jsonl")
    if torn in ("row", "both"):
        data.write_bytes(data.read_bytes()[:-5])
    if torn in ("line", "both"):
        lines.write_bytes(lines.read_bytes()[:-10])
    if torn == "rows and no lines":
        lines.unlink()
    if torn == "lines and no rows":
        data.unlink()
    assert held(store) == ([3] if torn in ("line", "row", "both") else [])
    add(store, 1, 5)
    assert set(held(store)) >= {1, 5}


@settings(max_examples=300, deadline=None)
@given(
    which=st.sampled_from(["f16", "jsonl"]),
    at=st.integers(0, 400),
    inserted=st.binary(max_size=6) | st.sampled_from([b"\0" * 40, b"\n", b"[" * 5000]),
    over=st.booleans(),
)
def test_damage_is_noticed(
    which: str, at: int, inserted: bytes, over: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is written into a store, a row is what it was, or it is not there."""
    store = FeatureStore(tmp_path_factory.mktemp("store"))
    add(store, 3, 1, 2)
    (file,) = store.folder.glob(f"*.{which}")
    content = file.read_bytes()
    file.write_bytes(content[:at] + inserted + content[at + (len(inserted) if over else 0) :])
    missing = {1, 2, 3} - set(held(store))
    if missing:
        add(store, *missing)
    assert held(store) == [1, 2, 3]


def test_a_full_disk_is_known_beforehand(tmp_path: Path) -> None:
    check_space(tmp_path, 1)
    with pytest.raises(OSError, match=r"the features need 1099511627776 MiB and only \d+ MiB are free"):
        check_space(tmp_path, 2**60)
