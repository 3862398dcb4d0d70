"""Files that are written whole or not at all, tensors from files of others, and a child process that answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from attnpool.files import Child, cache_folder, read_tensors, replacing, save_tensors, write_json, write_text


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "notes.txt"
    write_text(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()

    def fail() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            assert path.read_text(encoding="utf-8") == "größer\n"  # what others see meanwhile
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        fail()
    assert path.read_text(encoding="utf-8") == "größer\n"
    assert [file.name for file in path.parent.iterdir()] == ["notes.txt"]
    write_json(path, {"ä": [1.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ä": [1.5, None]}
    assert [file.name for file in path.parent.iterdir()] == ["notes.txt"]


def test_tensors_come_back(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.tensor([1, 2])}
    save_tensors(tmp_path / "x.safetensors", tensors)
    for found in (read_tensors(tmp_path / "x.safetensors"), load_file(tmp_path / "x.safetensors")):
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    torch.save({"state_dict": {f"module.{name}": value for name, value in tensors.items()}}, tmp_path / "x.pth")
    assert read_tensors(tmp_path / "x.pth").keys() == tensors.keys()


def test_files_of_no_tensors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no\.pth: cannot be read as weights .No such file"):
        read_tensors(tmp_path / "no.pth")
    (tmp_path / "a.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"a\.safetensors: cannot be read as weights"):
        read_tensors(tmp_path / "a.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds no state dict of tensors"):
        read_tensors(tmp_path / "list.pth")


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNPOOL_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("ATTNPOOL_CACHE")
    assert cache_folder().name == "attnpool"


ECHO = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if request == "end":
        sys.exit("that is enough")
    if request == "words":
        print("no JSON", flush=True)
    if request != "silence":
        print(json.dumps({"heard": request}), flush=True)
"""


def test_a_child_answers_until_it_ends() -> None:
    with Child([sys.executable, "-c", ECHO]) as child:
        for request in (1, {"a": "ü"}):
            assert child.ask(request, seconds=60) == {"heard": request}
        assert child.running
        with pytest.raises(EOFError, match="that is enough"):
            child.ask("end", seconds=60)
        assert not child.running
        assert child.status == "exit code 1"
    child.stop()  # again, which does nothing
    with pytest.raises(OSError):
        Child(["/no/such/program"])


def test_a_child_that_is_silent() -> None:
    with Child([sys.executable, "-c", ECHO]) as child:
        assert child.ask(1, seconds=60) == {"heard": 1}
        with pytest.raises(TimeoutError):
            child.ask("silence", seconds=0.2)
    assert child.status == "SIGKILL"
