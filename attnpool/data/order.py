"""The batches of an epoch: which positions of a dataset stand together, and in which order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

# The first numbers of the seeds of generators, see `data.loader`.
_ORDER, _GROUPS, _BLOCKS = 1, 5, 7

WINDOW = 8
"""The number of blocks, such as shards, whose samples are mixed."""


def batches(
    n: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    process_index: int = 0,
    num_processes: int = 1,
    groups: Sequence[Any] | None = None,
    blocks: Sequence[int] | None = None,
) -> list[list[int]]:
    """The batches of positions 0..n-1 in an epoch, for one of `num_processes` processes.

    The batches depend only on (seed, epoch). Of `num_processes` batches that follow each other every process takes one,
    so that all have the same number of steps, and together see what one process sees that accumulates over as many
    batches. In the last step a process may have none (`[]`).

    With `groups`, one for each position, a batch has positions of one group alone, whose images have one shape. Each
    group is dealt out as evenly as possible, and the batches come in random order.

    With `blocks`, one for each position, which say what is stored together, `WINDOW` blocks at a time are mixed with
    each other, in random order of blocks, so that every block is needed in one part of the epoch alone.

    Raises:
        ValueError: the seed or the epoch is negative, the batch size is less than 1, or `process_index` is out of
            range.
    """
    if n < 0 or batch_size < 1 or seed < 0 or epoch < 0 or not 0 <= process_index < num_processes:
        raise ValueError(
            f"n {n}, seed {seed} and epoch {epoch} must not be negative, batch_size {batch_size} at least 1, "
            f"and process_index {process_index} one of {num_processes} from 0"
        )
    order = np.random.default_rng([_ORDER, seed, epoch]).permutation(n) if shuffle else np.arange(n)
    windows = [order] if blocks is None else _windows(order, np.asarray(blocks), seed, epoch, shuffle)
    if groups is None:
        order = np.concatenate([order[:0], *windows])
        parts = [order[start : start + batch_size] for start in range(0, n, batch_size)]
    else:
        parts, rng = [], np.random.default_rng([_GROUPS, seed, epoch])
        for window in windows:
            of_group: dict[Any, list[int]] = {}
            for position in window.tolist():
                of_group.setdefault(groups[position], []).append(position)
            each = [np.array(of_group[group]) for group in sorted(of_group)]
            dealt = [part for found in each for part in np.array_split(found, math.ceil(len(found) / batch_size))]
            parts += [dealt[i] for i in rng.permutation(len(dealt))] if shuffle else dealt
    missing = -len(parts) % num_processes
    return [part.tolist() for part in parts[process_index::num_processes]] + (
        [[]] if process_index >= num_processes - missing else []
    )


def _windows(order: np.ndarray, blocks: np.ndarray, seed: int, epoch: int, shuffle: bool) -> list[np.ndarray]:
    """The positions in `order`, divided into those of `WINDOW` blocks each."""
    each = np.unique(blocks)
    if shuffle:
        each = np.random.default_rng([_BLOCKS, seed, epoch]).permutation(each)
    place = {block: number // WINDOW for number, block in enumerate(each.tolist())}
    window = np.array([place[block] for block in blocks[order].tolist()])
    return [order[window == number] for number in range(math.ceil(len(each) / WINDOW))]
