from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from attnpool.data.crops import detail, eval_crops, train_crops
from attnpool.data.decoding.image import full_size, read_image
from attnpool.data.preprocessing import Preprocessing
from attnpool.data.views import View, eval_view, eval_views, train_view, train_views
from attnpool.evaluation.pointing import peak
from attnpool.keypoints import MPII_FLIP, MPII_JOINTS


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def blob(width: int, height: int, x: float, y: float, sigma: float) -> Image.Image:
    """A bright spot centred on the continuous point (x, y): pixel i has its centre at i + 0.5."""
    across = np.exp(-(((np.arange(width) + 0.5 - x) / sigma) ** 2) / 2)
    down = np.exp(-(((np.arange(height) + 0.5 - y) / sigma) ** 2) / 2)
    level = np.round(255 * down[:, None] * across).astype(np.uint8)
    return Image.fromarray(np.stack([level] * 3, axis=-1))


def centroid(pixels: torch.Tensor) -> tuple[float, float]:
    level = pixels[0].double()
    level = torch.where(level > 25, level, 0)
    places = torch.arange(level.shape[0], dtype=torch.float64) + 0.5
    return float((level.sum(0) * places).sum() / level.sum()), float((level.sum(1) * places).sum() / level.sum())


options_strategy = st.builds(
    Preprocessing,
    image_size=st.sampled_from([64, 97, 160]),
    short_side=st.sampled_from([None, 160, 200]),
    max_width=st.sampled_from([None, None, 150, 1000]),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
    random_resized_crop=st.booleans(),
)


@settings(max_examples=80, deadline=None)
@given(st.integers(60, 400), st.integers(60, 400), options_strategy, st.integers(0, 10**6), st.booleans())
def test_points_land_on_the_same_content(
    width: int, height: int, options: Preprocessing, seed: int, train: bool
) -> None:
    black = Image.new("RGB", (width, height))
    where = train_view(black, options, rng(seed)) if train else eval_view(black, options)
    # A point that is well inside of the view.
    inner = rng(seed, 1).uniform(0.3, 0.7, 2) * options.image_size
    x, y = where.inverse @ (*inner, 1.0)
    image = blob(width, height, x, y, sigma=0.04 * min(width, height))
    view = train_view(image, options, rng(seed)) if train else eval_view(image, options)
    np.testing.assert_array_equal(view.matrix, where.matrix)
    assert centroid(view.pixels) == pytest.approx(tuple(inner), abs=0.6)
    assert tuple(view.matrix @ (x, y, 1.0)) == pytest.approx(tuple(inner), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(40, 300), st.integers(40, 300), options_strategy, st.integers(0, 10**6))
def test_boxes_cover_the_same_content(width: int, height: int, options: Preprocessing, seed: int) -> None:
    x1, y1 = rng(seed, 1).uniform(0, 0.6, 2) * (width, height)
    box = tuple(np.round([x1, y1, x1 + 0.4 * width, y1 + 0.4 * height]).tolist())
    image = Image.new("RGB", (width, height))
    image.paste("white", tuple(int(v) for v in box))
    view = train_view(image, options, rng(seed))
    moved = view.boxes([box])
    inside = view.pixels[0].double() / 255
    if not moved:
        assert inside.sum() < 2 * options.image_size * max(view.matrix.max(), 1)
        return
    a, b, c, d = moved[0]
    assert 0 <= a < c <= options.image_size
    assert 0 <= b < d <= options.image_size
    # The white area is the box's area, up to a soft border as wide as a pixel of the coarser grid.
    border = max(1.0, np.abs(view.matrix[:, :2]).max(), options.image_size / 60 if options.max_width == 150 else 0)
    assert float(inside.sum()) == pytest.approx((c - a) * (d - b), abs=border * 2 * ((c - a) + (d - b) + 2 * border))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), options_strategy, st.integers(0, 1000))
def test_any_size_gives_a_square_inside_of_the_image(
    width: int, height: int, options: Preprocessing, seed: int
) -> None:
    image = Image.new("RGB", (width, height), (200, 100, 50))
    for view in (train_view(image, options, rng(seed)), eval_view(image, options)):
        assert view.pixels.shape == (3, options.image_size, options.image_size)
        assert view.pixels.dtype == torch.uint8
        assert view.pixels.is_contiguous()
        assert bool((torch.tensor([200, 100, 50]) == view.pixels.reshape(3, -1).T).all())
        x1, y1, x2, y2 = view.area
        assert -1e-6 <= x1 < x2 <= width + 1e-6
        assert -1e-6 <= y1 < y2 <= height + 1e-6


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (20000, 3), (3, 2), (448, 448), (449, 448)])
@pytest.mark.parametrize("crop", [False, True])
def test_odd_sizes(size: tuple[int, int], crop: bool) -> None:
    for max_width in (None, 512):
        options = Preprocessing(random_resized_crop=crop, max_width=max_width)
        assert train_view(Image.new("RGB", size), options, rng(1)).pixels.shape == (3, 448, 448)
        assert eval_view(Image.new("RGB", size), options).pixels.shape == (3, 448, 448)


def test_the_same_size_is_left_alone() -> None:
    noise = rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    view = eval_view(Image.fromarray(noise), Preprocessing(image_size=64))
    np.testing.assert_array_equal(view.pixels.permute(1, 2, 0).numpy(), noise)
    np.testing.assert_array_equal(view.matrix, [[1, 0, 0], [0, 1, 0]])
    mirrored = train_view(Image.fromarray(noise), Preprocessing(image_size=64, flip=1), rng(1))
    np.testing.assert_array_equal(mirrored.pixels.permute(1, 2, 0).numpy(), noise[:, ::-1])


def test_centre_crop_against_a_plain_computation() -> None:
    noise = rng(2).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    view = eval_view(Image.fromarray(noise), Preprocessing(image_size=60, short_side=90))
    np.testing.assert_array_equal(view.pixels.permute(1, 2, 0).numpy(), noise[15:75, 50:110])
    # The paper's recipe: a 1024 x 512 image becomes 960 x 480, of which the middle 450.
    view = eval_view(Image.new("RGB", (1024, 512)), Preprocessing(image_size=450, short_side=480, max_width=512))
    assert view.matrix[:, :2] == pytest.approx(np.eye(2) * 480 / 512)
    assert view.area == pytest.approx((512 - 240, 256 - 240, 512 + 240, 256 + 240))


def test_max_width_costs_detail_but_moves_nothing() -> None:
    noise = Image.fromarray(rng(3).integers(0, 256, (400, 800, 3), dtype=np.uint8))
    fine = eval_view(noise, Preprocessing(image_size=400))
    coarse = eval_view(noise, Preprocessing(image_size=400, max_width=200))
    np.testing.assert_array_equal(fine.matrix, coarse.matrix)
    assert coarse.pixels.double().std() < 0.7 * fine.pixels.double().std()


def test_a_flip_swaps_left_and_right_joints() -> None:
    joints = [(float(j), 10.0) if j != 6 else None for j in range(16)]
    view = train_view(Image.new("RGB", (64, 64)), Preprocessing(image_size=64, flip=1), rng(1))
    assert view.flipped
    moved = view.points(joints)
    for j, name in enumerate(MPII_JOINTS):
        if name == "pelvis":
            assert moved[j] is None
        else:
            assert moved[j] == pytest.approx((64.0 - MPII_FLIP[j], 10.0))
    assert view.points(()) == ()


def test_boxes_are_cut_and_dropped() -> None:
    view = eval_view(Image.new("RGB", (200, 100)), Preprocessing(image_size=100))
    assert view.boxes([(0, 0, 50, 50), (40, -5, 60, 500), (150, 0, 199, 9)]) == [(0.0, 0.0, 10.0, 100.0)]


@pytest.mark.parametrize("crop", [False, True])
def test_the_generator_decides_everything(crop: bool) -> None:
    noise = Image.fromarray(rng(4).integers(0, 256, (80, 120, 3), dtype=np.uint8))
    options = Preprocessing(image_size=64, color_jitter=0.4, random_resized_crop=crop)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    views = [train_view(noise, options, rng(seed)) for seed in (5, 5, 6)]
    assert torch.equal(views[0].pixels, views[1].pixels)
    assert not torch.equal(views[0].pixels, views[2].pixels)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_options_do_not_disturb_each_other() -> None:
    noise = Image.fromarray(rng(4).integers(0, 256, (80, 120, 3), dtype=np.uint8))
    plain = Preprocessing(image_size=64, flip=0.5)
    jittered = dataclasses.replace(plain, color_jitter=0.5)
    for seed in range(10):
        a, b = train_view(noise, plain, rng(seed)), train_view(noise, jittered, rng(seed))
        np.testing.assert_array_equal(a.matrix, b.matrix)
        assert not torch.equal(a.pixels, b.pixels)


def test_the_crop_is_random_along_the_long_side_and_reaches_both_ends() -> None:
    image = Image.new("RGB", (300, 100))
    lefts = [train_view(image, Preprocessing(image_size=50, flip=0), rng(seed)).area[0] for seed in range(200)]
    assert min(lefts) < 10
    assert max(lefts) > 190
    assert np.mean(lefts) == pytest.approx(100, abs=15)
    flips = [train_view(image, Preprocessing(image_size=50), rng(seed)).flipped for seed in range(200)]
    assert 70 < sum(flips) < 130


def test_random_resized_crops_have_the_stated_shapes() -> None:
    options = Preprocessing(image_size=50, random_resized_crop=True)
    areas, ratios = [], []
    for seed in range(300):
        x1, y1, x2, y2 = train_view(Image.new("RGB", (400, 300)), options, rng(seed)).area
        areas.append((x2 - x1) * (y2 - y1) / 120_000)
        ratios.append((x2 - x1) / (y2 - y1))
    assert 0.249 < min(areas) < 0.3
    assert 0.9 < max(areas) <= 1.0
    assert min(ratios) >= 3 / 4 - 1e-9
    assert max(ratios) <= 4 / 3 + 1e-9


def test_jitter_is_mild_and_leaves_grey_grey() -> None:
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    for seed in range(20):
        pixels = train_view(grey, Preprocessing(image_size=64, color_jitter=0.2), rng(seed)).pixels
        assert int(pixels.max()) <= round(128 * 1.2 * 1.2)
        assert int((pixels[0].int() - pixels[2].int()).abs().max()) <= 2


def test_inverse_undoes_the_matrix() -> None:
    view = View(torch.zeros(3, 10, 10, dtype=torch.uint8), np.array([[-2.0, 0, 30], [0, 0.5, -4]]), True)
    point = view.matrix @ (3.0, 7.0, 1.0)
    assert view.inverse @ (*point, 1.0) == pytest.approx((3.0, 7.0))
    assert view.area == pytest.approx((10.0, 8.0, 15.0, 28.0))


# Clips, several crops, squashing


@settings(max_examples=40, deadline=None)
@given(st.integers(60, 300), st.integers(60, 300), options_strategy, st.integers(0, 10**6), st.booleans())
def test_all_frames_of_a_clip_have_one_view(
    width: int, height: int, options: Preprocessing, seed: int, squash: bool
) -> None:
    options = dataclasses.replace(options, color_jitter=0.5, squash=squash)
    noise = rng(seed, 1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    frames = [Image.fromarray(noise)] * 3
    views = train_views(frames, options, rng(seed))
    alone = train_view(frames[0], options, rng(seed))
    for view in views:
        np.testing.assert_array_equal(view.matrix, alone.matrix)
        assert view.flipped == alone.flipped
        assert torch.equal(view.pixels, alone.pixels)


def test_frames_of_two_sizes_share_the_random_numbers() -> None:
    options = Preprocessing(image_size=50, short_side=60, random_resized_crop=True, flip=1)
    small, large = train_views([Image.new("RGB", (120, 90)), Image.new("RGB", (240, 180))], options, rng(3))
    assert tuple(2 * v for v in small.area) == pytest.approx(large.area)
    assert small.flipped
    assert large.flipped


def test_ten_crops_against_a_plain_computation() -> None:
    noise = rng(4).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    views = eval_views([Image.fromarray(noise)] * 2, Preprocessing(image_size=60, short_side=90), crops=10)
    assert len(views) == 20
    places = [(50, 15), (0, 0), (100, 0), (0, 30), (100, 30)]
    for first in (0, 10):
        for n, (x, y) in enumerate(places):
            plain, mirrored = views[first + n], views[first + n + 5]
            expected = noise[y : y + 60, x : x + 60]
            np.testing.assert_array_equal(plain.pixels.permute(1, 2, 0).numpy(), expected)
            np.testing.assert_array_equal(mirrored.pixels.permute(1, 2, 0).numpy(), expected[:, ::-1])
            assert (plain.flipped, mirrored.flipped) == (False, True)
            assert plain.area == mirrored.area == (x, y, x + 60, y + 60)


def test_the_mirror_image_at_test() -> None:
    noise = Image.fromarray(rng(5).integers(0, 256, (70, 100, 3), dtype=np.uint8))
    options = Preprocessing(image_size=48, short_side=64)
    (middle,) = eval_views([noise], options)
    plain, mirrored = eval_views([noise], options, flip=True)
    assert torch.equal(plain.pixels, middle.pixels)
    assert torch.equal(mirrored.pixels, middle.pixels.flip(-1))
    assert [view.flipped for view in eval_views([noise], options, 10, flip=True)] == [False] * 5 + [True] * 5
    with pytest.raises(ValueError, match="crops is 5; use 1"):
        eval_views([noise], options, 5)


def test_squashing_against_two_plain_resizes() -> None:
    image = blob(500, 180, 260, 80, 20)
    options = Preprocessing(image_size=120, short_side=160, squash=True)
    squashed = image.resize((340, 256), Image.Resampling.BICUBIC)
    expected = eval_view(squashed, Preprocessing(image_size=120, short_side=160))
    view = eval_view(image, options)
    assert torch.equal(view.pixels, expected.pixels)
    scale = np.diag([340 / 500, 256 / 180, 1])
    np.testing.assert_allclose(view.matrix, expected.matrix @ scale, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(80, 400), st.integers(80, 400), options_strategy, st.integers(0, 10**6), st.booleans())
def test_points_follow_the_squashing(width: int, height: int, options: Preprocessing, seed: int, train: bool) -> None:
    options = dataclasses.replace(options, squash=True, max_width=None)

    def look(image: Image.Image) -> View:
        return train_view(image, options, rng(seed)) if train else eval_view(image, options)

    where = look(Image.new("RGB", (width, height)))
    inner = rng(seed, 1).uniform(0.4, 0.6, 2) * options.image_size
    x, y = where.inverse @ (*inner, 1.0)
    view = look(blob(width, height, x, y, sigma=0.04 * min(width, height)))
    assert centroid(view.pixels) == pytest.approx(tuple(inner), abs=0.8)


SIZES = [(300, 500), (500, 300), (448, 448), (31, 17), (5000, 900), (400, 3000), (640, 480), (3, 200)]


@pytest.mark.parametrize("view", ["crop", "whole", "squash"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("flipped", [False, True])
def test_a_planted_square_is_found_within_half_a_cell(
    view: Literal["crop", "whole", "squash"], size: tuple[int, int], flipped: bool
) -> None:
    """The brightest cell of 32 pixels, mapped back to the image, is the one that holds the middle of the square."""
    options = Preprocessing(image_size=224, view=view, flip=1)
    blank = Image.new("RGB", size, (40, 40, 40))
    made = train_view(blank, options, rng(0)) if flipped else eval_view(blank, options)
    height, width = made.pixels.shape[-2:]
    x1, y1, x2, y2 = (max(0.0, value) for value in made.area)
    x2, y2 = min(x2, size[0]), min(y2, size[1])
    for across, down in ((0.2, 0.3), (0.5, 0.5), (0.85, 0.7)):
        x, y = x1 + across * (x2 - x1), y1 + down * (y2 - y1)
        half = np.abs(16 / np.diag(made.matrix[:, :2]))  # half a cell in pixels of the image
        image = np.full((size[1], size[0]), 40.0)
        rows, columns = np.ogrid[: size[1], : size[0]]
        # what of every pixel the square covers
        inside = [
            np.clip(np.minimum(c + 1, m + h) - np.maximum(c, m - h), 0, 1)
            for c, m, h in ((columns, x, half[0]), (rows, y, half[1]))
        ]
        image += 200 * inside[0] * inside[1]
        planted = Image.fromarray(image.astype(np.uint8)).convert("RGB")
        seen = train_view(planted, options, rng(0)) if flipped else eval_view(planted, options)
        assert np.array_equal(seen.matrix, made.matrix)
        cells = seen.pixels[0].double().reshape(height // 32, 32, width // 32, 32).mean((1, 3))
        found = seen.inverse @ (*peak(cells, (height, width)), 1.0)
        assert (np.abs(found - (x, y)) <= half * 1.1 + 0.5).all(), (found, (x, y), half)


@pytest.mark.parametrize("size", SIZES[:-1], ids=str)
def test_a_whole_view_cuts_and_stretches_nothing(size: tuple[int, int]) -> None:
    """And has about as many cells as the square."""
    options = Preprocessing(image_size=448, view="whole")
    view = eval_view(Image.new("RGB", size), options)
    x1, y1, x2, y2 = view.area
    assert x1 <= 0.01
    assert y1 <= 0.01
    assert x2 >= size[0] - 0.01
    assert y2 >= size[1] - 0.01
    across, down = view.matrix[0, 0], view.matrix[1, 1]
    assert abs(across / down - 1) <= 1 / min(across * size[0], down * size[1])  # a pixel of rounding
    height, width = view.pixels.shape[-2:]
    assert height % 32 == width % 32 == 0
    assert 180 <= height * width / 32**2 <= 200


def test_what_does_not_go_together_with_a_whole_view() -> None:
    for wrong in ({"image_size": 450}, {"short_side": 480}, {"squash": True}, {"random_resized_crop": True}):
        with pytest.raises(ValueError, match="whole"):
            Preprocessing(**{"image_size": 448, "view": "whole"} | wrong)
    with pytest.raises(ValueError, match="cuts nothing"):
        eval_views([Image.new("RGB", (9, 9))], Preprocessing(view="whole"), crops=10)
    with pytest.raises(ValueError, match="leave squash out"):
        Preprocessing(view="squash", squash=True)
    with pytest.raises(ValueError, match="unknown view"):
        Preprocessing(view="all")  # type: ignore[arg-type]


@pytest.mark.parametrize("view", ["crop", "whole", "squash"])
@pytest.mark.parametrize("train", [False, True])
def test_an_image_decoded_at_a_smaller_scale_has_the_same_views(tmp_path: Path, view: str, train: bool) -> None:
    """Where things are is in pixels of the whole image, and what is seen is the same to what JPEG blurs."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((1203, 901), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=95)
    options = Preprocessing(image_size=96, view=view)  # type: ignore[arg-type]
    small, full = read_image(tmp_path / "a.jpg", partial(detail, options=options)), read_image(tmp_path / "a.jpg")
    assert small.width in (301, 602)
    assert full_size(small) == full.size == (1203, 901)
    one, other = (train_view(image, options, rng(4)) if train else eval_view(image, options) for image in (small, full))
    np.testing.assert_array_equal(one.matrix, other.matrix)
    assert one.flipped == other.flipped
    assert (one.pixels.float() - other.pixels.float()).abs().mean() < 1
    assert one.boxes([(100, 100, 900, 700)]) == other.boxes([(100, 100, 900, 700)])


@given(st.integers(60, 4000), st.integers(60, 4000), options_strategy, st.integers(0, 10**6))
def test_the_detail_of_no_crop_is_finer(width: int, height: int, options: Preprocessing, seed: int) -> None:
    """No more pixels of the image become one of the input than in the crop with the least."""
    crops, _ = train_crops([(width, height)], options, rng(seed))
    crops += eval_crops((width, height), options)
    least = detail((width, height), options)
    assert all(
        min(crop.width, crop.height) / options.image_size >= least * (1 - 1e-9) or least == 1.0 for crop in crops
    )
