"""Which frames of a clip are looked at: the segments of temporal segment networks.

Source: Wang et al., "Temporal Segment Networks", ECCV 2016.
"""

from __future__ import annotations

import numpy as np


def segment_positions(
    frames: int, segments: int, *, rng: np.random.Generator | None = None, length: int = 1
) -> list[int]:
    """The first frame of one snippet of `length` consecutive frames for each of `segments` equal parts of a clip.

    A snippet can start at `M = max(frames - length + 1, 1)` places. Part s of S holds the places from `s M / S` to
    `(s + 1) M / S`, and with `u = 1/2` in testing and u uniform in [0, 1) in training its snippet starts at

        floor((s + u) M / S)

    So in training every place is equally likely, also where S does not divide M. The testing formula is that of the
    TSN authors' PyTorch code. Clips with fewer places than segments show some of them several times; where that code
    would take the first frame S times, this takes all of them. Of a clip shorter than a snippet the last frame is
    repeated, see `segment_frames`.

    >>> segment_positions(90, 3)
    [15, 45, 75]
    >>> segment_positions(2, 3)
    [0, 1, 1]

    Args:
        frames: of the clip.
        segments: how many snippets.
        rng: random places, for training; `None` takes the middle of each part.
        length: frames of a snippet; optical flow of 5 steps needs 6.

    Returns:
        `segments` numbers in ascending order, from 0 to M - 1.

    Raises:
        ValueError: one of the numbers is below 1.
    """
    if min(frames, segments, length) < 1:
        raise ValueError(f"frames {frames}, segments {segments} and length {length} must all be at least 1")
    places = max(frames - length + 1, 1)
    if rng is None:
        return [(2 * s + 1) * places // (2 * segments) for s in range(segments)]
    starts = []
    for s, u in enumerate(rng.random(segments).tolist()):
        # Rounding must not take a number out of its part.
        first, last = s * places // segments, ((s + 1) * places - 1) // segments
        starts.append(min(max(int((s + u) * places / segments), first), last))
    return starts


def segment_frames(frames: int, segments: int, *, rng: np.random.Generator | None = None, length: int = 1) -> list[int]:
    """All frames of the snippets of `segment_positions`, one snippet after the other.

    Of a clip shorter than a snippet the last frame is repeated.

    >>> segment_frames(90, 2, length=3)
    [22, 23, 24, 66, 67, 68]

    Returns:
        `segments * length` numbers from 0 to `frames - 1`.
    """
    starts = segment_positions(frames, segments, rng=rng, length=length)
    return [min(start + step, frames - 1) for start in starts for step in range(length)]
