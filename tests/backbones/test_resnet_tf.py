"""slim's ResNet-101: the same parameters as timm's, and its geometry at any size. (Numbers: test_tf_checkpoint.py.)"""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attnpool.backbones.backbone import Backbone
from attnpool.backbones.batchnorm_folding import folded


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """In float64, with statistics of batch norm that are not the first ones."""
    made = Backbone("resnet101_tf", "random", frozen=True).double()
    generator = torch.Generator().manual_seed(1)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-5, 0.003)
            for tensor, low in ((module.weight, 0.2), (module.bias, 0.0), (module.running_var, 0.5)):
                assert tensor is not None
                tensor.data.uniform_(low, low + 0.5, generator=generator)
    return made


def last_units(backbone: Backbone, x: Tensor) -> Tensor:
    """The network as slim writes it: units have stride 1, and every second position of layers 1 to 3 goes on."""
    net = backbone.net
    x = net.act1(net.bn1(F.conv2d(F.pad(x, (3, 3, 3, 3)), net.conv1.weight, stride=2)))
    height, width = x.shape[2:]
    x = F.max_pool2d(F.pad(x, (width % 2, 1, height % 2, 1), value=-torch.inf), 3, 2)
    for number, layer in enumerate((net.layer1, net.layer2, net.layer3, net.layer4), 1):
        for unit in layer:
            shortcut = x
            if unit.downsample is not None:
                shortcut = unit.downsample[1](F.conv2d(x, unit.downsample[0].weight))
            inner = F.relu(unit.bn1(F.conv2d(x, unit.conv1.weight)))
            inner = F.relu(unit.bn2(F.conv2d(inner, unit.conv2.weight, padding=1)))
            x = F.relu(shortcut + unit.bn3(F.conv2d(inner, unit.conv3.weight)))
        if number < 4:
            x = x[:, :, ::2, ::2]
    return x


@settings(max_examples=8)
@given(height=st.integers(33, 100), width=st.integers(33, 100))
def test_stride_on_the_first_unit_is_stride_on_the_last_one_before(backbone: Backbone, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(height * width)
    x = 50 * torch.randn(1, 3, height, width, generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        expected, found = last_units(backbone, x), backbone(x)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()
    assert expected.std() > 0.01 * expected.mean()


def test_parameters_are_those_of_timms_resnet101(backbone: Backbone) -> None:
    """So weights of either fit the other's names, such as those that a training on ImageNet left."""
    ordinary = timm.create_model("resnet101", num_classes=0).state_dict()
    own = backbone.net.state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in ordinary.items()}
    assert backbone.out_channels == 2048


def test_pixels_are_rgb_minus_128(backbone: Backbone) -> None:
    assert (backbone.mean, backbone.std) == ((128.0,) * 3, (1.0,) * 3)


def test_there_are_no_pretrained_weights_of_it() -> None:
    with pytest.raises(ValueError, match=r"resnet101_tf: .* no pretrained weights"):
        Backbone("resnet101_tf")


def test_batch_norms_fold(backbone: Backbone) -> None:
    quick = folded(backbone, torch.device("cpu"))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    x = 50 * torch.randn(1, 3, 64, 65, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(quick(x), backbone(x))
