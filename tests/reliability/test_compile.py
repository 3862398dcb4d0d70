"""Heads as machine code: the compiler that `torch.compile` uses by default, which takes its time."""

from __future__ import annotations

import shutil

import pytest
import torch

from attnpool.pooling import AttentionalPooling


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own, while it generates code
def test_compile_to_machine_code() -> None:
    torch._dynamo.reset()
    generator = torch.Generator().manual_seed(1)
    head = AttentionalPooling(6, 4, rank=2, activation="softmax").double().eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        x = torch.randn(2, 6, 3, 4, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(torch.compile(head, fullgraph=True)(x, maps=True), head(x, maps=True))
