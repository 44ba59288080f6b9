"""Annealed importance sampling on a linear-Gaussian model, whose log p(x) is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autovae.metrics.ais import ais, schedule, step_sizes

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
    pilots = torch.randn(8, *draws.shape[1:], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gaps = []
    for temperatures in (6, 30):
        steps = step_sizes(log_likelihood, pilots, temperatures, leapfrogs=4)
        assert steps.shape == (temperatures - 1, len(x))
        lower = ais(log_likelihood, start, temperatures, leapfrogs=4, steps=steps)
        upper = ais(log_likelihood, draws, temperatures, leapfrogs=4, backward=True, steps=steps)
        assert float((upper - lower).mean()) > -0.25  # less than the noise of 200 chains
        gaps.append(float((upper - lower).mean()))
        assert float(lower.mean()) < float(exact.mean()) + 0.15
        assert float(upper.mean()) > float(exact.mean()) - 0.15
    assert gaps[1] < 0.6 * gaps[0]
    assert gaps[1] < 0.3


@pytest.mark.parametrize("backward", [False, True])
def test_the_mean_weight_has_no_bias_for_any_fixed_steps(backward: bool) -> None:
    """One chain and three temperatures: exp of the forward estimate averages to p(x), of minus the backward to 1 / p(x)."""
    w, x, draws, _ = model(points=2, chains=20_000)

    def log_likelihood(xi: Tensor) -> Tensor:
        return torch.distributions.Normal(xi @ w, 4.0).log_prob(x).sum(-1)

    covariance = w.T @ w + 16 * torch.eye(6, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(torch.zeros(6, dtype=torch.float64), covariance).log_prob(x)
    precision = torch.eye(3, dtype=torch.float64) + w @ w.T / 16
    mean = torch.linalg.solve(precision, w @ x.T / 16).T
    noise = torch.randn(draws.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    posterior = mean + torch.linalg.solve_triangular(torch.linalg.cholesky(precision).T, noise.mT, upper=True).mT
    start = posterior if backward else noise
    uneven = torch.tensor([[0.4, 0.9], [0.7, 0.2]], dtype=torch.float64)
    found = ais(log_likelihood, start, 3, leapfrogs=2, backward=backward, steps=uneven)
    assert (found - exact).abs().max() < 0.03


def test_a_prior_of_its_own_density_is_annealed_alike() -> None:
    """z = 2 xi with the density of N(0, 4) moves exactly as xi under N(0, I) with half the steps."""
    w, x, _, _ = model(chains=5)
    start = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def log_likelihood(xi: Tensor) -> Tensor:
        return torch.distributions.Normal(xi @ w, SIGMA).log_prob(x).sum(-1)

    law = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 2.0)
    own = ais(log_likelihood, start, 10, 3, steps=0.1)
    other = ais(
        lambda z: log_likelihood(z / 2), 2 * start, 10, 3, steps=0.2, log_prior=lambda z: law.log_prob(z).sum(-1)
    )
    torch.testing.assert_close(other, own, rtol=0, atol=1e-9)


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
