"""An evaluation is written into its run, then drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnpool.evaluation.evaluate import Evaluation
from attnpool.evaluation.metrics import confusion, score
from attnpool.explain.drawn_evaluation import draw_evaluation, evaluation_figure

NASTY = '<script>alert("1")</script> & $x^2$'


@pytest.mark.parametrize("k", [1, 2, 14, 60])
@pytest.mark.parametrize("task", ["single", "multi"])
def test_evaluation_figure(tmp_path: Path, k: int, task: str) -> None:
    random = np.random.default_rng(k)
    labels = random.integers(0, max(1, k - 1), 50)  # the last class has no images
    scores = random.random((50, k))
    classes = [NASTY, "拍手 clapping", "word " * 30, *(f"class {i}" for i in range(k))][:k]
    targets = labels[:, None] == np.arange(k)
    counts = confusion(scores, labels, k) if task == "single" else None
    evaluation_figure(tmp_path / "scores.png", score(scores, targets, classes, task), counts, classes)
    with Image.open(tmp_path / "scores.png") as drawn:
        pixels = np.asarray(drawn.convert("L"))
    assert pixels.shape[1] > 900
    for edge in (pixels[:4], pixels[-4:], pixels[:, :4], pixels[:, -4:]):
        assert edge.min() == 255, "nothing is cut off at the edge"


def test_an_evaluation_is_drawn_into_its_run(tmp_path: Path) -> None:
    scores = score(np.eye(2), np.eye(2, dtype=bool), ["a", "b"])
    found = Evaluation(scores, np.eye(2, dtype=int), ("a", "b"), "val", None, run=tmp_path)
    drawn = draw_evaluation(found)
    assert drawn.plot == tmp_path / "evaluation-val.png"
    assert drawn.plot.read_bytes().startswith(b"\x89PNG")
    assert drawn.record == tmp_path / "evaluation-val.json"
    assert json.loads(drawn.record.read_text("utf-8"))["mAP"] == 1
    assert drawn.to_json() == found.to_json() | {"record": str(drawn.record), "plot": str(drawn.plot)}
    assert str(drawn) == f"{found}\n\nnumbers: {drawn.record}\nplot: {drawn.plot}"
    assert draw_evaluation(found, plot=tmp_path / "made" / "here.png").plot == tmp_path / "made" / "here.png"
    nothing = score(np.zeros((0, 2)), np.zeros((0, 2), bool), ["a", "b"])
    drawn = draw_evaluation(Evaluation(nothing, None, ("a", "b"), "test", None, run=tmp_path))
    assert drawn.plot is None  # nothing has a label
    assert not (tmp_path / "evaluation-test.png").exists()


def test_evaluation_figure_of_an_unscored_set(tmp_path: Path) -> None:
    nothing = score(np.zeros((0, 2)), np.zeros((0, 2)), ["a", "b"], "single")
    evaluation_figure(tmp_path / "scores.png", nothing, np.zeros((2, 2), int), ["a", "b"])
    assert (tmp_path / "scores.png").exists()


def test_another_evaluation_takes_another_name_and_the_same_its_own(tmp_path: Path) -> None:
    scores = score(np.eye(2), np.eye(2, dtype=bool), ["a", "b"])
    found = Evaluation(scores, None, ("a", "b"), "val", None, run=tmp_path, asked={"data": "folder:/a"})
    other = replace(found, asked={"data": "folder:/b"})
    (tmp_path / "evaluation-val.png").write_bytes(b"mine")
    for _ in range(2):
        drawn = [draw_evaluation(each) for each in (found, other)]
        assert [each.record.name for each in drawn] == ["evaluation-val.json", "evaluation-val-2.json"]  # type: ignore[union-attr]
        assert [each.plot.name for each in drawn] == ["evaluation-val-2.png", "evaluation-val-2-2.png"]  # type: ignore[union-attr]
    assert (tmp_path / "evaluation-val.png").read_bytes() == b"mine"
    with pytest.raises(ValueError, match="is there already and not by attnpool"):
        draw_evaluation(found, plot=tmp_path / "evaluation-val.png")


def test_numbers_outlive_what_cannot_be_drawn(tmp_path: Path) -> None:
    scores = score(np.eye(2), np.eye(2, dtype=bool), ["a", "b"])
    (tmp_path / "file").touch()
    drawn = draw_evaluation(
        Evaluation(scores, None, ("a", "b"), "val", None, run=tmp_path), plot=tmp_path / "file" / "x.png"
    )
    assert drawn.plot is None
    assert drawn.problem.startswith(f"{tmp_path / 'file' / 'x.png'}: cannot be written (file exists); free some space")
    assert json.loads((tmp_path / "evaluation-val.json").read_text("utf-8"))["mAP"] == 1
    assert "mAP       100.00 %" in str(drawn)
