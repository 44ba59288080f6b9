"""Annealed importance sampling on a linear-Gaussian model, whose log p(x) is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autovae.metrics.annealed import ais, schedule

SIGMA = 0.5


def model(points: int = 6, chains: int = 200) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W (D, X), simulated x (B, X), the xi (K, B, D) that are exact posterior draws, and log p(x)."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    truth = torch.randn(points, 3, generator=generator, dtype=torch.float64)
    x = truth @ w + SIGMA * torch.randn(points, 6, generator=generator, dtype=torch.float64)
    covariance = w.T @ w + SIGMA**2 * torch.eye(6, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(torch.zeros(6, dtype=torch.float64), covariance).log_prob(x)
    precision = torch.eye(3, dtype=torch.float64) + w @ w.T / SIGMA**2
    mean = torch.linalg.solve(precision, w @ x.T / SIGMA**2).T
    noise = torch.randn(chains, points, 3, generator=generator, dtype=torch.float64)
    draws = mean + torch.linalg.solve_triangular(torch.linalg.cholesky(precision).T, noise.mT, upper=True).mT
    return w, x, draws, exact


def test_forward_and_backward_enclose_log_p() -> None:
    w, x, draws, exact = model()

    def log_likelihood(xi: Tensor) -> Tensor:
        return torch.distributions.Normal(xi @ w, SIGMA).log_prob(x).sum(-1)

    start = torch.randn(draws.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gaps = []
    for temperatures in (6, 40):
        lower = ais(log_likelihood, start, temperatures, leapfrogs=4)
        upper = ais(log_likelihood, draws, temperatures, leapfrogs=4, backward=True)
        assert float((upper - lower).mean()) > -0.25  # less than the noise of 200 chains
        gaps.append(float((upper - lower).mean()))
        assert float(lower.mean()) < float(exact.mean()) + 0.15
        assert float(upper.mean()) > float(exact.mean()) - 0.15
    assert gaps[1] < 0.6 * gaps[0]
    assert gaps[1] < 0.3


def test_schedule_runs_from_zero_to_one() -> None:
    betas = schedule(20)
    assert betas[0] == 0
    assert betas[-1] == 1
    assert betas == sorted(betas)
    with pytest.raises(ValueError, match="at least 1"):
        schedule(0)


def test_chains_need_an_axis() -> None:
    with pytest.raises(ValueError, match="k >= 1"):
        ais(lambda xi: xi.sum(-1), torch.zeros(3, 2))
