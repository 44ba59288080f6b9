"""The benchmarks by name: each a function of (rounds, ...) that returns one flat dictionary of ratios."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from autovae.registry import lookup

__all__ = ["BENCHES", "run_bench"]

BENCHES: dict[str, str] = {
    "training": "autovae.reproductions.bench_training:bench_training",
    "rate": "autovae.reproductions.bench_rate:bench_rate",
    "overhead": "autovae.reproductions.bench_overhead:bench_overhead",
    "conv": "autovae.reproductions.bench_conv:bench_conv",
    "nll": "autovae.reproductions.bench_nll:bench_nll",
    "divergences": "autovae.reproductions.bench_divergences:bench_divergences",
    "importance": "autovae.reproductions.bench_importance:bench_importance",
    "hmc": "autovae.reproductions.bench_hmc:bench_hmc",
}


def run_bench(name: str, rounds: int = 5, device: str | None = None) -> dict[str, Any]:
    """The ratios of one benchmark. `device` goes to those that know one; elsewhere it is an error."""
    module, function = lookup(BENCHES, name, "benchmark").split(":")
    bench = getattr(importlib.import_module(module), function)
    settings: dict[str, Any] = {"rounds": rounds}
    if device is not None:
        if "device" not in inspect.signature(bench).parameters:
            raise ValueError(f"bench {name} runs on the CPU alone; leave --device out")
        settings["device"] = device
    return dict(bench(**settings))
