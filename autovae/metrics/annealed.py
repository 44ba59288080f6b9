r"""Annealed importance sampling: log p(x) enclosed from both sides.

In the source xi ~ N(0, I) of the prior, z = z(xi), take the path of densities

    f_t(xi) = N(xi; 0, I) p(x | z(xi))^(b_t),        0 = b_0 < ... < b_T = 1.

Forward: xi ~ N(0, I), then for each t weigh by p(x|z)^(b_t - b_(t-1)) and move by HMC that leaves f_t invariant. The
mean weight estimates p(x) without bias, so the log of it is a lower bound of log p(x) in expectation. Backward: x is
simulated together with its xi, which is then an exact draw of the posterior f_T; the same steps in reverse give weights
whose mean estimates 1 / p(x), and minus its log is an upper bound. On simulated x the two enclose log p(x)
(bidirectional Monte Carlo); on data only the forward one can be had.

For models of up to some 50 latents with a product prior, whose z(xi) is one map. References: Neal, Annealed importance
sampling, 2001; Grosse, Ghahramani and Adams, Sandwiching the marginal likelihood, 2015; Wu et al., On the quantitative
analysis of decoder-based generative models, 2017. Not here: importance sampling from an encoder, see `log_likelihood`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Generator, Tensor

__all__ = ["ais", "schedule"]

LogLikelihood = Callable[[Tensor], Tensor]
TARGET = 0.65  # acceptance towards which the chains of a point move their step size


def schedule(temperatures: int) -> list[float]:
    """b_0 = 0 to b_T = 1 along a sigmoid: dense at both ends, where the densities change most."""
    if temperatures < 1:
        raise ValueError(f"got {temperatures} temperatures, expected at least 1")
    t = torch.linspace(-4, 4, temperatures + 1, dtype=torch.float64).sigmoid()
    return ((t - t[0]) / (t[-1] - t[0])).tolist()


def ais(
    log_likelihood: LogLikelihood,
    start: Tensor,
    temperatures: int = 500,
    leapfrogs: int = 10,
    backward: bool = False,
    seed: int = 0,
    step: float = 0.3,
) -> Tensor:
    """log p(x) of each point from K chains, (B,): a lower bound in expectation, or an upper one where `backward`.

    `log_likelihood` gives log p(x|z(xi)), (K, B), of xi (K, B, D), differentiably. `start` (K, B, D) holds draws of
    N(0, I), or, for `backward`, exact draws of the posterior: the xi that the points were simulated with.
    """
    if start.dim() != 3 or start.shape[0] < 1:
        raise ValueError(f"got chains of shape {tuple(start.shape)}, expected (k, points, latents) with k >= 1")
    generator = Generator(start.device).manual_seed(seed)
    betas = schedule(temperatures)
    if backward:
        betas.reverse()
    xi = start.clone()
    steps = torch.full(start.shape[:2], step, dtype=start.dtype, device=start.device)
    value, slope = _value_and_slope(log_likelihood, xi)
    log_weight = torch.zeros_like(value)
    for place, (before, after) in enumerate(pairwise(betas)):
        log_weight = log_weight + (after - before) * value
        if place < temperatures - 1:
            xi, value, slope, steps = _hmc(log_likelihood, xi, value, slope, after, steps, leapfrogs, generator)
    log_mean = torch.logsumexp(log_weight.double(), 0) - math.log(start.shape[0])
    return -log_mean if backward else log_mean


def _value_and_slope(log_likelihood: LogLikelihood, xi: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        xi = xi.detach().requires_grad_()
        value = log_likelihood(xi)
        (slope,) = torch.autograd.grad(value.sum(), xi)
    return value.detach(), slope


def _hmc(
    log_likelihood: LogLikelihood,
    xi: Tensor,
    value: Tensor,
    slope: Tensor,
    beta: float,
    steps: Tensor,
    leapfrogs: int,
    generator: Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One HMC move of every chain that leaves N(xi) p(x|z)^beta invariant; the step size then follows acceptance."""
    momentum = torch.randn(xi.shape, generator=generator, dtype=xi.dtype, device=xi.device)
    size = steps.unsqueeze(-1)
    energy = 0.5 * (xi.square() + momentum.square()).sum(-1) - beta * value
    new, new_value, new_slope = xi, value, slope
    momentum = momentum + 0.5 * size * (beta * new_slope - new)
    for leap in range(leapfrogs):
        new = new + size * momentum
        new_value, new_slope = _value_and_slope(log_likelihood, new)
        kick = 1.0 if leap < leapfrogs - 1 else 0.5
        momentum = momentum + kick * size * (beta * new_slope - new)
    change = energy - 0.5 * (new.square() + momentum.square()).sum(-1) + beta * new_value
    change = change.nan_to_num(nan=-math.inf)
    uniform = torch.rand(value.shape, generator=generator, dtype=xi.dtype, device=xi.device)
    accept = uniform.log() < change
    wide = accept.unsqueeze(-1)
    accepted = change.clamp(max=0).exp().mean(0)  # over the chains of a point, so that no chain steers itself alone
    steps = steps * torch.exp(0.05 * (accepted - TARGET))
    return (
        torch.where(wide, new, xi),
        torch.where(accept, new_value, value),
        torch.where(wide, new_slope, slope),
        steps.clamp(1e-4, 2.0),
    )
