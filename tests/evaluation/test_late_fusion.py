from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpool.evaluation.late_fusion import fuse, weighted_run


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6))
def test_weighted_mean_of_each_entry(streams: int, rows: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = [rng.normal(size=(rows, classes)).astype(np.float32) for _ in range(streams)]
    weights = rng.uniform(0.1, 3, streams).tolist()
    fused = fuse(scores, weights)
    assert fused.shape == (rows, classes)
    for i in range(rows):
        for k in range(classes):
            expected = np.average([stream[i, k] for stream in scores], weights=weights)
            assert fused[i, k] == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(fuse(scores, [5 * weight for weight in weights]), fused, rtol=1e-12, atol=1e-12)


def test_colour_and_flow_as_tsn_fuses_them() -> None:
    colour, flow = np.array([[2.0, 0.0]]), np.array([[0.0, 2.0]])
    np.testing.assert_allclose(fuse([colour, flow], [1, 1.5]), [[0.8, 1.2]])
    assert fuse([colour, flow], [1, 1.5]).argmax() == 1


def test_a_single_stream_is_left_alone() -> None:
    scores = np.random.default_rng(1).normal(size=(3, 4))
    np.testing.assert_array_equal(fuse([scores], [1.0]), scores)


@pytest.mark.parametrize(
    ("shapes", "weights", "message"),
    [
        ([], [], "0 streams and 0 weights"),
        ([(2, 3)], [1, 2], "1 streams and 2 weights"),
        ([(2, 3), (3, 3)], [1, 1], r"differ in shape: \(2, 3\), \(3, 3\)"),
        ([(2, 3), (2, 3)], [1, 0], "weights 1, 0: each must be a positive number"),
        ([(2, 3), (2, 3)], [1, float("nan")], "positive"),
        ([(2, 3), (2, 3)], [1, float("inf")], "positive"),
    ],
)
def test_errors(shapes: list[tuple[int, int]], weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fuse([np.zeros(shape) for shape in shapes], weights)


def test_a_run_and_its_weight(tmp_path: Path) -> None:
    assert weighted_run("runs/flow=1.5") == (Path("runs/flow"), 1.5)
    assert weighted_run("runs/flow") == (Path("runs/flow"), 1.0)
    assert weighted_run("runs/a=b=2") == (Path("runs/a=b"), 2.0)
    (tmp_path / "lr=0.1").mkdir()
    assert weighted_run(f"{tmp_path}/lr=0.1") == (tmp_path / "lr=0.1", 1.0)
    assert weighted_run(f"{tmp_path}/lr=0.1=2") == (tmp_path / "lr=0.1", 2.0)
    for weight in ("", "0", "-1", "nan", "inf", "much"):
        with pytest.raises(ValueError, match=r"is no weight; write a positive number, such as runs/flow=1\.5"):
            weighted_run(f"runs/flow={weight}")
