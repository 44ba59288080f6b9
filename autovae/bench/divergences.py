"""The cost of mixed beliefs: a whole training step of the reference network, mixed latents over all-normal ones.

    autovae bench divergences

Minibatch 1000, 784-400-400-(20+20), interleaved rounds, medians of per-round ratios of time: 1.1 is 10 % slower.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from autovae.bench.contenders import images
from autovae.bench.rounds import median_ratio
from autovae.data.minibatches import Minibatches
from autovae.model.vae import build
from autovae.spec import VAESpec
from autovae.training.population import Population
from autovae.training.train_state import TrainState

__all__ = ["bench_divergences"]

MIXES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "normal": (("normal",) * 20, ("normal",) * 20),
    "mixed": (("normal", "laplace", "logistic", "gumbel") * 5, ("normal", "laplace", "laplace", "normal") * 5),
    "special": (("normal", "laplace", "logistic", "normal") * 5, ("laplace", "cauchy", "cauchy", "cauchy") * 5),
    "quadrature": (("normal", "logistic", "gumbel", "normal") * 5, ("logistic", "logistic", "cauchy", "logistic") * 5),
}


def bench_divergences(rounds: int = 5, steps: int = 2) -> dict[str, Any]:
    """`mixed_vs_normal` (elementary cells), `special_vs_normal`, `quadrature_vs_normal`, and seconds a step."""
    data = images(1000 * steps)
    populations = {}
    for name, (posterior, prior) in MIXES.items():
        member = TrainState(build(VAESpec(posterior=posterior, prior=prior, batch_size=1000), data.domain))
        populations[name] = Population([member], Minibatches(data, device=torch.device("cpu")))
        populations[name].train_epoch()
    seconds: dict[str, list[float]] = {name: [] for name in MIXES}
    for _ in range(rounds):
        for name, population in populations.items():
            began = time.perf_counter()
            population.train_epoch()
            seconds[name].append((time.perf_counter() - began) / steps)
    values: dict[str, Any] = {
        f"{name}_vs_normal": median_ratio(seconds[name], seconds["normal"]) for name in MIXES if name != "normal"
    }
    return values | {f"seconds_{name}": statistics.median(times) for name, times in seconds.items()}
