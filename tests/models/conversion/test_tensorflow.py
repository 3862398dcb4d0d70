"""Released checkpoints: a TensorFlow network with seeded weights, its checkpoints, and the same numbers from runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import attnpool, refused
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import attnpool as ap
from attnpool.models.conversion.tensorflow import Converted, existing, read_classes, require_match
from attnpool.models.conversion.tensorflow_names import HEADS, kind_of, variables
from attnpool.models.run import load_model
from attnpool.pooling import Pooled

ROOT = Path(__file__).parents[3]
TENSORFLOW = ROOT / ".venv-tf" / "bin" / "python"
CLASSES = [f"action {i}" for i in range(7)]
SIZES = ["224x224", "97x130"]  # larger ones, such as the released 450x450, are in tests/reliability/test_tf_sizes.py
STEP = "model.ckpt-12000"


def write(folder: Path, sizes: list[str]) -> None:
    """Runs the network in TensorFlow, which lives in an environment of its own."""
    assert TENSORFLOW.exists(), f"{TENSORFLOW} is missing: make .venv-tf/.ready"
    command = [TENSORFLOW, ROOT / "tests" / "tf_network.py", folder, str(len(CLASSES)), *sizes]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Checkpoints and what the networks compute. Not to be changed."""
    folder = tmp_path_factory.mktemp("tensorflow")
    write(folder, SIZES)
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    yield folder
    shutil.rmtree(folder)  # 850 MB


def convert(written: Path, variant: str, out: Path, prefix: str | None = None, **more: Any) -> Any:
    """The command that converts a checkpoint."""
    options = {"variant": variant, "classes": written / "classes.txt", "out": out, "python": TENSORFLOW} | more
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return attnpool("convert-tf", written / (prefix or f"{variant}/{STEP}"), *words, "--json")


@pytest.fixture(scope="module")
def runs(written: Path) -> dict[str, Path]:
    """A run of every variant. Not to be changed."""
    folders = {}
    for variant in HEADS:
        folders[variant] = written / "runs" / variant
        more = {"task": "multi"} if variant == "pose" else {}
        value = convert(written, variant, folders[variant], **more).value()
        assert value["run"] == str(folders[variant])
        assert (value["classes"], value["variant"], value["missing"]) == (7, variant, [])
        assert sorted(variables(variant)) == value["matched"]
        assert set(value["ignored"]) == unused(variant)
    return folders


def unused(variant: str) -> set[str]:
    """What the checkpoint of a variant holds beside its network."""
    names = {f"resnet_v1_101/logits/{kind}" for kind in ("weights", "biases")}
    if variant == "pose":  # the one with the whole state of its training
        trained = {name for name in variables(variant) if "/moving_" not in name} | names
        return names | {f"{name}/Momentum" for name in trained} | {"global_step"}
    pose = {
        f"PoseLogits/{layer}/{kind}" for layer in ("ExtraConv2d_1x1", "Conv2d_1c_1x1") for kind in ("weights", "biases")
    }
    return {"global_step"} | pose | (set() if variant == "baseline" else names)


@pytest.fixture(scope="module")
def models(runs: dict[str, Path]) -> dict[str, ap.Recognizer]:
    return {variant: ap.Run.load(folder).model for variant, folder in runs.items()}


def difference(found: Tensor, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest number and to the spread of the numbers, whichever is larger."""
    assert tuple(found.shape) == expected.shape
    apart = np.abs(found.numpy() - expected).max()
    return float(max(apart / np.abs(expected).max(), apart / expected.std()))


def last(maps: Tensor) -> Tensor:
    """`(B, C, H, W)` -> `(B, H, W, C)`, as in TensorFlow."""
    return maps.permute(0, 2, 3, 1)


def differences(variant: str, out: Pooled, expected: Any) -> dict[str, float]:
    """Of all that a variant returns."""
    found = {"logits": out.logits}
    if variant != "baseline":
        assert out.bottom_up is not None
        found["bottom_up"] = last(out.bottom_up[:, 0])
    if variant == "pose":
        assert out.pose is not None
        found["pose"] = last(out.pose)
    return {what: difference(tensor, expected[f"{variant}/{what}"]) for what, tensor in found.items()}


def features(model: ap.Recognizer, expected: Any) -> Tensor:
    """Of the image that TensorFlow was given."""
    pixels = torch.from_numpy(expected["pixels"]).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return model.backbone(model.normalize(pixels))


@pytest.mark.parametrize("size", SIZES)
def test_the_numbers_are_tensorflows(written: Path, models: dict[str, ap.Recognizer], size: str) -> None:
    expected = np.load(written / f"{size}.npz")
    pooled = features(models["pose"], expected)  # of all: they share the backbone's weights, see the next test
    for variant, model in models.items():
        with torch.inference_mode():
            found = differences(variant, model.pool(pooled, maps=True), expected)
        assert max(found.values()) < 1e-4, (variant, found)


def test_all_variants_have_the_same_backbone(models: dict[str, ap.Recognizer]) -> None:
    assert len({model.backbone.digest() for model in models.values()}) == 1


def test_a_run_gives_its_backbone_to_another(runs: dict[str, Path], models: dict[str, ap.Recognizer]) -> None:
    made = ap.Backbone("resnet101_tf", runs["linear"] / "model.safetensors")
    assert made.digest() == models["linear"].backbone.digest()


@pytest.mark.parametrize(("what", "size"), [("pool", "224x224"), ("stride", "97x130"), ("pixels", "97x130")])
def test_another_geometry_would_be_noticed(written: Path, runs: dict[str, Path], what: str, size: str) -> None:
    """The images tell the network from timm's: its stem at even sizes, its strides, its pixels."""
    model = load_model(runs["linear"])
    if what == "pool":
        model.backbone.net.maxpool = nn.MaxPool2d(3, 2, 1)
    elif what == "stride":
        for layer in (model.backbone.net.layer2, model.backbone.net.layer3, model.backbone.net.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = (1, 1), (2, 2)
    else:
        model.backbone.mean = (127.0,) * 3
    expected = np.load(written / f"{size}.npz")
    with torch.inference_mode():
        found = differences("linear", model.pool(features(model, expected), maps=True), expected)
    assert min(found.values()) > 1e-3, found


def test_what_was_done_is_said_in_a_line(runs: dict[str, Path]) -> None:
    run = ap.Run.load(runs["pose"])
    made = Converted(run, STEP, "pose", tuple(variables("pose")), tuple(sorted(unused("pose"))))
    assert str(made).splitlines()[0] == (
        "model.ckpt-12000: pose, 7 classes, loaded 528 of 528 variables, none missing; not used: 322 */Momentum, "
        "global_step, resnet_v1_101/logits/biases, resnet_v1_101/logits/weights"
    )


def test_a_run_remembers_how_images_were_seen(runs: dict[str, Path]) -> None:
    for variant, folder in runs.items():
        about = json.loads((folder / "run.json").read_text())
        model = about["model"]
        assert (model["classes"], model["backbone"]) == (CLASSES, "resnet101_tf")
        assert model["task"] == ("multi" if variant == "pose" else "single")
        assert model["preprocessing"] == {"image_size": 450, "short_side": 480, "max_width": 512}
        assert model["pixels"] == {"mean": [128.0] * 3, "std": [1.0] * 3}
        assert about["recipe"] == {"converted_from": STEP, "variant": variant}


def test_a_run_predicts_and_explains(runs: dict[str, Path], tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(photo)
    (predicted,) = attnpool("predict", runs["pose"], photo, "--json").value()
    assert predicted["predictions"][0]["label"] in CLASSES
    (explained,) = attnpool("explain", runs["pose"], photo, "--out", tmp_path / "explained", "--json").value()
    assert Path(explained["panel"]).exists()
    assert explained["best"] in CLASSES


def test_a_run_is_evaluated_and_trained_further(runs: dict[str, Path], tmp_path: Path) -> None:
    for number, name in enumerate(f"{part}/{c}/{i}.png" for part in ("train", "val") for c in CLASSES for i in (0, 1)):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    run = ap.Run.load(runs["linear"])
    run.model.preprocessing = {"image_size": 40, "short_side": None, "max_width": None}  # a hundredth of the work
    source = f"folder:{tmp_path / 'photos'}"
    assert 0 <= ap.evaluate(run, source).scores.mAP <= 1
    train, val = ap.read(source)
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    further = ap.train(
        run.model, train, val, out=tmp_path / "further", options=ap.TrainOptions(epochs=1, batch_size=7), progress=False
    )
    after = further.model.state_dict()
    asked = {"dropout": 0.8, "dropout_on": "positions", "init": "official"}
    assert further.model.describe()["pooling_options"].items() >= asked.items()
    assert not torch.equal(before["head.a"], after["head.a"])
    key = "backbone.net.layer4.2.bn3.running_mean"
    assert not torch.equal(before[key], after[key])


# What cannot be converted: one line, and nothing is left.


def names_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_another_variant_is_named(written: Path, tmp_path: Path) -> None:
    attended = "PosePrelogitsBasedAttention/Conv2d_PrePose_Attn/weights"
    cases = {  # the first has all that the baseline needs, but a classifier that was never trained
        ("linear", "baseline"): ("4 unknown (PosePrelogitsBasedAttention/Conv/biases, ", "use variant linear"),
        ("pose", "linear"): (
            f"1 of another shape ({attended} is (1, 1, 768, 1), not (1, 1, 2048, 1))",
            "use variant pose",
        ),
    }
    for (held, asked), words in cases.items():
        refused(convert(written, asked, tmp_path / "run", f"{held}/{STEP}"), f"the {asked} network", *words)
    assert names_of(tmp_path) == []


@pytest.mark.parametrize("variant", HEADS)
def test_variables_tell_their_variant(variant: str) -> None:
    """Not those of the released code's rank 2, which is no rank 2 (see docs/tensorflow.md)."""
    attended, classifier = "PosePrelogitsBasedAttention/Conv2d_PrePose_Attn", "resnet_v1_101/logits/weights"
    shape = {"linear": (1, 1, 2048, 1), "pose": (1, 1, 768, 1), "per-class": (1, 1, 2048, 7)}.get(variant)
    held = {classifier: (1, 1, 2048, 7)} | ({f"{attended}/weights": shape} if shape else {})
    assert kind_of(held) == variant
    assert kind_of(held | {f"{attended}1/weights": (1, 1, 1, 1)}) is None


def test_another_network_is_refused(written: Path, tmp_path: Path) -> None:
    outcome = convert(written, "linear", tmp_path / "run", f"foreign/{STEP}")
    refused(
        outcome,
        "522 missing",
        "1 unknown (PosePrelogitsBasedAttention/Conv2d_PrePose_Attn1/biases)",
        "1 of another shape (resnet_v1_101/conv1/BatchNorm/gamma is (256,), not (64,))",
        "give a checkpoint of the released code",
    )
    assert names_of(tmp_path) == []


def test_another_number_of_classes_is_refused(written: Path, tmp_path: Path) -> None:
    listed = tmp_path / "six.txt"
    listed.write_text("\n".join(CLASSES[:6]))
    outcome = convert(written, "per-class", tmp_path / "run", classes=listed)
    refused(outcome, f"{written / 'per-class' / STEP}: scores 7 classes, {listed} names 6")
    assert names_of(tmp_path) == ["six.txt"]


def truncate(prefix: Path, source: Path) -> None:
    shutil.copy(f"{source}.index", f"{prefix}.index")
    with open(f"{source}.data-00000-of-00001", "rb") as file:
        Path(f"{prefix}.data-00000-of-00001").write_bytes(file.read(1_000_000))


def flip(prefix: Path, source: Path) -> None:
    shutil.copy(f"{source}.index", f"{prefix}.index")
    content = bytearray(Path(f"{source}.data-00000-of-00001").read_bytes())
    content[len(content) // 2] ^= 1
    Path(f"{prefix}.data-00000-of-00001").write_bytes(content)


def text(prefix: Path, source: Path) -> None:
    prefix.write_text("model_checkpoint_path: 'model.ckpt-12000'\n", encoding="utf-8")


@pytest.mark.parametrize("damage", [truncate, flip, text])
def test_a_damaged_checkpoint(written: Path, tmp_path: Path, damage: Callable[[Path, Path], None]) -> None:
    prefix = tmp_path / "damaged"
    damage(prefix, written / "baseline" / STEP)
    before = names_of(tmp_path)
    outcome = convert(written, "baseline", tmp_path / "run", str(prefix))
    refused(outcome, f"{prefix}: cannot be read as a TensorFlow checkpoint (")
    assert names_of(tmp_path) == before


def test_no_checkpoint(written: Path, tmp_path: Path) -> None:
    refused(
        convert(written, "pose", tmp_path / "run", "pose/model.ckpt"),
        "pose/model.ckpt: no such checkpoint, model.ckpt.index is missing",
        f"there is {STEP}",
    )
    assert names_of(tmp_path) == []


def test_no_tensorflow(written: Path, tmp_path: Path) -> None:
    """In an interpreter that has none, and where there is no interpreter."""
    venv.create(tmp_path / "bare", with_pip=False)
    bare = tmp_path / "bare" / "bin" / "python"
    refused(
        convert(written, "pose", tmp_path / "run", python=bare),
        f"{bare} cannot import TensorFlow (No module named 'tensorflow')",
        "pip install 'attnpool[tf]'",
        "give the interpreter of an environment",
    )
    refused(convert(written, "pose", tmp_path / "run", python=tmp_path / "none"), f"{tmp_path / 'none'}: cannot be run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_left_alone(written: Path, runs: dict[str, Path]) -> None:
    before = (runs["linear"] / "run.json").read_bytes()
    refused(convert(written, "pose", runs["linear"]), f"out {runs['linear']}: holds a run already")
    assert (runs["linear"] / "run.json").read_bytes() == before
    refused(convert(written, "pose", written / "classes.txt"), "is a file; give a new folder")


def test_unknown_variant(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown variant 'rank2': use one of baseline, linear, pose, per-class"):
        ap.convert_tf(tmp_path / "x", variant="rank2", classes=CLASSES, out=tmp_path / "run")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"running\n\ncycling\n", r", line 2: empty; write one class name per line"),
        (b"", r", line 1: empty"),
        (b"caf\xe9\ncycling", r": cannot be read as a list of classes \(not text in UTF-8\)"),
        (None, r": cannot be read as a list of classes \(No such file"),
    ],
)
def test_lists_of_classes_that_are_none(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "classes.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_classes(file)


@pytest.mark.parametrize("content", ["running\ncycling, mountain\n", "\ufeffrunning\r\ncycling, mountain\r\n\r\n"])
def test_lists_of_classes(tmp_path: Path, content: str) -> None:
    (tmp_path / "classes.txt").write_bytes(content.encode())
    assert read_classes(tmp_path / "classes.txt") == ("running", "cycling, mountain")


@pytest.mark.parametrize("ending", ["", ".index", ".meta", ".data-00000-of-00001"])
def test_any_file_of_a_checkpoint_names_it(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"{STEP}.index").touch()
    assert existing(tmp_path / f"{STEP}{ending}") == tmp_path / STEP


@given(data=st.data(), variant=st.sampled_from(sorted(HEADS)))
def test_every_mismatch_is_named(data: st.DataObject, variant: str) -> None:
    expected = {name: (number, 2) for number, name in enumerate(variables(variant))}
    gone = data.draw(st.sets(st.sampled_from(sorted(expected)), max_size=3), "gone")
    other = data.draw(st.sets(st.sampled_from(sorted(expected.keys() - gone)), max_size=3), "of another shape")
    more = data.draw(st.sets(st.text(min_size=1).map("new/{}".format), max_size=3), "unknown")
    shapes = {name: (*shape, 1) if name in other else shape for name, shape in expected.items() if name not in gone}
    shapes |= dict.fromkeys(more, (1,)) | {"global_step": ()}
    if not gone | other | more:
        require_match(Path("model"), variant, shapes, expected, ["global_step"])
        return
    with pytest.raises(ValueError) as raised:
        require_match(Path("model"), variant, shapes, expected, ["global_step"])
    for names, what in ((gone, "missing"), (more, "unknown"), (other, "of another shape")):
        assert (f"{len(names)} {what}" in str(raised.value)) == bool(names)
        assert all(name in str(raised.value) for name in names)
    assert "global_step" not in str(raised.value).replace("".join(more), "")
