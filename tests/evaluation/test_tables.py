"""Cells as lines of text and of Markdown, and means with their spread, against numbers worked out by hand."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpool.evaluation.tables import markdown_table, spread, text_table

HEADER, ROWS = ["pooling", "", "mAP"], [["average", "x", "58.6"], ["attentional", "", "100.0"]]


def test_spread() -> None:
    assert spread([]) == "-"
    assert spread([12.34]) == "12.3"
    assert spread([1.0, 3.0]) == "2.0 ± 1.4"  # the root of ((1 - 2)^2 + (3 - 2)^2) / (2 - 1)
    assert spread([1.0, 2.0, 3.0], 3) == "2.000 ± 1.000"
    assert spread([5.0, 5.0]) == "5.0 ± 0.0"


@given(st.lists(st.floats(0, 100), min_size=2, max_size=9))
def test_spread_is_that_of_the_standard_library(values: list[float]) -> None:
    mean, deviation = (float(number) for number in spread(values, 6).split(" ± "))
    assert mean == pytest.approx(statistics.mean(values), abs=1e-6)
    assert deviation == pytest.approx(statistics.stdev(values), abs=1e-6)


def test_text() -> None:
    assert text_table(HEADER, ROWS) == [
        "pooling           mAP",
        "average      x   58.6",
        "attentional     100.0",
    ]
    assert text_table(["a", "b"], [["1", "22"]], "rl") == ["a  b ", "1  22"]
    assert text_table(["a"], []) == ["a"]


def test_markdown() -> None:
    assert markdown_table(HEADER, ROWS) == [
        "| pooling | | mAP |",
        "|---|---:|---:|",
        "| average | x | 58.6 |",
        "| attentional | | 100.0 |",
    ]
    assert markdown_table(["a", "b", "c"], [], "lrl") == ["| a | b | c |", "|---|---:|---|"]
