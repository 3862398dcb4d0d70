"""What stands in a run folder, and who may write to it. (Models that come back: test_recognizer.py.)"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from attnpool.models import run, state
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import save_run


@pytest.fixture(scope="module")
def model() -> Recognizer:
    return Recognizer("test_resnet", classes=["a", "b"], weights="random")


def test_a_training_is_unfinished_until_its_run_is_written(model: Recognizer, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "r"
    run.require_new(folder)
    assert state.read_state(folder) is None
    state.save_state(folder, {"lr": 0.1}, {"w": torch.ones(2)}, at=(0, 3))
    assert run.is_unfinished(folder)
    with pytest.raises(ValueError, match="holds a run already"):
        run.require_new(folder)
    with pytest.raises(ValueError, match="not finished"):
        run.Run.load(folder)
    save_run(model, folder)
    assert run.is_finished(folder)
    assert not run.is_unfinished(folder)
    state.remove_state(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "run.json"]
    with pytest.raises(ValueError, match="holds a run already"):
        run.require_new(folder)
    with pytest.raises(ValueError, match="is a file"):
        run.require_new(folder / "run.json")


def test_weights_that_lost_their_run_file_are_not_trained_over(model: Recognizer, tmp_path: Path) -> None:
    save_run(model, tmp_path)
    (tmp_path / run.RUN_FILE).unlink()
    with pytest.raises(
        ValueError, match=r"holds model\.safetensors and no run\.json that says what it is; put that back"
    ):
        run.require_usable(tmp_path)


def test_the_last_state_alone_is_kept(tmp_path: Path) -> None:
    for step in (3, 4):
        state.save_state(tmp_path, {"step": step}, {"w": torch.full((2,), step)}, at=(0, step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state-0-4.safetensors", "state.json"]
    content = state.read_state(tmp_path)
    assert content is not None
    assert content["step"] == 4
    assert state.read_state_tensors(tmp_path, content)["w"].tolist() == [4, 4]


def test_a_training_killed_between_two_files_of_its_state_has_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new tensors are there already, the `state.json` that names them is not: what it named before must be."""
    state.save_state(tmp_path, {"step": 3}, {"w": torch.full((2,), 3)}, at=(0, 3))
    replace = os.replace

    def killed_at_json(source: Path, target: Path) -> None:
        if Path(target).suffix == ".json":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed_at_json)
        with pytest.raises(KeyboardInterrupt):
            state.save_state(tmp_path, {"step": 4}, {"w": torch.full((2,), 4)}, at=(0, 4))
    content = state.read_state(tmp_path)
    assert content is not None
    assert content["step"] == 3
    assert state.read_state_tensors(tmp_path, content)["w"].tolist() == [3, 3]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"3", b"\xff\xfe"])
def test_a_damaged_state(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"state\.json: damaged; train into a new folder"):
        state.read_state(tmp_path)


def test_the_best_weights_are_those_that_a_training_changes(model: Recognizer, tmp_path: Path) -> None:
    run.save_best(model, tmp_path)
    names = run.trained_tensors(model).keys()
    assert "head.a" in names
    assert not [name for name in names if name.startswith("backbone.")]
    other = Recognizer("test_resnet", classes=["a", "b"], weights="random", seed=1)
    run.load_best(other, tmp_path)
    assert all(torch.equal(run.trained_tensors(other)[name], run.trained_tensors(model)[name]) for name in names)
    with pytest.raises(ValueError, match="its tensors are not those of the model"):
        run.load_best(Recognizer("test_resnet", classes=["a", "b", "c"], weights="random"), tmp_path)


def test_a_run_that_cannot_be_written_leaves_nothing(
    model: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(run, "write_json", full)
    with pytest.raises(OSError, match="no space"):
        save_run(model, tmp_path / "r")
    assert not (tmp_path / "r").exists()


ODD = {
    "split": [
        None,
        [],
        3,
        {"media": "films"},
        {"train": [1]},
        {"val": "a.jpg"},
        {"split_seed": "0"},
        {"left_out": [2]},
    ],
    "results": [None, {"history": []}, {"history": [{"epoch": 1}]}, {"skipped": ["a.jpg"]}, {"auto": {"chosen": 3}}],
    "recipe": [None, "mpii", {"data": 3}],
    "versions": [None, {"torch": 2}],
    "model": [None, {}, []],
    "model.classes": [None, "ab", ["a", 2], ["a", "a"], []],
    "model.task": ["one", None],
    "model.preprocessing": [
        None,
        {"image_size": "448"},
        {"image_size": 0},
        {"image_size": 64, "zoom": 2},
        {"view": "x"},
    ],
    "model.pixels": [None, {"mean": [1, 2, 3]}, {"mean": [1, 2, 3], "std": [0, 1, 1]}, {"mean": 3, "std": [1]}],
    "model.pooling_options": [None, [1]],
    "model.freeze_backbone": [1, "yes"],
    "model.backbone": [None, "", 3],
}


@pytest.mark.parametrize(("place", "value"), [(place, value) for place in ODD for value in ODD[place]], ids=str)
def test_odd_run_files_are_refused_with_the_place(model: Recognizer, tmp_path: Path, place: str, value: object) -> None:
    save_run(model, tmp_path)
    about = json.loads((tmp_path / run.RUN_FILE).read_text(encoding="utf-8"))
    del about["check"]
    *above, last = place.split(".")
    inside = about
    for name in above:
        inside = inside[name]
    for change in ("another value", "missing"):
        inside.pop(last, None) if change == "missing" else inside.update({last: value})
        (tmp_path / run.RUN_FILE).write_text(json.dumps(about), encoding="utf-8")
        with pytest.raises(ValueError, match=r"run\.json: damaged, .*; train again into a new folder") as caught:
            run.Run.load(tmp_path)
        assert last in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_what_a_run_may_say_besides(model: Recognizer, tmp_path: Path) -> None:
    """Keys that a later version or the user has added do no harm."""
    save_run(model, tmp_path)
    about = json.loads((tmp_path / run.RUN_FILE).read_text(encoding="utf-8"))
    del about["check"]
    for place in (about, about["split"], about["results"], about["recipe"], about["model"]):
        place["remark"] = {"by": "me"}
    (tmp_path / run.RUN_FILE).write_text(json.dumps(about), encoding="utf-8")
    assert run.Run.load(tmp_path).model.classes == ("a", "b")
    (tmp_path / run.RUN_FILE).write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(ValueError, match="damaged"):
        run.read_run(tmp_path)
