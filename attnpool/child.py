"""A child process, possibly of another Python environment, that answers requests through pipes."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import Any

# How long a child process that has closed its pipe may take to end by itself, so that its exit code can be reported.
END_SECONDS = 5.0


class Child:
    """A child process, possibly of another Python environment, that answers each request by a line of JSON.

    What it prints on standard error is kept for the message that says why it ended.

    Args:
        command: the program and its arguments.
        environment: its environment variables; by default those of this process.

    Raises:
        OSError: the program cannot be run.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `stop`)
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=environment
            )
        except BaseException:
            self.log.close()
            raise

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def ask(self, request: Any = None, data: bytes = b"", *, seconds: float | None = None) -> dict[str, Any]:
        """Sends a request, which is a line of JSON followed by `data`, and waits for the answer, an object in one line.

        Args:
            request: a JSON value; None sends nothing and waits for a line that the process writes by itself.
            data: bytes that follow the line.
            seconds: time limit for the answer; None for no limit.

        Raises:
            EOFError: the process ended, or its answer is not a JSON object; the message is its last line on standard
                error, or how it ended.
            TimeoutError: there was no answer in time. The process must then be stopped, as the answer may come later.
        """
        sent = b"" if request is None else json.dumps(request).encode() + b"\n" + data
        # Not all systems can wait for a pipe with a time limit; a queue can be waited for everywhere.
        lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=lambda: lines.put(self._exchange(sent)), daemon=True).start()
        try:
            line = lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        try:
            answer = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise EOFError(self._last_words())
        return answer

    def _exchange(self, sent: bytes) -> bytes:
        """Sends bytes and reads a line, which is incomplete if the process has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(sent)
            self.process.stdin.flush()
        except (OSError, ValueError):  # the process ended or closed its pipe; the line may say why
            pass
        try:
            return self.process.stdout.readline()
        except (OSError, ValueError):
            return b""

    def _last_words(self) -> str:
        """The reason why the process ended, from its standard error or its exit code."""
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return "it said something unexpected"
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), self.status)

    @property
    def status(self) -> str:
        """How the process ended: "exit code 1" or "SIGKILL"; "running" if it has not ended."""
        code = self.process.poll()
        if code is None:
            return "running"
        if code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"

    def stop(self) -> None:
        """Ends the process at once; calling it again does nothing."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):  # bytes that are still to be sent have no reader any more
                stream.close()
        self.log.close()
