"""VLAD pooling against its formula, evaluated position by position."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attnpool.pooling import NetVLADPooling


@pytest.mark.parametrize("norms", [True, False])
def test_against_loops(norms: bool) -> None:
    torch.manual_seed(0)
    head = NetVLADPooling(5, 3, clusters=4, norms=norms).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
    x = torch.randn(2, 5, 2, 3, dtype=torch.float64)
    assign, bias, centres, a, alpha = (value.detach().numpy() for value in head.parameters())
    for features, logits in zip(x.flatten(2).numpy(), head(x).logits.detach().numpy(), strict=True):
        sums = np.zeros((4, 5))
        for position in features.T:
            weights = np.exp(assign @ position + bias)
            for cluster in range(4):
                sums[cluster] += weights[cluster] / weights.sum() * (position - centres[cluster])
        sums /= features.shape[1]
        if norms:
            sums /= np.linalg.norm(sums, axis=1, keepdims=True)
            sums /= np.linalg.norm(sums)
        np.testing.assert_allclose(logits, a @ sums.ravel() + alpha, rtol=0, atol=1e-10)


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="clusters must be at least 1"):
        NetVLADPooling(8, 3, clusters=0)
