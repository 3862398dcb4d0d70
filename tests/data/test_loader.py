from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from attnpool.data import (
    Dataset,
    Person,
    PixelBatch,
    Preprocessing,
    Sample,
    batches,
    eval_view,
    load,
    read_image,
    train_view,
)
from attnpool.data.loader import _VIEW, _Views
from attnpool.data.order import WINDOW
from attnpool.keypoints import MPII_FLIP


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Nine noisy images of different sizes, with a person, evidence and an object each; number 4 is truncated."""
    root = tmp_path_factory.mktemp("images")
    samples = []
    for i in range(9):
        noise = np.random.default_rng([i]).integers(0, 256, (50 + 7 * i, 90 - 5 * i, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{i}.png")
        joints = tuple((float(j + 20), float(j + 15)) if j != 2 else None for j in range(16))
        people = (Person(joints, (1.0, 2.0, 30.0, 40.0)), Person((), (0.0, 0.0, 9.0, 9.0)))
        samples.append(Sample(f"{i}.png", (i % 3,), people, ((10.0, 10.0, 30.0, 30.0),), ((20.0, 20.0, 25.0, 30.0),)))
    (root / "4.png").write_bytes((root / "4.png").read_bytes()[:2000])
    return Dataset("folder:images", root, ("a", "b", "c"), tuple(samples))


OPTIONS = Preprocessing(image_size=32, short_side=40, color_jitter=0.3)


def run(dataset: Dataset, *, seed: int = 0, epoch: int = 0, workers: int = 0, batch_size: int = 4) -> list[PixelBatch]:
    order = batches(len(dataset), batch_size, seed=seed, epoch=epoch)
    return list(load(dataset, OPTIONS, order, seed=seed, epoch=epoch, train=True, workers=workers))


def by_index(found: list[PixelBatch]) -> dict[int, torch.Tensor]:
    return {int(i): pixels for batch in found for i, pixels in zip(batch.indices, batch.pixels, strict=True)}


def test_a_batch_holds_what_the_views_show(dataset: Dataset) -> None:
    found = run(dataset, seed=3, epoch=2)
    assert [len(batch.indices) + len(batch.failed) for batch in found] == [4, 4, 1]
    for batch in found:
        assert batch.pixels.shape == (len(batch.indices), 3, 32, 32)
        assert (batch.pixels.dtype, batch.targets.dtype, batch.indices.dtype) == (
            torch.uint8,
            torch.float32,
            torch.long,
        )
        for row, i in enumerate(batch.indices.tolist()):
            sample = dataset.samples[i]
            view = train_view(read_image(dataset.file(sample)), OPTIONS, np.random.default_rng([_VIEW, 3, 2, i]))
            assert torch.equal(batch.pixels[row], view.pixels)
            assert batch.targets[row].tolist() == [float(k == i % 3) for k in range(3)]
            assert batch.people[row] == [view.points(sample.people[0].joints)]
            assert batch.people[row][0][MPII_FLIP[2] if view.flipped else 2] is None
            assert batch.evidence[row] == view.boxes(sample.evidence)
            assert batch.objects[row] == view.boxes(sample.objects)


def test_evaluation_takes_the_middle(dataset: Dataset) -> None:
    (batch,) = load(dataset, OPTIONS, [[2, 0]], seed=0, epoch=0, train=False)
    assert batch.indices.tolist() == [2, 0]
    for row, i in enumerate([2, 0]):
        assert torch.equal(batch.pixels[row], eval_view(read_image(dataset.root / f"{i}.png"), OPTIONS).pixels)


def test_an_unreadable_file_is_recorded_and_not_replaced(dataset: Dataset) -> None:
    found = run(dataset)
    assert [failed[0] for batch in found for failed in batch.failed] == ["4.png"]
    assert all("truncated" in reason for batch in found for _, reason in batch.failed)
    assert sorted(by_index(found)) == [0, 1, 2, 3, 5, 6, 7, 8]


def test_a_batch_may_be_empty(dataset: Dataset) -> None:
    bad, none = load(dataset, OPTIONS, [[4], []], seed=0, epoch=0, train=True)
    for batch in (bad, none):
        assert batch.pixels.shape == (0, 3, 32, 32)
        assert batch.targets.shape == (0, 3)
        assert batch.indices.shape == (0,)
        assert batch.indices.dtype == torch.long
        assert (batch.people, batch.evidence, batch.objects) == ([], [], [])
    assert len(bad.failed) == 1
    assert none.failed == []
    assert list(load(dataset, OPTIONS, [], seed=0, epoch=0, train=True)) == []


def test_several_labels_or_none(dataset: Dataset) -> None:
    samples = (replace(dataset.samples[0], labels=(0, 2)), replace(dataset.samples[1], labels=()))
    multi = replace(dataset, samples=samples, task="multi")
    (batch,) = load(multi, OPTIONS, [[0, 1]], seed=0, epoch=0, train=False)
    assert batch.targets.tolist() == [[1, 0, 1], [0, 0, 0]]


def test_views_follow_from_seed_epoch_and_position_whatever_the_batches(dataset: Dataset) -> None:
    first = by_index(run(dataset, seed=1, epoch=5))
    for other in (by_index(run(dataset, seed=1, epoch=5, batch_size=1)), by_index(run(dataset, seed=1, epoch=5))):
        assert all(torch.equal(first[i], other[i]) for i in first)
    for other in (by_index(run(dataset, seed=1, epoch=6)), by_index(run(dataset, seed=2, epoch=5))):
        assert not any(torch.equal(first[i], other[i]) for i in first)


def test_workers_change_nothing_and_end(dataset: Dataset) -> None:
    alone, helped = run(dataset, seed=7), run(dataset, seed=7, workers=2)
    assert len(alone) == len(helped)
    for a, b in zip(alone, helped, strict=True):
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.targets, b.targets)
        assert torch.equal(a.indices, b.indices)
        assert (a.people, a.evidence, a.objects, a.failed) == (b.people, b.evidence, b.objects, b.failed)
    stream = load(dataset, OPTIONS, batches(9, 1, seed=0, epoch=0), seed=0, epoch=0, train=True, workers=2)
    next(stream)
    assert len(multiprocessing.active_children()) == 2
    stream.close()  # type: ignore[attr-defined]
    start = time.monotonic()
    while multiprocessing.active_children() and time.monotonic() - start < 10:
        time.sleep(0.01)
    assert multiprocessing.active_children() == []


def test_no_global_generator_is_read(dataset: Dataset) -> None:
    before = torch.get_rng_state()
    run(dataset)
    assert torch.equal(before, torch.get_rng_state())


def test_what_a_spawned_worker_is_sent_is_small(dataset: Dataset) -> None:
    views = _Views(dataset, OPTIONS, 0, 0, True)
    assert len(pickle.dumps(views)) < 10_000
    item = pickle.loads(pickle.dumps(views))[0]
    assert np.array_equal(item.pixels, views[0].pixels)


@given(
    n=st.integers(0, 60),
    batch_size=st.integers(1, 9),
    processes=st.integers(1, 4),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 5),
)
def test_every_epoch_visits_everything_once(n: int, batch_size: int, processes: int, seed: int, epoch: int) -> None:
    dealt = [
        batches(n, batch_size, seed=seed, epoch=epoch, process_index=index, num_processes=processes)
        for index in range(processes)
    ]
    assert len({len(steps) for steps in dealt}) == 1
    assert sorted(itertools.chain(*itertools.chain(*dealt))) == list(range(n))
    assert all(len(step) <= batch_size for steps in dealt for step in steps)
    # In turn the processes take the batches of a single one.
    whole = batches(n, batch_size, seed=seed, epoch=epoch)
    together = [batch for step in zip(*dealt, strict=True) for batch in step]
    assert together[: len(whole)] == whole
    assert together[len(whole) :] == [[]] * (-len(whole) % processes)


def test_the_order_follows_from_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        return batches(100, 8, seed=seed, epoch=epoch)

    assert order(0, 0) == order(0, 0)
    assert len({str(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert batches(5, 2, seed=0, epoch=3, shuffle=False) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    "wrong", [{"seed": -1}, {"epoch": -1}, {"batch_size": 0}, {"process_index": 2, "num_processes": 2}, {"n": -1}]
)
def test_wrong_numbers(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        batches(**{"n": 3, "batch_size": 1, "seed": 0, "epoch": 0, **wrong})  # type: ignore[arg-type]


def test_workers_leave_the_end_to_the_main_process(dataset: Dataset) -> None:
    """A signal to the whole group must not take the workers away while the main process finishes and saves."""
    stream = load(dataset, OPTIONS, batches(9, 1, seed=0, epoch=0), seed=0, epoch=0, train=True, workers=1)
    seen = [next(stream)]
    for worker in multiprocessing.active_children():
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGINT)
    seen += list(stream)
    assert len(seen) == 9


def test_wrong_seed_is_said_at_once(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        load(dataset, OPTIONS, [[0]], seed=-1, epoch=0, train=True)


@given(
    groups=st.lists(st.integers(0, 4), min_size=1, max_size=80),
    size=st.integers(1, 9),
    processes=st.integers(1, 3),
    shuffle=st.booleans(),
)
def test_batches_of_one_group(groups: list[int], size: int, processes: int, shuffle: bool) -> None:
    """Every position comes once; the batches of a group differ by at most one; processes have as many steps."""
    parts = [
        batches(
            len(groups),
            size,
            seed=1,
            epoch=2,
            shuffle=shuffle,
            process_index=process,
            num_processes=processes,
            groups=groups,
        )
        for process in range(processes)
    ]
    assert len({len(part) for part in parts}) == 1
    steps = [batch for part in parts for batch in part if batch]
    assert sorted(i for step in steps for i in step) == list(range(len(groups)))
    of_group: dict[int, list[int]] = {}
    for step in steps:
        (group,) = {groups[i] for i in step}
        of_group.setdefault(group, []).append(len(step))
    for lengths in of_group.values():
        assert max(lengths) - min(lengths) <= 1
        assert max(lengths) <= size * processes


@given(
    blocks=st.lists(st.integers(0, 30), min_size=1, max_size=120),
    size=st.integers(1, 9),
    grouped=st.booleans(),
    shuffle=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_blocks_are_needed_in_one_part_of_an_epoch(
    blocks: list[int], size: int, grouped: bool, shuffle: bool, epoch: int
) -> None:
    """At any time only those of one window, or of two that follow each other, are needed."""
    groups = [i % 3 for i in range(len(blocks))] if grouped else None
    found = batches(len(blocks), size, seed=1, epoch=epoch, shuffle=shuffle, groups=groups, blocks=blocks)
    order = list(itertools.chain(*found))
    assert sorted(order) == list(range(len(blocks)))
    assert all(len(batch) <= size for batch in found)
    if not grouped:
        assert all(len(batch) == size for batch in found[:-1])
    first, last = (
        {blocks[i]: place for place, i in each} for each in (reversed([*enumerate(order)]), enumerate(order))
    )
    for place in range(len(order)):
        assert sum(first[block] <= place <= last[block] for block in first) <= WINDOW
    if not shuffle:
        windows = [sorted(set(blocks)).index(blocks[i]) // WINDOW for i in order]
        assert windows == sorted(windows)


def test_blocks_come_in_another_order_in_every_epoch() -> None:
    blocks = [i // 10 for i in range(400)]
    firsts = {tuple(blocks[i] for i in batches(400, 8, seed=0, epoch=e, blocks=blocks)[0]) for e in range(5)}
    assert len(firsts) == 5
    assert batches(400, 8, seed=0, epoch=1, blocks=blocks) == batches(400, 8, seed=0, epoch=1, blocks=blocks)
    assert all(len({blocks[i] for i in batch}) > 2 for batch in batches(400, 8, seed=0, epoch=0, blocks=blocks))
