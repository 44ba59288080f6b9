r"""Training speed against the peers: seconds per epoch per VAE on the reference network, in one run.

    autovae bench training            python -m autovae.bench.training

Work: 784-400-400-(20+20) / 20-400-400-784, 60,000 points, Adam, float32: 312 GFLOP an epoch. Every contender trains a
fraction of an epoch in each round, in turn, so that a machine that slows down slows all of them; ratios are medians over
rounds. Ours includes the minibatch's gather, dequantisation and noise; the peers get prepared minibatches.

Images are MNIST's if present. All are measured fresh; after a thousand steps torch's Adam is slower on dead units, ours is
not (see `training.adam`).

| contender     | what                                                                                            |
|---------------|-------------------------------------------------------------------------------------------------|
| population    | `Population` of `members` VAEs, per member                                                      |
| mismatched    | the same population with logistic posteriors under the normal prior                             |
| mass_NAME     | a population of NAME heads (normal, logistic, beta) that follows masses of bins                 |
| density_NAME  | the same, following densities: `mass_vs_density_NAME` is the time of the one over the other     |
| bfloat16      | the same population with products of bfloat16 factors, weights in float32 (the peers' stay)     |
| single        | the same code with one member                                                                   |
| pythae        | pythae's VAE and torch's Adam, its training step without its DataLoader, torch's default setting |
| fused         | PyTorch's VAE example with logits and fused Adam, under torch's fastest setting that is exact   |
| vmap          | `torch.func.vmap` of that module over stacked parameters, fused Adam, per member                |
| processes     | the fused loop in two processes that share the threads (CUDA: four that share the GPU), per VAE |
| floor         | 312 GFLOP at torch's best rate of square products of 1024 to 4096, exact ones, in the same round |
"""

from __future__ import annotations

import functools
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from autovae.bench.contenders import EPOCH, Contender, Ours, Processes, example, mapped, pictures, pythae, ready
from autovae.bench.rounds import CLOCKS, check_clock, median_ratio, wait, write_rows
from autovae.data.datasets import Data
from autovae.training.loop import choose_device
from autovae.training.precision import fast_products

__all__ = ["bench_training"]

EPOCH_FLOP = EPOCH * 5.2e6
HEADS = ("normal", "logistic", "beta")  # measured with masses and with densities, at 1,000 points
STEPS = {1000: 4, 100: 40}  # of a round: some ten seconds in all


def bench_training(
    rounds: int = 5,
    device: str | None = "cpu",
    members: int | None = None,
    threads: int | None = None,
    products: str | None = None,
    clock: str = "wall",
    results: str | Path | None = "results/bench",
) -> dict[str, Any]:
    """Ratios above 1 are times faster than the peer; `seconds_*` are medians per epoch per VAE, `fastest_*` minima.

    clock = "processor" counts CPU time, which is less sensitive to other load: for one thread on a CPU. `products` of our
    contenders: "fast" on a CPU and TF32 on CUDA by default.
    """
    check_clock(clock, threads)
    where = choose_device(device)
    count = members or (128 if where.type == "cuda" else 8)
    products = products or ("tf32" if where.type == "cuda" else "fast")
    before = torch.get_num_threads()
    Contender.now = staticmethod(CLOCKS[clock])
    name, data = pictures()
    values: dict[str, Any] = {"rounds": rounds, "device": str(where), "members": count, "clock": clock, "images": name}
    rows: list[dict[str, Any]] = []
    try:
        for used in [threads] if threads else sorted({1, before}) if where.type == "cpu" else [before]:
            torch.set_num_threads(used)
            with fast_products(products, where) as precision:
                pass
            seconds = _rounds(rounds, count, where, used, data, products)
            values |= {"threads": used, "precision": precision}
            head = {"device": str(where), "threads": used, "members": count, "clock": clock, "precision": precision}
            rows += [
                {**head, "batch": batch, "contender": name}
                | {"seconds_median": statistics.median(times), "seconds_min": min(times), "rounds": rounds}
                | {"over_pythae": _ratio(seconds, batch, "pythae", name)}
                for (batch, name), times in seconds.items()
            ]
    finally:
        torch.set_num_threads(before)
        Contender.now = staticmethod(CLOCKS["wall"])
    values |= _ratios(seconds)
    if results is not None:
        write_rows(Path(results) / f"training{'_cuda' if where.type == 'cuda' else ''}.csv", rows)
    return values


Seconds = dict[tuple[int, str], list[float]]  # of (batch, contender), a number a round


def _rounds(rounds: int, members: int, device: torch.device, threads: int, data: Data, products: str) -> Seconds:
    x = ready(data).to(device)
    found: dict[str, Contender | None] = {
        "population": Ours(members, data, device, products),
        "bfloat16": Ours(members, data, device, products, torch.bfloat16),
        "mismatched": Ours(members, data, device, products, posterior="logistic"),
        **{
            f"{objective}_{head}": Ours(members, data, device, products, likelihood=head, objective=objective)
            for head in HEADS
            for objective in ("mass", "density")
        },
        "single": Ours(1, data, device, products),
        "pythae": pythae(x),
        "fused": example(x),
        "vmap": mapped(members, x),
    }
    processes = Processes(threads, device) if device.type == "cuda" or threads > 1 else None
    contenders = {name: one for name, one in {**found, "processes": processes}.items() if one is not None}
    try:
        return _measured(rounds, contenders, device, products)
    finally:
        if processes:
            processes.close()


def floor(device: torch.device) -> float:
    """Seconds of an epoch at the best current product rate."""
    best = 0.0
    for size in (1024, 2048, 4096):
        a, b = torch.randn(2, size, size, device=device)
        for _ in range(2 if size > 2048 else 4):
            wait(device)
            began = CLOCKS["wall"]()
            torch.mm(a, b)
            wait(device)
            best = max(best, 2 * size**3 / (CLOCKS["wall"]() - began))
    return EPOCH_FLOP / best


def _measured(rounds: int, contenders: dict[str, Contender], device: torch.device, products: str) -> Seconds:
    scale = 1 if device.type == "cpu" else 10
    seconds: Seconds = {
        (batch, name): [] for batch in STEPS for name in contenders if batch == 1000 or not name.endswith(HEADS)
    }
    for batch, name in seconds:
        for _ in range(2 if device.type == "cuda" else 1):  # before and after the capture
            with contenders[name].settled():
                contenders[name].train(batch, scale * STEPS[batch])
    floors: list[float] = []
    for _ in range(rounds):
        with fast_products(products, device):
            floors.append(floor(device))
        for (batch, name), times in seconds.items():
            with contenders[name].settled():
                times.append(contenders[name].seconds(batch, scale * STEPS[batch]))
    return seconds | {(batch, "floor"): list(floors) for batch in STEPS}


def _ratio(seconds: Seconds, batch: int, peer: str, own: str) -> float | None:
    """How many times faster than a peer; None if one of them was not measured."""
    return median_ratio(seconds.get((batch, peer), []), seconds.get((batch, own), []))


def _ratios(seconds: Seconds) -> dict[str, Any]:
    ratio = functools.partial(_ratio, seconds)
    values: dict[str, Any] = {f"vs_pythae_batch{batch}": ratio(batch, "pythae", "population") for batch in STEPS}
    values |= {f"{own}_vs_pythae_batch{n}": ratio(n, "pythae", own) for own in ("single", "bfloat16") for n in STEPS}
    values |= {
        f"vs_{peer}_batch{n}": ratio(n, peer, "population") for peer in ("fused", "vmap", "processes") for n in STEPS
    }
    values |= {f"mismatched_vs_fused_batch{batch}": ratio(batch, "fused", "mismatched") for batch in STEPS}
    values |= {f"mass_vs_density_{head}": ratio(1000, f"mass_{head}", f"density_{head}") for head in HEADS}
    values |= {f"peak_fraction_batch{batch}": ratio(batch, "floor", "population") for batch in STEPS}
    for (batch, name), times in seconds.items():
        values[f"seconds_{name}_batch{batch}"] = statistics.median(times)
        values[f"fastest_{name}_batch{batch}"] = min(times)
    if (1000, "pythae") not in seconds:
        values["note"] = (
            "pythae is not installed: pip install pythae==0.1.2 (extra `bench`), best in an environment of its own"
        )
    return values


if __name__ == "__main__":
    import json

    print(json.dumps(bench_training(rounds=int((sys.argv[1:] or ["5"])[0])), indent=2))
