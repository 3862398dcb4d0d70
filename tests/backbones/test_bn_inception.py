"""BN-Inception: the published names, the published files, and the network that they were trained in."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from attnpool.backbones.backbone import Backbone
from attnpool.backbones.batchnorm_folding import folded
from attnpool.backbones.bn_inception import BNInception
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import load_model, save_run

Image = tuple[int, int]


def stirred(in_channels: int = 3) -> BNInception:
    """A network whose batch norms have statistics and weights that matter, as a trained one's have."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = BNInception(in_channels).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.running_var, module.weight):
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))  # type: ignore[union-attr]
                for tensor in (module.running_mean, module.bias):
                    tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))  # type: ignore[union-attr]
            elif isinstance(module, nn.Conv2d):
                module.bias.copy_(0.1 * torch.randn(module.bias.shape, generator=generator))  # type: ignore[union-attr]
    return net


@pytest.fixture(scope="module")
def net() -> BNInception:
    return stirred()


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def published_layers() -> list[str]:
    """The names of the convolutions, by the rule of the prototxt; 3c and 4e have stride 2 and two branches."""
    names = ["conv1_7x7_s2", "conv2_3x3_reduce", "conv2_3x3"]
    for block in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        branches = ["3x3_reduce", "3x3", "double_3x3_reduce", "double_3x3_1", "double_3x3_2"]
        if block not in ("3c", "4e"):
            branches = ["1x1", *branches, "pool_proj"]
        names += [f"inception_{block}_{branch}" for branch in branches]
    return names


def test_names_are_the_published_ones(net: BNInception) -> None:
    expected = set()
    for name in published_layers():
        expected |= {f"{name}.weight", f"{name}.bias"}
        expected |= {f"{name}_bn.{part}" for part in ("weight", "bias", "running_mean", "running_var")}
        expected.add(f"{name}_bn.num_batches_tracked")
    assert len(published_layers()) == 69
    assert net.state_dict().keys() == expected


def test_size_is_the_published_one(net: BNInception) -> None:
    """pretrained-models.pytorch's bninception with 1000 classes has 11,295,240 parameters."""
    classifier = 1000 * net.num_features + 1000
    assert sum(p.numel() for p in net.parameters()) + classifier == 11_295_240


def convolve(state: dict[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    """Convolution, batch norm by its formula, ReLU."""
    weight = state[f"{name}.weight"]
    y = F.conv2d(x, weight, state[f"{name}.bias"], stride, weight.shape[-1] // 2)
    mean, var, gamma, beta = (
        state[f"{name}_bn.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return ((y - mean) / (var + 1e-5).sqrt() * gamma + beta).clamp_min(0)


def pool(x: Tensor, how: Callable[[Tensor], Tensor], stride: int, pad: int, count: Image, border: float) -> Tensor:
    """Caffe's pooling of 3x3 windows, window by window: the first starts at -pad, `count` of them fit."""
    rows = [[at * stride - pad + i for i in range(3)] for at in range(count[0])]
    columns = [[at * stride - pad + i for i in range(3)] for at in range(count[1])]
    wide = F.pad(x, (3, 3, 3, 3), value=border)
    return torch.stack(
        [
            torch.stack([how(wide[:, :, [r + 3 for r in rs]][..., [c + 3 for c in cs]]) for cs in columns], -1)
            for rs in rows
        ],
        -2,
    )


def maximum(window: Tensor) -> Tensor:
    return window.amax((2, 3))


def average(window: Tensor) -> Tensor:
    return window.sum((2, 3)) / 9  # padding counts


def caffe_size(n: int) -> int:
    """Windows of 3 at stride 2 that cover n pixels, the last perhaps cut off."""
    return math.ceil((n - 3) / 2) + 1


def published_network(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network from its description, on BGR, in the terms of a published state dict."""

    def halve(x: Tensor) -> Tensor:
        return pool(x, maximum, 2, 0, (caffe_size(x.shape[2]), caffe_size(x.shape[3])), -math.inf)

    x = halve(convolve(state, "conv1_7x7_s2", x, 2))
    x = halve(convolve(state, "conv2_3x3", convolve(state, "conv2_3x3_reduce", x)))
    for block in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        at = f"inception_{block}"
        stride = 2 if block in ("3c", "4e") else 1
        three = convolve(state, f"{at}_3x3", convolve(state, f"{at}_3x3_reduce", x), stride)
        double = convolve(state, f"{at}_double_3x3_1", convolve(state, f"{at}_double_3x3_reduce", x))
        double = convolve(state, f"{at}_double_3x3_2", double, stride)
        if stride == 2:
            x = torch.cat([three, double, halve(x)], 1)
        else:
            size = (x.shape[2], x.shape[3])
            pooled = pool(x, maximum, 1, 1, size, -math.inf) if block == "5b" else pool(x, average, 1, 1, size, 0.0)
            x = torch.cat(
                [convolve(state, f"{at}_1x1", x), three, double, convolve(state, f"{at}_pool_proj", pooled)], 1
            )
    return x


@pytest.mark.parametrize("size", [(64, 96), (66, 70)], ids=str)
def test_features_are_those_of_the_published_network(net: BNInception, size: Image) -> None:
    """RGB goes in, BGR reaches the weights."""
    twin = BNInception().double().eval()
    twin.load_state_dict(net.state_dict())
    x = noise(2, 3, *size).double()
    with torch.no_grad():
        torch.testing.assert_close(twin.forward_features(x), published_network(twin.state_dict(), x[:, [2, 1, 0]]))


@pytest.mark.parametrize(
    ("size", "grid"),
    [((224, 224), (7, 7)), ((450, 225), (14, 7)), ((340, 256), (11, 8)), ((47, 33), (2, 1)), ((32, 32), (1, 1))],
    ids=str,
)
def test_images_of_any_size(net: BNInception, size: Image, grid: Image) -> None:
    """340x256 are TSN's frames: the published network fails at them, with branches of 10 and 11 rows in 4e."""
    with torch.no_grad():
        assert net.forward_features(noise(1, 3, *size)).shape == (1, 1024, *grid)


def test_pooling_of_odd_maps_starts_where_the_convolutions_do(net: BNInception) -> None:
    """Every output of a block of stride 2 looks at the 3x3 pixels around or behind twice its place."""
    x = noise(1, 320, 7, 5).clamp_min(0)
    with torch.no_grad():
        passed = net.apply_block("3c", x)[:, -320:]
    assert passed.shape == (1, 320, 4, 3)
    for r in range(4):
        for c in range(3):
            assert torch.equal(passed[:, :, r, c], x[:, :, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3].amax((2, 3)))


def test_images_that_are_too_small(net: BNInception) -> None:
    with pytest.raises(ValueError, match="at least 32x32 pixels, not 31x64"):
        net.forward_features(noise(1, 3, 31, 64))


def old(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As files of PyTorch 0.1: batch norms are `(1, C)`, without counters."""
    return {key: value[None] if "_bn." in key else value for key, value in state.items() if "num_batches" not in key}


def files(state: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    def named(prefix: str, values: dict[str, Tensor], **classifier: int) -> dict[str, Tensor]:
        heads = {f"{name}.weight": torch.zeros(classes, 1024) for name, classes in classifier.items()}
        heads |= {f"{name}.bias": torch.zeros(classes) for name, classes in classifier.items()}
        return {prefix + key: value for key, value in (values | heads).items()}

    new_fc = {"module.new_fc.weight": torch.zeros(51, 1024), "module.new_fc.bias": torch.zeros(51)}
    return {
        "pretrained-models.pth": named("", state, last_linear=1000),
        "TSN, ImageNet.pth": named("", old(state), fc=1000),
        "TSN, Kinetics.pth": named("base_model.", old(state), fc_action=400),
        "TSN, training.pth": {
            "epoch": 80,
            "best_prec1": 0.0,
            "state_dict": named("module.base_model.", state) | new_fc,
        },
        "parallel.safetensors": named("module.base_model.", state),
    }


@pytest.mark.parametrize("file", files({}))
def test_published_files(file: str, net: BNInception, tmp_path: Path) -> None:
    path, content = tmp_path / file, files(net.state_dict())[file]
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    backbone = Backbone("bn_inception", path, frozen=True)
    assert backbone.report is not None
    assert backbone.report.matched == (414 if "ImageNet" in file or "Kinetics" in file else 483)
    assert bool(backbone.report.ignored) == (path.suffix != ".safetensors")
    x = noise(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone(x), net.forward_features(x))


def test_files_of_another_network(net: BNInception, tmp_path: Path) -> None:
    state = net.state_dict()
    first = "conv1_7x7_s2.weight"
    for changed, words in (
        ({key: value for key, value in state.items() if key != first}, "1 missing"),
        (state | {first: torch.zeros(64, 5, 7, 7)}, "1 of another shape"),
        (state | {"inception_6a_1x1.weight": torch.zeros(1)}, "1 unknown"),
    ):
        save_file(changed, tmp_path / "weights.safetensors")
        with pytest.raises(ValueError, match=rf"BNInception, .*{words}"):
            Backbone("bn_inception", tmp_path / "weights.safetensors")


def test_weights_are_not_installed() -> None:
    with pytest.raises(
        ValueError, match=r"bn_inception: .*not installed; pass a file .*bn_inception-239d2248.pth"
    ) as caught:
        Backbone("bn_inception")
    assert "\n" not in str(caught.value)


def test_pixels(net: BNInception) -> None:
    """Published: BGR, 0..255, minus (104, 117, 128), undivided."""
    backbone = Backbone("bn_inception", "random", frozen=True)
    backbone.net.load_state_dict(net.state_dict())
    model = Recognizer(backbone, classes=["a", "b"]).double()
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    bgr = pixels.flip(1).double() - torch.tensor([104.0, 117.0, 128.0])[:, None, None]
    with torch.no_grad():
        ours = backbone(model.normalize(pixels).double())
        torch.testing.assert_close(ours, published_network(backbone.net.state_dict(), bgr))


def test_runs_bring_it_back(net: BNInception, tmp_path: Path) -> None:
    backbone = Backbone("bn_inception", "random", frozen=True)
    backbone.net.load_state_dict(net.state_dict())
    model = Recognizer(backbone, classes=["a", "b"]).eval()
    save_run(model, tmp_path / "run")
    x = noise(1, 3, 64, 64)
    assert torch.equal(load_model(tmp_path / "run")(x).logits, model(x).logits)


def test_it_folds(net: BNInception) -> None:
    backbone = Backbone("bn_inception", "random", frozen=True)
    backbone.net.load_state_dict(net.state_dict())
    quick = folded(backbone.double(), torch.device("cpu"))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    x = noise(1, 3, 70, 64).double()
    with torch.inference_mode():
        torch.testing.assert_close(quick(x), backbone(x))


def test_all_of_it_is_trained() -> None:
    backbone = Backbone("bn_inception", "random").train()
    backbone(noise(2, 3, 64, 64)).square().mean().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in backbone.parameters())


def test_flow_stacks_are_not_turned_round(tmp_path: Path) -> None:
    """TSN's flow networks have a first convolution of 10 channels, which is loaded as it is."""
    flow = stirred(10)
    save_file({f"base_model.{key}": value for key, value in flow.state_dict().items()}, tmp_path / "flow.safetensors")
    backbone = Backbone("bn_inception", tmp_path / "flow.safetensors", frozen=True, in_channels=10)
    x = noise(1, 10, 64, 64).double()
    with torch.no_grad():
        torch.testing.assert_close(backbone.double()(x), published_network(flow.double().state_dict(), x))
    assert (backbone.mean, backbone.std) == ((128.0,) * 10, (1.0,) * 10)
