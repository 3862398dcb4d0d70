"""Commands on a disk that is full from the k-th write on, or whose every step is logged; see `faults.c`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line import Outcome

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Step:
    """An entry of the log: "C" a file was made or emptied, "W" written to at an offset, "S" one was synced,
    "R" renamed to `data`, "U" removed, "D" a folder was made.
    """

    kind: str
    path: str
    offset: int
    data: bytes


class Disk:
    """Runs commands while a folder is watched."""

    def __init__(self, folder: Path, server: subprocess.Popen[str], place: Path) -> None:
        self.folder, self.server, self.place = folder, server, place

    def run(self, *words: Any, fail_at: int = 0, log: bool = False, always_save: bool = False) -> tuple[Outcome, int]:
        """The outcome of a command, and how often it wrote; with `fail_at` the disk is full from that write on."""
        names = {name: str(self.place / name) for name in ("out", "err", "count")}
        job = {"words": [str(word) for word in words], "folder": str(self.folder), "fail_at": fail_at, **names}
        job["always_save"] = always_save
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(job | {"log": str(self.place / "log") if log else ""}) + "\n")
        self.server.stdin.flush()
        code = int(self.server.stdout.readline())
        texts = {name: Path(file).read_text(encoding="utf-8") for name, file in names.items()}
        return Outcome(code, texts["out"], texts["err"]), int(texts["count"])

    def steps(self) -> list[Step]:
        """What the last command did, with paths relative to the folder."""
        content, at, found = (self.place / "log").read_bytes(), 0, []
        while at < len(content):
            end = content.index(b"\n", at)
            kind, offset, size, path = content[at:end].decode().split(" ", 3)
            data = content[end + 1 : end + 1 + int(size)]
            at = end + 1 + int(size)
            if kind == "R":
                data = os.path.relpath(data.decode(), self.folder).encode()
            found.append(Step(kind, os.path.relpath(path, self.folder), int(offset), data))
        return found


@contextmanager
def watched(folder: Path, place: Path, cache: Path) -> Iterator[Disk]:
    """A folder that is watched; `place` is for the files of this harness, `cache` for features."""
    library = place / "faults.so"
    folder.mkdir(parents=True, exist_ok=True)
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "faults.c", "-ldl"], check=True)
    more = {"LD_PRELOAD": str(library), "ATTNPOOL_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, HERE / "fork_server.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | more,
    ) as server:
        yield Disk(folder.resolve(), server, place)
        assert server.stdin is not None
        server.stdin.close()
