"""Files appear whole or not at all, and never over those of the user."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from attnpool.files import (
    MARK_FILE,
    cache_folder,
    claim,
    claimed,
    is_ours,
    mark,
    read_tensors,
    replacing,
    require_ours,
    save_tensors,
    undisturbed,
    unused,
    write_bytes,
    write_json,
    write_text,
)

WRITERS: dict[str, Callable[[Path], None]] = {
    "bytes": lambda path: write_bytes(path, b"new"),
    "text": lambda path: write_text(path, "new"),
    "JSON": lambda path: write_json(path, ["new"]),
    "tensors": lambda path: save_tensors(path, {"new": torch.ones(2)}),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_is_replaced_whole_or_not_at_all(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "made" / "file"
    WRITERS[kind](path)
    whole = path.read_bytes()
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda source, target: (_ for _ in ()).throw(OSError("no space")))
        with pytest.raises(OSError, match="no space"):
            WRITERS[kind](path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]
    WRITERS[kind](path)
    assert path.read_bytes() == whole


def test_what_stops_a_writer_leaves_nothing(tmp_path: Path) -> None:
    def stopped() -> None:
        with replacing(tmp_path / "file") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
def test_tensors_of_pytorch_files(wrapper: str | None, tmp_path: Path) -> None:
    state: dict[str, Any] = {"module.a": torch.arange(3)}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "w.pth")
    assert read_tensors(tmp_path / "w.pth")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors"])
def test_tensors_that_are_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{name}: cannot be read as weights \(No such file") as caught:
        read_tensors(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNPOOL_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("ATTNPOOL_CACHE")
    assert cache_folder().name == "attnpool"


def test_tensors_come_back(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.tensor([1, 2])}
    save_tensors(tmp_path / "x.safetensors", tensors)
    for found in (read_tensors(tmp_path / "x.safetensors"), load_file(tmp_path / "x.safetensors")):
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    torch.save({"state_dict": {f"module.{name}": value for name, value in tensors.items()}}, tmp_path / "x.pth")
    assert read_tensors(tmp_path / "x.pth").keys() == tensors.keys()


def test_tensors_can_be_read_by_whom_other_files_can(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a.safetensors", {"a": torch.ones(1)})
    (tmp_path / "b").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_name_is_used_again_only_for_the_same_output(tmp_path: Path) -> None:
    this, other = mark("explain", "a.jpg"), mark("explain", "b.jpg")
    assert this != other
    first = unused(tmp_path, "a.png", this)
    assert first == tmp_path / "a.png"
    first.write_text(f"{this} ...")
    assert unused(tmp_path, "a.png", this) == first
    assert unused(tmp_path, "a.png", other) == tmp_path / "a-2.png"
    first.write_bytes(b"a photo")
    assert unused(tmp_path, "a.png", this) == tmp_path / "a-2.png"
    (tmp_path / "a-2.png").symlink_to("nowhere")
    (tmp_path / "a-3.png").mkdir()
    assert unused(tmp_path, "a.png", this) == tmp_path / "a-4.png"
    assert unused(tmp_path, "a.b.jpg", this) == tmp_path / "a.b.jpg"


def test_only_our_files_are_replaced(tmp_path: Path) -> None:
    file = tmp_path / "plot.png"
    require_ours(file, "plot")
    file.write_bytes(b"\x89PNG" + mark().encode())
    assert is_ours(file)
    require_ours(file, "plot")
    for content in (b"", b"a picture", bytes(5000) + mark().encode()):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"^plot .*plot\.png: is there already and not by attnpool; give the name"):
            require_ours(file, "plot")
    with pytest.raises(ValueError, match="is there already"):
        require_ours(tmp_path, "plot")


def test_folders_are_claimed(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "runs"
    claim(folder, "a run")
    claim(folder, "a run")
    (folder / "file").touch()
    claim(folder, "a run")
    with pytest.raises(ValueError, match=r"^out .*runs: holds a run, and this would be a study; give a new folder$"):
        claim(folder, "a study")
    (folder / MARK_FILE).unlink()
    with pytest.raises(ValueError, match=r"holds files that are not by attnpool \(file\); give a new folder$"):
        claim(folder, "a run")
    claim(folder, "a run", known=True)
    assert [entry.name for entry in folder.iterdir()] == ["file"]
    (folder / "file").rename(folder / ".DS_Store")
    claim(folder, "a run")
    with pytest.raises(ValueError, match="is a file"):
        claim(folder / MARK_FILE, "a run")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ValueError, match="is a file"):
        claim(tmp_path / "link", "a run")


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^out .*cannot be written to \(File exists\); give another folder$"):
        claim(tmp_path / "file" / "run", "a run")


def test_a_mark_goes_with_what_failed(tmp_path: Path) -> None:
    def broken(folder: Path, write: bool) -> None:
        with claimed(folder, "a run"):
            if write:
                (folder / "state").touch()
            raise KeyboardInterrupt

    (tmp_path / "empty").mkdir()
    for name, write in (("new", False), ("empty", False), ("begun", True)):
        with pytest.raises(KeyboardInterrupt):
            broken(tmp_path / name, write)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "begun",
        "begun/.attnpool.json",
        "begun/state",
        "empty",
    ]


def test_a_signal_while_a_library_reads_is_kept_for_later() -> None:
    """It is raised after the block, whatever comes of that; other threads are left alone."""
    done = []

    def read() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            done.append("read")

    # A shell has the commands that it starts in the background ignore Ctrl-C.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            read()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert done == ["read"]
    handler = signal.getsignal(signal.SIGTERM)
    with undisturbed():
        pass
    assert signal.getsignal(signal.SIGTERM) is handler
