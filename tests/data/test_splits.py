"""Splits by names: the right number, the same for the same seed, and no image moves because another one came."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from attnpool.data.splits import choose

names = st.lists(st.text("abcdef/.", min_size=1), min_size=2, max_size=40, unique=True)


@given(names, st.integers(0, 9), st.floats(0, 1))
def test_a_part_is_neither_nothing_nor_everything(given_names: list[str], seed: int, fraction: float) -> None:
    chosen = choose(given_names, seed, fraction)
    assert set(chosen) < set(given_names)
    assert chosen == sorted(set(chosen))
    assert 1 <= len(chosen) <= len(given_names) - 1
    assert abs(len(chosen) - fraction * len(given_names)) <= 1
    assert choose(given_names[::-1], seed, fraction) == chosen


@given(names, st.integers(0, 9))
def test_another_image_moves_none_but_at_the_border(given_names: list[str], seed: int) -> None:
    before, after = (set(choose(some, seed, 0.3)) for some in (given_names, [*given_names, "new.jpg"]))
    assert len(before ^ (after - {"new.jpg"})) <= 1


def test_every_image_has_the_same_chance() -> None:
    counts = Counter(name for seed in range(400) for name in choose("abcdefgh", seed, 0.25))
    assert all(60 < counts[name] < 140 for name in "abcdefgh")  # 100 expected, 8.7 their deviation
