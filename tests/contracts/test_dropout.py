"""What dropout drops: channels of the pooled features, or entries of the features that enter the top-down map."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from attnpool.pooling import POOLINGS, PoolingHead

CHANNELS, COUNT = 5, 4
KEEP = 0.4


def identity(head: PoolingHead, *, alpha: float = 0.0) -> PoolingHead:
    """Gives a head with K = C the classifier `logit_c = z_c + alpha`, which shows what became of every channel."""
    head.double()
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if name not in ("a", "alpha"):
                parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64).abs())
        head.a.copy_(torch.eye(CHANNELS))
        head.alpha.fill_(alpha)
    return head


def positive_features(batch: int = 64) -> Tensor:
    """One image, `batch` times, with entries that no two sums share."""
    x = torch.rand(1, COUNT, CHANNELS, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.1
    return x.expand(batch, -1, -1).contiguous()


HEADS = [
    ("attentional", {}),
    ("attentional", {"per_class": True}),
    ("attentional", {"activation": "softmax"}),
    ("pose", {"hidden": 6}),
]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("key", "options"), [("average", {}), ("max", {}), *HEADS], ids=str)
def test_pooled_drops_whole_channels(key: str, options: dict[str, Any]) -> None:
    """Every channel of the pooled features is either gone or divided by the keep probability."""
    head = identity(POOLINGS[key](CHANNELS, CHANNELS, dropout=1 - KEEP, **options))
    x = positive_features()
    kept = head.eval()(x).logits / KEEP
    dropped = head.train()(x).logits
    gone = dropped.abs() < 1e-12
    torch.testing.assert_close(dropped, torch.where(gone, 0.0, kept))
    assert abs(gone.double().mean() - (1 - KEEP)) < 0.1
    assert len({tuple(row.tolist()) for row in gone}) > 10  # images are dropped independently


@pytest.mark.parametrize(("key", "options"), HEADS, ids=str)
def test_positions_drops_entries_on_their_way_to_t(key: str, options: dict[str, Any]) -> None:
    """`logit_c = 1/N sum_i h_i m_ic x_ic / keep + alpha mean(h)`, m is 0 or 1; h sees what was not dropped."""
    alpha = 0.7
    head = identity(POOLINGS[key](CHANNELS, CHANNELS, dropout=1 - KEEP, dropout_on="positions", **options), alpha=alpha)
    x = positive_features()
    maps = head.eval()(x, maps=True)
    h = maps.bottom_up[0, 0].expand(CHANNELS, -1)  # (C, N), of undropped features
    parts = h * (maps.top_down[0, 0] - alpha) / COUNT / KEEP
    dropped = head.train()(x).logits - alpha * h.mean(1)
    masks = set()
    for c in range(CHANNELS):
        subsets = [keep for size in range(COUNT + 1) for keep in combinations(range(COUNT), size)]
        sums = torch.stack([parts[c, list(keep)].sum() for keep in subsets])
        nearest = (dropped[:, c, None] - sums).abs().min(1)
        assert (nearest.values < 1e-12).all()
        masks |= {subsets[int(at)] for at in nearest.indices}
    assert len(masks) == 2**COUNT  # single entries come and go, not rows or columns


@pytest.mark.parametrize(("key", "options"), [("average", {}), *HEADS], ids=str)
@pytest.mark.parametrize("dropout_on", ["pooled", "positions"])
def test_dropout_is_unbiased(key: str, options: dict[str, Any], dropout_on: str) -> None:
    where = {"dropout_on": dropout_on} if key != "average" else {}
    head = identity(POOLINGS[key](CHANNELS, CHANNELS, dropout=0.8, **options, **where), alpha=-0.3)  # the released rate
    x = positive_features(20_000)
    expected = head.eval()(x[:1]).logits[0]
    with torch.no_grad():
        drawn = head.train()(x).logits
    error = drawn.std(0) / len(x) ** 0.5
    assert ((drawn.mean(0) - expected).abs() < 4.5 * error).all()
    assert (error > 0).all()


@pytest.mark.parametrize("rank", [2, 3])
def test_dropout_with_several_terms_is_unbiased(rank: int) -> None:
    for where in ("pooled", "positions"):
        head = POOLINGS["attentional"](CHANNELS, CHANNELS, rank=rank, dropout=0.5, dropout_on=where).double()
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.normal_()
            x = positive_features(20_000)
            expected = head.eval()(x[:1]).logits[0]
            drawn = head.train()(x).logits
        assert ((drawn.mean(0) - expected).abs() < 4.5 * drawn.std(0) / len(x) ** 0.5).all()


def test_dropout_does_not_touch_the_maps() -> None:
    """Maps explain the score without dropout, also when they are asked for in training."""
    head = POOLINGS["attentional"](CHANNELS, 3, dropout=0.5, dropout_on="positions").double()
    x = positive_features(2)
    torch.testing.assert_close(head.train()(x, maps=True).combined, head.eval()(x, maps=True).combined)
