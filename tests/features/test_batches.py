"""Batches of images of different shapes: their scores are those of single images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import write_clip
from command_line import attnpool, refused
from PIL import ExifTags, Image

import attnpool as ap
from attnpool.data import Preprocessing, batches
from attnpool.evaluation.inference import score_source
from attnpool.features.batches import BatchSource, CachedFeatures, Images
from attnpool.features.extraction import extract
from attnpool.training.config import TrainOptions


@pytest.fixture(scope="module")
def shaped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of photos of five shapes, one of them turned by its EXIF block."""
    root = tmp_path_factory.mktemp("shaped")
    for split, count in (("train", 7), ("val", 5)):
        for label, colour in (("cold", (40, 60, 200)), ("warm", (200, 60, 40))):
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                size = [(300, 200), (200, 300), (256, 256), (500, 200), (320, 240)][i % 5]
                noise = np.random.default_rng([i, count]).integers(-40, 40, (*size[::-1], 3))
                image = Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))
                exif = Image.Exif()
                exif[ExifTags.Base.Orientation] = 6 if i == 4 else 1
                image.save(root / split / label / f"{i}.jpg", exif=exif)
    return root


@pytest.mark.parametrize("view", ["whole", "squash"])
def test_batches_of_like_shapes_score_as_single_images_do(shaped: Path, tmp_path: Path, view: str) -> None:
    """With and without the cache; a training of each, and what it says of one image at a time."""
    train, val = ap.read(f"folder:{shaped}")
    given = {"image_size": 96, "short_side": None, "max_width": None, "view": view}
    model = ap.Recognizer("lite0", classes=train.classes, preprocessing=given)
    run = ap.train(
        model, train, val, out=tmp_path / "run", options=TrainOptions(epochs=3, batch_size=4), progress=False
    )
    single = [dict(p.scores) for p in ap.predict(run.model, [val.file(sample) for sample in val], top=2)]
    options = Preprocessing(**run.model.preprocessing)
    sources: list[BatchSource] = [CachedFeatures(extract(run.model, val, progress=False)), Images(val, options)]
    for source in sources:
        outputs = score_source(run.model, source)
        assert outputs.paths == [sample.path for sample in val]
        found = torch.from_numpy(outputs.logits).softmax(1).numpy()
        expected = np.array([[scores[name] for name in val.classes] for scores in single])
        assert np.abs(found - expected).max() < 2e-3  # features are kept in half precision
        order = batches(len(val), 2, seed=0, epoch=0, groups=source.shapes)
        seen = {batch.size for batch in source.batches(order, seed=0, epoch=0, train=False)}
        assert len(seen) == (4 if view == "whole" else 1)


def test_a_trained_backbone_takes_whole_images(shaped: Path, tmp_path: Path) -> None:
    train, val = ap.read(f"folder:{shaped}")
    chosen = Preprocessing(image_size=64, view="whole")
    model = ap.Recognizer("lite0", classes=train.classes, preprocessing=chosen.of_model(), freeze_backbone=False)
    run = ap.train(
        model,
        train,
        val,
        out=tmp_path / "run",
        options=TrainOptions(epochs=1, batch_size=4),
        preprocessing=chosen,
        progress=False,
    )
    assert run.about["model"]["preprocessing"]["view"] == "whole"
    assert len(run.about["results"]["history"]) == 1


@pytest.mark.parametrize("size", [(1600, 200), (60, 900), (2, 300)], ids=str)
def test_a_peak_lies_in_the_image(shaped: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    """Also where an image is so long that the middle of a cell lies in the margin."""
    train, _ = ap.read(f"folder:{shaped}")
    chosen = Preprocessing(image_size=96, view="whole")
    with pytest.raises(ValueError, match="give a mapping"):
        ap.Recognizer("lite0", classes=train.classes, preprocessing=chosen)  # type: ignore[arg-type]
    model = ap.Recognizer("lite0", classes=train.classes, preprocessing=chosen.of_model())
    Image.new("RGB", size, (90, 90, 90)).save(tmp_path / "long.png")
    (found,) = ap.explain_files(model, [tmp_path / "long.png"], out=tmp_path / "out")
    assert 0 <= found["peak"][0] <= size[0]
    assert 0 <= found["peak"][1] <= size[1]


def test_training_draws_a_view_of_each_image_in_every_epoch(shaped: Path) -> None:
    train, _ = ap.read(f"folder:{shaped}")
    given = {"image_size": 96, "short_side": None, "max_width": None}
    model = ap.Recognizer("lite0", classes=train.classes, preprocessing=given)
    features = extract(model, train, crops=2, flip=True, progress=False)
    source = CachedFeatures(features)
    each = [list(range(5)), list(range(5, len(train)))]
    drawn = []
    for epoch in range(8):
        got = torch.cat([batch.inputs for batch in source.batches(each, seed=1, epoch=epoch, train=True)])
        again = torch.cat([b.inputs for b in CachedFeatures(features).batches(each, seed=1, epoch=epoch, train=True)])
        assert got.equal(again)
        drawn.append(
            [[view.batch([i])[0].equal(got[i]) for view in features.views].index(True) for i in range(len(train))]
        )
    counts = np.bincount(np.ravel(drawn), minlength=4) / np.size(drawn)
    assert np.abs(counts - 0.25).max() < 0.12
    (plain,) = source.batches([range(3)], seed=1, epoch=0, train=False)
    assert plain.inputs.equal(features.batch(range(3)))
    (both,) = CachedFeatures(features, all_views=True).batches([range(3)], seed=1, epoch=0, train=False)
    assert both.inputs.shape[:2] == (3, 4)
    assert both.inputs[:, 2].equal(features.others[1].batch(range(3)))


@pytest.mark.parametrize("pooling", ["attentional", "average"])
@pytest.mark.parametrize("view", ["crop", "whole"])
def test_a_run_with_mirror_images_and_their_score_in_testing(
    shaped: Path, tmp_path: Path, pooling: str, view: str
) -> None:
    source, out = f"folder:{shaped}", tmp_path / "run"
    attnpool(
        "train", source, "--out", out, "--image-size", 96, "--epochs", 2, "--pooling", pooling, "--view", view,
        "--cached-views", 2,
    ).text()  # fmt: skip
    scales = 1 if view == "whole" else 2
    cached = ap.evaluate(out, source, crops=scales, flip=True)
    decoded = ap.evaluate(out, source, crops=scales, flip=True, use_cache=False)
    assert cached.scores.mAP == pytest.approx(decoded.scores.mAP, abs=0.05)
    run = ap.Run.load(out)
    assert run.about["recipe"]["preprocessing"]["cached_views"] == 2
    _, val = ap.read(source)
    outputs = [
        score_source(run.model, given).logits
        for given in (
            CachedFeatures(extract(run.model, val, crops=scales, flip=True, progress=False), all_views=True),
            Images(val, Preprocessing(**run.model.preprocessing), crops=scales, flip=True),
        )
    ]
    assert np.abs(outputs[0] - outputs[1]).max() < 0.02  # features are kept in half precision


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--cached-views", 3], "cached-views"),
        (["--cached-views", 4, "--view", "whole"], "cuts nothing"),
        (["--cached-views", 2, "--no-use-cache"], "leave it out, or use --freeze-backbone and --use-cache"),
        (["--cached-views", 2, "--no-freeze-backbone"], "leave it out, or use --freeze-backbone and --use-cache"),
    ],
    ids=str,
)
def test_views_that_cannot_be_kept(shaped: Path, tmp_path: Path, more: list[Any], said: str) -> None:
    refused(attnpool("train", f"folder:{shaped}", "--out", tmp_path / "run", "--image-size", 96, *more), said)
    assert not (tmp_path / "run").exists()


def test_clips_have_no_further_views(tmp_path: Path) -> None:
    attnpool("playground", tmp_path / "clips", "--style", "hmdb51", "--images", 28, "--frames", 4).text()
    source = f"hmdb51:{tmp_path / 'clips'}"
    more = ["--image-size", 64, "--epochs", 1, "--cached-views", 2]
    refused(attnpool("train", source, "--out", tmp_path / "run", *more), "holds clips", "leave --cached-views out")


def test_whole_clips_of_several_shapes(tmp_path: Path) -> None:
    """With and without the cache the scores are those of single clips."""
    root = tmp_path / "clips"
    attnpool("playground", root, "--style", "hmdb51", "--images", 28, "--frames", 4).text()
    for path in sorted(root.rglob("*.avi"))[::3]:
        noise = np.random.default_rng(0).integers(0, 256, (4, 320, 120, 3), dtype=np.uint8)
        write_clip(path, [Image.fromarray(frame) for frame in noise], "mjpeg")
    source, out = f"hmdb51:{root}", tmp_path / "run"
    words = ["--image-size", 96, "--epochs", 2, "--view", "whole", "--frames", 2, "--segments", 2]
    attnpool("train", source, "--out", out, *words, "--pooling", "average").text()
    run, (_, val) = ap.Run.load(out), ap.read(source)
    options = Preprocessing(**run.model.preprocessing)
    sources: list[BatchSource] = [CachedFeatures(extract(run.model, val, progress=False)), Images(val, options)]
    single = [dict(p.scores) for p in ap.predict(run.model, [val.file(sample) for sample in val], top=14)]
    expected = np.array([[scores[name] for name in val.classes] for scores in single])
    for given in sources:
        assert len(set(given.shapes or [])) == 2
        found = torch.from_numpy(score_source(run.model, given).logits).softmax(1).numpy()
        assert np.abs(found - expected).max() < 2e-3
