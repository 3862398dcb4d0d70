"""Progress bars on standard error for long work, with the speed and the time left."""

from __future__ import annotations

import os
import sys
from typing import Any


def process_count() -> int:
    """The number of processes of the job that `torchrun` has started; 1 for a process that is alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that shows and prints: it is alone, or the first of those of `torchrun`."""
    return os.environ.get("RANK", "0") == "0"


def bar(total: int, what: str, unit: str, *, done: int = 0, hidden: bool = False) -> Any:
    """A tqdm progress bar; in a log file, where lines cannot be overwritten, it prints only every 15 seconds.

    Args:
        total: total number of units.
        what: description of the work, shown in front of the bar.
        unit: what is counted, such as "images"; the speed is given in units per second.
        done: number of units that an earlier, interrupted call has done.
        hidden: whether to show nothing, as all processes of a job do but the first.
    """
    from tqdm import tqdm

    return tqdm(
        total=total,
        initial=done,
        desc=what,
        unit=f" {unit}",
        file=sys.stderr,
        dynamic_ncols=True,
        mininterval=0.2 if sys.stderr.isatty() else 15,
        smoothing=0.1,
        disable=hidden or not is_first(),
    )
