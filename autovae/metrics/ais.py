r"""Annealed importance sampling: lower and upper bounds of log p(x).

From a prior p(z) with a sampler, take the path of densities

    f_t(z) = p(z) p(x|z)^(b_t),        0 = b_0 < ... < b_T = 1.

Forward: z ~ p, then for each t weigh by p(x|z)^(b_t - b_(t-1)) and move by HMC that leaves f_t invariant. The mean weight
is an unbiased estimate of p(x), so its log is a lower bound of log p(x) in expectation. Backward: x is simulated together
with its z, which is an exact draw of the posterior f_T; the same moves in reverse order give weights with mean 1 / p(x),
and minus its log is an upper bound. On simulated x the two enclose log p(x) (bidirectional Monte Carlo); data have only
the forward bound. All K chains may start at the same exact draw: each weight has the right mean, but their errors are not
independent.

Both bounds require moves that are fixed beforehand; step sizes adapted to the chains themselves would break them. So
`step_sizes` finds them with separate chains, for every point and temperature, and both directions use the same table.

References: Neal, Annealed importance sampling, 2001; Grosse, Ghahramani and Adams, Sandwiching the marginal likelihood, 2015;
Wu et al., On the quantitative analysis of decoder-based generative models, 2017.
Not here: trained VAEs (`bdmc`), importance sampling from an encoder (`log_likelihood`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, Tensor

__all__ = ["LogDensity", "ais", "schedule", "standard_normal", "step_sizes"]

LogDensity = Callable[[Tensor], Tensor]  # (K, B) of z (K, B, D)
ACCEPTANCE, PACE = 0.65, 0.1  # target acceptance of the step sizes, and how fast they adapt


def schedule(temperatures: int) -> list[float]:
    """b_0 = 0 to b_T = 1 along a sigmoid: dense at both ends, where the densities change most."""
    if temperatures < 1:
        raise ValueError(f"got {temperatures} temperatures, expected at least 1")
    t = torch.linspace(-4, 4, temperatures + 1, dtype=torch.float64).sigmoid()
    return ((t - t[0]) / (t[-1] - t[0])).tolist()


def standard_normal(xi: Tensor) -> Tensor:
    """log N(xi; 0, I), summed over the last axis."""
    return -0.5 * (xi.square() + math.log(2 * math.pi)).sum(-1)


def ais(
    log_likelihood: LogDensity,
    start: Tensor,
    temperatures: int = 500,
    leapfrogs: int = 10,
    backward: bool = False,
    seed: int = 0,
    steps: Tensor | float = 0.3,
    log_prior: LogDensity = standard_normal,
) -> Tensor:
    """log p(x) of each point from K chains, (B,): a lower bound in expectation; with `backward`, an upper bound.

    `log_likelihood` and `log_prior` map z (K, B, D) to log p(x|z) and log p(z), (K, B), differentiably. `start` (K, B, D)
    holds draws of the prior or, with `backward`, exact draws of the posterior: the z of the simulated points. `steps` is
    HMC's step size, a number or the table of `step_sizes`, (temperatures - 1, B).
    """
    if start.dim() != 3 or start.shape[0] < 1:
        raise ValueError(f"got chains of shape {tuple(start.shape)}, expected (k, points, latents) with k >= 1")
    target = _Target(log_likelihood, log_prior)
    generator = Generator(start.device).manual_seed(seed)
    betas = schedule(temperatures)
    table = torch.as_tensor(steps, dtype=start.dtype, device=start.device).expand(temperatures - 1, start.shape[1])
    if backward:
        betas.reverse()
        table = table.flip(0)
    state = target.at(start.clone())
    log_weight = torch.zeros_like(state.log_x, dtype=torch.float64)
    for place, (before, after) in enumerate(pairwise(betas)):
        log_weight += (after - before) * state.log_x
        if place < temperatures - 1:
            state, _ = _hmc(target, state, after, table[place], leapfrogs, generator)
    log_mean = torch.logsumexp(log_weight, 0) - math.log(start.shape[0])
    return -log_mean if backward else log_mean


def step_sizes(
    log_likelihood: LogDensity,
    start: Tensor,
    temperatures: int = 500,
    leapfrogs: int = 10,
    seed: int = 0,
    step: float = 0.3,
    log_prior: LogDensity = standard_normal,
) -> Tensor:
    """HMC's step size of every temperature and point, (temperatures - 1, B), from a separate forward run.

    It adapts to the acceptance of the chains of its point from one temperature to the next. `start` (K, B, D): draws of
    the prior, independent of those for `ais`.
    """
    target = _Target(log_likelihood, log_prior)
    generator = Generator(start.device).manual_seed(seed)
    state = target.at(start.clone())
    steps = torch.full(start.shape[1:2], step, dtype=start.dtype, device=start.device)
    table = []
    for beta in schedule(temperatures)[1:-1]:
        table.append(steps)
        state, accepted = _hmc(target, state, beta, steps, leapfrogs, generator)
        steps = (steps * torch.exp(PACE * (accepted.mean(0) - ACCEPTANCE))).clamp(1e-4, 2.0)
    return torch.stack(table) if table else start.new_zeros(0, start.shape[1])


@dataclass(frozen=True)
class _State:
    """Positions of the chains, with values and gradients of both log densities."""

    z: Tensor
    log_x: Tensor  # log p(x|z), (K, B)
    slope_x: Tensor
    log_z: Tensor  # log p(z)
    slope_z: Tensor


@dataclass(frozen=True)
class _Target:
    log_likelihood: LogDensity
    log_prior: LogDensity

    def at(self, z: Tensor) -> _State:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_x, log_z = self.log_likelihood(z), self.log_prior(z)
            (slope_x,) = torch.autograd.grad(log_x.sum(), z)
            (slope_z,) = torch.autograd.grad(log_z.sum(), z)
        return _State(z.detach(), log_x.detach(), slope_x, log_z.detach(), slope_z)


def _hmc(
    target: _Target, old: _State, beta: float, steps: Tensor, leapfrogs: int, generator: Generator
) -> tuple[_State, Tensor]:
    """One HMC move of every chain that leaves p(z) p(x|z)^beta invariant, and its acceptance probability (K, B)."""
    momentum = torch.randn(old.z.shape, generator=generator, dtype=old.z.dtype, device=old.z.device)
    size = steps.unsqueeze(-1)
    before = 0.5 * momentum.square().sum(-1) - beta * old.log_x - old.log_z
    new = old
    momentum = momentum + 0.5 * size * (beta * new.slope_x + new.slope_z)
    for leap in range(leapfrogs):
        new = target.at(new.z + size * momentum)
        kick = 1.0 if leap < leapfrogs - 1 else 0.5
        momentum = momentum + kick * size * (beta * new.slope_x + new.slope_z)
    after = 0.5 * momentum.square().sum(-1) - beta * new.log_x - new.log_z
    change = (before - after).nan_to_num(nan=-math.inf)
    uniform = torch.rand(change.shape, generator=generator, dtype=change.dtype, device=change.device)
    accept = uniform.log() < change
    wide = accept.unsqueeze(-1)
    state = _State(
        torch.where(wide, new.z, old.z),
        torch.where(accept, new.log_x, old.log_x),
        torch.where(wide, new.slope_x, old.slope_x),
        torch.where(accept, new.log_z, old.log_z),
        torch.where(wide, new.slope_z, old.slope_z),
    )
    return state, change.clamp(max=0).exp()
