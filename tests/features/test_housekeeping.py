"""`attnpool cache`: what is there, what is damaged, and what is removed, which is never anything but features."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpool.features.housekeeping import Store, list_cache, prune_cache, size_of, verify_cache
from attnpool.features.store import FeatureStore
from tests.command_line import attnpool, refused

DAY = 24 * 60 * 60


def store(cache: Path, name: str, rows: int, days: float = 0.0) -> Path:
    """A store with some rows of 2 KiB, which was last used some days ago."""
    folder = cache / "features" / f"{name}-64-{'0' * 16}"
    digests = [f"{name}{i}" for i in range(rows)]
    with FeatureStore(folder).claim(digests) as writer:
        assert writer is not None
        features = np.random.default_rng(rows).standard_normal((rows, 4, 4, 64)).astype(np.float16)
        writer.write(features, digests, np.zeros((rows, 2, 3)), [0] * rows)
    for path in (*folder.iterdir(), folder):
        os.utime(path, (time.time() - days * DAY,) * 2)
    return folder


def names(stores: Sequence[Store]) -> list[str]:
    return [item.folder.name.split("-")[0] for item in stores]


def test_an_empty_cache(tmp_path: Path) -> None:
    refused(attnpool("cache", "list", "--cache", tmp_path / "none"), "is no cache", "give the folder of a cache")
    (tmp_path / "none" / "features").mkdir(parents=True)
    for found in (list_cache(cache=tmp_path / "none"), verify_cache(cache=tmp_path / "none")):
        assert (found.stores, found.problems, str(found)) == (
            [],
            [],
            f"{tmp_path / 'none' / 'features'}: 0 stores, 0.0 MB",
        )


def test_the_list_begins_with_the_last_used(tmp_path: Path) -> None:
    for name, rows, days in (("a", 3, 5), ("b", 4, 1), ("c", 2, 9)):
        store(tmp_path, name, rows, days)
    found = attnpool("cache", "list", "--cache", tmp_path, "--json").value()
    assert [(Path(item["folder"]).name[0], item["rows"]) for item in found["stores"]] == [("b", 4), ("a", 3), ("c", 2)]
    assert found["stores"][0]["bytes"] == sum(
        file.stat().st_size for file in Path(found["stores"][0]["folder"]).iterdir()
    )
    assert attnpool("cache", "list", "--cache", tmp_path).text().count("MB  ") == 3


def test_reading_is_use(tmp_path: Path) -> None:
    folder = store(tmp_path, "a", 2, days=8)
    FeatureStore(folder).read(["a0"])
    assert time.time() - list_cache(cache=tmp_path).stores[0].used < 60


@pytest.mark.parametrize(("suffix", "place", "count"), [("f16", 3000, 1), ("jsonl", -40, 1), ("jsonl", 5, 4)])
def test_damage_is_counted(tmp_path: Path, suffix: str, place: int, count: int) -> None:
    folder = store(tmp_path, "a", 4)
    (file,) = folder.glob(f"*.{suffix}")
    content = bytearray(file.read_bytes())
    content[place] ^= 2
    file.write_bytes(content)
    assert verify_cache(cache=tmp_path).stores[0].damaged == count
    words = f"{count} rows are damaged; they are computed again when they are needed"
    answer = attnpool("cache", "verify", "--cache", tmp_path)
    assert answer.code == 1
    assert answer.err.endswith(f"attnpool: {folder}: {words}\n")
    store(tmp_path, "b", 1)
    assert [item.damaged for item in verify_cache(cache=tmp_path).stores].count(0) == 1


def test_what_is_pruned(tmp_path: Path) -> None:
    for name, days in (("new", 1), ("old", 20), ("older", 50)):
        store(tmp_path, name, 10, days)
    size = list_cache(cache=tmp_path).stores[0].bytes
    would = prune_cache(cache=tmp_path, days=10, dry_run=True)
    assert names(would.removed) == ["old", "older"]
    assert "would remove 2 stores" in str(would)
    assert len(list_cache(cache=tmp_path).stores) == 3
    done = prune_cache(cache=tmp_path, max_size=str(2 * size + 100))
    assert names(done.removed) == ["older"]
    assert names(list_cache(cache=tmp_path).stores) == ["new", "old"] == names(done.stores)
    assert names(prune_cache(cache=tmp_path, days=10).removed) == ["old"]
    assert not prune_cache(cache=tmp_path, days=0.9, max_size="1GB", dry_run=True).stores


def test_what_is_not_of_the_cache_stays(tmp_path: Path) -> None:
    """A folder with anything else in it, a folder without features, and one in which another process writes."""
    (store(tmp_path, "mine", 1, 9) / "notes.txt").write_text("mine")
    (tmp_path / "features" / "photos").mkdir()
    for name in ("a.jpg", "records.jsonl", "numbers.f16"):
        (tmp_path / "features" / "photos" / name).write_bytes(b"mine")
    busy = store(tmp_path, "busy", 1, 9)
    with FeatureStore(busy).claim(["another"]):
        answer = attnpool("cache", "prune", "--max-size", 0, "--cache", tmp_path)
    assert answer.code == 1
    assert "is left, because it holds notes.txt, which is not of the cache" in answer.err
    assert "is left, because another process computes features in it" in answer.err
    assert {file.read_bytes() for file in (tmp_path / "features" / "photos").iterdir()} == {b"mine"}
    assert sorted(names(list_cache(cache=tmp_path).stores)) == ["busy", "mine"]


def test_malformed_options(tmp_path: Path) -> None:
    refused(attnpool("cache", "prune"), "prune needs a limit: give --max-size, such as 20GB, or days, such as 90")
    refused(attnpool("cache", "prune", "--days", "-1"), "days is -1.0; give 0 or more")
    refused(attnpool("cache", "prune", "--days", "nan"), "days is nan; give 0 or more")
    refused(attnpool("cache", "prune", "--max-size", "big"), "--max-size is 'big'; give a number with a unit")
    refused(attnpool("cache", "list", "--days", "3"), "list has no --days: leave it out")
    (tmp_path / "features").write_text("a file")
    refused(attnpool("cache", "list", "--cache", tmp_path), "is a file; give a folder of features")


@given(st.integers(0, 10**6), st.sampled_from([("", 1), ("kB", 1000), ("MiB", 2**20), (" GB", 10**9), ("t", 10**12)]))
def test_sizes(number: int, unit: tuple[str, int]) -> None:
    assert size_of(f"{number}{unit[0]}") == number * unit[1]
    assert size_of(f" {number}.5{unit[0]} ") == int((number + 0.5) * unit[1])


def test_a_store_whose_list_is_damaged_is_named(tmp_path: Path) -> None:
    folder = store(tmp_path, "a", 3)
    (file,) = folder.glob("*.jsonl")
    file.write_text("{bad", encoding="utf-8")
    assert verify_cache(cache=tmp_path).stores[0].damaged == 1
    (left,) = prune_cache(cache=tmp_path, days=0).left
    assert "is damaged, or not of the cache; look at it, and delete the folder yourself" in left
