"""What stands in a run folder, and who may write to it. (Models that come back: test_recognizer.py.)"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from attnpool.models import run
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import save_run


@pytest.fixture(scope="module")
def model() -> Recognizer:
    return Recognizer("test_resnet", classes=["a", "b"], weights="random")


def test_a_training_is_unfinished_until_its_run_is_written(model: Recognizer, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "r"
    run.require_new(folder)
    assert run.read_state(folder) is None
    run.save_state(folder, {"lr": 0.1}, {"w": torch.ones(2)}, at=(0, 3))
    assert run.is_unfinished(folder)
    with pytest.raises(ValueError, match="holds a run already"):
        run.require_new(folder)
    with pytest.raises(ValueError, match="not finished"):
        run.Run.load(folder)
    save_run(model, folder)
    assert run.is_finished(folder)
    assert not run.is_unfinished(folder)
    run.remove_state(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "run.json"]
    with pytest.raises(ValueError, match="holds a run already"):
        run.require_new(folder)
    with pytest.raises(ValueError, match="is a file"):
        run.require_new(folder / "run.json")


def test_the_last_state_alone_is_kept(tmp_path: Path) -> None:
    for step in (3, 4):
        run.save_state(tmp_path, {"step": step}, {"w": torch.full((2,), step)}, at=(0, step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state-0-4.safetensors", "state.json"]
    content = run.read_state(tmp_path)
    assert content is not None
    assert content["step"] == 4
    assert run.read_state_tensors(tmp_path, content)["w"].tolist() == [4, 4]


def test_a_training_killed_between_two_files_of_its_state_has_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new tensors are there already, the `state.json` that names them is not: what it named before must be."""
    run.save_state(tmp_path, {"step": 3}, {"w": torch.full((2,), 3)}, at=(0, 3))
    replace = os.replace

    def killed_at_json(source: Path, target: Path) -> None:
        if Path(target).suffix == ".json":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed_at_json)
        with pytest.raises(KeyboardInterrupt):
            run.save_state(tmp_path, {"step": 4}, {"w": torch.full((2,), 4)}, at=(0, 4))
    content = run.read_state(tmp_path)
    assert content is not None
    assert content["step"] == 3
    assert run.read_state_tensors(tmp_path, content)["w"].tolist() == [3, 3]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"3", b"\xff\xfe"])
def test_a_damaged_state(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"state\.json: damaged; train into a new folder"):
        run.read_state(tmp_path)


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
