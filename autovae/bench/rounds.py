"""Interleaved rounds: clocks, ratios that survive a machine getting slower, tables and the clock's check."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from autovae.registry import lookup

__all__ = ["CLOCKS", "check_clock", "median_ratio", "set_threads", "wait", "write_rows"]

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}


def check_clock(name: str, threads: int | None) -> Callable[[], float]:
    """The clock of this name. Raises `ValueError` for the processor's with several threads, which it adds up."""
    clock = lookup(CLOCKS, name, "clock")
    if name == "processor" and threads != 1:
        raise ValueError(f"clock 'processor' adds up threads, so it is for threads = 1, got {threads}")
    return clock


@contextmanager
def set_threads(count: int | None) -> Iterator[None]:
    """Torch's threads within a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def wait(device: torch.device) -> None:
    """Until a GPU has finished its queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_ratio(peer: Sequence[float], own: Sequence[float]) -> float | None:
    """The median over rounds of peer / own; None without a round."""
    each = [theirs / mine for theirs, mine in zip(peer, own, strict=False)]
    return statistics.median(each) if each else None


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A table of a benchmark."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
