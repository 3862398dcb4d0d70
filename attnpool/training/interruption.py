"""How a training ends early: by a signal, after its state was saved, or because it cannot continue."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from attnpool.progress import process_count


class Interrupted(Exception):
    """A signal stopped the training; `signum` is the signal, `state` the checkpoint that was saved, if there is one."""

    def __init__(self, signum: int, state: Path | None = None) -> None:
        continues = f"continues from {state}" if state else "begins again, because no step was made yet"
        super().__init__(f"stopped; the same command {continues}")
        self.signum = signum


class TrainingFailed(Exception):
    """The training cannot continue, for example because the loss is not finite."""


class Elsewhere(TrainingFailed):
    """Another process of the job has failed or ended; `said` is whether it has told why."""

    def __init__(self, message: str, *, said: bool = False) -> None:
        super().__init__(message)
        self.said = said


class StopSignals:
    """Turns SIGTERM and SIGINT into a flag while a training runs, so that it stops between two steps.

    A second signal ends the process at once, as it would without this class. (Not among several processes: `torchrun`
    passes on a Ctrl-C that the terminal has sent to them already, and kills those that do not end in time.) Outside the
    main thread, where Python allows no signal handlers, signals are left alone.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                self._previous[signum] = signal.signal(signum, self._receive)
        return self

    def check(self, state: Path | None = None) -> None:
        """Raises Interrupted if a signal was received; `state` is the checkpoint that was saved, if there is one."""
        if self.received:
            raise Interrupted(self.received, state)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        if process_count() == 1:
            self._restore()

    def _restore(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()

    def __exit__(self, *_: object) -> None:
        self._restore()
