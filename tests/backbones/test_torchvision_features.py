"""torchvision's networks as backbones: the features that its own extractor finds, and files as they are published."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from networks import network, noise
from torchvision.models.feature_extraction import create_feature_extractor

from attnpool.backbones.backbone import Backbone
from attnpool.backbones.torchvision_features import Trunk

# Where torchvision's extractor, which follows what a network computes, finds the last feature map.
LAST = {
    "resnet18": "layer4",
    "densenet121": "relu",
    "mobilenet_v3_small": "features",
    "shufflenet_v2_x0_5": "conv5",
    "regnet_x_400mf": "trunk_output",
    "googlenet": "inception5b.cat",
}


@pytest.mark.parametrize("name", LAST)
def test_features_are_those_of_the_extractor(name: str, tmp_path: Path) -> None:
    """From a file with the whole network, auxiliary classifiers among it."""
    net = network(f"torchvision:{name}")
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    backbone = Backbone(f"torchvision:{name}", tmp_path / "weights.pth", frozen=True)
    x = noise(96)
    with torch.no_grad():
        extractor = create_feature_extractor(net, {LAST[name]: "found"}, suppress_diff_warning=True)
        expected = extractor(x)["found"]
        assert torch.equal(backbone(x), expected)
    assert backbone.out_channels == expected.shape[1]
    assert backbone.report is not None
    assert backbone.report.ignored
    assert all(key not in backbone.net.state_dict() for key in backbone.report.ignored)


def test_children_are_shared() -> None:
    net = network("torchvision:resnet18")
    trunk = Trunk(net)
    assert trunk.get_submodule("layer4") is net.layer4
    assert [name for name, _ in trunk.named_children()] == [
        *("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    ]
