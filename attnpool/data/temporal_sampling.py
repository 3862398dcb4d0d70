"""Chooses frames of a clip by the segments of temporal segment networks (TSN).

Source: Wang et al., "Temporal Segment Networks", ECCV 2016.
"""

from __future__ import annotations

import numpy as np


def segment_positions(
    frames: int, segments: int, *, rng: np.random.Generator | None = None, length: int = 1
) -> list[int]:
    """The first frame of one snippet of `length` consecutive frames for each of `segments` equal parts of a clip.

    A snippet can start at `M = max(frames - length + 1, 1)` places. Part s of S holds the places from `s M / S` to
    `(s + 1) M / S`. With `u = 1/2` in testing and u uniform in [0, 1) in training, its snippet starts at

        floor((s + u) M / S)

    So in training every place is equally likely, also where S does not divide M. The formula for testing is that of the
    TSN authors' PyTorch code. In clips with fewer places than segments some places are used several times; that code
    would use the first frame S times, but here all frames are used. The last frame of a clip that is shorter than a
    snippet is repeated, see `segment_frames`.

    >>> segment_positions(90, 3)
    [15, 45, 75]
    >>> segment_positions(2, 3)
    [0, 1, 1]

    Args:
        frames: number of frames of the clip.
        segments: number S of snippets.
        rng: random generator of the places, for training; `None` takes the middle of each part.
        length: number of frames per snippet; a stack of 5 flow fields needs 6.

    Returns:
        `segments` numbers in ascending order, from 0 to M - 1.

    Raises:
        ValueError: one of the numbers is less than 1.
    """
    if min(frames, segments, length) < 1:
        raise ValueError(f"frames {frames}, segments {segments} and length {length} must all be at least 1")
    places = max(frames - length + 1, 1)
    if rng is None:
        return [(2 * s + 1) * places // (2 * segments) for s in range(segments)]
    starts = []
    for s, u in enumerate(rng.random(segments).tolist()):
        # Rounding must not move a snippet out of its part.
        first, last = s * places // segments, ((s + 1) * places - 1) // segments
        starts.append(min(max(int((s + u) * places / segments), first), last))
    return starts


def segment_frames(frames: int, segments: int, *, rng: np.random.Generator | None = None, length: int = 1) -> list[int]:
    """All frames of the snippets of `segment_positions`, one snippet after the other.

    The last frame of a clip that is shorter than a snippet is repeated.

    >>> segment_frames(90, 2, length=3)
    [22, 23, 24, 66, 67, 68]

    Returns:
        `segments * length` numbers from 0 to `frames - 1`.
    """
    starts = segment_positions(frames, segments, rng=rng, length=length)
    return [min(start + step, frames - 1) for start in starts for step in range(length)]
