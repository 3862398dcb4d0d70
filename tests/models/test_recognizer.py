"""The recognizer: images and clips to scores and maps that add up, and run folders that bring back the same numbers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import arguments
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from attnpool.backbones.backbone import Backbone
from attnpool.files import MARK_FILE, claim
from attnpool.models.feature_norm import Standardize
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import FORMAT, HOLDS, RUN_FILE, WEIGHTS_FILE, load_model, save_run
from attnpool.pooling import POOLINGS, Pooled

CLASSES = ["drinking", "calling", "riding a bike"]


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    return Backbone("lite0", frozen=True)


@pytest.fixture(scope="module")
def photos(lite0: Backbone) -> Tensor:
    pixels = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Recognizer(lite0, classes=CLASSES).normalize(pixels)


def make(lite0: Backbone, **options: Any) -> Recognizer:
    """A recognizer in eval mode whose head has left its start, where most maps are constant."""
    model = Recognizer(lite0, classes=CLASSES, **arguments(options)).eval()
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return model


def in_float64(model: Recognizer) -> Recognizer:
    """A copy, whose numbers do not depend on how many images a deep network is given at once."""
    return copy.deepcopy(model).double()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_images(pooling: str, lite0: Backbone, photos: Tensor) -> None:
    model, photos = in_float64(make(lite0, pooling=pooling)), photos.double()
    out = model(photos, maps=True)
    assert out.logits.shape == (2, 3)
    assert out.combined.shape == (2, 3, 2, 3)
    torch.testing.assert_close(out.combined.sum((-2, -1)), out.logits, rtol=0, atol=1e-9)
    assert torch.equal(model(photos).logits, out.logits)
    assert torch.equal(model.pool(model.backbone(photos)).logits, out.logits)
    assert model(photos).combined is None


@pytest.mark.parametrize("pooling", [name for name, head in POOLINGS.items() if not head.over_time])
def test_clips(pooling: str, lite0: Backbone) -> None:
    """A clip's logits are the mean over its frames, and its maps add up to them over T, H and W."""
    model = in_float64(make(lite0, pooling=pooling))
    clips = torch.randn(2, 4, 3, 64, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = model(clips, maps=True)
    frames = [model(clips[:, t], maps=True) for t in range(4)]
    assert out.logits.shape == (2, 3)
    torch.testing.assert_close(out.logits, torch.stack([frame.logits for frame in frames]).mean(0))
    torch.testing.assert_close(out.combined.sum((1, 3, 4)), out.logits, rtol=0, atol=1e-9, msg=str)
    assert out.combined.shape == (2, 4, 3, 2, 3)
    torch.testing.assert_close(out.combined, torch.stack([frame.combined for frame in frames], 1) / 4)
    for field in ("top_down", "bottom_up", "pose"):
        ours, theirs = getattr(out, field), [getattr(frame, field) for frame in frames]
        assert (ours is None) == (theirs[0] is None)
        if ours is not None:
            torch.testing.assert_close(ours, torch.stack(theirs, 1))
    assert torch.equal(model(clips).logits, out.logits)


@pytest.mark.parametrize(
    "options",
    [{"pooling": "multi_query", "positions": True}, {"pooling": "netvlad", "norms": False}, {"pooling": "netvlad"}],
    ids=str,
)
def test_clips_as_wholes(options: dict[str, Any], lite0: Backbone) -> None:
    """Maps add up over T, H and W, only places make order count, and every view is a clip of its own."""
    model = in_float64(make(lite0, **options))
    clips = torch.randn(2, 4, 3, 64, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = model(clips, maps=True)
    fields = ("top_down", "bottom_up", "combined")
    assert out.combined.shape == (2, 4, 3, 2, 3)
    torch.testing.assert_close(out.combined.sum((1, 3, 4)), out.logits, rtol=0, atol=1e-9)
    assert torch.equal(model(clips).logits, out.logits)
    features = model.features(clips)
    together = model.head(model.standardize(features.flatten(0, 1)).unflatten(0, (2, 4)))
    torch.testing.assert_close(out.logits, together.logits, rtol=0, atol=1e-9)
    shift = (model(clips.flip(1)).logits - out.logits).abs().max()
    assert shift > 1e-3 if "positions" in options else shift < 1e-9

    first, second = (model.pool(features[:, at::2], maps=True) for at in (0, 1))
    both = model.pool(features, maps=True, views=2)  # two frames, each of them in two views
    torch.testing.assert_close(both.logits, (first.logits + second.logits) / 2, rtol=0, atol=1e-9)
    mean_of_frames = options == {
        "pooling": "netvlad",
        "norms": False,
    }  # without the norms it is a mean over all positions
    assert ((both.logits - out.logits).abs().max() < 1e-9) == mean_of_frames
    for field in fields:
        found = getattr(both, field) * (2 if field == "combined" else 1)
        torch.testing.assert_close(found[:, 0::2], getattr(first, field), rtol=0, atol=1e-9)
        torch.testing.assert_close(found[:, 1::2], getattr(second, field), rtol=0, atol=1e-9)
    crops = model.pool(features, views=4).logits  # four crops of one image
    apart = model.pool(features.flatten(0, 1)).logits.unflatten(0, (2, 4)).mean(1)
    torch.testing.assert_close(crops, apart, rtol=0, atol=1e-9)


def test_frozen_backbones_come_with_standardised_features(lite0: Backbone) -> None:
    """By default: only with a frozen backbone do the statistics of its features stay what they were."""
    open_end = Backbone("mobilenetv3_small_050", "random")
    for backbone, given, expected in ((lite0, None, True), (open_end, None, False), (lite0, False, False)):
        model = Recognizer(backbone, classes=CLASSES, standardize=given)
        assert isinstance(model.standardize, Standardize) == expected
        assert model.describe()["freeze_backbone"] == backbone.frozen


def test_a_clip_of_one_frame_is_an_image(lite0: Backbone, photos: Tensor) -> None:
    model = make(lite0)
    clip, image = model(photos[:, None], maps=True), model(photos, maps=True)
    assert torch.equal(clip.logits, image.logits)
    assert torch.equal(clip.combined[:, 0], image.combined)


def test_wrong_inputs(lite0: Backbone) -> None:
    model = make(lite0)
    for shape in ((3, 64, 64), (1, 1, 1, 3, 64, 64)):
        with pytest.raises(ValueError, match=r"\(B, 3, H, W\) or \(B, T, 3, H, W\)"):
            model(torch.zeros(shape))
    for shape in ((64, 64, 3), (3, 64), (1, 4, 64, 64)):
        with pytest.raises(ValueError, match=r"pixels must be \(\.\.\., 3, H, W\)"):
            model.normalize(torch.zeros(shape))


def test_flow_stacks(tmp_path: Path) -> None:
    """Ten channels in which 128 is no motion; a run folder brings the network back as it was."""
    model = Recognizer(Backbone("mobilenetv3_small_050", "random", in_channels=10), classes=CLASSES).eval()
    pixels = torch.full((1, 2, 10, 64, 64), 128, dtype=torch.uint8)
    x = model.normalize(pixels)
    assert torch.equal(x, torch.zeros(pixels.shape))
    assert float(model.normalize(pixels + 1).max()) == pytest.approx(3 / (255 * (0.229 + 0.224 + 0.225)))
    with pytest.raises(ValueError, match=r"pixels must be \(\.\.\., 10, H, W\), optical flow"):
        model.normalize(pixels[:, :, :3])
    save_run(model, tmp_path)
    loaded = load_model(tmp_path)
    assert (loaded.backbone.in_channels, loaded.backbone.mean) == (10, (128.0,) * 10)
    assert torch.equal(loaded(x).logits, model(x).logits)


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 3, 5, 7), (2, 4, 3, 5, 7)], ids=str)
def test_normalize(shape: tuple[int, ...], lite0: Backbone) -> None:
    model = Recognizer(lite0, classes=CLASSES)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    found = model.normalize(pixels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, (pixels.float() - 127) / 128)  # EfficientNet-Lite's scale
    assert torch.equal(model.normalize(pixels.float()), found)


def test_normalize_by_channel() -> None:
    model = Recognizer("resnet10t", classes=CLASSES, weights="random")
    pixels = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(model.normalize(pixels)[0, :, 1, 1], expected)


def test_standardize() -> None:
    x = torch.randn(4, 5, 3, 2) * torch.arange(5)[:, None, None] + 7
    layer = Standardize(5)
    torch.testing.assert_close(layer(x), x)
    std, mean = torch.std_mean(x, (0, 2, 3), correction=0)
    layer.fit(mean, std)
    out = layer(x)
    expected = (x - mean[:, None, None]) / std.clamp_min(1e-30)[:, None, None]
    torch.testing.assert_close(out[:, 1:], expected[:, 1:], rtol=1e-4, atol=1e-4)
    assert out[:, 0].abs().max() < 1e-5  # a channel that never varies is centred, and not divided by nothing
    for view in (x, x.contiguous(memory_format=torch.channels_last)):
        assert layer(view).stride() == view.stride()  # heads read it in the order that it came


def test_seeds(lite0: Backbone) -> None:
    def head(seed: int, **options: Any) -> dict[str, Tensor]:
        return Recognizer(lite0, classes=CLASSES, seed=seed, **arguments(options)).head.state_dict()

    before = torch.get_rng_state()
    first, again, other = head(5), head(5), head(6)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["a"], other["a"])
    average = head(5, pooling="average")["a"]
    for options in ({}, {"rank": 2}, {"activation": "softmax"}, {"pooling": "pose"}):
        assert torch.equal(head(5, **options)["a"][:3], average)  # heads that are compared start from the same scores
    assert torch.get_rng_state().shape == before.shape


def equal(ours: Pooled, theirs: Pooled) -> bool:
    return all((a is None and b is None) or torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "average", "dropout": 0.5},
        {"pooling": "max"},
        {"rank": 2, "activation": "softmax", "init": "official", "dropout_on": "positions", "task": "multi"},
        {"per_class": True, "preprocessing": {"image_size": 64, "short_side": 70, "max_width": 512}},
        {"pooling": "pose", "standardize": True},
        {"pooling": "bilinear"},
        {"pooling": "compact_bilinear", "dim": 64, "signed_sqrt": True, "l2": True},
        {"pooling": "covariance", "channels": 16, "iterations": 3},
        {"pooling": "saliency", "saliency": "centre"},
        {"pooling": "multi_query", "queries": 4, "dim": 16},
        {"pooling": "multi_query", "positions": True},
        {"pooling": "netvlad", "clusters": 3, "norms": False},
    ],
    ids=str,
)
def test_save_and_load(options: dict[str, Any], lite0: Backbone, photos: Tensor, tmp_path: Path) -> None:
    model = make(lite0, **options)
    if isinstance(model.standardize, Standardize):
        model.standardize.fit(torch.randn(1280), torch.rand(1280))
    save_run(model, tmp_path / "runs" / "a", recipe={"epochs": 3}, split={"val": ["a/1.jpg"]})
    loaded = load_model(tmp_path / "runs" / "a")
    assert equal(loaded(photos, maps=True), model(photos, maps=True))
    assert loaded.describe() == model.describe()
    assert not loaded.training
    assert loaded.backbone.frozen
    assert loaded.task == options.get("task", "single")
    assert sorted(path.name for path in (tmp_path / "runs" / "a").iterdir()) == [MARK_FILE, WEIGHTS_FILE, RUN_FILE]
    about = json.loads((tmp_path / "runs" / "a" / RUN_FILE).read_text())
    assert about["recipe"] == {"epochs": 3}
    assert about["split"] == {"val": ["a/1.jpg"]}
    assert torch.__version__.startswith(about["versions"]["torch"])


def test_save_and_load_of_a_trained_backbone(tmp_path: Path) -> None:
    model = Recognizer("mobilenetv3_small_050", classes=["été", "冬"], weights="random", freeze_backbone=False)
    model.train()(torch.randn(4, 3, 64, 64)).logits.sum().backward()  # moves the statistics of batch norm
    loaded = load_model(save_run(model.eval(), tmp_path))
    x = torch.randn(1, 3, 64, 64)
    assert equal(loaded(x, maps=True), model(x, maps=True))
    assert not loaded.backbone.frozen
    assert loaded.classes == ("été", "冬")
    assert loaded.backbone.digest() == model.backbone.digest()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    model = Recognizer("mobilenetv3_small_050", classes=CLASSES, weights="random")
    folder = save_run(model, tmp_path_factory.mktemp("run"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(files: dict[str, bytes], folder: Path) -> str:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def meant(about: dict[str, Any]) -> bytes:
    """A run.json that was changed on purpose: without its checksums."""
    return json.dumps({key: value for key, value in about.items() if key not in ("check", "files")}).encode()


def changed(saved: dict[str, bytes], **model: Any) -> dict[str, bytes]:
    about = json.loads(saved[RUN_FILE])
    about["model"] |= model
    return saved | {RUN_FILE: meant(about)}


def test_what_was_changed_by_chance_is_noticed(saved: dict[str, bytes], tmp_path: Path) -> None:
    """A letter of a class name, a digit of the preprocessing, a bit of a weight."""
    for old, new in ((CLASSES[0].encode(), CLASSES[0].upper().encode()), (b'"image_size": 448', b'"image_size": 449')):
        content = saved[RUN_FILE].replace(old, new, 1)
        assert content != saved[RUN_FILE]
        assert "run.json: is not what was written there" in refused(saved | {RUN_FILE: content}, tmp_path)
    weights = bytearray(saved[WEIGHTS_FILE])
    weights[-100] ^= 1
    message = refused(saved | {WEIGHTS_FILE: bytes(weights)}, tmp_path)
    assert "model.safetensors: is not what was written there, it was damaged or changed" in message


def test_a_run_of_another_format(saved: dict[str, bytes], tmp_path: Path) -> None:
    about = json.loads(saved[RUN_FILE]) | {"format": FORMAT + 1, "versions": {"attnpool": "9.9"}}
    message = refused(saved | {RUN_FILE: json.dumps(about).encode()}, tmp_path)
    assert f"a run of format {FORMAT + 1} (attnpool 9.9), but this version reads format {FORMAT}" in message


def test_not_a_run(saved: dict[str, bytes], tmp_path: Path) -> None:
    assert "not a run folder" in refused({}, tmp_path)
    assert "not a run folder" in refused({WEIGHTS_FILE: saved[WEIGHTS_FILE]}, tmp_path)
    with pytest.raises(ValueError, match="not a run folder"):
        load_model(tmp_path / "nowhere")


def test_missing_weights(saved: dict[str, bytes], tmp_path: Path) -> None:
    assert "missing or damaged" in refused({RUN_FILE: saved[RUN_FILE]}, tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"3", b"\xff\xfe", b'{"format": 2}', b'{"format": 2, "model": []}']
)
def test_damaged_run_file(content: bytes, saved: dict[str, bytes], tmp_path: Path) -> None:
    refused(saved | {RUN_FILE: content}, tmp_path)


@pytest.mark.parametrize("length", [0, 7, 1000, 100_000, -1])
def test_damaged_weights(length: int, saved: dict[str, bytes], tmp_path: Path) -> None:
    assert "damaged" in refused(saved | {WEIGHTS_FILE: saved[WEIGHTS_FILE][:length]}, tmp_path)


def test_run_file_and_weights_of_different_runs(saved: dict[str, bytes], tmp_path: Path) -> None:
    assert "do not fit together" in refused(changed(saved, classes=["a", "b"]), tmp_path)
    assert "do not fit together" in refused(changed(saved, pooling_options={"rank": 2}), tmp_path)
    assert "do not fit together" in refused(changed(saved, backbone="resnet10t"), tmp_path)


def test_what_another_installation_may_name(saved: dict[str, bytes], tmp_path: Path) -> None:
    for part, value in (
        ("pooling", "netvlad"),
        ("backbone", "net9"),
        ("pooling_options", {"size": 3}),
        ("classes", ["a"]),
    ):
        assert "do not fit together" in refused(changed(saved, **{part: value}), tmp_path)


def test_missing_part_of_the_description(saved: dict[str, bytes], tmp_path: Path) -> None:
    for part in json.loads(saved[RUN_FILE])["model"]:
        about = json.loads(saved[RUN_FILE])
        del about["model"][part]
        assert f"{RUN_FILE}: damaged, model: '{part}' is a required property" in refused(
            saved | {RUN_FILE: meant(about)}, tmp_path
        )


def test_weights_with_a_tensor_too_many(saved: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / WEIGHTS_FILE).write_bytes(saved[WEIGHTS_FILE])
    save_file(load_file(tmp_path / WEIGHTS_FILE) | {"head.extra": torch.zeros(1)}, tmp_path / WEIGHTS_FILE)
    assert "do not fit together" in refused({RUN_FILE: meant(json.loads(saved[RUN_FILE]))}, tmp_path)


def test_saving_where_nothing_can_be_written_leaves_nothing(lite0: Backbone, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS_FILE).mkdir()
    with pytest.raises(ValueError, match="holds files that are not by attnpool"):
        save_run(make(lite0), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS_FILE]
    claim(tmp_path / "run", HOLDS)
    (tmp_path / "run" / WEIGHTS_FILE).mkdir()  # the file cannot take a folder's place
    with pytest.raises(OSError):
        save_run(make(lite0), tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [MARK_FILE, WEIGHTS_FILE]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "pyramid"}, "unknown pooling 'pyramid': use one of average, max, attentional, pose"),
        (
            {"pooling": "average", "rank": 2},
            "average pooling has no option rank: leave it out, or use pooling attentional",
        ),
        ({"pooling": "pose", "per_class": True}, "pose pooling has no option per_class"),
        ({"pooling": "max", "init": "official"}, "use pooling attentional or pose"),
        ({"activation": "tanh"}, "use None, relu, sigmoid, softmax"),
        ({"rank": 0}, "rank must be from 1 to"),
        ({"dropout": 1.5}, "dropout must be in"),
        ({"task": "triple"}, "unknown task 'triple': use single or multi"),
        ({"classes": ["a"]}, "two or more different classes"),
        ({"classes": ["a", "b", "a"]}, "two or more different classes"),
        ({"classes": []}, "two or more different classes"),
    ],
    ids=str,
)
def test_wrong_options(options: dict[str, Any], message: str, lite0: Backbone) -> None:
    with pytest.raises(ValueError, match=message):
        Recognizer(lite0, **arguments({"classes": CLASSES} | options))


def test_options_are_checked_before_the_slow_part() -> None:
    with pytest.raises(ValueError, match="unknown pooling"):
        Recognizer("no such network", classes=CLASSES, pooling="pyramid")
    with pytest.raises(
        ValueError, match="average pooling has no option rank: leave it out, or use pooling attentional"
    ):
        Recognizer("no such network", classes=CLASSES, pooling="average", pooling_options={"rank": 2})


class Scores(nn.Module):
    """What runs in a server: pixels 0..255 in, scores and maps out."""

    def __init__(self, model: Recognizer) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Pooled:
        return self.model(self.model.normalize(pixels), maps=True)


def test_export_of_the_whole_recognizer(lite0: Backbone) -> None:
    model = make(lite0, rank=2, standardize=True)
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    program = torch.export.export(Scores(model).eval(), (pixels,))
    torch.testing.assert_close(program.module()(pixels), Scores(model)(pixels))
