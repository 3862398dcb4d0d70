"""Shards at an address, served by a real HTTP server: fetched once, within a limit, again after a broken connection."""

from __future__ import annotations

import http.server
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import attnpool, failed, refused
from PIL import Image

import attnpool as ap
from attnpool.data import Dataset, batches, load, read_splits
from attnpool.data.order import WINDOW
from attnpool.data.preprocessing import Preprocessing
from attnpool.data.shards import storage
from attnpool.data.shards.write import shard
from attnpool.features.extraction import extract

OPTIONS = Preprocessing(image_size=32)


@dataclass
class Server:
    """A server of a folder: what was asked for, and how many of the next answers with shards are cut short."""

    folder: Path
    asked: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    address: str = ""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "served").mkdir()
    state = Server(tmp_path / "served")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            state.asked[name] += 1
            if state.cut and name.endswith(".tar"):
                state.cut -= 1
                content = (state.folder / name).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
                return
            super().do_GET()

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(state.folder)))
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    state.address = f"http://127.0.0.1:{running.server_port}"
    yield state
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNPOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(storage, "WAIT", 0.01)
    return tmp_path / "cache" / "shards"


def epoch(dataset: Dataset, number: int, *, workers: int = 0) -> list[Any]:
    order = batches(len(dataset), 5, seed=3, epoch=number, blocks=dataset.blocks)
    return list(load(dataset, OPTIONS, order, seed=3, epoch=number, train=True, workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_batches_from_afar(world: Path, server: Server, workers: int) -> None:
    shard(f"folder:{world}", server.folder, per_shard=3)
    near, far = (read_splits(f"wds:{place}")["train"] for place in (server.folder, server.address))
    assert near.samples == far.samples
    assert near.blocks == far.blocks == [i // 3 for i in range(28)]
    for number in (0, 1):
        for one, other in zip(epoch(near, number), epoch(far, number, workers=workers), strict=True):
            assert one.pixels.equal(other.pixels)
            assert one.indices.equal(other.indices)
            assert one.people == other.people
    assert {name: count for name, count in server.asked.items() if name.endswith(".tar")} == {
        f"train-{i:06d}.tar": 1 for i in range(10)
    }


def test_every_shard_is_fetched_once_an_epoch(
    world: Path, server: Server, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if only those fit that are mixed with each other; never are there more than the limit."""
    shard(f"folder:{world}", server.folder, per_shard=1)
    largest = max(file.stat().st_size for file in server.folder.glob("train-*.tar"))
    limit = (WINDOW + 1) * largest
    monkeypatch.setenv("ATTNPOOL_SHARD_CACHE", str(limit / 1e9))
    dataset = read_splits(f"wds:{server.address}")["train"]
    seen = []
    for number in range(3):
        server.asked.clear()
        order = batches(28, 2, seed=0, epoch=number, blocks=dataset.blocks)
        for batch in load(dataset, OPTIONS, order, seed=0, epoch=number, train=True):
            seen += batch.indices.tolist()
            assert sum(file.stat().st_size for file in own_cache.glob("*.tar")) <= limit
        assert len(server.asked) >= 28 - WINDOW - 1
        assert max(server.asked.values()) == 1
    assert Counter(seen) == dict.fromkeys(range(28), 3)


def test_features_are_computed_shard_by_shard(world: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one pass, whatever the shapes of the images; and what is known of the same images elsewhere is used."""
    rng = np.random.default_rng(0)
    folder = server.folder.parent / "photos"
    for i in range(24):
        (folder / f"c{i % 2}").mkdir(parents=True, exist_ok=True)
        shape = ((40, 80, 3), (80, 40, 3), (60, 60, 3))[i % 3]
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"c{i % 2}" / f"{i:02d}.png")
    shard(f"folder:{folder}", server.folder, per_shard=1)
    largest = max(file.stat().st_size for file in server.folder.glob("*.tar"))
    monkeypatch.setenv("ATTNPOOL_SHARD_CACHE", str((WINDOW + 1) * largest / 1e9))
    model = ap.Recognizer(
        "lite0",
        classes=["c0", "c1"],
        pooling="average",
        preprocessing={"image_size": 64, "short_side": None, "max_width": None, "view": "whole"},
    )
    far = extract(model, read_splits(f"wds:{server.address}")["train"], progress=False)
    assert len(set(far.sizes)) > 1
    assert {count for name, count in server.asked.items() if name.endswith(".tar")} == {1}
    server.asked.clear()
    near = extract(model, read_splits(f"folder:{folder}")["train"], progress=False)
    assert not server.asked
    places = {sample.path: i for i, sample in enumerate(far.dataset)}
    for i, sample in enumerate(near.dataset):
        assert near.batch([i]).equal(far.batch([places[sample.path]]))


def test_a_broken_connection(world: Path, server: Server) -> None:
    """Twice it is tried again; then the command ends with one line, and is not left with half a shard."""
    shard(f"folder:{world}", server.folder)
    server.cut = 2
    dataset = read_splits(f"wds:{server.address}")["train"]
    assert sum(len(batch.indices) for batch in epoch(dataset, 0)) == 28
    server.cut = 100
    failed(attnpool("check", f"wds:{server.address}"), 2, "val-000000.tar: cannot be fetched")
    server.cut = 0
    attnpool("check", f"wds:{server.address}").text()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_is_gone_ends_the_training(world: Path, server: Server, tmp_path: Path, workers: int) -> None:
    """Its images are not passed over; when it is back, the same command goes on."""
    shard(f"folder:{world}", server.folder, per_shard=7)
    (server.folder / "train-000002.tar").rename(tmp_path / "kept.tar")
    command = (
        *("train", f"wds:{server.address}", "--out", tmp_path / "run", "--image-size", 32, "--epochs", 1),
        *("--backbone", "test_resnet", "--weights", "random", "--no-freeze-backbone", "--workers", workers),
    )
    failed(attnpool(*command), 2, "train-000002.tar: cannot be fetched")
    (tmp_path / "kept.tar").rename(server.folder / "train-000002.tar")
    outcome = attnpool(*command)
    assert outcome.code == 0, outcome


def test_mistakes(server: Server, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(attnpool("check", f"wds:{server.address}"), "there are no shards")
    refused(attnpool("check", f"wds:{server.address}/a.tar"), "a.tar: cannot be looked at")
    refused(attnpool("check", "wds:http://127.0.0.1:9"), "http://127.0.0.1:9/index.jsonl: cannot be read")
    refused(attnpool("check", "wds:nosuch://a/b"), "nosuch://a/b", "Protocol not known")
    shard(f"folder:{world}", server.folder)
    monkeypatch.setenv("ATTNPOOL_SHARD_CACHE", "much")
    refused(attnpool("check", f"wds:{server.address}"), "ATTNPOOL_SHARD_CACHE is 'much'; give a number of gigabytes")


def test_shards_of_others_are_scanned_once(world: Path, server: Server, own_cache: Path) -> None:
    """Without an index; when they change, they are scanned anew."""
    shard(f"folder:{world}", server.folder)
    for name in ("index.jsonl", ".attnpool.json"):
        (server.folder / name).unlink()
    first = read_splits(f"wds:{server.address}/{{train,val}}-000000.tar")
    for file in own_cache.glob("*.tar"):
        file.unlink()
    server.asked.clear()
    assert read_splits(f"wds:{server.address}/{{train,val}}-000000.tar")["train"].samples == first["train"].samples
    assert not [name for name in server.asked if name.endswith(".tar")]
    for kept in own_cache.glob("*.json"):
        kept.write_bytes(kept.read_bytes().replace(b"drinking from a mug", b"drinking from a jug"))
    assert read_splits(f"wds:{server.address}/{{train,val}}-000000.tar")["train"].classes == first["train"].classes


def test_what_was_not_used_for_long_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    for name, age in (
        ("a.tar", 30),
        ("b.tar", 10),
        ("c.tar", 20),
        ("d.tar.partial", 5),
        ("e.tar.partial", 10_000),
        ("f.json", 90),
    ):
        (tmp_path / name).write_bytes(bytes(1000))
        os.utime(tmp_path / name, (now - age, now - age))
    monkeypatch.setenv("ATTNPOOL_SHARD_CACHE", str(3000 / 1e9))
    storage.make_room(tmp_path, 1000)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["b.tar", "c.tar", "d.tar.partial", "f.json"]


def test_a_dataset_in_shards_has_no_files(world: Path, tmp_path: Path) -> None:
    shard(f"folder:{world}", tmp_path)
    dataset = read_splits(f"wds:{tmp_path}")["train"]
    with pytest.raises(ValueError, match="is no file of its own; use opened"):
        dataset.file(dataset.samples[0])
    with dataset.opened(dataset.samples[0]) as file:
        assert file.suffix == ".jpg"
    assert not file.exists()
    assert torch.is_tensor(next(iter(load(dataset, OPTIONS, [[0]], seed=0, epoch=0, train=False))).pixels)
