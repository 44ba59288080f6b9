r"""MGVI and geoVI: normal approximations with the covariance of the Fisher metric and an optimised mean.

    q(xi) = N(m, M(m)^-1),     M(m) = I + J^T J,  J = d theta / d xi at m  (Fisher coordinates, see `constraints`)

| step | MGVI | geoVI |
|---|---|---|
| draw | s = M^(-1/2) e, e ~ N(0, I), and -s | the xi with (xi - m) + J^T (theta(xi) - theta(m)) = +-M^(1/2) e |
| move | m minimises the mean of -log p(m + s_i, evidence), s_i frozen: Newton steps with the mean metric at all m + s_i | |

in alternating rounds, then draws at the last mean. The covariance is implicit, so correlations of many latents cost
nothing. With k outputs (classes, measurements) all solves have size min(k, dim): Woodbury's identity gives exact draws,
M^(-1/2) = I - V^T c V from the k x k matrix J J^T, without conjugate gradients. For a linear Gaussian model both methods
are exact; geoVI follows the curvature of theta to second order.

Constraints without an outcome (a criterion) enter -log p but not the metric: along them the answer is as wide as the
prior, which is flagged, and it is exact only if they are linear.
References: Metric Gaussian Variational Inference (Knollmueller, Ensslin, 2019); Geometric Variational Inference (Frank,
Leike, Ensslin, 2021).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from autovae.export.transports import Affine
from autovae.reasoning.draws import Draws
from autovae.reasoning.gradient import Gradient, likelihood_gradient
from autovae.reasoning.mean_field import Watch, log_prob_in_batches
from autovae.reasoning.method import Method, at_least, generator_for, starting_points, threads_by_work, track
from autovae.reasoning.posterior import LatentPosterior

__all__ = ["GeoVI", "MGVI", "Metric"]


class Metric:
    """M = I + mean_i J_i^T J_i, with solves and roots in the smaller dimension; float64 inside.

    `jacobian` is (points, k, dim). With R the stacked J / sqrt(points), M = I + R^T R and for any function f
    f(M) = f(1) I + R^T U g(lambda) U^T R, where R R^T = U lambda U^T and g = (f(1 + lambda) - f(1)) / lambda.
    """

    def __init__(self, jacobian: Tensor) -> None:
        points, _, dim = jacobian.shape
        rows = jacobian.reshape(-1, dim).double() / math.sqrt(points)
        self.dim, self.dtype = dim, jacobian.dtype
        if rows.shape[0] < dim:
            values, vectors = torch.linalg.eigh(rows @ rows.T)
            basis = vectors.T @ rows  # rows of length sqrt(lambda)
        else:
            values, vectors = torch.linalg.eigh(rows.T @ rows)
            basis = vectors.T * values.clamp(min=0).sqrt()[:, None]
        kept = values > 1e-14 * values.max().clamp(min=1e-30) if len(values) else values > 0
        self.values, self.basis = values[kept], basis[kept]

    def power(self, exponent: float, v: Tensor) -> Tensor:
        """M^exponent v for v (..., dim)."""
        weights = torch.expm1(exponent * torch.log1p(self.values)) / self.values
        wide = v.double()
        return (wide + ((wide @ self.basis.T) * weights) @ self.basis).to(self.dtype)

    def solve(self, v: Tensor) -> Tensor:
        return self.power(-1.0, v)

    def log_det(self) -> float:
        return float(torch.log1p(self.values).sum())


@dataclass(frozen=True)
class MGVI(Method):
    """Metric Gaussian variational inference with `pairs` antithetic pairs, in `rounds` of up to `newton` steps.

    A round ends when a Newton step promises less than `tolerance` nats.

    `run` returns 2 * pairs draws, m +- s_i; with draws=n, n independent draws of q. `watch(evaluation, power, mean, std)`
    is called after every Newton step, with std the spread of the present draws.
    """

    name: ClassVar[str] = "mgvi"

    pairs: int = 5
    rounds: int = 15
    newton: int = 30
    tolerance: float = 1e-4
    watch: Watch | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        at_least(self.pairs, 1, "pairs")
        at_least(self.rounds, 1, "rounds")
        at_least(self.newton, 1, "newton")

    def batch_size(self, posterior: LatentPosterior) -> int:
        return min(2048, 2 * self.pairs * posterior.latent_dim)  # of the Jacobian

    @threads_by_work
    def run(
        self,
        posterior: LatentPosterior,
        draws: int | None = None,
        *,
        seed: int = 0,
        start: Tensor | None = None,
        progress: bool = False,
    ) -> Draws:
        """m +- s_i as (1, 2 * pairs, dim), or `draws` independent draws; `start` (dim,) is the first mean."""
        if draws is not None:
            at_least(draws, 1, "draws")
        began = time.perf_counter()
        generator = generator_for(posterior, seed)
        if start is None:
            posterior.start(1, generator)  # refuses impossible evidence, with the name of the constraint
            mean = 0.1 * posterior.prior.sample_normal(generator=generator)
        else:
            mean = starting_points(posterior, 1, generator, start)[0]
        fit = _Fit(self, posterior, mean)
        for _ in track(range(self.rounds), self.rounds, self.name, progress):
            noise = posterior.prior.sample_normal(self.pairs, generator=generator)
            fit.move(self.residuals(fit, torch.cat([noise, -noise])))
        if draws is None:
            noise = posterior.prior.sample_normal(self.pairs, generator=generator)
            noise = torch.cat([noise, -noise])
        else:
            noise = posterior.prior.sample_normal(draws, generator=generator)
        xi = fit.mean + self.residuals(fit, noise)
        log_prob = log_prob_in_batches(posterior, xi)
        metric = fit.metric_at_mean()
        return Draws(
            xi=xi[None],
            log_prob=log_prob[None],
            posterior=posterior,
            method=self.name,
            seed=seed,
            seconds=time.perf_counter() - began,
            log_weights=self.log_weights(log_prob, noise, metric),
            transport=self.transport(fit.mean, metric),
            info={"rounds": self.rounds, "newton_steps": fit.steps, "energy": fit.energy},
            flags=fit.flags(),
        )

    def residuals(self, fit: _Fit, noise: Tensor) -> Tensor:
        """Draws of q around its mean for standard normal noise (n, dim)."""
        return fit.metric_at_mean().power(-0.5, noise)

    def log_weights(self, log_prob: Tensor, noise: Tensor, metric: Metric) -> Tensor | None:
        log_q = -0.5 * noise.square().sum(-1) + 0.5 * metric.log_det() - 0.5 * metric.dim * math.log(2 * math.pi)
        return (log_prob - log_q)[None]

    def transport(self, mean: Tensor, metric: Metric) -> Affine | None:
        """The answer as a map of the source: xi -> m + M^(-1/2) xi."""
        return Affine(mean, metric.power(-0.5, torch.eye(metric.dim, dtype=mean.dtype, device=mean.device)))


@dataclass(frozen=True)
class GeoVI(MGVI):
    """Geometric variational inference: MGVI with draws curved along the Fisher coordinates, by `solve` Newton steps each."""

    name: ClassVar[str] = "geovi"

    solve: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self.solve, 1, "solve")

    def residuals(self, fit: _Fit, noise: Tensor) -> Tensor:
        metric = fit.metric_at_mean()
        xi = fit.mean + metric.power(-0.5, noise)
        target = metric.power(0.5, noise)
        error = fit.bend(xi) - target
        size = _size(metric, error)
        for _ in range(self.solve):
            if bool((size <= 1e-6 * (1 + noise.norm(dim=-1))).all()):
                break
            step = fit.solve_bend(xi, error)
            scale = torch.ones_like(size)
            for _ in range(8):
                trial = xi - scale[:, None] * step
                trial_error = fit.bend(trial) - target
                trial_size = _size(metric, trial_error)
                worse = ~(trial_size < size)
                if not bool(worse.any()):
                    break
                scale = torch.where(worse, 0.5 * scale, scale)
            better = trial_size < size
            if not bool(better.any()):
                break
            xi = torch.where(better[:, None], trial, xi)
            error = torch.where(better[:, None], trial_error, error)
            size = torch.where(better, trial_size, size)
        return xi - fit.mean

    def log_weights(self, log_prob: Tensor, noise: Tensor, metric: Metric) -> Tensor | None:
        return None

    def transport(self, mean: Tensor, metric: Metric) -> Affine | None:
        return None


def _size(metric: Metric, error: Tensor) -> Tensor:
    """Length of the error in units of the noise."""
    return metric.power(-0.5, error).norm(dim=-1)


class _Fit:
    """The mean of q, with the evidence and the metric there."""

    def __init__(self, settings: MGVI, posterior: LatentPosterior, mean: Tensor) -> None:
        self.settings, self.posterior, self.mean = settings, posterior, mean
        self.gradient: Gradient = likelihood_gradient(posterior)
        self.missing = posterior.without_metric
        self.energy, self.steps, self.stalled = math.nan, 0, False
        self._metric: Metric | None = None
        self._at: tuple[Tensor, Tensor] | None = None

    def metric_at_mean(self) -> Metric:
        if self._metric is None:
            theta, jacobian = self.posterior.jacobian(self.mean[None])
            self._at, self._metric = (theta[0], jacobian[0]), Metric(jacobian)
        return self._metric

    def bend(self, xi: Tensor) -> Tensor:
        """(xi - m) + J^T (theta(xi) - theta(m)): linear for linear models, where it is M (xi - m)."""
        self.metric_at_mean()
        assert self._at is not None
        theta, jacobian = self._at
        with torch.no_grad():
            return xi - self.mean + (self.posterior.coordinates(xi) - theta) @ jacobian

    def solve_bend(self, xi: Tensor, error: Tensor) -> Tensor:
        """The Newton step of `bend` at every xi: (I + J^T J(xi))^-1 error."""
        assert self._at is not None
        jacobian = self._at[1].double()
        _, local = self.posterior.jacobian(xi)
        k, dim = jacobian.shape
        if k < dim:  # Woodbury for a matrix that is not symmetric
            small = torch.eye(k, dtype=torch.float64, device=xi.device) + local.double() @ jacobian.T
            inner = torch.linalg.solve(small, (local.double() @ error.double()[..., None]))
            return (error.double() - (inner[..., 0] @ jacobian)).to(xi.dtype)
        full = torch.eye(dim, dtype=torch.float64, device=xi.device) + jacobian.T @ local.double()
        return torch.linalg.solve(full, error.double()).to(xi.dtype)

    def move(self, residuals: Tensor) -> None:
        """Newton steps of the mean with the residuals frozen."""
        energy, slope = self._evaluate(self.mean, residuals)
        for _ in range(self.settings.newton):
            metric = Metric(self.posterior.jacobian(self.mean + residuals)[1])
            step = metric.solve(slope)
            gain = float(step.double() @ slope.double())
            if not gain > self.settings.tolerance:
                break
            scale = 1.0
            while scale > 1e-4:
                trial = self.mean - scale * step
                trial_energy, trial_slope = self._evaluate(trial, residuals)
                if trial_energy <= energy - 1e-4 * scale * gain:
                    break
                scale *= 0.5
            else:
                self.stalled = not gain < 1e-2
                break
            self.mean, energy, slope = trial, trial_energy, trial_slope
            self._metric, self.stalled = None, False
            self.steps += 1
            if self.settings.watch is not None:
                self.settings.watch(self.steps, self.posterior.power, self.mean.clone(), residuals.std(0))
        self.energy = energy

    def _evaluate(self, mean: Tensor, residuals: Tensor) -> tuple[float, Tensor]:
        """The mean of -log p(m + s_i, evidence) up to a constant, and its gradient."""
        xi = mean + residuals
        value, slope = self.gradient(xi, True)
        assert value is not None
        energy = float((0.5 * xi.square().sum(-1) - value).mean())
        return (energy if math.isfinite(energy) else math.inf), (xi - slope).mean(0)

    def flags(self) -> tuple[str, ...]:
        found = []
        if self.missing:
            found.append(f"no Fisher metric for {', '.join(self.missing)}: the spread along it is that of the prior")
        if self.stalled or not math.isfinite(self.energy):
            found.append("the mean did not converge; anneal the power (posterior.with_power), or start elsewhere")
        return tuple(found)
