from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnpool.evaluation.pointing import peak, pointing


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_peak_is_the_centre_of_the_highest_cell(h: int, w: int, data: st.DataObject) -> None:
    row, column = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    map_ = np.random.default_rng([h, w]).random((h, w))
    map_[row, column] = 2
    x, y = peak(map_, (90, 60))
    assert (x, y) == pytest.approx(((column + 0.5) * 60 / w, (row + 0.5) * 90 / h))


def test_peak_of_many_maps_of_any_type() -> None:
    maps = torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    found = peak(maps, (64, 64))
    assert found.shape == (2, 3, 2)
    assert (found == 8).all(), "of equal cells the first in reading order counts"


def test_peak_refuses_what_has_none() -> None:
    with pytest.raises(ValueError, match="NaN"):
        peak(np.array([[0, np.nan]]), (8, 8))
    with pytest.raises(ValueError, match="no peak"):
        peak(np.zeros(4), (8, 8))


def test_pointing_leaves_out_images_without_a_box() -> None:
    boxes = [[(0, 0, 10, 10)], [(0, 0, 4, 4), (8, 4, 9, 6)], [], [(6, 6, 9, 9)]]
    hits = pointing(np.array([[10, 10], [8.5, 5], [5, 5], [5, 5]]), boxes)
    np.testing.assert_array_equal(hits, [1, 1, np.nan, 0])
    assert np.nanmean(hits) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="one peak an image"):
        pointing(np.zeros((1, 2)), boxes)
