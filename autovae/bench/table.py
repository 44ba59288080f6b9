"""The benchmarks by name: each a function of (rounds, ...) that returns one flat dictionary of ratios."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from autovae.registry import lookup

__all__ = ["BENCHES", "run_bench"]

BENCHES: dict[str, str] = {
    "training": "autovae.bench.training:bench_training",
    "rate": "autovae.bench.rate:bench_rate",
    "overhead": "autovae.bench.overhead:bench_overhead",
    "conv": "autovae.bench.conv:bench_conv",
    "nll": "autovae.bench.nll:bench_nll",
    "divergences": "autovae.bench.divergences:bench_divergences",
    "importance": "autovae.bench.importance:bench_importance",
    "hmc": "autovae.bench.hmc:bench_hmc",
}


def run_bench(name: str, rounds: int = 5, device: str | None = None) -> dict[str, Any]:
    """The ratios of one benchmark. Raises `ValueError` for a `device` if it runs on the CPU only."""
    module, function = lookup(BENCHES, name, "benchmark").split(":")
    bench = getattr(importlib.import_module(module), function)
    settings: dict[str, Any] = {"rounds": rounds}
    if device is not None:
        if "device" not in inspect.signature(bench).parameters:
            raise ValueError(f"bench {name} runs on the CPU; leave out --device")
        settings["device"] = device
    return dict(bench(**settings))
