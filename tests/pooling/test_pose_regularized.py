"""What a pose head shares with attention: its hidden layer, its gradients and where its weights are."""

from __future__ import annotations

import pytest
import torch

from attnpool.pooling import PoseRegularizedPooling


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "tokens"])
def test_gradients_lie_as_the_features_do(layout: str) -> None:
    x = torch.randn(4, 16, 6, 6, generator=torch.Generator().manual_seed(0))
    if layout == "NHWC":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "tokens":
        x = x.flatten(2).transpose(1, 2).contiguous()
    out = PoseRegularizedPooling(16, 20, hidden=8)(x.requires_grad_())
    assert out.pose is not None
    (gradient,) = torch.autograd.grad(out.logits.sum() + out.pose.sum(), [x])
    assert gradient.stride() == x.stride()


def test_as_many_maps_as_joints_and_the_pose_is_there_without_maps() -> None:
    head = PoseRegularizedPooling(6, 3, hidden=5, joints=7).double().eval()
    x = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plain, mapped = head(x), head(x, maps=True)
    assert plain.pose.shape == (2, 7, 3, 4)
    assert torch.equal(plain.pose, mapped.pose)
    assert plain.combined is None
