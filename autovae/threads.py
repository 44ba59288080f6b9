r"""Threads chosen by the size of the work: small operations run on one thread.

Splitting an operation over threads costs a synchronisation, and waiting threads spin. Measured on two cores, for a forward
and a backward pass of fully connected and convolutional networks:

| operations of the forward pass | 5 M | 50 M | 100 M | 500 M | 5 M, cores busy |
|---|---|---|---|---|---|
| speedup by a second thread | .9 - 1.1 | 1.0 - 1.4 | 1.1 - 1.4 | 1.3 - 1.6 | .03 - .12 |

A second thread doubles the processor time in every case. So work below `SHARED_FROM` operations per pass runs on one
thread; larger work uses torch's setting. The rule depends only on sizes, so a seed gives the same numbers on a busy
machine and on an idle one.

    with threads_for(flops_of(lambda: network(x))):
        train(network)

Not here: one thread per member of a population (`training`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

__all__ = ["SHARED_FROM", "flops_of", "threads_for"]

SHARED_FROM = 5e7


def flops_of(forward: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions in one call. Runs it once."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops()


@contextmanager
def threads_for(flops: float) -> Iterator[int]:
    """Set torch's threads for this many operations per forward pass; yields their number, then restores the setting."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if flops >= SHARED_FROM else 1)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
