r"""Benchmark of HMC against Pyro and blackjax, as ratios from interleaved rounds on one machine.

Work: decoder 128-400-400-784 (ReLU, sigmoid mean, weights of He's initialisation, a fixed seed), a measured image with
noise of standard deviation .3, 8 chains, 10 leapfrog steps of one equal step size, unit mass, float32. The step is found
once (acceptance .8) and shared by all; chains start from a common warm-up.

| key | ratio |
|---|---|
| vs_pyro, vs_blackjax | leapfrogs of all 8 chains per second, ours over theirs, median over rounds |
| vs_pyro_ess | effective draws per second (the least ESS of any xi_i^2 and of the energy), both plain HMC |
| chees_vs_pyro_ess | the same for our default, ChEES with a learnt mass; neither warm-up counts |
| chains64_vs_8 | seconds of a leapfrog with 64 chains over seconds with 8 |

Pyro gets the potential as a function (its fastest interface) and an explicit trajectory length; its chains run one after
the other, as in one process. blackjax gets jit, vmap and scan; compilation is not timed.

`clock` = "wall" or "processor": this process's CPU time, less sensitive to other load; for `threads` = 1.
`python -m autovae.bench.hmc TABLE.csv THREADS [DRAWS] [ROUNDS]` appends a row per contender (one thread by CPU time, more by
wall time) with the machine's load average at start and end.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autovae.bench.rounds import CLOCKS, check_clock, median_ratio, set_threads
from autovae.export.prior import PriorModule
from autovae.reasoning import HMC, Gaussian, LatentPosterior
from autovae.reasoning.draws import diagnose

__all__ = ["bench_hmc"]

LATENTS, HIDDEN, PIXELS, NOISE, STEPS = 128, 400, 784, 0.3, 10
INSTALL = {
    "pyro": "pip install 'pyro-ppl>=1.9'",
    "blackjax": "pip install blackjax",
}

Round = Callable[[Tensor, int, int], tuple[Tensor, float]]
"""(positions (chains, dim), draws, seed) -> (draws (chains, draws, dim), seconds)."""


def question(seed: int = 0) -> LatentPosterior:
    """The reference decoder and a measured image."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for fan_in, fan_out in ((LATENTS, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, PIXELS)):
        layer = nn.Linear(fan_in, fan_out)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(fan_out, fan_in, generator=generator) * (2 / fan_in) ** 0.5)
            layer.bias.zero_()
        layers += [layer, nn.ReLU()]
    prior = PriorModule(nn.Sequential(*layers[:-1]), ["normal"] * LATENTS, likelihood="bernoulli", shape=(PIXELS,))
    truth = prior.decode(prior.sample(1, generator))[0]
    return LatentPosterior(prior, Gaussian(None, truth + NOISE * torch.randn(PIXELS, generator=generator), NOISE))


def _ours(posterior: LatentPosterior, step: float, now: Callable[[], float], graph: bool | None = None) -> Round:
    def run(start: Tensor, draws: int, seed: int) -> tuple[Tensor, float]:
        method = HMC(chains=len(start), steps=STEPS, trajectory="fixed", step_size=step, jitter=0.0, graph=graph)
        began = now()
        answer = method.run(posterior, draws, warmup=0, seed=seed, start=start)
        return answer.xi, now() - began

    return run


def _pyro(posterior: LatentPosterior, step: float, now: Callable[[], float]) -> Round:
    from pyro.infer import HMC as PyroHMC
    from pyro.infer import MCMC

    decoder, evidence = posterior.prior.decoder, posterior.constraints[0]
    assert isinstance(evidence, Gaussian)
    y = evidence.y

    def potential(latents: dict[str, Tensor]) -> Tensor:
        xi = latents["xi"]
        return 0.5 * ((decoder(xi).sigmoid() - y) / NOISE).square().sum() + 0.5 * xi.square().sum()

    def run(start: Tensor, draws: int, seed: int) -> tuple[Tensor, float]:
        chains, seconds = [], 0.0
        for position in start:
            kernel = PyroHMC(
                potential_fn=potential,
                step_size=step,
                trajectory_length=STEPS * step,
                adapt_step_size=False,
                adapt_mass_matrix=False,
            )
            sampler = MCMC(kernel, draws, warmup_steps=0, initial_params={"xi": position.clone()}, disable_progbar=True)
            began = now()
            sampler.run()
            seconds += now() - began
            chains.append(sampler.get_samples()["xi"].detach())
        return torch.stack(chains), seconds

    return run


def _blackjax(posterior: LatentPosterior, step: float, now: Callable[[], float]) -> Round:
    if torch.get_num_threads() == 1 and "jax" not in sys.modules:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    import blackjax
    import jax
    import jax.numpy as jnp

    evidence = posterior.constraints[0]
    assert isinstance(evidence, Gaussian)
    y = jnp.asarray(evidence.y.numpy())
    linear = [layer for layer in posterior.prior.decoder.children() if isinstance(layer, nn.Linear)]
    weights = [
        (jnp.asarray(layer.weight.detach().numpy().T), jnp.asarray(layer.bias.detach().numpy())) for layer in linear
    ]

    def log_prob(xi: Any) -> Any:
        h = xi
        for weight, bias in weights[:-1]:
            h = jax.nn.relu(h @ weight + bias)
        x = jax.nn.sigmoid(h @ weights[-1][0] + weights[-1][1])
        return -0.5 * (((x - y) / NOISE) ** 2).sum() - 0.5 * (xi**2).sum()

    compiled: set[int] = set()
    kernel = blackjax.hmc(log_prob, step_size=step, inverse_mass_matrix=jnp.ones(LATENTS), num_integration_steps=STEPS)

    @jax.jit
    def loop(keys: Any, states: Any) -> Any:
        def one(states: Any, keys: Any) -> Any:
            states, _ = jax.vmap(kernel.step)(keys, states)
            return states, states.position

        return jax.lax.scan(one, states, keys)

    def run(start: Tensor, draws: int, seed: int) -> tuple[Tensor, float]:
        states = jax.vmap(kernel.init)(jnp.asarray(start.numpy()))
        keys = jax.random.split(jax.random.key(seed), (draws, len(start)))
        if draws not in compiled:
            jax.block_until_ready(loop(keys, states))
            compiled.add(draws)
        began = now()
        positions = np.asarray(jax.block_until_ready(loop(keys, states))[1])
        seconds = now() - began
        return torch.from_numpy(positions.transpose(1, 0, 2).copy()), seconds

    return run


PEERS: dict[str, Callable[[LatentPosterior, float, Callable[[], float]], Round]] = {
    "pyro": _pyro,
    "blackjax": _blackjax,
}


def _effective(posterior: LatentPosterior, xi: Tensor) -> float:
    """The least bulk ESS of any squared coordinate and of the energy."""
    with torch.no_grad():
        energy = torch.stack([posterior.log_prob(chain) for chain in xi])
    return float(min(np.min(diagnose(xi.square()).ess_bulk), diagnose(energy[..., None]).ess_bulk[0]))


def bench_hmc(
    rounds: int = 5,
    draws: int = 2000,
    chains: int = 8,
    warmup: int = 500,
    threads: int | None = None,
    clock: str = "wall",
    device: str | None = None,
) -> dict[str, Any]:
    """The ratios of the table above with what they are made of; `draws` per chain in all, spread over the rounds.

    On a CUDA `device`, where the peers of the table do not run, the captured step against the plain one.
    """
    if device is not None and torch.device(device).type != "cpu":
        return _bench_captured(rounds, draws, chains, device)
    now, load = check_clock(clock, threads), os.getloadavg()[0]
    with set_threads(threads):
        values = _bench(rounds, draws, chains, warmup, now)
        return {**values, "clock": clock, "load": f"{load:.1f} to {os.getloadavg()[0]:.1f}"}


def _bench(rounds: int, draws: int, chains: int, warmup: int, now: Callable[[], float]) -> dict[str, Any]:
    posterior = question()
    adapted = HMC(chains=chains, steps=STEPS, trajectory="fixed", mass="unit", jitter=0.0)
    first = adapted.run(posterior, 50, warmup=warmup)
    step = float(first.info["step_size"])
    runs: dict[str, Round] = {"autovae": _ours(posterior, step, now)}
    notes = []
    for name, build in PEERS.items():
        try:
            runs[name] = build(posterior, step, now)
        except ImportError:
            notes.append(f"{name} is not installed: {INSTALL[name]}")
    part = max(draws // rounds, 4)
    positions = {name: first.xi[:, -1].clone() for name in runs}
    many = first.xi[:, -1].repeat(64 // chains + 1, 1)[:64]
    kept: dict[str, list[Tensor]] = {name: [] for name in runs}
    seconds: dict[str, list[float]] = {name: [] for name in [*runs, "autovae64"]}
    for index in range(rounds):
        for name, run in runs.items():
            if index == 0:
                run(positions[name], 4, 0)  # not counted: first calls allocate
            xi, took = run(positions[name], part, 100 + index)
            positions[name] = xi[:, -1].clone()
            kept[name].append(xi)
            seconds[name].append(took)
        _, took = runs["autovae"](many, max(part // 8, 4), 100 + index)
        seconds["autovae64"].append(took / max(part // 8, 4) * part)
    began = now()
    default = HMC(chains=chains).run(posterior, draws, warmup=warmup)
    default_seconds = (now() - began) * default.info["leapfrogs_after_warmup"] / default.info["leapfrogs"]
    rates = {name: [part * STEPS / took for took in seconds[name]] for name in runs}
    per_second = {name: _effective(posterior, torch.cat(kept[name], 1)) / sum(seconds[name]) for name in runs}
    chees = _effective(posterior, default.xi) / default_seconds

    def ratio(name: str, values: dict[str, list[float]]) -> float | None:
        return median_ratio(values["autovae"], values.get(name, []))

    result: dict[str, Any] = {
        "vs_pyro": ratio("pyro", rates),
        "vs_pyro_ess": per_second["autovae"] / per_second["pyro"] if "pyro" in runs else None,
        "chees_vs_pyro_ess": chees / per_second["pyro"] if "pyro" in runs else None,
        "vs_blackjax": ratio("blackjax", rates),
        "chains64_vs_8": median_ratio(seconds["autovae64"], seconds["autovae"]),
        "chees_vs_plain_ess": chees / per_second["autovae"],
        "ess_per_second_chees": chees,
        "step_size": step,
        "threads": torch.get_num_threads(),
        "draws": part * rounds,
        "rounds": rounds,
    }
    if notes:
        result["install"] = "; ".join(notes)
    for name, values in rates.items():
        result[f"leapfrogs_per_second_{name}"] = statistics.median(values)
        result[f"ess_per_second_{name}"] = per_second[name]
    return result


def _bench_captured(rounds: int, draws: int, chains: int, device: str) -> dict[str, Any]:
    """`captured_vs_plain` and `chains64_vs_8` on a GPU, wall clock, each round recording anew; `draws` in every round."""
    asked = question()
    posterior = LatentPosterior(asked.prior.to(device), asked.constraints)
    first = HMC(chains=chains, steps=STEPS, trajectory="fixed", mass="unit", jitter=0.0).run(posterior, 50, warmup=500)
    step, start = float(first.info["step_size"]), first.xi[:, -1].clone()
    many = start.repeat(64 // chains + 1, 1)[:64]
    clock = CLOCKS["wall"]
    runs = {"captured": _ours(posterior, step, clock), "plain": _ours(posterior, step, clock, graph=False)}
    seconds: dict[str, list[float]] = {"captured": [], "plain": [], "captured64": []}
    for index in range(-1, rounds):  # the first round is not counted
        for name, positions in (("captured", start), ("plain", start), ("captured64", many)):
            took = runs[name.removesuffix("64")](positions, draws, 100 + index)[1]
            if index >= 0:
                seconds[name].append(took)
    return {
        "captured_vs_plain": median_ratio(seconds["plain"], seconds["captured"]),
        "chains64_vs_8": median_ratio(seconds["captured64"], seconds["captured"]),
        **{f"leapfrogs_per_second_{name}": draws * STEPS / statistics.median(took) for name, took in seconds.items()},
        "graph": str(first.info["graph"]),
        "step_size": step,
        "draws": draws,
        "rounds": rounds,
        "device": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device,
    }


COLUMNS = (
    "threads",
    "clock",
    "contender",
    "leapfrogs_per_second",
    "ours_over_theirs",
    "ess_per_second",
    "ess_ours_over_theirs",
    "draws",
    "rounds",
    "step_size",
    "load",
)


def _rows(values: dict[str, Any]) -> list[str]:
    """Lines of the table: a contender's speed and effective draws, ours over theirs, and what they were measured with.

    For 64 chains leapfrogs of all of them together; the ChEES row is our default, its learning of length and mass done.
    """
    ours, effective = values["leapfrogs_per_second_autovae"], values["ess_per_second_autovae"]
    cells: dict[str, tuple[float | None, ...]] = {
        name: (values[f"leapfrogs_per_second_{name}"], values.get(f"vs_{name}", 1.0), effect, effective / effect)
        for name in ("autovae", *PEERS)
        if (effect := values.get(f"ess_per_second_{name}")) is not None
    }
    chees = values["ess_per_second_chees"]
    cells["autovae, ChEES"] = (None, None, chees, effective / chees)
    cells["autovae, 64 chains"] = (ours / values["chains64_vs_8"], values["chains64_vs_8"], None, None)
    end = f"{values['draws']},{values['rounds']},{values['step_size']:.5f},{values['load']}"
    head = f"{values['threads']},{values['clock']}"
    return [
        f'{head},"{name}",{",".join("" if cell is None else f"{cell:.4g}" for cell in row)},{end}'
        for name, row in cells.items()
    ]


if __name__ == "__main__":
    from pathlib import Path

    from autovae.files import write_text

    path, (threads, draws, rounds) = (
        Path(sys.argv[1]),
        map(int, [*sys.argv[2:], *("1", "400", "8")[len(sys.argv) - 2 :]]),
    )
    table = path.read_text().splitlines() if path.is_file() else [",".join(COLUMNS)]
    table += _rows(bench_hmc(rounds, draws, threads=threads, clock="processor" if threads == 1 else "wall"))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n".join(table) + "\n")
