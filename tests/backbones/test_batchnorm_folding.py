"""Batch norm folded into convolutions: the same features, or no folding at all."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from attnpool.backbones.backbone import Backbone
from attnpool.backbones.batchnorm_folding import fold, folded

CPU = torch.device("cpu")
ROUNDING = 1e-5  # of the folded weights, which are of float32


def image(size: int = 96) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))


def norms(module: nn.Module) -> int:
    return sum(isinstance(child, nn.BatchNorm2d) for child in module.modules())


def stir(module: nn.Module) -> None:
    """Gives every batch norm statistics and weights that matter, as a trained network has them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for child in module.modules():
            if isinstance(child, nn.BatchNorm2d):
                for tensor in (child.running_var, child.weight):
                    assert tensor is not None
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
                for tensor in (child.running_mean, child.bias):
                    assert tensor is not None
                    tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))


def difference(backbone: Backbone, quick: Backbone, size: int = 96) -> float:
    """Relative to the largest feature, in float64, where no order of sums makes a deep network differ by more."""
    backbone, quick = (copy.deepcopy(network).double() for network in (backbone, quick))
    with torch.inference_mode():
        expected, found = backbone(image(size).double()), quick(image(size).double())
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    return Backbone("lite0", frozen=True)


def test_lite0_is_folded_and_computes_the_same(lite0: Backbone) -> None:
    before = {name: tensor.clone() for name, tensor in lite0.state_dict().items()}
    quick = folded(lite0, CPU)
    assert norms(lite0) > 40
    assert norms(quick) == 0
    assert difference(lite0, quick) < ROUNDING
    assert difference(lite0, quick, 70) < ROUNDING
    assert not quick.training
    assert quick.out_channels == lite0.out_channels
    after = lite0.state_dict()  # the network itself stays as it is
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_byobnet", "resnet10t", "densenet121", "resnetv2_50d", "test_vit"]
)
def test_other_networks(name: str) -> None:
    """Whatever stands where in them, with batch norm before the convolution or after it, or without any."""
    torch.manual_seed(0)
    backbone = Backbone(name, "random", frozen=True)
    stir(backbone)
    backbone.eval()
    assert difference(backbone, folded(backbone, CPU)) < ROUNDING


class Small(nn.Module):
    """Stands in for a timm network."""

    num_features = 8

    def __init__(self, channels: int = 8, size: int | None = None) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(8, channels, 3)
        self.size = size

    def forward_features(self, x: Tensor) -> Tensor:
        if self.size is not None:
            assert x.shape[-1] == self.size, "takes images of one size"
            return self.second(self.norm(self.first(x)))
        # not what the order of the children says: the norm comes last
        x = self.norm(self.second(self.first(x)))
        return x[:, :8]


def backbone_of(net: nn.Module) -> Backbone:
    backbone = Backbone("test_resnet", "random", frozen=True)
    backbone.net = net
    stir(net)
    return backbone.requires_grad_(False).eval()


def test_a_network_whose_order_misleads_is_not_folded() -> None:
    backbone = backbone_of(Small())
    wrong = backbone_of(Small())
    wrong.net.load_state_dict(backbone.net.state_dict())
    assert fold(wrong.net) == 1
    assert difference(backbone, wrong) > 0.01  # so that there is something to notice
    quick = folded(backbone, CPU)
    assert norms(quick) == 1
    assert difference(backbone, quick) < 1e-9  # the same weights


def test_a_norm_of_other_channels_is_left_alone() -> None:
    backbone = backbone_of(Small(channels=12))
    quick = folded(backbone, CPU)
    assert norms(quick) == 1
    assert difference(backbone, quick) < 1e-9  # the same weights


def test_a_network_for_images_of_one_size() -> None:
    backbone = backbone_of(Small(size=160))
    assert difference(backbone, folded(backbone, CPU), 160) < ROUNDING


def test_fold_counts() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU())
    assert fold(plain) == 1
    assert fold(plain) == 0
    without = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    assert fold(without) == 0
    nested = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4))
    assert fold(nested) == 0  # not side by side
