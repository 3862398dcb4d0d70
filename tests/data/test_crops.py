"""Which rectangles are looked at: inside of the image, of the size that was asked for, and random as declared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpool.data.crops import Crop, eval_crops, train_crops
from attnpool.data.preprocessing import Preprocessing

sizes = st.tuples(st.integers(8, 300), st.integers(8, 300))
options = st.builds(
    Preprocessing,
    image_size=st.just(48),
    short_side=st.sampled_from([48, 50, 96]),
    random_resized_crop=st.booleans(),
    squash=st.booleans(),
    flip=st.sampled_from([0.0, 1.0]),
)


def is_inside(crop: Crop, size: tuple[int, int]) -> bool:
    right, bottom = crop.left + crop.width, crop.top + crop.height
    return min(crop.left, crop.top) >= -1e-9 and right <= size[0] + 1e-6 and bottom <= size[1] + 1e-6


@given(sizes, options, st.integers(0, 99))
def test_crops_are_inside_of_the_image(size: tuple[int, int], chosen: Preprocessing, seed: int) -> None:
    (crop,), _ = train_crops([size], chosen, np.random.default_rng(seed))
    for each in (crop, *eval_crops(size, chosen, 10)):
        assert is_inside(each, size)
    assert crop.flipped == (chosen.flip == 1)


def test_test_time_crops_by_hand() -> None:
    """Of 120 x 80 pixels whose short side becomes 60: 48 of them are 64 of the image."""
    chosen = Preprocessing(image_size=48, short_side=60)
    assert eval_crops((120, 80), chosen) == [Crop(28, 8, 64, 64)]
    assert eval_crops((120, 80), chosen, flip=True) == [Crop(28, 8, 64, 64), Crop(28, 8, 64, 64, flipped=True)]
    ten = eval_crops((120, 80), chosen, 10)
    corners = [(28, 8), (0, 0), (56, 0), (0, 16), (56, 16)]
    assert [(crop.left, crop.top, crop.flipped) for crop in ten] == [
        (*corner, flipped) for flipped in (False, True) for corner in corners
    ]
    two = eval_crops((120, 80), chosen, 2)
    assert two == [Crop(28, 8, 64, 64), Crop(pytest.approx(34.4), pytest.approx(14.4), *[pytest.approx(51.2)] * 2)]
    assert eval_crops((120, 80), chosen, 2, flip=True)[2:] == [replace(crop, flipped=True) for crop in two]
    with pytest.raises(ValueError, match="crops is 5; use 1"):
        eval_crops((120, 80), chosen, 5)


def test_crops_that_would_all_be_the_same_are_refused() -> None:
    squashed = Preprocessing(image_size=64, view="squash")
    with pytest.raises(ValueError, match="all crops are the same; use 1 or 2"):
        eval_crops((120, 80), squashed, 10)
    assert len(set(eval_crops((120, 80), replace(squashed, short_side=80), 10))) == 10
    for crops in (2, 10):
        with pytest.raises(ValueError, match=f"crops is {crops}, but the view whole cuts nothing"):
            eval_crops((120, 80), Preprocessing(image_size=64, view="whole"), crops)


def test_frames_of_a_clip_have_the_same_random_numbers() -> None:
    for resized in (False, True):
        chosen = Preprocessing(image_size=48, short_side=60, random_resized_crop=resized)
        crops, _ = train_crops([(120, 80), (120, 80), (240, 160)], chosen, np.random.default_rng(3))
        assert crops[0] == crops[1]
        large = crops[2]
        assert (large.left / 2, large.top / 2, large.width / 2, large.height / 2) == pytest.approx(
            (crops[0].left, crops[0].top, crops[0].width, crops[0].height)
        )
