"""Samplers by name. Each is made anew for every question, from a seed of its own, so that a resumed study asks the same."""

from __future__ import annotations

from collections.abc import Callable

import optuna

__all__ = ["SAMPLERS"]

Sampler = optuna.samplers.BaseSampler

SAMPLERS: dict[str, Callable[[int, int], Sampler]] = {
    "tpe": lambda seed, startup: optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup),
    "random": lambda seed, startup: optuna.samplers.RandomSampler(seed=seed),
}
