"""Progress bars for long work: what is done, the speed and the time left, on standard error."""

from __future__ import annotations

import sys
from typing import Any


def bar(total: int, what: str, unit: str, *, done: int = 0, hidden: bool = False) -> Any:
    """A tqdm bar; in a log file, where a line cannot be overwritten, it prints every 15 seconds only.

    Args:
        total: number of units in all.
        what: what is being done, in front of the bar.
        unit: what is counted, such as "images"; the speed is given in units a second.
        done: number of units that an earlier, interrupted call has done.
        hidden: show nothing.
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
        disable=hidden,
    )
