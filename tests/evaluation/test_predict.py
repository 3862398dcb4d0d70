"""What counts as an image and what as a clip, and that clips are scored as the mean of their frames."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import attnpool, refused
from networks import arguments

from attnpool.backbones.backbone import Backbone
from attnpool.data import Preprocessing, eval_view
from attnpool.data.decoding.video import read_frames
from attnpool.evaluation.predict import WHOLE, look, predict
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import Run


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    return Backbone("lite0")


def recognizer(backbone: Backbone, **options: Any) -> Recognizer:
    view = Preprocessing(image_size=64, **options.pop("preprocessing", {})).of_model()
    model = Recognizer(backbone, classes=["a", "b", "c"], preprocessing=view, **arguments(options))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():  # scores that differ from frame to frame
        for weight in model.head.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return model.eval()


def test_a_clip_is_the_mean_of_its_frames(lite0: Backbone, files: Path) -> None:
    model = recognizer(lite0, preprocessing={"frames": 3})
    (found,) = predict(model, [files / "clip.avi"], top=3, maps=True)
    views = [
        eval_view(frame, Preprocessing(**model.preprocessing)) for frame in read_frames(files / "clip.avi", [2, 6, 10])
    ]
    each = torch.cat([model(model.normalize(view.pixels[None])).logits for view in views]).detach()
    bound = 1e-4 * float(each.abs().max())  # a deep network rounds three frames at once otherwise than one
    torch.testing.assert_close(found.pooled.logits[0], each.mean(0), rtol=0, atol=bound)
    assert each.std(0).min() > 1e-3
    combined = found.pooled.combined
    assert combined is not None
    assert combined.shape == (1, 3, 3, 2, 2)
    torch.testing.assert_close(combined.sum((1, 3, 4)), found.pooled.logits, atol=1e-4, rtol=1e-4)
    assert [label for label, _ in found.scores] == ["abc"[k] for k in each.mean(0).argsort(descending=True).tolist()]


@pytest.mark.parametrize("modality", ["rgb", "flow"])
def test_a_video_and_its_frames_are_the_same(lite0: Backbone, files: Path, modality: str) -> None:
    backbone = lite0 if modality == "rgb" else Backbone("lite0", in_channels=10)
    model = recognizer(backbone, preprocessing={"frames": 3, "modality": modality})
    video, frames = predict(model, [files / "clip.avi", files / "clip.frames"])
    assert video.scores == frames.scores
    seen = look(model, files / "clip.avi")
    assert (seen.count, seen.numbers) == (12, [2, 6, 10] if modality == "rgb" else [1, 3, 5])
    assert {view.pixels.shape[0] for view in seen.views} == {3 if modality == "rgb" else 10}
    if modality == "flow":
        with pytest.raises(ValueError, match=r"photo\.png: an image has no optical flow, which this run takes"):
            predict(model, [files / "photo.png"])
    else:
        assert predict(model, [files / "photo.png"])[0].scores


def test_a_run_says_what_it_was_trained_on(run: Path) -> None:
    images = Run.load(run)
    assert images.media == "images"
    assert json.loads((run / "run.json").read_text())["split"]["media"] == "images"
    assert replace(images, about={"split": {"media": "clips"}}).media == "clips"
    assert replace(images, about={"split": {}}).media == "images"  # a checkpoint of others


def test_the_command(run: Path, files: Path, tmp_path: Path) -> None:
    """A run that was trained on images takes clips, too."""
    photo, clip = files / "photo.png", files / "clip.avi"
    found = attnpool("predict", run, clip, photo, "--json").value()
    assert [item["file"] for item in found] == [str(clip), str(photo)]
    assert [len(item["predictions"]) for item in found] == [5, 5]
    assert "%" in attnpool("predict", run, clip, "--top", 1).text()
    (tmp_path / "broken.avi").write_bytes(clip.read_bytes()[:100])
    refused(attnpool("predict", run, tmp_path / "broken.avi"), "broken.avi: cannot be read as a clip")
    refused(attnpool("explain", run, tmp_path / "broken.avi", "--out", tmp_path / "o"), "broken.avi")
    assert not (tmp_path / "o").exists()


def test_what_is_given_beside_a_recognizer(lite0: Backbone, files: Path, run: Path) -> None:
    model = recognizer(lite0)
    with pytest.raises(ValueError, match="weights is for classifiers by name, such as timm:resnet50"):
        predict(model, [files / "photo.png"], weights="x.pth")
    with pytest.raises(ValueError, match="top is 0; give at least 1"):
        predict(model, [files / "photo.png"], top=0)


def test_a_run_by_its_name(files: Path, run: Path) -> None:
    """A folder is looked through, which for a recognizer is one clip; the result is what the command prints."""
    named = predict(run, [files], top=2)
    frames = sorted((files / "clip.frames").iterdir())
    assert [item.file for item in named] == [str(file) for file in (files / "clip.avi", files / "photo.png", *frames)]
    assert named.to_json() == attnpool("predict", run, files, "--top", 2, "--json").value()
    assert str(named).splitlines()[0] == str(files / "clip.avi")
    assert len(str(named).splitlines()) == 3 * len(named)
    (one,) = predict(Run.load(run).model, [files / "clip.frames"])
    assert one.file == str(files / "clip.frames")


def test_a_run_with_instances_says_what_was_scored(lite0: Backbone, files: Path) -> None:
    plain, boxes = (
        recognizer(lite0, preprocessing={"frames": 2}),
        recognizer(lite0, preprocessing={"frames": 2}, instances="boxes"),
    )
    for name in ("clip.avi", "photo.png"):
        (one,), (other,) = predict(plain, [files / name], top=3), predict(boxes, [files / name], top=3)
        assert np.allclose([v for _, v in one.scores], [v for _, v in other.scores], rtol=0, atol=1e-4)
        assert other.to_json()["note"] == WHOLE
        assert "note" not in one.to_json()
