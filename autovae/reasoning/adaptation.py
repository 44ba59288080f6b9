r"""Warm-up adaptation of HMC: step size, mass, and trajectory length.

| adapted | from | by |
|---|---|---|
| step size | mean acceptance of all chains (at first harmonic) | dual averaging: t0 = 10, gamma = .05, kappa = .75 |
| diagonal mass | variance of all chains pooled, in windows | Welford, shrunk: n/(n+5) var + 1e-3 * 5/(n+5) |
| trajectory length | ChEES: the change in squared distance from the mean | Adam on its logarithm, Halton jitter |

Windows (Stan): 75 iterations to find the typical set, then 25, 50, 100, ... for the mass, and a last 50 for the step;
shorter warm-ups are divided 15 : 75 : 10. A new mass restarts the step size.
References: The No-U-Turn Sampler (Hoffman, Gelman, 2014); Stan reference manual, HMC algorithm parameters; An Adaptive-MCMC
Scheme for Setting Trajectory Lengths in Hamiltonian Monte Carlo (Hoffman, Radul, Sountsov, 2021).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["ChEES", "DualAveraging", "PooledVariance", "halton", "windows"]


class DualAveraging:
    """The step size for a target acceptance: noisy during warm-up, then the weighted mean."""

    def __init__(self, step: float, target: float, t0: float = 10.0, gamma: float = 0.05, kappa: float = 0.75) -> None:
        self.target, self.t0, self.gamma, self.kappa = target, t0, gamma, kappa
        self.restart(step)

    def restart(self, step: float) -> None:
        self.mu = math.log(10 * step)
        self.log_step, self.log_mean, self.error, self.count = math.log(step), math.log(step), 0.0, 0

    def update(self, acceptance: float) -> None:
        """Update from the mean acceptance probability of one iteration."""
        self.count += 1
        weight = 1 / (self.count + self.t0)
        self.error += weight * (self.target - acceptance - self.error)
        self.log_step = self.mu - math.sqrt(self.count) / self.gamma * self.error
        share = self.count**-self.kappa
        self.log_mean += share * (self.log_step - self.log_mean)

    @property
    def step(self) -> float:
        """The step to try next."""
        return math.exp(self.log_step)

    @property
    def final(self) -> float:
        """The step to keep."""
        return math.exp(self.log_mean)


class PooledVariance:
    """The variance of each coordinate over all chains and iterations since the last `restart`, in one pass."""

    def __init__(self, dim: int, like: Tensor) -> None:
        self.zero = torch.zeros(dim, dtype=torch.float64, device=like.device)
        self.restart()

    def restart(self) -> None:
        self.count, self.mean, self.scatter = 0, self.zero.clone(), self.zero.clone()

    def update(self, xi: Tensor) -> None:
        """Add one iteration of all chains, (chains, dim)."""
        chains = xi.shape[0]
        mean = xi.mean(0, dtype=torch.float64)
        total = self.count + chains
        delta = mean - self.mean
        self.scatter += (xi - mean).square().sum(0) + delta.square() * (self.count * chains / total)
        self.mean += delta * (chains / total)
        self.count = total

    def shrunk(self) -> Tensor:
        """The variance, shrunk towards 1e-3 if draws are few."""
        n = self.count
        variance = self.scatter / max(n - 1, 1)
        return variance * (n / (n + 5)) + 1e-3 * (5 / (n + 5))


def windows(warmup: int) -> tuple[int, list[int], int]:
    """(first, ends, last): the mass is adapted from iteration `first` to `last` and updated at each of `ends`."""
    if warmup < 20:
        return warmup, [], warmup
    first, last, size = 75, 50, 25
    if warmup < first + last + size:
        first, last = int(0.15 * warmup), int(0.1 * warmup)
        size = warmup - first - last
    stop = warmup - last
    ends, start = [], first
    while start < stop:
        # If the rest is too short for another window, this one takes it.
        end = start + size if start + 3 * size <= stop else stop
        ends.append(end)
        start, size = end, 2 * size
    return first, ends, stop


def halton(index: int, base: int = 2) -> float:
    """The index-th point of the van der Corput sequence: even coverage of (0, 1) without randomness."""
    value, share = 0.0, 1.0
    index += 1
    while index:
        share /= base
        value += share * (index % base)
        index //= base
    return value


class ChEES:
    """The trajectory length that maximises the change in the estimator of the expected square.

    The criterion is E (|x' - m|^2 - |x - m|^2)^2 / 4 over the trajectory x -> x' of length h T, with h uniform; its
    derivative in log T is followed by Adam. Everything is in coordinates of unit mass.
    """

    def __init__(self, length: float, rate: float = 0.025) -> None:
        self.log_length, self.log_mean = math.log(length), math.log(length)
        self.rate, self.count = rate, 0
        self.first, self.second = 0.0, 0.0

    def update(self, start: Tensor, end: Tensor, momentum: Tensor, acceptance: Tensor, share: float) -> None:
        """Update from one iteration: start and end (chains, dim) of trajectories, and the momentum at their ends.

        Positions and momenta are in units of unit mass; acceptance (chains,) weights them; share is h.
        """
        weight = acceptance.double()
        total = weight.sum()
        if not float(total) > 0:
            return
        # A divergent chain has weight 0 and may end at infinity: 0 * inf would turn the sums into NaN.
        end = torch.where(weight[:, None] > 0, end, start).double()
        momentum = torch.where(weight[:, None] > 0, momentum, 0.0).double()
        start = start.double()
        centre = (weight[:, None] * end).sum(0) / total
        moved = end - centre
        change = moved.square().sum(-1) - (start - start.mean(0)).square().sum(-1)
        slopes = share * math.exp(self.log_length) * change * (moved * momentum).sum(-1)
        slope = float((weight * slopes).sum() / total)
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * slope
        self.second = 0.95 * self.second + 0.05 * slope * slope
        first, second = self.first / (1 - 0.9**self.count), self.second / (1 - 0.95**self.count)
        self.log_length += self.rate * first / (math.sqrt(second) + 1e-20)
        self.log_mean += self.count**-0.5 * (self.log_length - self.log_mean)

    def limit(self, low: float, high: float) -> None:
        """Clamp the length between one step and the largest number of steps."""
        self.log_length = min(max(self.log_length, math.log(low)), math.log(high))
        self.log_mean = min(max(self.log_mean, math.log(low)), math.log(high))

    @property
    def length(self) -> float:
        return math.exp(self.log_length)

    @property
    def final(self) -> float:
        return math.exp(self.log_mean)
