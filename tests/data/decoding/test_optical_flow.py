from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from attnpool.data.decoding.optical_flow import flow_stack, flow_stacks, flow_views
from attnpool.data.preprocessing import Preprocessing
from attnpool.data.views import eval_views, train_views

WIDTH, HEIGHT = 160, 120


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def surface(seed: int = 0) -> np.ndarray:
    """Structure at several scales, (320, 320, 3) float32, to be looked at through a window that moves."""
    layers = [cv2.GaussianBlur(rng(seed, n).normal(size=(320, 320, 3)), (0, 0), n) for n in (2, 4, 9)]
    total = sum(layer / layer.std() for layer in layers)
    return (128 + 40 * total).clip(0, 255).astype(np.float32)


def moved(base: np.ndarray, x: float, y: float, angle: float = 0.0) -> Image.Image:
    """The surface turned by `angle` degrees about the middle of the image, then moved by (x, y) pixels."""
    turn = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), angle, 1)
    turn[:, 2] += (x, y)
    back = cv2.invertAffineTransform(turn)
    back[:, 2] += 90
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return Image.fromarray(cv2.warpAffine(base, back, (WIDTH, HEIGHT), flags=flags).clip(0, 255).astype(np.uint8))


def motion(stack: np.ndarray, bound: float = 20) -> np.ndarray:
    """Back to pixels; the border, where things come into the image, is left out."""
    return (stack.astype(np.float64) * (2 * bound / 255) - bound)[:, 24:-24, 24:-24]


@pytest.mark.parametrize("step", [(0, 0), (1.5, -0.5), (5, 3), (-9, 6), (0, 12)])
def test_a_known_translation(step: tuple[float, float]) -> None:
    base = surface()
    stack = flow_stack([moved(base, step[0] * t, step[1] * t) for t in range(3)])
    assert stack.shape == (4, HEIGHT, WIDTH)
    assert stack.dtype == np.uint8
    found = motion(stack)
    for channel, expected in enumerate([*step, *step]):
        assert np.median(found[channel]) == pytest.approx(expected, abs=0.1)  # a step of the scale is 0.16
        assert np.abs(found[channel] - expected).mean() < 0.25


def test_a_known_rotation() -> None:
    base, angle = surface(1), 4.0
    found = motion(flow_stack([moved(base, 0, 0), moved(base, 0, 0, angle)]))
    y, x = np.mgrid[:HEIGHT, :WIDTH] - np.array([HEIGHT / 2, WIDTH / 2])[:, None, None]
    # OpenCV's angles run against the clock, on the screen.
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    expected = np.stack([c * x + s * y - x, -s * x + c * y - y])[:, 24:-24, 24:-24]
    assert np.abs(expected).max() > 3
    assert np.abs(found - expected).mean() < 0.2


def test_what_moves_faster_than_the_bound_is_clipped() -> None:
    base = surface()
    stack = flow_stack([moved(base, 0, 0), moved(base, 6, -6)], bound=4)
    assert np.median(stack[0]) == 255
    assert np.median(stack[1]) == 0
    assert np.median(flow_stack([moved(base, 0, 0)] * 2)) == 128


def test_stacks_are_cut_out_of_the_frames() -> None:
    base = surface()
    frames = [moved(base, t * t / 4, 0) for t in range(8)]
    stacks = flow_stacks(frames, length=3)
    assert len(stacks) == 2
    np.testing.assert_array_equal(stacks[1], flow_stack(frames[4:]))


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (11, 11), (17, 9)])
def test_tiny_frames(size: tuple[int, int]) -> None:
    assert flow_stack([Image.new("RGB", size, "grey")] * 2).shape == (2, size[1], size[0])


def test_the_flow_of_a_mirrored_clip_is_the_mirrored_view() -> None:
    base = surface(2)
    frames = [moved(base, 3.2 * t, 1.1 * t) for t in range(3)]
    options = Preprocessing(image_size=90, short_side=110)
    plain, mirrored = flow_views([flow_stack(frames)], options, flip=True)
    assert (plain.flipped, mirrored.flipped) == (False, True)
    assert plain.pixels.shape == (4, 90, 90)
    np.testing.assert_array_equal(mirrored.pixels[0::2], 255 - plain.pixels[0::2].flip(-1))
    np.testing.assert_array_equal(mirrored.pixels[1::2], plain.pixels[1::2].flip(-1))
    other_way = flow_stack([frame.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for frame in frames])
    (theirs,) = flow_views([other_way], options)
    assert (theirs.pixels.double() - mirrored.pixels.double()).abs().mean() < 2
    assert theirs.pixels[0].double().median() < 112 < 144 < plain.pixels[0].double().median()


@pytest.mark.parametrize(
    "options", [Preprocessing(image_size=64, short_side=80), Preprocessing(64, squash=True, flip=1)]
)
def test_views_lie_where_those_of_the_frames_do(options: Preprocessing) -> None:
    base = surface()
    frames = [moved(base, t, 0) for t in range(2)]
    stacks = [flow_stack(frames)] * 3
    for theirs, ours in [
        (train_views(frames[:1] * 3, options, rng(3)), flow_views(stacks, options, rng(3))),
        (eval_views(frames[:1] * 3, options, 10), flow_views(stacks, options, crops=10)),
    ]:
        assert len(theirs) == len(ours)
        for a, b in zip(theirs, ours, strict=True):
            np.testing.assert_array_equal(a.matrix, b.matrix)
            assert a.flipped == b.flipped
            assert b.pixels.shape == (2, 64, 64)


def test_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = Image.new("RGB", (32, 32))
    with pytest.raises(ValueError, match="two or more frames of one size, not 1 of 32x32"):
        flow_stack([frame])
    with pytest.raises(ValueError, match="not 2 of 32x32, 40x32"):
        flow_stack([frame, Image.new("RGB", (40, 32))])
    with pytest.raises(ValueError, match="bound is 0"):
        flow_stack([frame] * 2, bound=0)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match=r"needs OpenCV; install it with: pip install 'attnpool\[flow\]'"):
        flow_stack([frame] * 2)


class Stacks:
    def __init__(self, frames: list[list[Image.Image]]) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, i: int) -> np.ndarray:
        return flow_stack(self.frames[i])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_same_in_worker_processes() -> None:
    """Also where OpenCV's own threads were at work before the workers were forked off."""
    clips = [[moved(surface(n), n * t, t) for t in range(3)] for n in range(4)]
    data = Stacks(clips)
    here = [data[i] for i in range(4)]
    cv2.GaussianBlur(np.zeros((2000, 2000), np.float32), (31, 31), 5)
    for found, expected in zip(DataLoader(data, batch_size=None, num_workers=2), here, strict=True):  # type: ignore[arg-type]
        np.testing.assert_array_equal(np.asarray(found), expected)
