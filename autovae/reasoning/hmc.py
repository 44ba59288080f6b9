r"""Hamiltonian Monte Carlo with all chains in one tensor.

    H(xi, p) = -log p(xi | evidence) + p^T V p / 2,     V = diagonal inverse mass, the posterior variance from warm-up

One iteration: fresh momenta p ~ N(0, 1/V), a trajectory of L steps of size eps, acceptance with min(1, exp(H - H')).

The integrators are in `trajectory`: leapfrog, and rotation, which solves the prior exactly.

| trajectory | length |
|---|---|
| chees | h T with T adapted in warm-up and h from a Halton sequence; at most `max_steps` steps |
| fixed | `steps` steps, each chain's step size jittered by `jitter` |

The jitter matters: with a fixed length of about half a period chains mirror xi -> -xi, and ESS(xi) looks superb while xi^2
does not mix (see `draws`). Step size, mass and T adapt to all chains together (`adaptation`) and are frozen after warm-up.
References: MCMC using Hamiltonian dynamics (Neal, 2011); Split Hamiltonian Monte Carlo (Shahbaba et al., 2014).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from autovae.reasoning.adaptation import ChEES, DualAveraging, PooledVariance, halton, windows
from autovae.reasoning.draws import Draws
from autovae.reasoning.gradient import likelihood_gradient
from autovae.reasoning.method import Method, at_least, generator_for, starting_points, threads_by_work, track
from autovae.reasoning.posterior import LatentPosterior
from autovae.reasoning.trajectory import INTEGRATORS, Fixed, State, Trajectory, as_cuda_graph
from autovae.registry import lookup

__all__ = ["HMC", "INTEGRATORS"]

DIVERGENT = 1000.0
CAPTURED = "captured"
LONG_WARMUP = 100


@dataclass(frozen=True)
class HMC(Method):
    """Hamiltonian Monte Carlo, all chains in one tensor; see the module for the kinds of trajectory.

    `warmup=0` adapts nothing: `step_size` as given, unit mass. `steps` is the length of a fixed trajectory. `keep_warmup`
    keeps the positions of the warm-up in `Draws.warmup`. On CUDA a step is captured as one graph if the evidence allows;
    `info["graph"]` says "captured" or why not. `graph=False` never captures, `graph=True` adds a flag if capture fails.
    """

    name: ClassVar[str] = "hmc"

    chains: int = 8
    steps: int = 10
    target: float = 0.8
    trajectory: str = "chees"
    integrator: str = "leapfrog"
    mass: str = "diagonal"
    step_size: float | None = None
    jitter: float = 0.2
    max_steps: int = 256
    keep_warmup: bool = False
    graph: bool | None = None

    def __post_init__(self) -> None:
        at_least(self.chains, 1, "chains")
        at_least(self.steps, 1, "steps")
        at_least(self.max_steps, 1, "max_steps")
        lookup(INTEGRATORS, self.integrator, "integrator")
        lookup({"fixed": 0, "chees": 0}, self.trajectory, "trajectory")
        lookup({"diagonal": 0, "unit": 0}, self.mass, "mass")
        if not 0 < self.target < 1:
            raise ValueError(f"got target={self.target}; expected an acceptance between 0 and 1, such as 0.8")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"got jitter={self.jitter}; expected at least 0 and below 1")
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise ValueError(f"got step_size={self.step_size}; expected a positive number, or None to find one")

    def batch_size(self, posterior: LatentPosterior) -> int:
        return self.chains

    @threads_by_work
    def run(
        self,
        posterior: LatentPosterior,
        draws: int | None = None,
        *,
        warmup: int = 500,
        seed: int = 0,
        start: Tensor | None = None,
        progress: bool = False,
    ) -> Draws:
        """`draws` (by default 1,000) of every chain after `warmup` iterations."""
        draws = 1000 if draws is None else draws
        at_least(draws, 1, "draws")
        at_least(warmup, 0, "warmup")
        began = time.perf_counter()
        generator = generator_for(posterior, seed)
        points = starting_points(posterior, self.chains, generator, start)
        with torch.no_grad():
            chain = _Run(self, posterior, points, generator)
            early = []
            for iteration in track(range(warmup), warmup, "warm-up", progress):
                chain.learn(iteration, warmup)
                if self.keep_warmup:
                    early.append(chain.state.xi)
            learnt = chain.leapfrogs
            kept = chain.keep(track(range(draws), draws, "draws", progress), draws, warmup > 0)
        log_normal = 0.5 * posterior.latent_dim * math.log(2 * math.pi)
        return Draws(
            xi=kept["xi"],
            log_prob=kept["log_prob"] - log_normal,
            hamiltonian=kept["hamiltonian"] + log_normal,
            posterior=posterior,
            method=self.name,
            seed=seed,
            seconds=time.perf_counter() - began,
            mcmc=True,
            acceptance=kept["acceptance"].mean(1),
            divergences=kept["divergent"].sum(1),
            warmup=torch.stack(early, 1) if early else None,
            info={
                "warmup": warmup,
                "step_size": chain.step,
                "leapfrogs": chain.leapfrogs,
                "leapfrogs_after_warmup": chain.leapfrogs - learnt,
                "graph": chain.graph,
                **chain.lengths(),
            },
            flags=chain.flags + _flags(posterior, kept),
        )


class _Run:
    """One run: the state of the chains and of their adaptation."""

    def __init__(self, settings: HMC, posterior: LatentPosterior, xi: Tensor, generator: torch.Generator) -> None:
        self.settings, self.generator = settings, generator
        self.integrator = INTEGRATORS[settings.integrator]
        self.trajectory = Trajectory(self.integrator, likelihood_gradient(posterior))
        self.state = self.trajectory.at(xi)
        self.flags: tuple[str, ...] = ()
        self.graph = "not asked for" if settings.graph is False else self._record()
        if settings.graph and self.graph != CAPTURED:
            self.flags = (f"no CUDA graph of a step: {self.graph}",)
        self.inverse_mass: Tensor | None = None
        self.leapfrogs = 0
        self.index = 0
        self.step = settings.step_size or self._reasonable_step()
        self.dual = DualAveraging(self.step, settings.target)
        # Start short: the criterion has further, lower maxima after every period.
        self.chees = ChEES(self.step) if settings.trajectory == "chees" else None
        self.variance = PooledVariance(xi.shape[1], xi)

    def _record(self) -> str:
        """Replay steps as CUDA graphs if possible; returns `CAPTURED` or the reason why not."""
        if not self.state.xi.is_cuda:
            return f"the chains are on {self.state.xi.device}"
        try:
            with torch.cuda.device(self.state.xi.device):
                self.trajectory = Fixed(self.integrator, self.trajectory.gradient, self.state, as_cuda_graph)
        except RuntimeError as error:
            first: BaseException = error
            while isinstance(first.__context__, RuntimeError):  # the cause, not the failed capture itself
                first = first.__context__
            return " ".join(str(first).split())[:200]
        return CAPTURED

    def learn(self, iteration: int, warmup: int) -> None:
        """One iteration of warm-up."""
        first, ends, stop = windows(warmup)
        self.step = self.dual.step
        before = self.state
        share = halton(self.index)
        end, momentum, acceptance, _ = self.iterate(share)
        # Where the evidence is steep a chain moves only with tiny steps; the harmonic mean favours the slowest chain.
        early = iteration < first and warmup >= LONG_WARMUP
        self.dual.update(float(1 / (1 / acceptance.clamp(min=1e-6)).mean() if early else acceptance.mean()))
        if self.chees is not None:
            root = 1.0 if self.inverse_mass is None else self.inverse_mass.sqrt()
            self.chees.update(before.xi / root, end.xi / root, momentum * root, acceptance, share)
            self.chees.limit(self.step, self.settings.max_steps * self.step)
        if first <= iteration < stop and self.settings.mass == "diagonal" and not self.integrator.unit_mass:
            self.variance.update(self.state.xi)
        if iteration + 1 in ends and self.variance.count:
            self.inverse_mass = self.variance.shrunk().to(self.state.xi.dtype)
            self.variance.restart()
            self.step = self._reasonable_step()
            self.dual.restart(self.step)

    def keep(self, iterations: Any, draws: int, adapted: bool) -> dict[str, Tensor]:
        """The draws after warm-up with their statistics."""
        if adapted:
            self.step = self.dual.final
            if self.chees is not None:
                self.chees.log_length = self.chees.log_mean
        chains, dim = self.state.xi.shape
        empty = self.state.xi.new_empty
        kept = {name: empty(chains, draws) for name in ("log_prob", "hamiltonian", "acceptance")}
        kept["xi"] = empty(chains, draws, dim)
        kept["divergent"] = torch.zeros(chains, draws, dtype=torch.bool, device=self.state.xi.device)
        for i in iterations:
            _, _, acceptance, energy = self.iterate(halton(self.index))
            kept["xi"][:, i] = self.state.xi
            kept["log_prob"][:, i] = self.state.log_prob
            kept["acceptance"][:, i] = acceptance
            kept["hamiltonian"][:, i] = energy[0]
            kept["divergent"][:, i] = ~(energy[1] < DIVERGENT)
        return kept

    def iterate(self, share: float) -> tuple[State, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Move all chains once; (end of the trajectories, their momenta, acceptance, (energy, its error))."""
        settings, state = self.settings, self.state
        xi = state.xi
        momentum = torch.randn(xi.shape, generator=self.generator, dtype=xi.dtype, device=xi.device)
        draw = torch.rand((2, len(xi), 1), generator=self.generator, dtype=xi.dtype, device=xi.device)
        if self.inverse_mass is not None:
            momentum /= self.inverse_mass.sqrt()
        if self.chees is None:
            steps, step = settings.steps, self.step * (1 + settings.jitter * (2 * draw[0] - 1))
        else:
            steps = min(max(math.ceil(share * self.chees.length / self.step), 1), settings.max_steps)
            step = xi.new_full((len(xi), 1), self.step)
        end, final = self.trajectory.follow(state, momentum, step, self.inverse_mass, steps)
        self.leapfrogs += steps
        self.index += 1
        energy = self._kinetic(momentum) - state.log_prob
        error = self._kinetic(final) - end.log_prob - energy
        # A trajectory that ends at NaN is never accepted.
        acceptance = torch.exp(-error).clamp(max=1).nan_to_num(0, 0, 0)
        accepted = draw[1] < acceptance[:, None]
        self.state = State(
            torch.where(accepted, end.xi, xi),
            torch.where(accepted[:, 0], end.log_prob, state.log_prob),
            torch.where(accepted, end.gradient, state.gradient),
        )
        return end, final, acceptance, (energy, error)

    def lengths(self) -> dict[str, Any]:
        """Trajectory settings for `Draws.info`."""
        length = self.settings.steps * self.step if self.chees is None else self.chees.length
        return {"trajectory": self.settings.trajectory, "trajectory_length": length}

    def _kinetic(self, momentum: Tensor) -> Tensor:
        square = momentum.square()
        return 0.5 * (square if self.inverse_mass is None else square * self.inverse_mass).sum(-1)

    def _reasonable_step(self) -> float:
        """A step at which the mean acceptance of one step is about one half."""
        state, step, direction = self.state, 0.1, 0
        momentum = torch.randn(state.xi.shape, generator=self.generator, dtype=state.xi.dtype, device=state.xi.device)
        if self.inverse_mass is not None:
            momentum /= self.inverse_mass.sqrt()
        for _ in range(40):
            size = state.xi.new_full((len(state.xi), 1), step)
            end, final = self.trajectory.follow(state, momentum, size, self.inverse_mass, 1)
            error = self._kinetic(final) - end.log_prob - self._kinetic(momentum) + state.log_prob
            good = float(torch.exp(-error).clamp(max=1).nan_to_num(0, 0, 0).mean()) > 0.5
            if direction == 0:
                direction = 1 if good else -1
            elif good != (direction > 0):
                break
            step *= 2.0**direction
            if self.integrator.unit_mass and step > 1:  # a rotation by more than a radian gains nothing
                break
        return step


def _flags(posterior: LatentPosterior, kept: dict[str, Tensor]) -> tuple[str, ...]:
    flags = []
    share = kept["divergent"].double().mean(1)
    if bool((share > 0.9).all()):
        flags.append(
            f"all chains diverge ({float(share.mean()):.0%} of trajectories); {_steepest(posterior, kept['xi'][:, -1])}: "
            "these draws are not valid; widen its noise, lower its power, or increase the warm-up"
        )
    elif bool((share > 0.01).any()):
        flags.append(f"{int(kept['divergent'].sum())} divergent trajectories; raise target, or widen sharp evidence")
    stuck = int((kept["acceptance"].mean(1) < 0.1).sum())
    if stuck:
        flags.append(f"{stuck} of {len(share)} chains hardly move (acceptance below .1)")
    return tuple(flags)


def _steepest(posterior: LatentPosterior, xi: Tensor) -> str:
    """The constraint with the largest gradient at the chains' positions."""
    pulls = {}
    for constraint in posterior.constraints:
        single = LatentPosterior(posterior.prior, constraint, posterior.power)
        _, slope = single.likelihood_and_gradient(xi)
        pulls[constraint.name] = float(slope.norm(dim=-1).nan_to_num(math.inf).mean())
    name = max(pulls, key=pulls.__getitem__, default="the prior")
    return f"the steepest constraint is {name}, mean gradient {pulls.get(name, 0.0):.3g}"
