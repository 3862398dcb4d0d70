"""The command line as a user meets it: in this process, which is quick, or as a process that takes signals."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

BAR = re.compile(r"\d+%\||\[\d\d:\d\d")


@dataclass
class Outcome:
    """What became of a command: `code` is the exit code, negative if a signal ended the process."""

    code: int | None
    out: str
    err: str

    @property
    def messages(self) -> list[str]:
        """The lines on standard error that belong to no progress bar."""
        return [line for line in re.split(r"[\r\n]+", self.err) if line.strip() and not BAR.search(line)]

    def value(self) -> Any:
        """The one JSON value on standard output, after a success that had nothing else to say."""
        assert (self.code, self.messages) == (0, []), self
        return json.loads(self.out)

    def text(self) -> str:
        """What is on standard output, after a success that had nothing else to say."""
        assert (self.code, self.messages) == (0, []), self
        return self.out


def attnpool(*arguments: Any) -> Outcome:
    """Runs a command in this process."""
    from attnpool.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ended:  # how argparse ends a process
            code = int(ended.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def failed(outcome: Outcome, code: int, *words: Any) -> None:
    """Asserts that a command ended with this code, one line on standard error that has these words, and no more."""
    assert outcome.code == code, outcome
    assert outcome.out == ""
    assert len(outcome.messages) == 1, outcome.messages
    (line,) = outcome.messages
    assert line.startswith("attnpool"), line
    for word in words:
        assert str(word) in line, line


def refused(outcome: Outcome, *words: Any) -> None:
    """Asserts that the input was found to be at fault."""
    failed(outcome, 2, *words)


class Process:
    """A command in a process of its own, forked from one that has imported everything already.

    Args:
        arguments: of the command.
        folder: for the files of its standard output and error.
        limit: no file may become larger than so many bytes.
        always_save: whether a training writes a checkpoint after every update, and not every minute.
    """

    def __init__(self, *arguments: Any, folder: Path, limit: int | None = None, always_save: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.iterdir()))
        self.out, self.err = folder / f"{number}.out", folder / f"{number}.err"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["attnpool.cli.main", "attnpool.training.recipe", "attnpool.explain.report"])
        words = [str(argument) for argument in arguments]
        self.process = context.Process(
            target=_run,
            args=(
                *(words, str(self.out), str(self.err), os.environ["ATTNPOOL_CACHE"], limit, torch.get_num_threads()),
                always_save,
            ),
        )
        self.process.start()

    def until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Waits for something to become true while the process runs."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.is_alive(), f"ended early: {self.wait()}"
            assert time.monotonic() < end, "waited too long"
            time.sleep(0.002)

    def send(self, signum: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signum)

    def wait(self, seconds: float = 120) -> Outcome:
        """Waits for the end."""
        self.process.join(seconds)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"still running after {seconds} s: {self.err.read_text()}")
        return Outcome(code, self.out.read_text(), self.err.read_text())


def _run(words: list[str], out: str, err: str, cache: str, limit: int | None, threads: int, always_save: bool) -> None:
    for name, number in ((out, 1), (err, 2)):
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ["ATTNPOOL_CACHE"] = cache
    torch.set_num_threads(threads)  # as in the tests' process, whose numbers a process is to repeat
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    from attnpool.cli.main import main
    from attnpool.training import trainer

    if always_save:
        trainer.SAVE_SECONDS = 0
    sys.exit(main(words))


def launch(*words: Any, processes: int = 2, restarts: int = 0) -> subprocess.Popen[str]:
    """A command in several processes of `torchrun`, whose port is chosen by the system, as tests run side by side."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    given = [*start, f"--max-restarts={restarts}", "-m", "attnpool", *map(str, words)]
    return subprocess.Popen(
        given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


class SmallDisk:
    """A disk of a few KiB: a file system in memory where that is allowed, else a limit on the size of every file."""

    def __init__(self, folder: Path, kib: int, *, mounted: bool) -> None:
        self.folder, self.kib, self.mounted = folder, kib, mounted

    def run(self, *arguments: Any) -> Outcome:
        """Runs a command that writes to this disk."""
        if self.mounted:
            return attnpool(*arguments)
        return Process(*arguments, folder=self.folder.parent / "output", limit=1024 * self.kib).wait()

    def grow(self) -> None:
        """Makes room."""
        self.kib = 256 * 1024
        if self.mounted:
            subprocess.run(["mount", "-o", f"remount,size={self.kib}k", self.folder], check=True)


@contextlib.contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[SmallDisk]:
    """A disk with so many KiB of space at a new folder."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield SmallDisk(folder, kib, mounted=mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)
