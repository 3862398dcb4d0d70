"""Which rates are tried, which is best, and the rows of the study's table."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpool.experiments.pooling_study import ROWS
from attnpool.experiments.pooling_study.rows import STEPS_BEYOND, in_order, neighbour, next_rate
from attnpool.pooling import POOLINGS
from attnpool.training.config import Options


@given(best=st.sampled_from([1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0]))
def test_the_best_rate_is_found_wherever_it_is_near(best: float) -> None:
    """Of scores that fall off from one rate to both sides, and at most two rates beyond each end are tried."""
    grid, tried = (1e-3, 3e-3, 1e-2), dict[float, float]()
    while (rate := next_rate(grid, tried)) is not None:
        assert rate not in tried
        tried[rate] = -abs(np.log(rate / best))
    assert sum(rate < grid[0] for rate in tried) <= STEPS_BEYOND
    assert sum(rate > grid[-1] for rate in tried) <= STEPS_BEYOND
    assert max(tried, key=lambda rate: tried[rate]) == min(max(best, 1e-4), 0.1)


def test_rows_stand_in_the_order_of_the_table() -> None:
    asked = [("pose", 0.8), ("rank1", 0.0), ("gone", 0.0), ("average", 0.8), ("pose", 0.0), ("average", 0.0)]
    entries = {f"{row}, {dropout:g}": {"row": row, "dropout": dropout} for row, dropout in asked}
    assert list(in_order(entries)) == ["average, 0", "average, 0.8", "rank1, 0", "pose, 0", "pose, 0.8", "gone, 0"]


def test_neighbours() -> None:
    rates = [1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0]
    for low, high in itertools.pairwise(rates):
        assert (neighbour(low, 1), neighbour(high, -1)) == (high, low)


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_recipes(name: str) -> None:
    row = ROWS[name]
    options = Options.of(row.options | {"lr": row.rates[0], "dropout": 0.8}, name)
    assert options.model["pooling"] in POOLINGS
    assert [neighbour(rate, 1) for rate in row.rates[:-1]] == list(row.rates[1:])
