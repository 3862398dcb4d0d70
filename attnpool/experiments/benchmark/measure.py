"""Time of steps that take turns, the most memory that a step holds, and the machine that it was measured on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

Step = Callable[[], object]


def interleaved(
    steps: Mapping[str, Step], rounds: int, device: torch.device, *, progress: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Milliseconds of each step in each round. All take turns, so that a busy machine slows all of them alike.

    Every other round runs in reverse order, so that what a step leaves in the caches and the allocator does not always
    meet the same next step.

    Args:
        steps: what is timed, by name.
        rounds: how many rounds are timed; one more comes first, to warm up.
        device: the device that does the work; it is waited for before and after each step.
        progress: is called after each step.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, run in list(steps.items())[:: -1 if turn % 2 else 1]:
            wait(device)
            start = time.perf_counter()
            run()
            wait(device)
            if turn:
                times[name].append(1e3 * (time.perf_counter() - start))
            progress()
    return times


def wait(device: torch.device) -> None:
    """Returns when the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratio(times: Sequence[float], base: Sequence[float]) -> float:
    """How many times as long as `base` something takes: the median over rounds, in each of which the load was alike."""
    return statistics.median(mine / theirs for mine, theirs in zip(times, base, strict=True))


def peak_memory(step: Step, device: torch.device) -> int:
    """The most bytes that a step holds at one time, besides what was there before it."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    with quiet_profiler(), torch.autograd.profiler.profile(use_kineto=True, profile_memory=True) as profile:
        step()
    assert profile.kineto_results is not None
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@contextmanager
def quiet_profiler() -> Iterator[None]:
    """Runs a block without the lines that the profiler's library writes to standard error."""
    name = "KINETO_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ[name] = before or "99"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Runs a block with so many threads of PyTorch, None for as many as it uses; then the former number is put back.

    Raises:
        ValueError: the count is less than 1.
    """
    if count is not None and count < 1:
        raise ValueError(f"threads is {count}; give at least 1")
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_device(name: str) -> torch.device:
    """The device of a name, `cpu` or `cuda`.

    Raises:
        ValueError: there is no such device here.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: PyTorch finds no CUDA device here; use device cpu")
    return torch.device(name)


def machine(device: torch.device) -> dict[str, Any]:
    """What a figure was measured on."""
    found = {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "architecture": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device.type,
    }
    return found | ({"card": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})


def machine_line(about: Mapping[str, Any]) -> str:
    """`machine` in words."""
    card = f"{about['card']}, " if "card" in about else ""
    return (
        f"{card}{about['cores']} cores ({about['architecture']}, {about['instructions']}), {about['threads']} threads, "
        f"torch {about['torch']}, Python {about['python']}"
    )
