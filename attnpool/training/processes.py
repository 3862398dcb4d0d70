"""The processes of one job, as `torchrun` starts them: what they agree on, and what the first does for all.

Every process holds the whole model and takes every P-th batch. One process that accumulates the gradients of P batches
goes through the same batches and makes the same updates.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attnpool.progress import process_count
from attnpool.training.interruption import Elsewhere

WAIT = timedelta(days=30)  # how long processes wait for one that computes features or chooses for all
LOST = ("gloo", "nccl", "connection", "socket", "process group", "processgroup")  # words of errors of a lost process

Found = TypeVar("Found")


def join() -> Any:
    """The state of the job, which this process joins with the first call; see `accelerate.PartialState`."""
    from accelerate import PartialState

    if process_count() == 1:
        return PartialState()
    # Unless it is told otherwise, Accelerate treats processes without a GPU as unrelated.
    return PartialState(cpu=not torch.cuda.is_available(), timeout=WAIT)


def build_accelerator(precision: str) -> Any:
    """The `Accelerator` that places the model on the available devices, in this process or in those of `torchrun`."""
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    several = join().num_processes > 1
    # Accelerate keeps the first precision that a process asks for and refuses another, which a second training may
    # want. It has no public way to reset it: `free_memory` and `end_training` leave this state as it is.
    AcceleratorState._reset_state()
    # Some parameters have no gradient, such as those of joints that are not trained. Batch-norm statistics are shared
    # by `SharedStatistics`; newer versions of torch call this option forward_sync_buffers, which Accelerate does not.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    wrapping = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    return Accelerator(
        cpu=several and not torch.cuda.is_available(),
        mixed_precision="no" if precision == "fp32" else precision,
        kwargs_handlers=[wrapping],
    )


def once(function: Callable[[], Found]) -> Found:
    """What a function returns that the first process calls for all, which wait for it.

    Raises:
        Elsewhere: in the others, if it failed in the first, where the error itself is raised.
    """
    job = join()
    if job.num_processes == 1:
        return function()
    from accelerate.utils import broadcast_object_list

    failure: BaseException | None = None
    answer: list[Any] = [None, ""]
    if job.is_main_process:
        try:
            answer[0] = function()
        except Exception as error:
            failure, answer[1] = error, str(error) or type(error).__name__
    with together():
        broadcast_object_list(answer)
    if failure is not None:
        raise failure
    if answer[1]:
        raise Elsewhere(answer[1], said=True)
    return answer[0]


@contextmanager
def together() -> Iterator[None]:
    """A block in which processes wait for each other; the loss of one is told in one line.

    Raises:
        Elsewhere: another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in LOST):
            raise
        raise Elsewhere(
            "another process of the job has ended; the same command continues from the last checkpoint"
        ) from error


def told(accelerator: Any, numbers: list[float]) -> Tensor:
    """Some numbers of every process, `(processes, numbers)` float64."""
    given = torch.tensor([numbers], dtype=torch.float64)  # alone it stays on the CPU, where nobody waits for it
    return given if accelerator.num_processes == 1 else accelerator.gather(given.to(accelerator.device)).cpu()


class SharedStatistics:
    """Batch-norm statistics as if one process had seen the batches of a step one after the other.

    A batch b moves running statistics r to `(1 - m) r + m b`. From the same r0 the processes come to `r_1, r_2, ...`,
    each with its own batch, so that one after the other gives `r <- (1 - m) r + r_p - (1 - m) r0` for every p.

    Args:
        model: the model, the same in every process.
        accelerator: of this process.
    """

    def __init__(self, model: nn.Module, accelerator: Any) -> None:
        self.accelerator = accelerator
        self.norms = [
            module
            for module in model.modules()
            if isinstance(module, _BatchNorm) and module.training and module.running_mean is not None
        ]
        rates = [torch.full_like(values, norm.momentum or 0.0) for norm in self.norms for values in statistics(norm)]
        self.kept = 1 - flat(rates) if rates else torch.empty(0)
        self.begin()

    def begin(self) -> None:
        """Takes the statistics as those before a step."""
        self.start = self.read()

    def read(self) -> Tensor:
        return flat([values for norm in self.norms for values in statistics(norm)]) if self.norms else torch.empty(0)

    @torch.no_grad()
    def share(self, *, seen: bool) -> None:
        """Replaces the statistics after a step; `seen` is whether this process had a batch."""
        if not self.norms:
            return
        with together():
            own = torch.cat([self.read(), torch.tensor([float(seen)], device=self.start.device)])
            every = self.accelerator.gather(own[None])
        result, batches = self.start, 0
        for row in every:
            if row[-1]:
                result = self.kept * result + row[:-1] - self.kept * self.start
                batches += 1
        places = [values for norm in self.norms for values in statistics(norm)]
        for place, values in zip(places, result.split([place.numel() for place in places]), strict=True):
            place.copy_(values.view_as(place))
        for norm in self.norms:
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked += batches - int(seen)


def statistics(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([values.detach().flatten() for values in tensors])
