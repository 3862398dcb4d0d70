"""Trained classifiers with attention in place of average pooling: the same predictions, or one line why not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import CLASSES, as_if_trained, network, noise
from torch import Tensor, nn

import attnpool as ap
from attnpool.models.conversion.classifier import TOLERANCE
from attnpool.models.run import load_model, save_run

# Families of timm, the size of the images, and how the classifier's weights are called.
CONVERT = {
    "resnet10t": (64, "fc"),
    "tf_efficientnet_lite0": (64, "classifier"),
    "mobilenetv2_035": (64, "classifier"),
    "regnetx_002": (64, "head.fc"),
    "densenet121": (64, "classifier"),
    "nf_regnet_b0": (64, "head.fc"),
    "swin_tiny_patch4_window7_224": (224, "head.fc"),
    "mixer_s32_224": (224, "head"),
    "pvt_v2_b0": (64, "head"),
    "xception41": (96, "head.fc"),
}
# Those with a layer norm of the average, and what it is called.
NORMED = {
    "convnext_atto": (64, "head.norm", "head.fc"),
    "vit_little_patch16_reg1_gap_256": (256, "fc_norm", "head"),
    "torchvision:convnext_tiny": (64, "classifier.0", "classifier.2"),
}
BETWEEN = "stands between its average pooling and its scores, so they are no sum over positions"
REFUSE = {
    "mobilenetv3_small_050": f"act2 (Hardswish) {BETWEEN}",
    "ghostnet_050": f"act2 (ReLU) {BETWEEN}",
    "inception_next_atto": f"head.act (GELU) {BETWEEN}",
    "vit_tiny_patch16_224": "its classifier sees a class token and not the average of its last feature map",
    "crossvit_tiny_240": "head.1 (Linear) is a classifier of other features, beside its first",
}
TORCHVISION = {
    "resnet18": "fc",
    "mobilenet_v2": "classifier.1",
    "densenet121": "classifier",
    "efficientnet_b0": "classifier.1",
    "regnet_x_400mf": "fc",
    "shufflenet_v2_x0_5": "fc",
    "googlenet": "fc",
}
TORCHVISION_REFUSES = {
    "mobilenet_v3_small": f"classifier.1 (Hardswish) {BETWEEN}",
    "vit_b_16": "its classifier sees a class token",
    "squeezenet1_0": "classifier.1 (Conv2d) stands between its feature map and the pooling",
}


def exact(model: Any, x: Tensor, **options: Any) -> Any:
    """What a copy in float64 computes, where no order of sums makes deep networks differ."""
    with torch.inference_mode():
        return copy.deepcopy(model).double()(x.double(), **options)


def same(found: Tensor, expected: Tensor) -> None:
    """1e-5, and of logits beyond 1 relative to the largest."""
    assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
    assert expected.std() > 0.01  # scores that could be wrong


def check(net: Any, model: ap.Recognizer, x: Tensor, name: str) -> None:
    """Logits of the network, and its class activation maps as Zhou et al. define them."""
    assert not model.training
    net, model, x = copy.deepcopy(net).double(), copy.deepcopy(model).double(), x.double()
    classifier = net.get_submodule(name)
    seen: list[Tensor] = []
    classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        logits = net(x)
        out = model(x, maps=True)
        features = model.backbone(x)
    same(out.logits, logits)
    assert out.top_down is not None
    assert out.bottom_up is not None
    assert out.combined is not None
    assert torch.equal(out.bottom_up, torch.ones_like(out.bottom_up))
    same(out.combined.sum((-2, -1)), logits)
    weight, bias = classifier.weight.detach(), classifier.bias.detach()
    expected = torch.einsum("kc,bchw->bkhw", weight, features) + bias[:, None, None]
    same(out.top_down[:, 0], expected)
    same(seen[0].flatten(1), features.mean((2, 3)))
    assert features.shape[2] * features.shape[3] > 1


@pytest.mark.parametrize("name", CONVERT)
def test_families_of_timm(name: str, tmp_path: Path) -> None:
    size, classifier = CONVERT[name]
    net = network(name)
    before = copy.deepcopy(net.state_dict())
    model = ap.convert(net, image_size=size)
    x = noise(size)
    check(net, model, x, classifier)
    assert model.classes == tuple(f"class_{i}" for i in range(CLASSES))
    assert model.backbone.mean == pytest.approx([255 * v for v in net.pretrained_cfg["mean"]])
    assert model.backbone.frozen
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    loaded = load_model(save_run(model, tmp_path / "run"))
    with torch.inference_mode():
        assert torch.equal(loaded(x).logits, model(x).logits)
    assert loaded.backbone.mean == model.backbone.mean
    assert loaded.describe() == model.describe()


@pytest.mark.parametrize("name", TORCHVISION)
def test_families_of_torchvision(name: str, tmp_path: Path) -> None:
    net = network(f"torchvision:{name}")
    model = ap.convert(net, image_size=64, freeze_backbone=False)
    x = noise(64)
    check(net, model, x, TORCHVISION[name])
    assert model.backbone.mean == pytest.approx((123.675, 116.28, 103.53))
    assert all(parameter.requires_grad for parameter in model.parameters())
    loaded = load_model(save_run(model, tmp_path / "run"))
    assert loaded.backbone.name == f"torchvision:{name}"
    with torch.inference_mode():
        assert torch.equal(loaded(x).logits, model(x).logits)


@pytest.mark.parametrize("name", NORMED)
def test_a_layer_norm_of_the_average(name: str, tmp_path: Path) -> None:
    """One shift and one scale an image: maps of features that have it still add up to the score."""
    size, norm, classifier = NORMED[name]
    net = network(name)
    with torch.no_grad():
        layer = net.get_submodule(norm)
        layer.weight.uniform_(0.5, 1.5)
        layer.bias.normal_()
    model = ap.convert(net, image_size=size, pooling_options={"rank": 2})
    x = 3 * noise(size)
    logits, out, features = exact(net, x), exact(model, x, maps=True), exact(model.backbone, x)
    same(out.logits, logits)
    assert out.combined is not None
    assert out.top_down is not None
    same(out.combined.sum((-2, -1)), logits)
    average = features.mean((2, 3), keepdim=True)
    shift, scale = average.mean(1, keepdim=True), (average.var(1, correction=0, keepdim=True) + layer.eps).sqrt()
    last = net.get_submodule(classifier)
    normed = (features - shift) / scale * layer.weight.detach().double()[:, None, None]
    normed = normed + layer.bias.detach().double()[:, None, None]
    expected = torch.einsum("kc,bchw->bkhw", last.weight.detach().double(), normed)
    expected = expected + last.bias.detach().double()[:, None, None]
    same(out.top_down[:, 0], expected)
    assert model.describe()["standardize"] == "pooled"
    loaded = load_model(save_run(model, tmp_path / "run"))
    with torch.inference_mode():
        assert torch.equal(loaded(x).logits, model(x).logits)


@pytest.mark.parametrize(("name", "size"), [("levit_128s", 224), ("efficientformer_l1", 224)])
def test_two_classifiers_of_the_same_average(name: str, size: int) -> None:
    """Distilled networks: the mean of both is one classifier."""
    net = network(name)
    model = ap.convert(net)
    x = noise(size)
    same(exact(model, x).logits, exact(net, x))
    with torch.inference_mode():
        net.head_dist.register_forward_hook(lambda *_: torch.zeros(2, CLASSES))
        assert (net(x) - model(x).logits).abs().max() > 0.1  # the second one counts


def refused(net: nn.Module, line: str, **options: Any) -> None:
    with pytest.raises(ValueError) as caught:
        ap.convert(net, **options)
    assert str(caught.value) == line


@pytest.mark.parametrize("name", REFUSE)
def test_what_cannot_be_converted(name: str) -> None:
    refused(network(name), f"{name}: cannot be converted: {REFUSE[name]}")


def test_vgg() -> None:
    """(With a few of the 4096 channels between its last layers, which are most of its weights.)"""
    line = "vgg11: cannot be converted: pre_logits.fc1 (Conv2d) stands between its feature map and the pooling"
    refused(network("vgg11", mlp_ratio=0.01), line)


@pytest.mark.parametrize("name", TORCHVISION_REFUSES)
def test_what_cannot_be_converted_of_torchvision(name: str) -> None:
    line = f"torchvision:{name}: cannot be converted: {TORCHVISION_REFUSES[name]}"
    refused(network(f"torchvision:{name}"), line)


def test_vits_that_are_pooled_by_the_average() -> None:
    """With a layer norm behind the pooling or, as its author may choose, before it."""
    name = "vit_tiny_patch16_224"
    net = network(name, global_pool="avg")
    model = ap.convert(net)
    x = noise(224)
    same(exact(model, x).logits, exact(net, x))
    with pytest.raises(ValueError, match=f"{name}: cannot be saved as a run"):  # it is not what the name means
        model.describe()
    net = network(name, global_pool="avg", fc_norm=False)
    model = ap.convert(net)
    check(net, model, x, "head")
    assert model.describe()["backbone"] == name


def test_other_poolings() -> None:
    sees = "resnet10t: cannot be converted: its classifier sees"
    not_average = "and not the average of its last feature map"
    refused(network("resnet10t", global_pool="max"), f"{sees} the maximum over the positions {not_average}")
    refused(network("resnet10t", global_pool="avgmax"), f"{sees} the mean of average and maximum {not_average}")


def test_one_position_cannot_tell_poolings_apart() -> None:
    with pytest.raises(ValueError, match=r"a single position: a class token, or images are too small \(image_size\)"):
        ap.convert(network("resnet10t", global_pool="max"), image_size=32)


class Residual(nn.Module):
    """Layers in a row, and not: the input is added to what is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Conv2d(3, 3, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.pool(self.layers(x)) + self.pool(x)).flatten(1))


def own() -> nn.Sequential:
    """Batch norm and dropout between pooling and classifier; a second linear layer without a nonlinearity between."""
    layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(8)]
    torch.manual_seed(0)
    return as_if_trained(nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(8, 5, bias=False), nn.Linear(5, CLASSES)))


def test_networks_of_ones_own(tmp_path: Path) -> None:
    net = own().train()
    model = ap.convert(net, classes=list("abcdefg"), image_size=33)
    assert all(module.training for module in net.modules())
    x = noise(33)
    same(exact(model, x).logits, exact(net.eval(), x))
    assert model.classes == tuple("abcdefg")
    with pytest.raises(ValueError, match="Sequential: cannot be saved as a run or trained into one, which builds its"):
        save_run(model, tmp_path / "run")
    assert not list(tmp_path.glob("run/*.json"))
    with torch.no_grad():  # a copy: what becomes of the network does not change it
        before = model(x).logits
        net[0].weight.zero_()
        assert torch.equal(model(x).logits, before)


def test_networks_that_are_no_row_of_layers() -> None:
    torch.manual_seed(0)
    line = "its classifier sees something else and not the average of its last feature map"
    refused(as_if_trained(Residual()), f"Residual: cannot be converted: {line}")
    line = "Sequential: cannot be converted: it does not return logits (B, K) as a classifier does"
    refused(nn.Sequential(nn.Conv2d(3, 8, 3)), line)
    with pytest.raises(ValueError, match="it cannot be run on 224 px images as layers in a row"):
        ap.convert(nn.Sequential(nn.Linear(5, 2)))


def test_mistakes() -> None:
    net = network("resnet10t")
    with pytest.raises(ValueError, match="scores 7 classes, but classes has 2 names"):
        ap.convert(net, classes=["a", "b"], image_size=64)
    with pytest.raises(ValueError, match=r"weights are torch.float16; convert it in float32: network.float\(\)"):
        ap.convert(network("resnet10t").half())
    with pytest.raises(ValueError, match="image_size is 0"):
        ap.convert(net, image_size=0)
    net.fc.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="logits of the conversion differ by inf"):
        ap.convert(net, image_size=64)


class Exposed(nn.Module):
    """Has features of the image, but scores the image at a contrast that random images have already."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, CLASSES)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.forward_features(x / x.std().round(decimals=1))).flatten(1))


def test_a_network_that_scales_its_input_shows_it_on_images() -> None:
    net, x = as_if_trained(Exposed()), noise(33)
    assert torch.equal(x / x.std().round(decimals=1), x)
    with pytest.raises(ValueError, match="Exposed: cannot be converted: the logits of the conversion differ by"):
        ap.convert(net, image_size=33)


def test_an_input_that_is_rescaled() -> None:
    net = network("torchvision:googlenet")
    net.transform_input = True
    line = "torchvision:googlenet: cannot be converted: it rescales its input first (transform_input)"
    refused(net, line, image_size=64)


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 3},
        {"per_class": True},
        {"activation": "relu"},
        {"activation": "sigmoid", "rank": 2},
        {"activation": "softmax"},
        {"dropout": 0.5},
    ],
    ids=str,
)
def test_every_attention_starts_there(options: dict[str, Any], tmp_path: Path) -> None:
    net = network("resnet10t")
    model = ap.convert(net, image_size=64, pooling_options=options)
    x = noise(64)
    same(exact(model, x).logits, exact(net, x))
    assert model.pooling_options.items() >= options.items()
    loaded = load_model(save_run(model, tmp_path / "run"))
    with torch.inference_mode():
        assert torch.equal(loaded(x).logits, model(x).logits)


def test_the_attention_can_learn() -> None:
    """One step changes the bottom-up map, of which every term has its own."""
    net = network("resnet10t")
    model = ap.convert(net, image_size=64, pooling_options={"rank": 2}, freeze_backbone=False).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(noise(64)).logits, torch.tensor([0, 1])).backward()
        optimizer.step()
    head: Any = model.head
    assert torch.linalg.matrix_rank(head.b) == 2
    assert head.b[0].abs().max() > 0
    assert not torch.equal(model.backbone.net.conv1[0].weight, net.conv1[0].weight)


def test_classes_of_imagenet() -> None:
    names = ap.convert(network_of_imagenet(), image_size=64).classes
    assert (len(names), len(set(names))) == (1000, 1000)
    assert (names[0], names[207], names[985]) == ("tench", "golden retriever", "daisy")
    assert names[134] == "crane (n02012849)"
    assert names[517] == "crane (n03126707)"


def network_of_imagenet() -> Any:
    import timm

    torch.manual_seed(0)
    return timm.create_model("resnet10t")


def test_a_recognizer_with_average_pooling(tmp_path: Path) -> None:
    torch.manual_seed(0)
    view = {"image_size": 64, "short_side": None, "max_width": None}
    before = ap.Recognizer(
        "resnet10t",
        classes=list("abcdefg"),
        pooling="average",
        weights="random",
        pooling_options={"dropout": 0.3},
        task="multi",
        preprocessing=view,
    ).eval()
    before.standardize.fit(torch.randn(512), torch.rand(512) + 0.5)  # type: ignore[operator]
    with torch.no_grad():
        before.head.a.normal_()  # type: ignore[union-attr, operator]
    model = ap.convert(before, pooling_options={"rank": 2})
    x = noise(64)
    same(exact(model, x).logits, exact(before, x).logits)
    kept = ("classes", "task", "scores", "standardize", "preprocessing", "pixels", "backbone")
    assert {key: model.describe()[key] for key in kept} == {key: before.describe()[key] for key in kept}
    assert model.pooling_options.items() >= {"rank": 2, "dropout": 0.3}.items()
    loaded = load_model(save_run(model, tmp_path / "run"))
    with torch.inference_mode():
        assert torch.equal(loaded(x).logits, model(x).logits)
    with pytest.raises(ValueError, match="its pooling is attentional, not average; there is nothing to convert"):
        ap.convert(model)
    with pytest.raises(ValueError, match="its classes have names already"):
        ap.convert(before, classes=list("gfedcba"))


def test_tolerance_is_what_the_pages_say() -> None:
    assert TOLERANCE == 1e-5


@pytest.mark.parametrize("frozen", [True, False])
def test_parameters_that_are_never_trained(frozen: bool) -> None:
    """Of a network that is trained on, those stay fixed that its author fixed."""
    net = network("resnet10t")
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    own_net = as_if_trained(nn.Sequential(*layers, nn.Linear(4, CLASSES)))
    own_net[0].weight.requires_grad_(False)
    for model, fixed in (
        (ap.convert(net, image_size=64, freeze_backbone=frozen), 0),
        (ap.convert(own_net, image_size=32, freeze_backbone=frozen), 1),
    ):
        trained = [parameter.requires_grad for parameter in model.backbone.parameters()]
        assert trained.count(False) == (len(trained) if frozen else fixed)
        assert all(parameter.requires_grad for parameter in model.head.parameters())
        model.train()
        assert model.backbone.training != frozen
