"""Features on the scale of their average: layer norm of the average, before it is taken."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from attnpool.models.feature_norm import PooledNorm, Standardize, kind_of, make


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(2, 9), st.integers(1, 5), st.integers(1, 5)),
    eps=st.sampled_from([1e-6, 1e-5, 1e-2]),
    channels_last=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_the_average_is_layer_normed(
    shape: tuple[int, int, int, int], eps: float, channels_last: bool, seed: int
) -> None:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3 + 1
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    norm = PooledNorm(eps).double()
    norm.eps.fill_(eps)
    out = norm(x)
    torch.testing.assert_close(out.mean((2, 3)), F.layer_norm(x.mean((2, 3)), shape[1:2], eps=eps))
    # every position with the same shift and scale
    scale = (out - out[:, :1, :1, :1]) * (x[:, 1:2, :1, :1] - x[:, :1, :1, :1])
    torch.testing.assert_close(scale, (x - x[:, :1, :1, :1]) * (out[:, 1:2, :1, :1] - out[:, :1, :1, :1]))


def test_kinds() -> None:
    for kind, type_ in ((True, Standardize), ("pooled", PooledNorm), (False, nn.Identity)):
        made = make(kind, 4)
        assert type(made) is type_
        assert kind_of(made) == kind
