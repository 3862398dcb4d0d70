"""Clips from the command line to scores: what is sampled, trained, tested, fused and left out."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import write_clip
from command_line import attnpool, refused
from PIL import Image
from sklearn.metrics import average_precision_score

from attnpool.data import Dataset, Preprocessing, eval_views, load, read
from attnpool.data.decoding.video import read_frames
from attnpool.data.formats.openpose import write_openpose
from attnpool.evaluation.evaluate import evaluate
from attnpool.evaluation.inference import score_source
from attnpool.evaluation.predict import predict
from attnpool.features.batches import Batch, CachedFeatures, Images
from attnpool.features.extraction import extract
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import Run, load_model
from attnpool.training.config import TrainOptions
from attnpool.training.interruption import Interrupted
from attnpool.training.train import train

CLASSES = ("fall", "pass", "stay")
FRAMES = 9


def film(path: Path, number: int) -> None:
    """A patch of noise that falls, passes or stays, before a background of its class's colour."""
    action = CLASSES.index(path.parent.name)
    rng = np.random.default_rng([5, action, number])
    patch = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    x, y = rng.integers(2, 20, 2).tolist()
    frames = []
    for step in range(FRAMES):
        pixels = np.full((48, 64, 3), 90, np.uint8)
        pixels[..., action] = 110 + rng.integers(0, 20, (48, 64))
        left, top = x + 2 * step * (action == 1), min(y + 2 * step * (action == 0), 36)
        pixels[top : top + 12, left : left + 12] = patch
        frames.append(Image.fromarray(pixels))
    write_clip(path, frames)


def make(root: Path, train: int = 4, val: int = 2) -> str:
    """A set in HMDB51's layout, with keypoints that follow the patch for the first clip of every class."""
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        lines = []
        for number in range(train + val):
            film(root / name / f"{name}_{number}.avi", number)
            lines.append(f"{name}_{number}.avi {1 if number < train else 2}")
        for split in (1, 2):  # the second exchanges the first clip of each part
            if split == 2:
                lines[0], lines[train] = lines[0].replace(" 1", " 2"), lines[train].replace(" 2", " 1")
            (root / f"{name}_test_split{split}.txt").write_text("\n".join(lines) + "\n")
        for frame in range(FRAMES):
            target = root / "keypoints" / name / f"{name}_0" / f"image_{frame + 1:05d}.json"
            target.parent.mkdir(parents=True, exist_ok=True)
            write_openpose(target, [[(10.0 + frame + j, 20.0) for j in range(16)]])
    return f"hmdb51:{root}"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Not to be changed."""
    return make(tmp_path_factory.mktemp("clips") / "set")


def words(source: str, out: Path, *more: Any) -> list[Any]:
    options = {"--image-size": 64, "--view": "crop", "--frames": 4, "--epochs": 3}
    return ["train", source, "--out", out, *[word for pair in options.items() for word in pair], *more]


@pytest.fixture(scope="module")
def pose(source: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "pose"
    assert attnpool(*words(source, out, "--pooling", "pose", "--json")).value()["skipped"] == []
    return Run.load(out)


@pytest.fixture(scope="module")
def flow(source: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "flow"
    attnpool(*words(source, out, "--modality", "flow")).text()
    return Run.load(out)


@pytest.fixture(scope="module", params=[("multi_query", "--positions"), ("netvlad",)], ids=lambda words: words[0])
def whole(source: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Run:
    """With a head that pools over time."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert attnpool(*words(source, out, "--pooling", *request.param, "--json")).value()["skipped"] == []
    return Run.load(out)


def logits(run: Run, dataset: Dataset, **options: Any) -> np.ndarray:
    """Decoded now, without the cache."""
    frames = options.pop("frames", run.model.preprocessing["frames"])
    view = Preprocessing(**run.model.preprocessing | {"frames": frames})
    return score_source(run.model, Images(dataset, view, **options)).logits


@pytest.mark.parametrize("stream", ["pose", "flow"])
def test_cached_features_score_as_clips_do(source: str, stream: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(stream)
    _, val = read(source)
    assert run.model.backbone.in_channels == (10 if stream == "flow" else 3)
    kept = extract(run.model, val, progress=False)
    assert kept.stores[0].shape[1] == kept.frames == 4
    cached = score_source(run.model, CachedFeatures(kept)).logits
    plain = logits(run, val)
    np.testing.assert_allclose(cached, plain, atol=0.02 * np.abs(plain).max())  # half precision
    said = [dict(p.scores) for p in predict(run.model, [val.file(sample) for sample in val], top=3)]
    expected = torch.from_numpy(plain).softmax(1).numpy()
    np.testing.assert_allclose([[row[name] for name in CLASSES] for row in said], expected, atol=1e-4)


def test_training_draws_frames_by_seed_epoch_and_position(source: str, pose: Run) -> None:
    part, _ = read(source)
    view = Preprocessing(image_size=32, segments=3, frames=4)

    def pixels(epoch: int, order: Sequence[Sequence[int]]) -> dict[int, torch.Tensor]:
        found: dict[int, torch.Tensor] = {}
        for batch in load(part, view, order, seed=3, epoch=epoch, train=True):
            assert batch.pixels.shape[1:] == (3, 3, 32, 32)
            found |= dict(zip(batch.indices.tolist(), batch.pixels, strict=True))
        return found

    first, again, later = pixels(1, [[0, 1, 2], [3]]), pixels(1, [[3, 2], [1, 0]]), pixels(2, [[0, 1, 2, 3]])
    assert all(torch.equal(first[i], again[i]) for i in first)
    assert not any(torch.equal(first[i], later[i]) for i in first)

    kept = extract(pose.model, part, progress=False)
    source_of = CachedFeatures(kept, segments=2)

    def drawn(epoch: int, order: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        batches: Iterator[Batch] = source_of.batches(order, seed=3, epoch=epoch, train=True)
        return {path: x for batch in batches for path, x in zip(batch.paths, batch.inputs, strict=True)}

    one, two = drawn(1, [[0, 1], [2]]), drawn(1, [[2, 0, 1]])
    assert all(torch.equal(one[path], two[path]) for path in one)
    for i in range(3):
        frames = source_of.draw(3, 1, i)
        assert frames is not None
        assert frames[0] in (0, 1)  # the four frames that were kept, in two halves
        assert frames[1] in (2, 3)
        assert torch.equal(one[part.samples[i].path], kept.batch([i])[0][frames])
    assert len({tuple(source_of.draw(3, epoch, 0) or ()) for epoch in range(30)}) > 1
    assert CachedFeatures(kept, segments=0).draw(3, 0, 0) is None


def test_ten_crops_are_the_mean_of_ten_views(source: str, pose: Run) -> None:
    _, val = read(source)
    run = replace(pose, model=load_model(pose.folder))
    run.model.preprocessing |= {"image_size": 48, "short_side": 64}
    options = Preprocessing(**run.model.preprocessing)
    ten, two = logits(run, val, crops=10), logits(run, val, flip=True)
    for row, sample in enumerate(val):
        frames = read_frames(val.file(sample), [1, 3, 5, 7])  # the middles of four parts of nine frames
        for found, how in ((ten, {"crops": 10}), (two, {"flip": True})):
            views = eval_views(frames, options, **how)  # type: ignore[arg-type]
            one_by_one = [run.model(run.model.normalize(view.pixels[None])).logits for view in views]
            mean = torch.cat(one_by_one).mean(0).detach().double().numpy()
            np.testing.assert_allclose(found[row], mean, rtol=0, atol=1e-4 * np.abs(found).max())


def test_heads_over_time_see_whole_clips(source: str, whole: Run, tmp_path: Path) -> None:
    """From the cache, decoded, in several views and by `predict`; `explain` has their maps, if there are any."""
    _, val = read(source)
    run = replace(whole, model=load_model(whole.folder))
    options = Preprocessing(**run.model.preprocessing)
    assert run.model.head.over_time

    def score(views: Sequence[Any]) -> np.ndarray:
        pixels = torch.stack([view.pixels for view in views])
        return run.model(run.model.normalize(pixels[None])).logits[0].detach().double().numpy()

    plain, mirrored = logits(run, val), logits(run, val, flip=True)
    by_hand = []
    for row, sample in enumerate(val):
        frames = read_frames(val.file(sample), [1, 3, 5, 7])
        views = eval_views(frames, options, flip=True)
        by_hand.append(score(views[::2]))
        both = (score(views[::2]) + score(views[1::2])) / 2
        np.testing.assert_allclose(mirrored[row], both, rtol=0, atol=1e-4 * np.abs(mirrored).max())
    np.testing.assert_allclose(plain, by_hand, rtol=0, atol=1e-4 * np.abs(plain).max())
    frame_by_frame = np.mean([logits(run, val, frames=1), plain], 0)
    assert np.abs(frame_by_frame - plain).max() > 1e-3 * np.abs(plain).max()
    cached = score_source(run.model, CachedFeatures(extract(run.model, val, progress=False))).logits
    np.testing.assert_allclose(cached, plain, atol=0.02 * np.abs(plain).max())  # half precision

    files = [val.file(sample) for sample in val]
    found = [dict(prediction.scores) for prediction in predict(run.model, files, top=3)]
    likely = torch.from_numpy(plain).softmax(1).numpy()
    np.testing.assert_allclose([[row[name] for name in CLASSES] for row in found], likely, atol=1e-4)
    value = attnpool("evaluate", run.folder, source, "--json").value()
    assert (value["images"], value["skipped"]) == (6, [])
    assert attnpool("evaluate", run.folder, source, "--crops", 10, "--frames", 2, "--json").value()["images"] == 6
    (item,) = attnpool("explain", run.folder, files[0], "--out", tmp_path / "out", "--json").value()
    assert Path(item["panel"]).stat().st_size > 0
    assert item["frame"] in (2, 4, 6, 8)


def test_fusion_is_the_weighted_mean_of_logits(source: str, pose: Run, flow: Run) -> None:
    _, val = read(source)
    by_hand = (logits(pose, val) + 1.5 * logits(flow, val)) / 2.5
    scores = torch.from_numpy(by_hand).softmax(1).numpy()
    labels = np.array([sample.labels[0] for sample in val])
    found = evaluate(pose, source, use_cache=False, fuse=[(flow, 1.5)])
    for k, entry in enumerate(found.to_json()["per_class"]):
        assert entry["AP_sklearn"] == pytest.approx(average_precision_score(labels == k, scores[:, k]))
    assert found.scores.accuracy == (scores.argmax(1) == labels).mean()
    value = attnpool(
        "evaluate", pose.folder, source, "--no-use-cache", "--fuse", f"{flow.folder}=1.5", "--json"
    ).value()
    assert value["mAP"] == found.scores.mAP


def test_streams_of_two_splits_are_refused(source: str, pose: Run, tmp_path: Path) -> None:
    """One of them has learned what the other is tested on."""
    other = source.replace("hmdb51:", "hmdb51-2:")
    attnpool(*words(other, tmp_path / "two")).text()
    outcome = attnpool("evaluate", pose.folder, source, "--fuse", f"{tmp_path / 'two'}=1")
    refused(outcome, "two: was trained on 3 of the 6 samples", "fuse runs of the same split")
    again = attnpool("evaluate", pose.folder, other, "--json").value()  # the run's own part, whatever is asked for
    assert again["images"] == 6
    assert again["mAP"] == attnpool("evaluate", pose.folder, source, "--json").value()["mAP"]


def test_frames_flip_and_crops(source: str, pose: Run) -> None:
    value = attnpool("evaluate", pose.folder, source, "--frames", 3, "--flip", "--json").value()
    assert (value["images"], value["skipped"]) == (6, [])
    assert attnpool("evaluate", pose.folder, source, "--frames", 1, "--crops", 10, "--json").value()["images"] == 6
    assert attnpool("evaluate", pose.folder, source).text().startswith("val: 6 clips, 0 skipped\n")
    refused(attnpool("evaluate", pose.folder, source, "--frames", 0), "frames is 0")
    refused(attnpool("evaluate", pose.folder, source, "--fuse", f"{pose.folder}=-1"), "is no weight")


@pytest.mark.parametrize(
    "more", [(), ("--no-freeze-backbone",), ("--no-freeze-backbone", "--modality", "flow", "--batch-size", 1)]
)
def test_clips_that_cannot_be_read_are_left_out(tmp_path: Path, more: tuple[Any, ...]) -> None:
    """With a batch of one, the whole batch is missing."""
    source = make(tmp_path / "set", train=2, val=1)
    for name in ("fall/fall_0.avi", "pass/pass_2.avi"):  # of train, of val
        file = tmp_path / "set" / name
        file.write_bytes(file.read_bytes()[:60])
    value = attnpool(*words(source, tmp_path / "run", "--json", "--epochs", 1, *more)).value()
    assert [item["file"] for item in value["skipped"]] == ["fall/fall_0.avi", "pass/pass_2.avi"]
    assert all(item["reason"] for item in value["skipped"])
    scored = attnpool("evaluate", tmp_path / "run", source, "--json").value()
    assert (scored["images"], [item["file"] for item in scored["skipped"]]) == (2, ["pass/pass_2.avi"])


def test_malformed_keypoints_leave_their_clip_out(tmp_path: Path, pose: Run) -> None:
    source = make(tmp_path / "set", train=2, val=1)
    part, _ = read(source)
    kept = extract(pose.model, part, progress=False)
    for file in (tmp_path / "set" / "keypoints" / "pass" / "pass_0").iterdir():
        file.write_text('{"bodies": [')
    order = [[0, 1, 2], [3, 4, 5]]
    view = Preprocessing(image_size=32, frames=2, segments=2)
    for found in (
        *(Images(part, view, workers).batches(order, seed=0, epoch=0, train=True) for workers in (0, 1)),
        CachedFeatures(kept, 2).batches(order, seed=0, epoch=0, train=True),
    ):
        batches = list(found)
        (failure,) = [failure for batch in batches for failure in batch.failed]
        assert failure[0] == "pass/pass_0.avi"
        assert failure[1].startswith("keypoint file keypoints/pass/pass_0/image_0000")
        assert "not JSON" in failure[1]
        paths = [path for batch in batches for path in batch.paths]
        assert paths == [sample.path for sample in part if sample.path != "pass/pass_0.avi"]
        assert all(len(batch.inputs) == len(batch.paths) == len(batch.targets) for batch in batches)
        assert all(len(batch.people) == 2 * len(batch.paths) for batch in batches)
    for more in ((), ("--no-freeze-backbone", "--workers", 1)):
        out = tmp_path / f"run{len(more)}"
        value = attnpool(*words(source, out, "--pooling", "pose", "--epochs", 1, "--json", *more)).value()
        assert [item["file"] for item in value["skipped"]] == ["pass/pass_0.avi"]


class Stop(Images):
    """Sends this process a real SIGTERM while a batch is fetched."""

    def batches(self, order: Sequence[Sequence[int]], *, seed: int, epoch: int, train: bool) -> Iterator[Batch]:
        for number, batch in enumerate(super().batches(order, seed=seed, epoch=epoch, train=train)):
            if train and (epoch, number) == (1, 1):
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


@pytest.mark.parametrize("frozen", [True, False])
def test_a_training_that_was_stopped_goes_on(
    source: str, tmp_path: Path, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, val = read(source)
    options = TrainOptions(epochs=3, batch_size=5, use_cache=False)

    def once(out: Path) -> bytes:
        view = Preprocessing(image_size=32, frames=2, segments=2, color_jitter=0.2)
        model = Recognizer(
            "lite0",
            classes=part.classes,
            pooling_options={"dropout": 0.3},
            freeze_backbone=frozen,
            preprocessing=view.of_model(),
            seed=1,
        )
        train(model, part, val, out=out, options=options, preprocessing=view, progress=False)
        return (out / "model.safetensors").read_bytes()

    whole = once(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("attnpool.training.train.Images", Stop)
        with pytest.raises(Interrupted):
            once(tmp_path / "part")
    state = json.loads((tmp_path / "part" / "state.json").read_text())
    assert state
    assert once(tmp_path / "part") == whole
