r"""Importance-sampled log likelihoods: the estimate of each point and its errors (PSIS diagnostics).

Notation: log w_k = log p(x, z_k) - log m(z_k), k = 1..K, where the proposal m is a mixture and each component gives a
fixed number of the samples (stratified, the balance heuristic). Then

    log p(x) ~ L = log (1/K) sum_k w_k              E exp L = p(x) exactly, E L <= log p(x)

Three different errors:

| error          | of a point                                         | of the mean over N points          |
|----------------|----------------------------------------------------|------------------------------------|
| over points    | -                                                  | sd of L / sqrt N                   |
| Monte Carlo    | se = sqrt(sum over strata of K_s var_s) / (K p)    | sqrt(sum se^2 + shared) / N        |
| bias           | -se^2 / 2 (the logarithm is concave: always low)   | mean of -se^2 / 2                  |

The last two are estimated from the weights and are unreliable if a few weights dominate the sum. Two diagnostics show
it: ESS = (sum w)^2 / sum w^2, and the Pareto shape k of the largest weights (above 0.7 the variance is useless, above 1
the fitted law has no mean). References: Owen and Zhou, Safe and effective importance sampling, 2000; Vehtari et al.,
Pareto smoothed importance sampling, 2024; Zhang and Stephens, A new and efficient estimation method for the generalized
Pareto distribution, 2009.
Not here: where weights come from, see `log_likelihood`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PER_POINT", "LogLikelihood", "from_log_weights", "pareto_shape"]

TRUSTED_SHAPE = 0.7
PER_POINT = ("per_point", "monte_carlo", "effective_samples", "pareto")  # the tensors of a LogLikelihood


@dataclass(frozen=True)
class LogLikelihood:
    """log p(x) of N points in nats with errors and diagnostics; all tensors (N,), float64."""

    per_point: Tensor
    monte_carlo: Tensor  # standard error of each point over repetitions of the sampling
    effective_samples: Tensor
    pareto: Tensor
    samples: int
    shared_variance: float = 0.0  # of the mean: the covariance of points that share prior samples

    @property
    def points(self) -> int:
        return len(self.per_point)

    @property
    def mean(self) -> float:
        return float(self.per_point.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean over points: the variation between test sets."""
        return float(self.per_point.std()) / math.sqrt(self.points) if self.points > 1 else math.nan

    @property
    def monte_carlo_error(self) -> float:
        """Standard error of the mean over repetitions of the sampling."""
        variance = float(self.monte_carlo.square().sum()) / self.points**2 + self.shared_variance
        return math.sqrt(max(variance, 0.0))

    @property
    def bias(self) -> float:
        """The expected bias of the mean, to first order: <= 0."""
        return -0.5 * float(self.monte_carlo.square().mean())

    @property
    def untrusted(self) -> float:
        """The share of points with a Pareto shape above 0.7, where errors are unreliable."""
        return float((self.pareto > TRUSTED_SHAPE).double().mean())

    def bits(self, features: float) -> float:
        """Bits per dimension of points with this many (observed) features."""
        return -self.mean / (features * math.log(2))

    def __str__(self) -> str:
        return (
            f"log p(x) = {self.mean:.3f} +- {self.error:.3f} over {self.points} points, +- {self.monte_carlo_error:.3f} "
            f"Monte Carlo, bias {self.bias:.3f}; k = {self.samples}, median ESS {float(self.effective_samples.median()):.0f}, "
            f"{self.untrusted:.0%} of points with Pareto shape above {TRUSTED_SHAPE}"
        )

    def to_dict(self) -> dict[str, float]:
        """The numbers of the summary, as plain values."""
        return {
            "log_likelihood": self.mean,
            "error_over_points": self.error,
            "monte_carlo_error": self.monte_carlo_error,
            "bias": self.bias,
            "points": self.points,
            "samples": self.samples,
            "median_ess": float(self.effective_samples.median()),
            "median_pareto_shape": float(self.pareto.nanmedian()),
            "untrusted_share": self.untrusted,
        }


def from_log_weights(log_weights: Tensor, strata: Sequence[int] | None = None) -> LogLikelihood:
    """The estimate of N points from log weights (K, N); the first strata[0] samples are one stratum, and so on."""
    if log_weights.dim() != 2 or log_weights.shape[0] < 1:
        raise ValueError(f"got log weights of shape {tuple(log_weights.shape)}, expected (k, points) with k >= 1")
    count = log_weights.shape[0]
    sizes = [size for size in (strata or [count]) if size]
    if sum(sizes) != count:
        raise ValueError(f"got strata {list(strata or [])} for {count} samples, expected sizes that sum to it")
    log_w = log_weights.double()
    log_mean = torch.logsumexp(log_w, 0) - math.log(count)
    # relative to the mean, so that weights average 1; a point with no mass under any sample has weights 0
    relative = (log_w - torch.where(log_mean.isfinite(), log_mean, 0.0)).exp()
    variance = torch.stack([len(part) * part.var(0, unbiased=len(part) > 1) for part in relative.split(sizes)]).sum(0)
    effective = relative.sum(0).square() / relative.square().sum(0)
    return LogLikelihood(log_mean, variance.sqrt() / count, effective, pareto_shape(log_w), count)


def pareto_shape(log_weights: Tensor) -> Tensor:
    """Shape of the generalised Pareto law of the largest weights of (K, N), by Zhang and Stephens' estimator, (N,).

    The tail has min(K / 5, 3 sqrt K) weights; nan with fewer than 5, 0 if they are all equal.
    """
    count = log_weights.shape[0]
    size = math.ceil(min(0.2 * count, 3 * math.sqrt(count)))
    if size < 5 or size >= count:
        return log_weights.new_full(log_weights.shape[1:], math.nan).double()
    top = log_weights.double().topk(size + 1, dim=0).values.flip(0)
    top = (top - torch.where(top[-1].isfinite(), top[-1], 0.0)).exp()
    excess = (top[1:] - top[:1]).T  # (N, size), ascending
    flat = excess[:, -1] <= 1e-12
    excess = torch.where(flat[:, None], torch.linspace(0.1, 1, size, dtype=excess.dtype, device=excess.device), excess)
    candidates = 30 + math.isqrt(size)
    rank = torch.arange(1, candidates + 1, dtype=excess.dtype, device=excess.device)
    quartile = excess[:, int(size / 4 + 0.5) - 1].clamp_min(1e-300)
    b = (1 - (candidates / (rank - 0.5)).sqrt()) / (3 * quartile[:, None]) + 1 / excess[:, -1:]
    k = torch.log1p(-b[:, :, None] * excess[:, None, :]).mean(-1)
    log_profile = size * ((-b / k).log() - k - 1)
    weights = torch.softmax(log_profile, 1)
    best = (b * weights).sum(1)
    shape = torch.log1p(-best[:, None] * excess).mean(1)
    shape = (size * shape + 10 * 0.5) / (size + 10)  # a weak prior at 1/2, as in Pareto smoothing
    return torch.where(flat, 0.0, shape)
