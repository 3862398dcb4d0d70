"""Atomic writes, files of tensors, the user's cache folder, and child processes that answer through pipes."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# How long a child process that has closed its pipe may take to end by itself, so that its exit code can be reported.
END_SECONDS = 5.0


def cache_folder() -> Path:
    """The folder for files that can be computed again: `$ATTNPOOL_CACHE`, or attnpool in the user's cache folder."""
    if named := os.environ.get("ATTNPOOL_CACHE"):
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("attnpool", appauthor=False)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to; what is written there replaces `path` atomically at the end.

    After an error the temporary file is removed and `path` is unchanged. Missing folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file atomically; missing folders are made."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8 atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file atomically."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as partial:
        try:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial)
        except SafetensorError as error:  # safetensors reports a full disk so
            raise OSError(f"{path}: cannot be written ({error})") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads the state dict in a .safetensors or PyTorch file; code in a PyTorch file is never run.

    Wrappers such as `{"state_dict": ...}` and the prefix "module." are removed from the content of a PyTorch file.

    Raises:
        ValueError: the file is missing or damaged, or holds anything besides tensors.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the unpickler fail in any way
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise ValueError(
            f"{path}: cannot be read as weights ({reason.splitlines()[0][:120]}); give another file"
        ) from error
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path}: holds no state dict of tensors; give a .safetensors or .pth file of one")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


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
