from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matlab_files import EMPTY, cells, struct, try_damaged_files
from scipy.io import savemat

from attnpool.data.decoding.matlab import MatReader, read_mat


@pytest.fixture(scope="module")
def reader() -> Iterator[MatReader]:
    with MatReader(seconds=60) as kept:
        yield kept


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache for each test, and a folder for temporary files, in which nothing may be left."""
    monkeypatch.setenv("ATTNPOOL_CACHE", str(tmp_path / "cache"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield
    assert list(temporary.iterdir()) == []
    assert not list(tmp_path.glob("cache/mat/*.partial"))


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache/mat").iterdir())


def test_every_kind_of_value(tmp_path: Path, reader: MatReader) -> None:
    path = tmp_path / "a.mat"
    content = {
        "one": struct({"x": 1.5, "s": "word", "none": EMPTY, "cell": cells(["a", EMPTY, 2])}),
        "several": struct({"x": 1}, {"x": np.array([[1, 2], [3, 4]])}).T,
        "inside": struct({"a": struct({"b": struct({"c": "deep"})})}),
        "empty": struct({"gone": "x"})[:, :0],
        "word": "Grüße, 日本",
        "lines": np.array(["ab", "cd"]),
        "nothing": "",
        "odd": struct({"n": np.array([np.nan, np.inf, 2.0]), "b": np.array([True, False]), "c": np.array([1j])}),
    }
    savemat(path, content)
    found = reader.read(path, [*content, "absent"])
    assert found.path == path
    assert found.matrices == {}
    assert found.tree == {
        "one": [{"x": [1.5], "s": "word", "none": [], "cell": ["a", [], [2]]}],
        "several": [{"x": [1]}, {"x": [1, 3, 2, 4]}],
        "inside": [{"a": [{"b": [{"c": "deep"}]}]}],
        "empty": [],
        "word": "Grüße, 日本",
        "lines": ["ab", "cd"],
        "nothing": "",
        "odd": [{"n": [None, None, 2.0], "b": [1, 0], "c": None}],
    }


def test_matrices_come_back_exactly_in_few_bytes(tmp_path: Path, reader: MatReader) -> None:
    rng = np.random.default_rng(0)
    matrices = {
        "entries": rng.choice([-1.0, 0, 1, np.nan], (60, 70)),
        "whole": rng.integers(-100, 100, (3, 4)).astype(float),
        "real": rng.normal(size=(5, 6)),
        "large": np.array([[1e9, 3]]),
        "single": np.array([[7.0]]),
        "none": EMPTY,
    }
    savemat(tmp_path / "a.mat", matrices, do_compression=True)
    found = reader.read(tmp_path / "a.mat", list(matrices))
    assert found.tree == {}
    for name, matrix in matrices.items():
        np.testing.assert_array_equal(found.matrices[name], matrix)
    assert {name: found.matrices[name].dtype for name in ("entries", "whole", "real")} == {
        "entries": np.float16,
        "whole": np.int8,
        "real": np.float64,
    }


def test_only_what_was_asked_for(tmp_path: Path, reader: MatReader) -> None:
    savemat(tmp_path / "a.mat", {"a": "1", "b": "2"})
    assert reader.read(tmp_path / "a.mat", ["a"]).tree == {"a": "1"}
    assert reader.read(tmp_path / "a.mat", ["b"]).tree == {"b": "2"}
    assert len(kept(tmp_path)) == 2


def test_results_are_kept_by_content(tmp_path: Path, reader: MatReader) -> None:
    savemat(tmp_path / "a.mat", {"a": "1", "m": np.eye(3)})
    (tmp_path / "b.mat").write_bytes((tmp_path / "a.mat").read_bytes())
    reader.read(tmp_path / "a.mat", ["a", "m"])
    (folder,) = kept(tmp_path)
    content = json.loads((folder / "tree.json").read_text())
    assert content["tree"] == {"a": "1"}
    (folder / "tree.json").write_text(json.dumps(content | {"tree": {"a": "from the cache"}}))
    found = read_mat(tmp_path / "b.mat", ["a", "m"])
    assert (found.path, found.tree) == (tmp_path / "b.mat", {"a": "from the cache"})
    np.testing.assert_array_equal(found.matrices["m"], np.eye(3))
    savemat(tmp_path / "a.mat", {"a": "2", "m": np.eye(3)})
    assert reader.read(tmp_path / "a.mat", ["a", "m"]).tree == {"a": "2"}


@pytest.mark.parametrize("name", ["tree.json", "matrices.npz"])
@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, reader: MatReader, name: str, damage: str) -> None:
    savemat(tmp_path / "a.mat", {"a": "1", "m": np.eye(3)})
    reader.read(tmp_path / "a.mat", ["a", "m"])
    file = kept(tmp_path)[0] / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:20] if damage == "cut" else b"{}")
    for _ in range(2):
        found = reader.read(tmp_path / "a.mat", ["a", "m"])
        assert found.tree == {"a": "1"}
        np.testing.assert_array_equal(found.matrices["m"], np.eye(3))
    assert len(file.read_bytes()) > 20


def test_without_a_cache_it_works_too(tmp_path: Path, reader: MatReader, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ATTNPOOL_CACHE", str(tmp_path / "file"))
    savemat(tmp_path / "a.mat", {"a": "1"})
    assert reader.read(tmp_path / "a.mat", ["a"]).tree == {"a": "1"}


def refusal(reader: MatReader, path: Path) -> str:
    with pytest.raises(ValueError) as caught:
        reader.read(path, ["a"])
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_what_is_no_such_file(tmp_path: Path, reader: MatReader) -> None:
    path = tmp_path / "a.mat"
    assert refusal(reader, path) == "cannot be read (no such file or directory)"
    path.write_bytes(b"")
    assert refusal(reader, path) == "is empty; get the file again"
    path.write_text("<html>Not found</html>" * 20)
    assert refusal(reader, path) == "is not a .mat file; get the file again"
    savemat(path, {"a": "1"}, format="4")
    assert refusal(reader, path) == "is not a .mat file; get the file again"
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(384) + b"\x89HDF\r\n\x1a\n")
    assert refusal(reader, path).startswith("is a file of MATLAB 7.3 (HDF5), which is not read; save it in MATLAB with")
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    assert "MATLAB 7.3 (HDF5)" in refusal(reader, path)
    path.unlink()
    path.mkdir()
    assert refusal(reader, path) == "is not a file"
    path.rmdir()
    os.mkfifo(path)
    assert refusal(reader, path) == "is not a file"
    savemat(tmp_path / "whole.mat", {"a": np.random.default_rng(0).normal(size=(99, 9))}, do_compression=True)
    path.unlink()
    path.write_bytes((tmp_path / "whole.mat").read_bytes()[:3000])
    assert "malformed" in refusal(reader, path) or "could not read" in refusal(reader, path)
    assert not (tmp_path / "cache").exists()


def test_limits(tmp_path: Path) -> None:
    """Of memory and of time; a child that ends or hangs is replaced by the next."""
    good, huge = tmp_path / "good.mat", tmp_path / "huge.mat"
    savemat(good, {"a": "1"})
    savemat(huge, {"a": cells(["x"] * 3).T})
    dimensions = b"\x05\0\0\0\x08\0\0\0\x01\0\0\0\x03\0\0\0"
    data = huge.read_bytes()
    assert data.count(dimensions) == 1
    huge.write_bytes(data.replace(dimensions, dimensions[:8] + (2**15).to_bytes(4, "little") * 2))
    with MatReader(seconds=60) as reader:
        assert refusal(reader, huge) == "needs more than 4 GB of memory; get the file again"
        assert reader.read(good, ["a"]).tree == {"a": "1"}  # by the same child
        assert reader.child is not None
        child = reader.child.process

        savemat(good, {"a": "2"})
        child.kill()
        child.wait()
        assert reader.read(good, ["a"]).tree == {"a": "2"}
        assert reader.child is not None
        child = reader.child.process

        os.kill(child.pid, signal.SIGSTOP)
        threading.Timer(0.3, child.kill).start()
        savemat(good, {"a": "3"})
        assert refusal(reader, good) == "malformed: reading it ended the reader (SIGKILL); get the file again"
        assert reader.read(good, ["a"]).tree == {"a": "3"}
        assert reader.child is not None
        child = reader.child.process

        os.kill(child.pid, signal.SIGSTOP)
        savemat(good, {"a": "4"})
        reader.seconds = 0.5
        assert refusal(reader, good) == "reading it takes more than 0.5 seconds; get the file again"
        assert child.poll() is not None
        reader.seconds = 60
        assert reader.read(good, ["a"]).tree == {"a": "4"}
        assert reader.child is not None
        child = reader.child.process
    assert child.poll() is not None


def test_a_child_that_cannot_start_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scipy").mkdir()
    (tmp_path / "scipy/__init__.py").write_text("raise ImportError('scipy is broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    savemat(tmp_path / "a.mat", {"a": "1"})
    with pytest.raises(RuntimeError, match=r"the reader of \.mat files does not start: ImportError: scipy is broken"):
        read_mat(tmp_path / "a.mat", ["a"])


def test_damaged_files(tmp_path: Path) -> None:
    assert 0 < try_damaged_files(tmp_path, 100, seed=3) < 100
