"""Average and max pooling against loops over the positions."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from attnpool.pooling import POOLINGS, PoolingHead


def head_of(key: str, *, bias: bool = True) -> PoolingHead:
    head = POOLINGS[key](5, 3, bias=bias).double().eval()
    with torch.no_grad():
        for at, parameter in enumerate(head.parameters()):
            generator = torch.Generator().manual_seed(at)
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return head


@pytest.mark.parametrize(("key", "pool"), [("average", np.mean), ("max", np.max)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_classifier_of_what_numpy_pools(key: str, pool: object, bias: bool) -> None:
    head = head_of(key, bias=bias)
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 4))
    a, *alpha = (parameter.detach().numpy() for parameter in head.parameters())
    assert len(alpha) == bias
    expected = pool(x, axis=(2, 3)) @ a.T + (alpha[0] if bias else 0)  # type: ignore[operator]
    np.testing.assert_allclose(head(torch.from_numpy(x)).logits.detach().numpy(), expected, rtol=0, atol=1e-12)


def test_a_channel_gives_its_maximum_to_the_first_position_that_has_it() -> None:
    head = head_of("max")
    x = np.random.default_rng(1).integers(0, 3, size=(1, 5, 3, 4)).astype(float)  # many ties
    a, alpha = (parameter.detach().numpy() for parameter in head.parameters())
    expected = np.tile(alpha[:, None, None] / 12, (1, 3, 4))
    for channel in range(5):
        where = list(product(range(3), range(4)))
        i, j = max(where, key=lambda at: x[0, channel][at])  # the first of the largest
        expected[:, i, j] += a[:, channel] * x[0, channel, i, j]
    for layout in (torch.contiguous_format, torch.channels_last):
        features = torch.from_numpy(x).contiguous(memory_format=layout)
        found = head(features, maps=True).combined[0].detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
