"""Every equality of Eq. 1-12 against an independent evaluation: NumPy in float64, `Tr(X^T X W^T)` formed explicitly.

Scores here are means over the N positions where the paper writes sums, so its scores appear divided by N. Biases are
the paper's formula with a column of ones appended to the features.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnpool.pooling import AttentionalPooling, AveragePooling, MaxPooling, Pooled, PoolingHead, PoseRegularizedPooling

Array = np.ndarray


class Case(NamedTuple):
    """Features of one image, `(N, C)`, on a grid of height x width, and the number of classes."""

    x: Array
    height: int
    width: int
    classes: int
    rng: np.random.Generator


@st.composite
def cases(draw: st.DrawFn) -> Case:
    size = st.integers(1, 5)
    height, width, channels, classes = draw(size), draw(size), draw(st.integers(1, 7)), draw(size)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return Case(rng.normal(size=(height * width, channels)), height, width, classes, rng)


def with_random_weights(head: PoolingHead, rng: np.random.Generator) -> PoolingHead:
    head.double().eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(size=parameter.shape)))
    return head


def weights(head: PoolingHead) -> dict[str, Array]:
    return {name: parameter.detach().numpy() for name, parameter in head.named_parameters()}


def pooled(head: PoolingHead, case: Case) -> Pooled:
    channels = case.x.shape[1]
    with torch.no_grad():
        return head(torch.from_numpy(case.x.T.reshape(1, channels, case.height, case.width).copy()), maps=True)


def second_order(x: Array, w: Array) -> float:
    """Eq. 2 and 9, as they stand."""
    return float(np.trace(x.T @ x @ w.T))


def close(ours: Any, expected: Any) -> None:
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)


def flat(maps: torch.Tensor) -> Array:
    return maps.flatten(-2).numpy()


@given(cases())
def test_equations_2_to_8_are_one_number(case: Case) -> None:
    """One class, rank one, no biases: the trace, its cheap order and the product of two maps."""
    head = with_random_weights(AttentionalPooling(case.x.shape[1], 1, bias=False, init="official"), case.rng)
    x, a, b = case.x, weights(head)["a"][0], weights(head)["b"][0]
    score = float(pooled(head, case).logits) * len(x)
    close(score, second_order(x, np.outer(a, b)))  # Eq. 2 with W = a b^T
    close(score, np.trace(x.T @ x @ np.outer(b, a)))  # Eq. 3
    close(score, np.trace(a[None] @ x.T @ x @ b[:, None]))  # Eq. 4
    close(score, a @ x.T @ x @ b)  # Eq. 5
    close(score, a @ (x.T @ (x @ b)))  # Eq. 6
    close(score, ((x @ a) @ x) @ b)  # Eq. 7
    close(score, (x @ a) @ (x @ b))  # Eq. 8


@given(cases())
def test_a_and_b_change_places(case: Case) -> None:
    """Eq. 8 is symmetric: for one class either map may be called the saliency."""
    head = with_random_weights(AttentionalPooling(case.x.shape[1], 1, bias=False, init="official"), case.rng)
    before = pooled(head, case)
    head.a.data, head.b.data = head.b.data, head.a.data
    after = pooled(head, case)
    close(after.logits, before.logits)
    close(flat(after.top_down)[:, :, 0], flat(before.bottom_up)[:, :, 0])
    close(flat(after.combined), flat(before.combined))


@given(cases(), st.integers(1, 3), st.booleans(), st.booleans())
def test_equation_9_with_a_matrix_of_rank_p_for_every_class(case: Case, rank: int, per_class: bool, bias: bool) -> None:
    head = AttentionalPooling(case.x.shape[1], case.classes, rank=rank, per_class=per_class, bias=bias, init="official")
    held = weights(with_random_weights(head, case.rng))
    x = case.x
    a, b = held["a"], held["b"]
    if bias:
        x = np.column_stack([x, np.ones(len(x))])
        a, b = np.column_stack([a, held["alpha"]]), np.column_stack([b, held["beta"]])
    a = a.reshape(rank, case.classes, -1)
    b = b.reshape(rank, case.classes if per_class else 1, -1)
    out = pooled(head, case)
    for k in range(case.classes):
        w_k = sum(np.outer(a[p, k], b[p, k if per_class else 0]) for p in range(rank))
        assert np.linalg.matrix_rank(w_k) <= rank
        close(float(out.logits[0, k]), second_order(x, w_k) / len(x))


@given(cases(), st.integers(1, 3), st.booleans())
def test_equations_10_and_11_give_the_maps(case: Case, rank: int, per_class: bool) -> None:
    head = with_random_weights(
        AttentionalPooling(case.x.shape[1], case.classes, rank=rank, per_class=per_class), case.rng
    )
    held, out, count = weights(head), pooled(head, case), len(case.x)
    t = (case.x @ held["a"].T + held["alpha"]).T.reshape(rank, case.classes, count)
    h = (case.x @ held["b"].T + held["beta"]).T.reshape(rank, -1, count)
    close(flat(out.top_down)[0], t)
    close(flat(out.bottom_up)[0], h)
    for k in range(case.classes):
        own = k if per_class else 0
        close(float(out.logits[0, k]), sum(t[p, k] @ h[p, own] for p in range(rank)) / count)  # Eq. 10
        c_k = sum(t[p, k] * h[p, own] for p in range(rank)) / count
        close(flat(out.combined)[0, k], c_k)
        close(float(out.logits[0, k]), np.ones(count) @ c_k)  # Eq. 11


@given(cases())
def test_equations_1_and_12_are_average_pooling(case: Case) -> None:
    head = with_random_weights(AveragePooling(case.x.shape[1], case.classes), case.rng)
    held, out, count = weights(head), pooled(head, case), len(case.x)
    ones = np.ones(count)
    for k in range(case.classes):
        close(float(out.logits[0, k]), ones @ case.x @ held["a"][k] / count + held["alpha"][k])  # Eq. 1
        t_k = case.x @ held["a"][k] + held["alpha"][k]
        close(float(out.logits[0, k]), ones @ t_k / count)  # Eq. 12
        close(flat(out.top_down)[0, 0, k], t_k)
    close(flat(out.bottom_up), np.ones((1, 1, 1, count)))


@given(cases())
def test_average_pooling_is_second_order_pooling_of_rank_one(case: Case) -> None:
    """With a column of ones, b = (0, ..., 0, 1) makes `Tr(X^T X W_k^T)` the average: where attention starts."""
    head = with_random_weights(AveragePooling(case.x.shape[1], case.classes), case.rng)
    held, out = weights(head), pooled(head, case)
    x = np.column_stack([case.x, np.ones(len(case.x))])
    b = np.eye(x.shape[1])[-1]
    for k in range(case.classes):
        w_k = np.outer(np.append(held["a"][k], held["alpha"][k]), b)
        close(float(out.logits[0, k]), second_order(x, w_k) / len(x))


@given(cases())
def test_the_order_of_the_released_code(case: Case) -> None:
    """Both maps made, multiplied and averaged: `logit_k = mean_i h_i (x_i . a_k + alpha_k)`, position by position."""
    head = with_random_weights(AttentionalPooling(case.x.shape[1], case.classes, init="official"), case.rng)
    held, out = weights(head), pooled(head, case)
    for k in range(case.classes):
        logit = 0.0
        for x_i in case.x:
            h_i = x_i @ held["b"][0] + held["beta"][0]
            logit += h_i * (x_i @ held["a"][k] + held["alpha"][k])
        close(float(out.logits[0, k]), logit / len(case.x))


def softmax(s: Array) -> Array:
    shifted = np.exp(s - s.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


ACTIVATED = {
    "relu": lambda s: np.maximum(s, 0),
    "sigmoid": lambda s: 2 / (1 + np.exp(-s)),
    "softmax": lambda s: s.shape[-1] * softmax(s),
}


@pytest.mark.parametrize("activation", ACTIVATED)
@given(cases(), st.integers(1, 3), st.booleans())
def test_activations(activation: Any, case: Case, rank: int, per_class: bool) -> None:
    head = AttentionalPooling(case.x.shape[1], case.classes, rank=rank, per_class=per_class, activation=activation)
    held, out, count = weights(with_random_weights(head, case.rng)), pooled(head, case), len(case.x)
    s = (case.x @ held["b"].T + held.get("beta", 0)).T.reshape(rank, -1, count)
    h = ACTIVATED[activation](s)
    close(flat(out.bottom_up)[0], h)
    if activation == "softmax":
        close(h.mean(-1), np.ones(h.shape[:2]))
    t = (case.x @ held["a"].T + held["alpha"]).T.reshape(rank, case.classes, count)
    close(out.logits[0], (t * h).mean(-1).sum(0))


@given(cases(), st.integers(1, 6), st.integers(1, 4))
def test_pose_regularized_attention(case: Case, hidden: int, joints: int) -> None:
    """Two-layer MLP: joints and the free map from the hidden layer, classes from the features (Sec. 3.2, Method 2)."""
    head = PoseRegularizedPooling(case.x.shape[1], case.classes, hidden=hidden, joints=joints)
    held, out, count = weights(with_random_weights(head, case.rng)), pooled(head, case), len(case.x)
    layer = np.maximum(case.x @ held["mlp_weight"].T + held["mlp_bias"], 0)
    close(flat(out.pose)[0], (layer @ held["pose_weight"].T + held["pose_bias"]).T)
    h = layer @ held["b"][0] + held["beta"][0]
    close(flat(out.bottom_up)[0, 0, 0], h)
    t = case.x @ held["a"].T + held["alpha"]
    close(out.logits[0], h @ t / count)
    close(flat(out.combined)[0], (h[:, None] * t / count).T)


@given(cases(), st.booleans())
def test_max_pooling_gives_each_channel_to_its_position(case: Case, ties: bool) -> None:
    x = np.round(case.x) if ties else case.x
    head = with_random_weights(MaxPooling(case.x.shape[1], case.classes), case.rng)
    held, out, count = weights(head), pooled(head, case._replace(x=x)), len(x)
    close(out.logits[0], held["a"] @ x.max(0) + held["alpha"])
    combined = np.tile(held["alpha"][:, None] / count, (1, count))
    for c in range(x.shape[1]):
        combined[:, np.argmax(x[:, c])] += held["a"][:, c] * x[:, c].max()  # argmax: the first one in a tie
    close(flat(out.combined)[0], combined)
    close(flat(out.top_down)[0, 0], count * combined)
    close(flat(out.bottom_up), np.ones((1, 1, 1, count)))
