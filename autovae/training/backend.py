r"""What a device does in its own way, as one object chosen once per population.

| device | products, heads       | optimizer     | stacks                            | an epoch                             |
|--------|-----------------------|---------------|-----------------------------------|--------------------------------------|
| CPU    | torch                 | torch's Adam  | wide enough to hide Python's cost | every stack on a thread of its own   |
| CUDA   | torch, Triton kernels | Triton kernel | one                               | a captured graph, replayed (`cuda`)  |

The CPU's is the reference and serves every belief; `population` chooses, and nothing else asks for a device or a kernel.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import torch

from autovae.model.networks import is_convolutional
from autovae.model.operations import Operations, TorchOperations
from autovae.model.vae import VAEStack
from autovae.threads import SHARED_FROM
from autovae.training.adam import Adam, StackedAdam
from autovae.training.train_state import TrainState

if TYPE_CHECKING:
    from autovae.training.trainer import Trainer

__all__ = ["Backend", "CPUBackend", "stack_sizes", "step_work"]

# A step of this many floating point operations hides what it costs to start its operations from Python.
WORTHWHILE_WORK = 1e10


class Backend(Protocol):
    """A device's way to train stacks."""

    def prepare(self, stack: VAEStack, rates: Sequence[float], steps: int) -> Adam:
        """Give a stack the device's operations; the optimizer of its learned parameters, a rate for each member."""

    def stack_sizes(self, members: Sequence[TrainState]) -> list[int]:
        """How many members each stack has."""

    def train_epoch(self, trainers: Sequence[Trainer]) -> None:
        """Take every stack through the minibatches of its present epoch."""


class CPUBackend:
    """Stacks side by side on threads. A stack is only as wide as it takes to hide the cost of starting operations,
    because a working set that outgrows the caches costs more than it saves."""

    def __init__(
        self, narrow: torch.dtype | None = None, stack_size: int | None = None, threads: int | None = None
    ) -> None:
        self._operations: Operations = TorchOperations(narrow)
        self._stack_size, self._threads = stack_size, threads or torch.get_num_threads()

    def prepare(self, stack: VAEStack, rates: Sequence[float], steps: int) -> Adam:
        stack.use(self._operations)
        return StackedAdam([p for p in stack.parameters() if p.requires_grad], rates, steps)

    def stack_sizes(self, members: Sequence[TrainState]) -> list[int]:
        if self._stack_size is not None:
            return [min(self._stack_size, len(members) - at) for at in range(0, len(members), self._stack_size)]
        return stack_sizes(step_work(members[0]), len(members), self._threads)

    def train_epoch(self, trainers: Sequence[Trainer]) -> None:
        """An error or an interrupt ends all stacks."""
        workers, before, stop = min(self._threads, len(trainers)), torch.get_num_threads(), threading.Event()
        small = trainers[0].work / 3 < SHARED_FROM  # a third of a step is its forward pass
        torch.set_num_threads(1 if small else self._threads // workers)
        try:
            if workers == 1:
                for trainer in trainers:
                    trainer.train_epoch(stop)
                return
            with ThreadPoolExecutor(workers, "autovae-train") as pool:
                futures = [pool.submit(trainer.train_epoch, stop) for trainer in trainers]
                try:
                    for future in futures:
                        future.result()
                except BaseException:
                    stop.set()
                    raise
        finally:
            torch.set_num_threads(before)


def step_work(member: TrainState) -> float:
    """Floating point operations of one training step, about: three products for every weight of a matrix.

    Infinite for convolutions: on a CPU they are faster one member at a time than grouped (`bench conv`).
    """
    if is_convolutional(member.vae):
        return math.inf
    weights = sum(p.numel() for p in member.vae.parameters() if p.dim() > 1)
    return 6.0 * weights * member.spec.batch_size * (1 + member.spec.draws) / 2


def stack_sizes(work: float, members: int, threads: int) -> list[int]:
    """How many members each stack of a CPU has: enough for a worthwhile step, without leaving a thread idle."""
    wanted = max(1, round(WORTHWHILE_WORK / work))  # 1 where the work is infinite
    rounds = -(-members // (threads * wanted))
    stacks = min(members, threads * rounds)
    return [members // stacks + (place < members % stacks) for place in range(stacks)]
