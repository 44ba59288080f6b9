r"""How many trials an hour one device trains: the whole experiment of the AutoVAE slides.

A trial is MNIST, 60,000 training points, two hidden layers of 400, 20 latents, batches of 1000, 100 epochs of Adam; its
weights are drawn, trained, returned and scored as in a search (K = 16 on 1,000 points). All trials are one call
of `fit_population`, after two trials of one epoch that load libraries and compile kernels. Rows: the matched normal over
seeds, for each product type of the device, and every finite pair of the seven families in turn. Fewer epochs than 100 are
scaled up, and the row says so.

| key | means |
|---|---|
| trials_per_hour_KIND | 3600 trials / seconds, everything counted |
| training_per_hour_KIND | the same, epochs only |
| loss_KIND, bits_KIND | mean last training loss and bits per dimension over trials: what narrower products cost |

Not here: ratios against peers, see `bench.training`.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import torch

from autovae.bench.rounds import write_rows
from autovae.data.datasets import Data, Split, load
from autovae.data.minibatches import Minibatches
from autovae.finiteness import finiteness
from autovae.metrics.bits import log_mass_bounds, score
from autovae.model.vae import build
from autovae.spec import VAESpec
from autovae.training.capacity import footprint
from autovae.training.loop import Event, choose_device, fit_population
from autovae.training.train_state import TrainState

__all__ = ["bench_rate"]

TRIALS, EPOCHS = 200, 100
FAMILIES = ("normal", "laplace", "cauchy", "logistic", "gumbel", "uniform", "exponential")


def _mnist() -> Data:
    """MNIST with all 60,000 training images in training, as in the slides; they include the validation points."""
    data = load("mnist")
    x = torch.cat([data.train.x, data.validation.x])
    return dataclasses.replace(data, train=Split(x), digest=f"{data.digest}-all")


def _pairs(trials: int) -> list[VAESpec]:
    finite = [(q, p) for q in FAMILIES for p in FAMILIES if finiteness(q, p) != "infinite"]
    cycle = [finite[place % len(finite)] for place in range(trials)]
    return [VAESpec(posterior=q, prior=p, seed=seed) for seed, (q, p) in enumerate(cycle)]


def bench_rate(
    rounds: int = 1,
    device: str | None = None,
    trials: int = TRIALS,
    epochs: int = EPOCHS,
    kinds: tuple[str, ...] = ("bfloat16", "tf32", "pairs bfloat16"),
    results: str | Path | None = "results/bench",
) -> dict[str, Any]:
    """Rates of each kind of products on one device (`rounds` is ignored: a rate is one long run)."""
    where = choose_device(device)
    data = _mnist()
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "CPU"
    values: dict[str, Any] = {"device": name, "trials": trials, "epochs": epochs, "extrapolated": epochs < EPOCHS}
    rows = []
    for kind in kinds:
        products = kind.split()[-1]
        if products == "tf32" and where.type != "cuda":
            continue
        specs = _pairs(trials) if kind.startswith("pairs") else [VAESpec(seed=seed) for seed in range(trials)]
        two = [spec.replace(epochs=1) for spec in specs[:2]]
        footprint(TrainState(build(two[0], data.domain)), Minibatches(data, device=where))
        _run(two, data, where, products)
        row = _run([spec.replace(epochs=epochs) for spec in specs], data, where, products)
        rows.append({"device": name, "kind": kind, "trials": trials, "epochs": epochs, **row})
        values |= {f"{key}_{kind.replace(' ', '_')}": value for key, value in row.items()}
        if results is not None:
            write_rows(Path(results) / "rate.csv", rows)
    return values


def _run(specs: list[VAESpec], data: Data, device: torch.device, products: str) -> dict[str, float]:
    training = 0.0

    def on_event(event: Event) -> None:
        nonlocal training
        training += event.seconds if event.kind == "epoch" else 0.0

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    fits = fit_population(specs, data, device=device, products=products, on_event=on_event)
    bounds = log_mass_bounds([fit.model for fit in fits], data, data.validation, 16, 1000, device=device)
    bits = [score(per_point, data, data.validation, 16).bits for per_point in bounds]
    whole = time.perf_counter() - began
    losses = torch.tensor([fit.history[-1]["loss"] for fit in fits])
    scale = 3600 * len(specs) * specs[0].epochs / EPOCHS
    return {
        "trials_per_hour": scale / whole,
        "training_per_hour": scale / training,
        "seconds": whole,
        "loss": float(losses.nanmean()),
        "bits": float(torch.tensor(bits).nanmean()),
        "diverged": float(losses.isnan().sum()),
        "peak_gigabytes": torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0,
    }
