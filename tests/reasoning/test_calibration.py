"""Simulation-based calibration: where truth and data come from the model, the rank of the truth among draws is uniform.

Quantities: each latent, and the log likelihood of the data, which also depends on the data (Modrak et al., 2023: without
such a quantity a sampler that ignores the data passes). Ranks are held to the ECDF band of level 1e-3 (Kolmogorov).
"""

import math

import pytest
import torch
from torch import nn

from autovae.export.prior import PriorModule
from autovae.reasoning import HMC, MGVI, Gaussian, GeoVI, LatentPosterior
from autovae.reasoning.constraints import Constraint

NOISE, DIM, OUTPUTS, KEPT = 0.5, 2, 3, 19
BAND = 1.95  # of sqrt(replicates) * largest distance of the ECDF, one in a thousand


def bent_prior(strength):
    """A decoder with a weak or a strong nonlinear part; strength 0 is linear."""
    torch.manual_seed(0)
    line, inner, outer = nn.Linear(DIM, OUTPUTS), nn.Linear(DIM, 8), nn.Linear(8, OUTPUTS)

    class Bent(nn.Module):
        def __init__(self):
            super().__init__()
            self.line, self.inner, self.outer = line, inner, outer

        def forward(self, z):
            return 2 * self.line(z) + strength * self.outer(torch.tanh(2 * self.inner(z)))

    return PriorModule.from_decoder(Bent().double(), latent_dim=DIM)


class EachItsOwn(Constraint):
    """Measurement i belongs to chain i, so that one run answers as many questions as it has chains."""

    def __init__(self, y):
        self.y = y

    def log_likelihood(self, scene):
        x = scene.x
        return -0.5 * ((x - self.y[: len(x)]) / NOISE).square().sum(-1)


def ecdf_distance(ranks):
    """Largest distance of the ECDF of ranks 0..KEPT from that of the uniform law, times sqrt(replicates)."""
    shares = torch.bincount(ranks, minlength=KEPT + 1).double() / len(ranks)
    uniform = torch.arange(1, KEPT + 2).double() / (KEPT + 1)
    return float((shares.cumsum(0) - uniform).abs().max()) * math.sqrt(len(ranks))


def simulate(prior, replicates, seed):
    generator = torch.Generator().manual_seed(seed)
    truth = prior.sample_normal(replicates, generator=generator)
    noise = torch.randn(replicates, OUTPUTS, generator=generator).double()
    return truth, prior(truth) + NOISE * noise


def hmc_ranks(method, replicates, seed=1, spoil=1.0, thin=8):
    prior = bent_prior(1.0)
    truth, y = simulate(prior, replicates, seed)
    posterior = LatentPosterior(prior, EachItsOwn(y))
    draws = method.run(posterior, KEPT * thin, warmup=150, seed=seed)
    kept = draws.xi[:, thin - 1 :: thin] * spoil
    log_likelihood = torch.stack([posterior.log_likelihood(kept[:, i]) for i in range(KEPT)], 1)
    ranks = [(kept[..., i] < truth[:, None, i]).sum(1) for i in range(DIM)]
    return [*ranks, (log_likelihood < posterior.log_likelihood(truth)[:, None]).sum(1)]


def test_adaptive_hmc_is_calibrated():
    for ranks in hmc_ranks(HMC(chains=500), 500, thin=5):
        assert ecdf_distance(ranks) < BAND


@pytest.mark.parametrize(
    "method",
    [
        HMC(chains=1000),
        HMC(chains=1000, trajectory="fixed", steps=5),
        HMC(chains=1000, integrator="rotation"),
    ],
    ids=["chees", "fixed", "rotation"],
)
@pytest.mark.slow
def test_hmc_is_calibrated(method):
    for ranks in hmc_ranks(method, 1000):
        assert ecdf_distance(ranks) < BAND


@pytest.mark.slow
def test_calibration_catches_draws_that_are_ten_percent_too_narrow():
    distances = [ecdf_distance(ranks) for ranks in hmc_ranks(HMC(chains=4000), 4000, spoil=0.9)]
    assert max(distances) > BAND


def variational_ranks(method, strength, replicates, seed=1):
    prior = bent_prior(strength)
    truth, y = simulate(prior, replicates, seed)
    ranks = []
    for i in range(replicates):
        posterior = LatentPosterior(prior, Gaussian(None, y[i], NOISE))
        kept = method.run(posterior, KEPT, seed=i).flat
        log_likelihood = posterior.log_likelihood(torch.cat([truth[i : i + 1], kept]))
        ranks.append([*(kept < truth[i]).sum(0), (log_likelihood[1:] < log_likelihood[0]).sum()])
    return list(torch.tensor(ranks).T)


@pytest.mark.parametrize(
    ("method", "strength"),
    [
        (MGVI(pairs=2, rounds=1), 0.0),
        (GeoVI(pairs=2, rounds=1), 0.0),
        # Bent mildly: the error of the approximation is below what a thousand replicates resolve.
        (MGVI(pairs=5, rounds=3), 1.0),
        (GeoVI(pairs=5, rounds=3), 1.0),
    ],
    ids=["mgvi linear", "geovi linear", "mgvi bent", "geovi bent"],
)
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_variational_answers_are_calibrated(method, strength):
    for ranks in variational_ranks(method, strength, 1000):
        assert ecdf_distance(ranks) < BAND
