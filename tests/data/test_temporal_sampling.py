from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from attnpool.data.temporal_sampling import segment_frames, segment_positions

clip_strategy = (st.integers(1, 2000), st.integers(1, 40), st.integers(1, 12))


@given(*clip_strategy, st.none() | st.integers(0, 10**6))
def test_one_start_in_every_part(frames: int, segments: int, length: int, seed: int | None) -> None:
    rng = None if seed is None else np.random.default_rng(seed)
    starts = segment_positions(frames, segments, rng=rng, length=length)
    places = max(frames - length + 1, 1)
    assert len(starts) == segments
    assert starts == sorted(starts)
    assert all(type(start) is int for start in starts)
    for s, start in enumerate(starts):
        assert 0 <= start < places
        # The place [start, start + 1) and the part of the clip overlap.
        assert start < Fraction((s + 1) * places, segments)
        assert start + 1 > Fraction(s * places, segments)
        if rng is None:
            assert start == floor(Fraction(2 * s + 1, 2) * places / segments)


@given(*clip_strategy)
def test_testing_is_tsn_where_the_clip_is_long_enough(frames: int, segments: int, length: int) -> None:
    """TSN's PyTorch code: tick = (frames - length + 1) / segments, offsets int(tick / 2 + tick * s)."""
    if frames > segments + length - 1:
        tick = (frames - length + 1) / float(segments)
        theirs = [tick / 2.0 + tick * s for s in range(segments)]
        ours = segment_positions(frames, segments, length=length)
        # Up to the rounding of their floating-point numbers.
        assert all(abs(a - b) < 1 + 1e-9 and a <= b + 1e-9 for a, b in zip(ours, theirs, strict=True))


@given(*clip_strategy)
def test_testing_is_symmetric(frames: int, segments: int, length: int) -> None:
    starts = segment_positions(frames, segments, length=length)
    places = max(frames - length + 1, 1)
    backwards = [places - 1 - start for start in reversed(starts)]
    assert max(abs(a - b) for a, b in zip(starts, backwards, strict=True)) <= 1


@pytest.mark.parametrize(("frames", "segments", "length"), [(10, 3, 1), (90, 7, 1), (13, 5, 4), (4, 6, 1), (31, 3, 6)])
def test_training_draws_every_place_equally_often(frames: int, segments: int, length: int) -> None:
    places = frames - length + 1
    counts = np.zeros(places)
    for seed in range(3000):
        for start in segment_positions(frames, segments, rng=np.random.default_rng([7, seed]), length=length):
            counts[start] += 1
    # Draws of one clip lie in different parts, so the counts vary less than the test assumes: it is on the safe side.
    assert stats.chisquare(counts).pvalue > 1e-3


def test_training_follows_from_its_generator() -> None:
    draws = [segment_positions(500, 8, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@given(*clip_strategy, st.none() | st.integers(0, 10**6))
def test_snippets_are_consecutive(frames: int, segments: int, length: int, seed: int | None) -> None:
    def rng() -> np.random.Generator | None:
        return None if seed is None else np.random.default_rng(seed)

    found = np.array(segment_frames(frames, segments, rng=rng(), length=length)).reshape(segments, length)
    assert found[:, 0].tolist() == segment_positions(frames, segments, rng=rng(), length=length)
    assert found.max() < frames
    if frames >= length:
        assert (np.diff(found, axis=1) == 1).all()
    else:
        assert found.tolist() == [[*range(frames), *[frames - 1] * (length - frames)]] * segments


@pytest.mark.parametrize("numbers", [(0, 3, 1), (10, 0, 1), (10, 3, 0), (-1, 3, 1)])
def test_numbers_below_one(numbers: tuple[int, int, int]) -> None:
    frames, segments, length = numbers
    with pytest.raises(ValueError, match=f"frames {frames}, segments {segments} and length {length} must"):
        segment_positions(frames, segments, length=length)
