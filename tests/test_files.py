"""Files appear whole or not at all, and children answer, end or are stopped."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from attnpool.files import (
    Child,
    cache_folder,
    read_tensors,
    replacing,
    save_tensors,
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


def child(code: str) -> Child:
    return Child([sys.executable, "-c", f"import json, os, sys, time\n{code}"])


ECHO = """
for line in sys.stdin.buffer:
    count = json.loads(line)["count"]
    print(json.dumps({"bytes": len(sys.stdin.buffer.read(count))}), flush=True)
"""


def test_a_child_answers_one_request_after_the_other() -> None:
    with child('print("{\\"ready\\": true}", flush=True)' + ECHO) as process:
        assert process.ask(seconds=60) == {"ready": True}
        for count in (0, 1, 3_000_000):  # more than a pipe holds
            assert process.ask({"count": count}, bytes(count), seconds=60) == {"bytes": count}
        assert process.running
        assert process.status == "running"
    assert not process.running
    process.stop()


@pytest.mark.parametrize(
    ("code", "words", "status"),
    [
        ("sys.exit(3)", "exit code 3", "exit code 3"),
        ("print('why', file=sys.stderr); print(file=sys.stderr); sys.exit(1)", "why", "exit code 1"),
        ("os.kill(os.getpid(), 11)", "SIGSEGV", "SIGSEGV"),
        ("print('{\"half\":', end='')", "exit code 0", "exit code 0"),
        ("print('[1]')", "exit code 0", "exit code 0"),
        ("print('hello')", "exit code 0", "exit code 0"),
    ],
)
def test_how_a_child_ended(code: str, words: str, status: str) -> None:
    with child(code) as process:
        with pytest.raises(EOFError) as caught:
            process.ask(["a request that it does not read"], seconds=60)
        assert (str(caught.value), process.status) == (words, status)
        with pytest.raises(EOFError):
            process.ask([], seconds=60)


@pytest.mark.parametrize("data", [b"", bytes(3_000_000)], ids=["waiting", "sending"])
def test_a_child_that_hangs(data: bytes) -> None:
    began = time.monotonic()
    with child("time.sleep(600)") as process, pytest.raises(TimeoutError):
        process.ask({}, data, seconds=0.5)
    assert time.monotonic() - began < 60
    assert process.status == "SIGKILL"


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        Child(["no/such/program"])


def test_a_childs_environment() -> None:
    code = "import json, os; print(json.dumps({'names': [os.environ.get('A'), os.environ.get('HOME')]}))"
    with Child([sys.executable, "-c", code], {"A": "1"}) as process:
        assert process.ask(seconds=60) == {"names": ["1", None]}


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
