"""fANOVA against Optuna's FanovaImportanceEvaluator: the same forest, the same definition, how much faster.

    python -m autovae.bench.importance

Each round makes one set of trials, then runs both, forest fit included, in turn. The ratio is the peer's time over ours,
the median over rounds, for main effects only (the peer has no interactions). Ours with all pair interactions is timed
too, and once at 10,000 trials, by wall and processor clocks.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from autovae.bench.rounds import median_ratio
from autovae.report.fanova import decompose
from autovae.report.forest import Axis, encode, fit_forest

__all__ = ["bench_importance"]


def bench_importance(rounds: int = 5, trials: int = 1000, parameters: int = 30, large: int = 10_000) -> dict[str, Any]:
    """`vs_optuna` (times faster), `max_abs_difference` of main effects, and seconds; a flat dictionary."""
    import optuna

    loudness = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    own_seconds, peer_seconds, with_pairs, difference = [], [], [], 0.0
    try:
        warm_axes, warm_rows, warm_scores = example(200, 4, seed=0)
        decompose(warm_axes, fit_forest(encode(warm_axes, warm_rows), warm_scores))  # warm-up, not timed
        for number in range(rounds):
            axes, rows, scores = example(trials, parameters, seed=number)
            study = _study(axes, rows, scores)
            began = time.perf_counter()
            forest = fit_forest(encode(axes, rows), scores, seed=number)
            own = decompose(axes, forest, pairs=False, measure="cube")
            own_seconds.append(time.perf_counter() - began)
            decompose(axes, forest)
            with_pairs.append(time.perf_counter() - began)
            began = time.perf_counter()
            peer = optuna.importance.FanovaImportanceEvaluator(seed=number).evaluate(study)
            peer_seconds.append(time.perf_counter() - began)
            gaps = [abs(peer[axis.name] - value) for axis, value in zip(axes, own.main, strict=True)]
            difference = max(difference, *gaps)
        wall, processor = _with_pairs(large, parameters)
    finally:
        optuna.logging.set_verbosity(loudness)
    return {
        "vs_optuna": median_ratio(peer_seconds, own_seconds),
        "max_abs_difference": float(difference),
        "seconds": statistics.median(own_seconds),
        "seconds_with_pairs": statistics.median(with_pairs),
        "optuna_seconds": statistics.median(peer_seconds),
        "large_trials": large,
        "large_seconds_with_pairs": wall,
        "large_processor_seconds_with_pairs": processor,
        "rounds": rounds,
        "trials": trials,
        "parameters": parameters,
    }


def _with_pairs(trials: int, parameters: int) -> tuple[float, float]:
    """Seconds of a forest and all its pairs, by the wall's clock and the processor's."""
    axes, rows, scores = example(trials, parameters, seed=0)
    began, processor = time.perf_counter(), time.process_time()
    decompose(axes, fit_forest(encode(axes, rows), scores, seed=0))
    return time.perf_counter() - began, time.process_time() - processor


def example(trials: int, parameters: int, seed: int) -> tuple[list[Axis], list[dict[str, Any]], np.ndarray]:
    """Random trials, a quarter of the axes categorical, whose score depends on few axes, an interaction and noise."""
    generator = np.random.default_rng(seed)
    axes = [
        Axis(f"c{place:03d}", choices=("a", "b", "c", "d")) if place % 4 == 1 else Axis(f"x{place:03d}", 0.0, 1.0)
        for place in range(parameters)
    ]
    axes.sort(key=lambda axis: axis.name)  # Optuna's order
    rows: list[dict[str, Any]] = [
        {a.name: str(generator.choice(a.choices)) if a.categorical else float(generator.random()) for a in axes}
        for _ in range(trials)
    ]
    x, y, c = (next(a.name for a in axes if a.name.startswith(first)) for first in ("x", "x002", "c"))
    scores = [2 * row[x] + 2 * row[y] * (row[c] == "a") + (row[c] == "b") + 0.2 * generator.normal() for row in rows]
    return axes, rows, np.array(scores)


def _study(axes: list[Axis], rows: list[dict[str, Any]], scores: np.ndarray) -> Any:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    space: dict[str, BaseDistribution] = {
        axis.name: CategoricalDistribution(axis.choices) if axis.categorical else FloatDistribution(axis.low, axis.high)
        for axis in axes
    }
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.trial.create_trial(params=row, distributions=space, value=float(value))
            for row, value in zip(rows, scores, strict=True)
        ]
    )
    return study


if __name__ == "__main__":
    import json

    print(json.dumps(bench_importance(), indent=2))
