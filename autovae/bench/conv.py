"""Convolutional members of a population: as grouped convolutions, or one at a time?

    grouped_vs_single_batchN     members' time one at a time over the time as one stack (torch.func.vmap, which makes
                                 grouped convolutions), per step; above 1 the stack is faster

The convolutional network of NETWORKS on 28 x 28 images, channels 32 and 64, whole training steps, interleaved rounds.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from autovae.bench.rounds import wait
from autovae.data.datasets import load
from autovae.data.minibatches import Minibatches
from autovae.model.vae import build
from autovae.spec import VAESpec
from autovae.training.loop import choose_device
from autovae.training.population import Population
from autovae.training.train_state import TrainState

__all__ = ["bench_conv"]

MEMBERS, STEPS = 4, 3


def _seconds(stack_size: int, batch: int, device: torch.device) -> float:
    """Of an epoch of STEPS steps of all members; the second of two epochs."""
    points = torch.randint(0, 256, (STEPS * batch * 2, 28, 28), dtype=torch.uint8)
    data = load(points)
    data_steps = -(-len(data.train) // batch)
    feed = Minibatches(data, device=device)
    spec = VAESpec(network="conv", hidden=(32, 64), batch_size=batch, epochs=3)
    members = [TrainState(build(spec.replace(seed=seed), data.domain)) for seed in range(MEMBERS)]
    population = Population(members, feed, stack_size=stack_size)
    population.train_epoch()
    began = time.perf_counter()
    population.train_epoch()
    wait(device)
    return (time.perf_counter() - began) / data_steps


def bench_conv(rounds: int = 5, device: str | None = None) -> dict[str, Any]:
    """Median ratios over interleaved rounds."""
    where = choose_device(device)
    values: dict[str, Any] = {"device": str(where), "threads": torch.get_num_threads(), "members": MEMBERS}
    for batch in (100, 500):
        ratios = []
        for _ in range(rounds):
            grouped, single = (_seconds(size, batch, where) for size in (MEMBERS, 1))
            ratios.append(single / grouped)
        values[f"grouped_vs_single_batch{batch}"] = round(statistics.median(ratios), 3)
    return values
