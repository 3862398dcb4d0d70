"""A recognizer that looks at the class token of a vision transformer, too: maps, shares, training and saving."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import attnpool, refused
from torch import Tensor

import attnpool as ap
from attnpool.backbones.backbone import Backbone
from attnpool.models.feature_norm import Standardize
from attnpool.models.recognizer import Recognizer
from attnpool.pooling import POOLINGS

CLASSES = ("a", "b", "c")


@pytest.fixture(scope="module")
def vit() -> Backbone:
    return Backbone("test_vit", "random", frozen=True, tokens="cls+patches")


def features_of(model: Recognizer) -> Tensor:
    """Features of noise, and statistics that are not 0 and 1."""
    pixels = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = model.features(model.normalize(pixels))
    if isinstance(model.standardize, Standardize):
        model.standardize.fit(features.mean((0, 2, 3)) + 0.1, features.std((0, 2, 3)) + 0.5)
    return features


@pytest.mark.parametrize("pooling", POOLINGS)
def test_maps_add_up_to_the_whole_score(vit: Backbone, pooling: str) -> None:
    model = Recognizer(vit, classes=CLASSES, pooling=pooling).eval()
    out = model.pool(features_of(model), maps=True)
    assert out.combined is not None
    height, width = out.combined.shape[-2:]
    assert height == width == 10
    torch.testing.assert_close(out.combined.sum((-2, -1)), out.logits, atol=1e-4, rtol=1e-4)


def test_the_share_of_an_average_is_that_of_its_weights(vit: Backbone) -> None:
    """Average pooling of both is a linear classifier of [mean of patches; class token], whose parts add up."""
    model = Recognizer(vit, classes=CLASSES, pooling="average").eval()
    features = features_of(model)
    scaled = model.standardize(features)
    half = features.shape[1] // 2
    weight, bias = model.head.a, model.head.alpha
    token = scaled[:, half:, 0, 0] @ weight[:, half:].T
    patches = scaled[:, :half].mean((2, 3)) @ weight[:, :half].T + bias
    torch.testing.assert_close(model.token_share(features), token)
    torch.testing.assert_close(model.pool(features).logits, token + patches)


def test_the_share_is_what_is_lost_with_the_usual_token(vit: Backbone) -> None:
    model = Recognizer(vit, classes=CLASSES, pooling="covariance", pooling_options={"channels": 8}).eval()
    features = features_of(model)
    half = features.shape[1] // 2
    assert isinstance(model.standardize, Standardize)
    usual = features.clone()
    usual[:, half:] = model.standardize.mean[half:, None, None]
    torch.testing.assert_close(model.token_share(usual), torch.zeros(2, 3))
    lost = model.pool(features).logits - model.pool(usual).logits
    torch.testing.assert_close(model.token_share(features), lost)
    assert model.token_share(torch.stack([features, features], 1)).shape == (2, 3)  # clips


def test_without_a_class_token_it_has_no_share() -> None:
    model = Recognizer("lite0", classes=CLASSES)
    with pytest.raises(ValueError, match="lite0: its features have no class token; use tokens cls"):
        model.token_share(torch.zeros(1, 1280, 2, 2))


def test_from_photos_to_an_explanation(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["train", f"folder:{photos}", "--out", run, "--backbone", "test_vit", "--weights", "random"]
    words += ["--image-size", 160, "--epochs", 2, "--pooling", "average"]
    attnpool(*words, "--tokens", "cls+patches").text()
    refused(attnpool(*words), run, "holds a run with other options (model)")
    loaded = ap.Run.load(run)
    assert loaded.model.backbone.tokens == "cls+patches"
    assert loaded.about["model"]["tokens"] == "cls+patches"
    scores = ap.evaluate(run, f"folder:{photos}").scores
    assert scores.mAP == loaded.about["results"]["history"][-1]["mAP"]
    image = sorted(photos.rglob("*.jpg"))[0]
    (found,) = attnpool("explain", run, image, "--out", tmp_path / "maps", "--json").value()
    shares = found["token"]
    assert shares["difference"] == pytest.approx(shares["best"] - shares["chosen"])
    (prediction,) = ap.predict(run, [image], maps=True)
    label = loaded.model.classes.index(found["best"])
    assert prediction.token_share is not None
    assert float(prediction.token_share[label]) == pytest.approx(shares["best"])


def test_a_network_without_class_token_is_refused(photos: Path, tmp_path: Path) -> None:
    words = ["train", f"folder:{photos}", "--out", tmp_path / "run", "--tokens", "cls+patches"]
    for more in ([], ["--pooling", "auto"]):
        refused(attnpool(*words, *more), "lite0: has neither a class token nor", "use tokens patches")
    assert not (tmp_path / "run").exists()
