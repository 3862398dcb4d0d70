"""Scoring a run: which images, which numbers, what is said about them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import attnpool
from PIL import Image
from scipy.io import loadmat
from sklearn.metrics import accuracy_score, average_precision_score

from attnpool.data import Dataset, Preprocessing, read, read_all
from attnpool.evaluation.evaluate import evaluate, negatives, summarize
from attnpool.evaluation.inference import Outputs, as_probabilities, points, score_source
from attnpool.evaluation.predict import predict
from attnpool.evaluation.splits import choose_split
from attnpool.features.batches import BatchSource, CachedFeatures, Images
from attnpool.features.extraction import extract
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import Run, save_run
from attnpool.pooling import Pooled


@pytest.fixture(scope="module")
def done(run: Path) -> Run:
    return Run.load(run)


def source_of(model: Recognizer, dataset: Dataset, *, cached: bool) -> BatchSource:
    if cached:
        return CachedFeatures(extract(model, dataset, progress=False))
    return Images(dataset, Preprocessing(**model.preprocessing))


def names(dataset: Dataset) -> list[str]:
    return [sample.path for sample in dataset]


def run_on(train: Dataset, val: Dataset, split_seed: int = 0) -> Run:
    """A run without a training."""
    model = Recognizer(
        "lite0", classes=train.classes, preprocessing={"image_size": 64, "short_side": None, "max_width": None}
    )
    split = {"split_seed": split_seed, "train": names(train), "val": names(val)}
    return Run(Path("some/run"), model.eval(), {"split": split, "recipe": {"data": train.name}})


# which images


def test_the_split_of_the_run_counts(photos: Path) -> None:
    source = f"folder:{photos}"
    train, val = read(source, split_seed=5)
    assert names(val) != names(read(source, split_seed=0)[1])
    run = run_on(train, val, 5)
    assert names(choose_split(run, source)) == names(val)
    assert choose_split(run, source).split == "val"
    assert names(choose_split(run, source, "train")) == names(train)
    assert names(choose_split(run, source, "all")) == names(read_all(source))
    run.about["split"]["split_seed"] = 0  # the files count, not the number
    assert names(choose_split(run, source)) == names(val)
    with pytest.raises(ValueError, match="has no test part; use split val, train or all"):
        choose_split(run, source, "test")


def test_images_that_came_later_are_not_evaluated(photos: Path) -> None:
    source = f"folder:{photos}"
    train, val = read(source)
    for number in range(20):
        shutil.copy(photos / "calling/0.jpg", photos / f"calling/new{number}.jpg")
    assert names(choose_split(run_on(train, val), source)) == names(val)


def test_a_moved_dataset_is_still_the_same(photos: Path, tmp_path: Path) -> None:
    train, val = read(f"folder:{photos}", split_seed=5)
    photos.rename(tmp_path / "moved")
    assert names(choose_split(run_on(train, val, 5), f"folder:{tmp_path / 'moved'}")) == names(val)


def test_images_that_are_gone(photos: Path, tmp_path: Path) -> None:
    train, val = read(f"folder:{photos}")
    run = run_on(train, val)
    (photos / names(train)[0]).unlink()
    assert names(choose_split(run, f"folder:{photos}")) == names(val)  # nothing that is needed
    (photos / names(val)[0]).unlink()
    photos.rename(tmp_path / "moved")
    with pytest.raises(ValueError) as caught:
        choose_split(run, f"folder:{tmp_path / 'moved'}")
    message = str(caught.value)
    assert f"1 of the {len(val)} val images of some/run are not there, the first is {names(val)[0]};" in message
    assert "use split all" in message
    assert len(choose_split(run, f"folder:{tmp_path / 'moved'}", "all")) == 10
    # under the name that the run knows it is the run's data, even if every image has another name now
    (tmp_path / "moved").rename(photos)
    for path in sorted(photos.rglob("*.jpg")):
        path.rename(path.with_name(f"new-{path.name}"))
    for spelling in (f"folder:{photos}", f"folder:{photos / '..' / photos.name}"):
        with pytest.raises(ValueError, match=f"{len(val)} of the {len(val)} val images of some/run are not there"):
            choose_split(run, spelling)


def test_another_dataset_is_split_by_itself(photos: Path, tmp_path: Path) -> None:
    train, val = read(f"folder:{photos}", split_seed=5)
    run = run_on(train, val, 5)
    other = tmp_path / "other"
    for path in sorted(photos.rglob("*.jpg")):
        number = int(path.stem)
        target = other / path.parent.name / f"{number + 4}.jpg"  # a third of the names are the same
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert names(choose_split(run, f"folder:{other}")) == names(read(f"folder:{other}", split_seed=5)[1])
    assert names(choose_split(run, f"folder:{other}", "train")) == names(read(f"folder:{other}", split_seed=5)[0])


def test_another_world_of_the_playground(done: Run, tmp_path: Path) -> None:
    attnpool("playground", tmp_path / "p", "--images", 84, "--seed", 2, "--size", 64).text()
    shared = set(done.about["split"]["train"]) & set(names(read_all(f"folder:{tmp_path / 'p'}")))
    assert shared  # some images happen to have the same name
    assert names(choose_split(done, f"folder:{tmp_path / 'p'}")) == names(read(f"folder:{tmp_path / 'p'}")[1])


def test_a_test_part(photos: Path, tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        shutil.copytree(photos, tmp_path / "d" / part)
    train, val = read(f"folder:{tmp_path / 'd'}")
    found = choose_split(run_on(train, val), f"folder:{tmp_path / 'd'}", "test")
    assert {path.split("/")[0] for path in names(found)} == {"test"}
    assert len(found) == 12


def test_a_model_that_was_saved_without_a_split(photos: Path, tmp_path: Path) -> None:
    _, val = read(f"folder:{photos}")
    model = run_on(*read(f"folder:{photos}")).model
    save_run(model, tmp_path / "r")
    assert names(choose_split(Run.load(tmp_path / "r"), f"folder:{photos}")) == names(val)


def test_other_classes(done: Run, photos: Path, world: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown to the run: calling, drinking; not in the data: calling with"):
        evaluate(done, f"folder:{photos}")
    train, _ = read(f"folder:{world}")
    swapped = replace(train, classes=train.classes[::-1])
    with pytest.raises(ValueError, match="in another order; give them the same order"):
        evaluate(done, swapped)


# which numbers


def test_scores_equal_those_of_scikit_learn(done: Run, world: Path) -> None:
    _, val = read(f"folder:{world}")
    predictions = predict(done.model, [val.file(sample) for sample in val], top=14)
    table = np.array([[dict(p.scores)[name] for name in val.classes] for p in predictions])
    assert table.sum(1) == pytest.approx(1)
    labels = np.array([sample.labels[0] for sample in val])
    found = evaluate(done, f"folder:{world}", use_cache=False)
    expected = [average_precision_score(labels == k, table[:, k]) for k in range(14)]
    assert found.scores.mAP_sklearn == pytest.approx(np.mean(expected))
    assert [row["AP_sklearn"] for row in found.scores.per_class] == pytest.approx(expected)
    assert found.scores.accuracy == pytest.approx(accuracy_score(labels, table.argmax(1)))
    assert found.scores.mAP >= found.scores.mAP_sklearn
    assert found.confusion is not None
    assert found.confusion.sum() == 14
    assert np.trace(found.confusion) / 14 == found.scores.accuracy
    assert evaluate(done.folder, val, use_cache=False).scores == found.scores


@pytest.mark.parametrize("pooling", ["average", "attentional", "pose"])
def test_cached_features_score_as_the_images_do(done: Run, world: Path, pooling: str) -> None:
    model = Recognizer(
        done.model.backbone, classes=done.model.classes, pooling=pooling, preprocessing=done.model.preprocessing
    )
    model.standardize.load_state_dict(done.model.standardize.state_dict())
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    model.train()
    dataset = read_all(f"folder:{world}")
    cached, images = (score_source(model, source_of(model, dataset, cached=use)) for use in (True, False))
    assert model.training  # as it was
    assert cached.paths == images.paths == names(dataset)
    chances = [as_probabilities(torch.from_numpy(found.logits), model.scores) for found in (cached, images)]
    assert np.abs(chances[0] - chances[1]).max() < 1e-3
    assert np.ptp(chances[1]) > 0.05
    assert np.array_equal(cached.targets, images.targets)
    assert np.mean(cached.pointed == images.pointed) > 0.9
    some = score_source(model, source_of(model, dataset, cached=True), positions=[5, 3], maps=False)
    assert some.paths == [names(dataset)[5], names(dataset)[3]]
    assert np.isnan(some.pointed).all()
    assert as_probabilities(torch.from_numpy(some.logits), model.scores) == pytest.approx(chances[0][[5, 3]], rel=1e-4)


def test_best_weights(done: Run, run: Path, world: Path) -> None:
    history = done.about["results"]["history"]
    best = evaluate(run, f"folder:{world}", best=True)
    assert best.scores.mAP == pytest.approx(max(entry["mAP"] for entry in history), abs=1e-9)
    assert evaluate(run, f"folder:{world}").scores.mAP == pytest.approx(history[-1]["mAP"], abs=1e-9)


def test_pointing_by_hand() -> None:
    combined = torch.zeros(3, 2, 2, 2)
    combined[0, 1, 0, 1] = 1  # image 0, its class 1: upper right, at (75, 25)
    combined[1, 0, 1, 0] = 1  # image 1, its class 0: lower left, at (25, 75)
    combined[2, 0, 1, 0] = 1
    targets = torch.tensor([[0.0, 1], [1, 0], [1, 0]])
    boxes = [[(60.0, 0.0, 100.0, 40.0)], [(0.0, 0.0, 20.0, 20.0), (60.0, 0.0, 100.0, 40.0)], []]
    found = points(Pooled(targets, combined=combined), targets.argmax(1), targets, boxes, (100, 100))
    assert found[:2].tolist() == [1, 0]
    assert math.isnan(found[2])
    without = Pooled(targets)  # of a head without a combined map
    assert np.isnan(points(without, targets.argmax(1), targets, boxes, (100, 100))).all()
    unlabelled = torch.tensor([[0.0, 0], [1, 0], [1, 0]])
    pooled = Pooled(targets, combined=combined)
    assert math.isnan(points(pooled, unlabelled.argmax(1), unlabelled, boxes, (100, 100))[0])


def test_pointing_leaves_out_what_has_no_evidence(done: Run, world: Path) -> None:
    _, val = read(f"folder:{world}")
    whole = evaluate(done, val)
    assert whole.pointing is not None
    assert whole.pointing * 14 == pytest.approx(round(whole.pointing * 14))
    bare = replace(val, samples=tuple(replace(s, evidence=()) if i >= 5 else s for i, s in enumerate(val)))
    some = evaluate(done, bare)
    assert some.pointing is not None
    assert some.pointing * 5 == pytest.approx(round(some.pointing * 5))
    none = evaluate(done, replace(val, samples=tuple(replace(s, evidence=()) for s in val)))
    assert none.pointing is None
    assert none.to_json()["pointing"] is None
    assert "pointing" not in str(none)
    assert none.scores == whole.scores


# what is said


def test_the_summary_states_its_denominators(done: Run, world: Path) -> None:
    _, val = read(f"folder:{world}")
    few = evaluate(done, replace(val, samples=val.samples[:10]))
    text = str(few)
    assert "val: 10 images, 0 skipped" in text
    assert "mean over the 10 classes with positives" in text
    assert "of 10 images" in text
    rows = [row for row in few.to_json()["per_class"] if row["positives"] == 0]
    assert len(rows) == 4
    assert all(row["AP"] is None for row in rows)


def test_unreadable_images(done: Run, tmp_path: Path, world: Path) -> None:
    shutil.copytree(world, tmp_path / "w")
    _, val = read(f"folder:{tmp_path / 'w'}")
    for sample in val.samples[:3]:
        val.file(sample).write_bytes(val.file(sample).read_bytes()[:200])
    for use_cache in (True, False):
        found = evaluate(done, f"folder:{tmp_path / 'w'}", use_cache=use_cache)
        assert [path for path, _ in found.skipped] == names(val)[:3]
        assert found.scores.images == 11
        assert "val: 11 images, 3 skipped" in str(found)
        assert f"skipped {names(val)[0]}: " in str(found)
        assert found.to_json()["skipped"][0]["file"] == names(val)[0]
    for sample in val.samples[3:]:
        val.file(sample).unlink()
    for use_cache in (True, False):
        with pytest.raises(ValueError, match="none of its 14 images can be read; see attnpool check"):
            evaluate(done, val, use_cache=use_cache)


def test_several_labels_an_image(done: Run) -> None:
    model = Recognizer(
        done.model.backbone, classes=["a", "b", "c"], task="multi", preprocessing=done.model.preprocessing
    )
    chances = np.random.default_rng([1]).random((8, 3))
    targets = np.random.default_rng([2]).random((8, 3)) > 0.5
    outputs = Outputs(chances, targets, np.ones((8, 3), bool), [str(i) for i in range(8)], np.full(8, np.nan), [])
    found = summarize(outputs, model, "all")
    assert (found.confusion, found.scores.accuracy, found.pointing) == (None, None, None)
    assert found.to_json()["accuracy"] is None
    assert "accuracy" not in str(found)
    expected = [average_precision_score(targets[:, k], chances[:, k]) for k in range(3)]
    assert found.scores.mAP_sklearn == pytest.approx(np.mean(expected))


# benchmarks


@pytest.fixture(scope="module")
def hico(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small world in HICO's format, and a run on it."""
    root = tmp_path_factory.mktemp("hico")
    attnpool("playground", root / "h", "--style", "hico", "--images", 56, "--seed", 1, "--size", 64).text()
    options = ["--image-size", 64, "--epochs", 2, "--loss", "random_positive"]
    attnpool("train", f"hico:{root / 'h'}", "--out", root / "run", *options).text()
    return root / "h", root / "run"


def test_both_settings_of_hico(hico: tuple[Path, Path]) -> None:
    """Against scikit-learn and the labels in the .mat file itself."""
    root, folder = hico
    run = Run.load(folder)
    source = f"hico:{root}"
    value = attnpool("evaluate", folder, source, "--json").value()
    anno = loadmat(root / "anno.mat")["anno_test"].T
    assert set(anno[~np.isnan(anno)].tolist()) == {-1, 0, 1}
    assert np.isnan(anno).any()
    _, val = read(source)
    outputs = score_source(run.model, source_of(run.model, val, cached=True))
    assert outputs.paths == names(val)
    assert run.model.scores == "softmax", "as random_positive trained it"
    exact = np.exp(outputs.logits)
    exact /= exact.sum(1, keepdims=True)
    for scores, counted in ((value, anno != 0), (value["known_object"], np.abs(anno) == 1)):
        found = []
        for k, row in enumerate(scores["per_class"]):
            use, positives = counted[:, k], anno[counted[:, k], k] == 1
            assert (row["images"], row["positives"]) == (use.sum(), positives.sum())
            if positives.any():
                found.append(average_precision_score(positives, exact[use, k]))
                assert row["AP_sklearn"] == pytest.approx(found[-1])
        assert scores["classes_scored"] == len(found)
        assert scores["mAP_sklearn"] == pytest.approx(np.mean(found))
    text = attnpool("evaluate", folder, source).text()
    assert f"{100 * value['known_object']['mAP_voc07']:.2f} %  VOC2007, Known-Object" in text
    assert "Known-Object  positives" in text


def test_joints_that_no_head_looks_at_take_no_image_out(hico: tuple[Path, Path], tmp_path: Path) -> None:
    root, folder = hico
    before = attnpool("evaluate", folder, f"hico:{root}", "--json").value()
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    for image in (copy / "images/test2015").iterdir():
        file = copy / "keypoints/test2015" / f"{image.stem}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{")
    after = attnpool("evaluate", folder, f"hico:{copy}", "--json").value()
    assert (after["images"], after["mAP"], after["skipped"]) == (before["images"], before["mAP"], [])


def test_only_hico_has_a_known_object_setting(done: Run, world: Path) -> None:
    _, val = read(f"folder:{world}")
    assert negatives(val, names(val)) is None
    found = evaluate(done, val)
    assert found.to_json()["known_object"] is None
    assert "Known-Object" not in str(found)
    mixed = replace(val, samples=(replace(val.samples[0], negatives=(3, 5)), *val.samples[1:]))
    table = negatives(mixed, names(mixed)[::-1])
    assert table is not None
    assert np.flatnonzero(table[-1]).tolist() == [3, 5]
    assert table[:-1].all()


@pytest.fixture(scope="module")
def mpii(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small world in MPII's format, and a run on it."""
    root = tmp_path_factory.mktemp("mpii")
    attnpool("playground", root / "m", "--style", "mpii", "--images", 84, "--seed", 1, "--size", 64).text()
    attnpool("train", f"mpii:{root / 'm'}", "--out", root / "run", "--image-size", 64, "--epochs", 2).text()
    return root / "m", root / "run"


def test_labels_that_are_not_public(mpii: tuple[Path, Path], tmp_path: Path) -> None:
    root, folder = mpii
    path = tmp_path / "scores.mat"
    value = attnpool("evaluate", folder, f"mpii:{root}", "--split", "test", "--submission", path, "--json").value()
    stems = (root / "images_mpii_test.txt").read_text().split()
    assert [value[key] for key in ("mAP", "mAP_voc07", "accuracy", "pointing", "plot")] == [None] * 5
    assert (value["images"], value["unlabelled"], value["classes_scored"]) == (0, len(stems), 0)
    assert value["submission"] == str(path)
    assert not (folder / "evaluation-test.png").exists()
    text = attnpool("evaluate", folder, f"mpii:{root}", "--split", "test").text()
    assert f"{len(stems)} images have no label that is known here" in text
    assert "mAP" not in text


@pytest.mark.parametrize("part", ["test", "val"])
def test_the_submission_names_the_images(part: str, mpii: tuple[Path, Path], tmp_path: Path) -> None:
    """Ids, read back, are where the list's images stand in annolist; scores are those of `predict`."""
    root, folder = mpii
    path = tmp_path / "scores.mat"
    found = evaluate(folder, f"mpii:{root}", split=part, submission=path)
    assert found.submission == path
    assert found.scores.images == (0 if part == "test" else len(read(f"mpii:{root}")[1]))
    release = loadmat(root / "mpii_human_pose_v1_u12_1.mat", squeeze_me=True, struct_as_record=False)["RELEASE"]
    file = loadmat(path, squeeze_me=True)
    named = [release.annolist[int(number) - 1].image.name for number in file["sample_ids"]]
    stems = (root / f"images_mpii_{part}.txt").read_text().split()
    assert sorted(named) == sorted(f"{stem}.jpg" for stem in stems)
    model = Run.load(folder).model
    assert file["class_ids"].tolist() == list(model.classes)
    for row in (0, -1):
        (prediction,) = predict(model, [root / "images" / named[row]], top=99)
        expected = [dict(prediction.scores)[name] for name in file["class_ids"]]
        np.testing.assert_allclose(file["scores"][row], expected, atol=2e-3)  # kept features have half precision


def test_a_submission_that_cannot_be(mpii: tuple[Path, Path], run: Path, world: Path, tmp_path: Path) -> None:
    root, folder = mpii
    for source, of, name, message in (
        (f"folder:{world}", run, "scores.mat", "only mpii has a test server"),
        (f"mpii:{root}", folder, "scores.csv", r"let its name end in \.mat"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(of, source, submission=tmp_path / name)
    shutil.copytree(root, tmp_path / "m")
    stem = (root / "images_mpii_test.txt").read_text().split()[0]
    (tmp_path / "m" / "images" / f"{stem}.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="test: 1 images cannot be read; a submission needs them all"):
        evaluate(folder, f"mpii:{tmp_path / 'm'}", split="test", submission=tmp_path / "scores.mat")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


# single images


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Image.Image, str], Path]:
    def saved(image: Image.Image, name: str) -> Path:
        image.save(tmp_path / name)
        return tmp_path / name

    return saved


def test_predict(done: Run, world: Path, save: Callable[[Image.Image, str], Path]) -> None:
    with Image.open(min(world.rglob("*.jpg"))) as image:
        path = save(image, "p.png")
    (all_of_them,) = predict(done.model, [path], top=99)
    (two,) = predict(done.model, [str(path)], top=2)
    assert len(all_of_them.scores) == 14
    values = [value for _, value in all_of_them.scores]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1)
    assert two.scores == all_of_them.scores[:2]
    assert two.pooled.combined is None
    (with_maps,) = predict(done.model, [path], maps=True)
    assert with_maps.pooled.combined is not None
    sums = with_maps.pooled.combined.sum((-2, -1))
    assert torch.allclose(sums, with_maps.pooled.logits, atol=1e-4)
    assert predict(done.model, []) == []
    with pytest.raises(ValueError, match=r"gone\.jpg: cannot be read as an image"):
        predict(done.model, [path.with_name("gone.jpg")])
