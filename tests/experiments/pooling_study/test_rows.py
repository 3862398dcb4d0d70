"""The rows of the study's table."""

from __future__ import annotations

import pytest

from attnpool.experiments.pooling_study import ROWS
from attnpool.experiments.pooling_study.rows import choose_rows, in_order
from attnpool.pooling import POOLINGS
from attnpool.training.auto import TRIED, check
from attnpool.training.config import AUTO, Options


def test_rows_stand_in_the_order_of_the_table() -> None:
    assert list(in_order({name: {} for name in ("pose", "gone", "rank1", "average")})) == [
        "average", "rank1", "pose", "gone",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_recipes(name: str) -> None:
    options = Options.of(ROWS[name].options, name)
    if name == AUTO:
        check(options)
    else:
        assert options.model["pooling"] in POOLINGS


def test_what_auto_tries_stands_beside_it() -> None:
    usual = [Options.of(row.options).model for row in choose_rows([]).values()]
    for pooling, values in TRIED:
        tried = Options.of({"pooling": pooling, **values}).model
        assert tried in usual


def test_unknown_rows_are_named() -> None:
    with pytest.raises(ValueError, match="poolings has no row 'rank3': use some of average, max"):
        choose_rows(["rank3"])
