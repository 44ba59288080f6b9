"""Posteriors that are known: linear Gaussian models, linear criteria, one-dimensional integrals."""

import math

import pytest
import torch
from torch import nn

from autovae.export.prior import PriorModule
from autovae.reasoning import HMC, MAP, MGVI, SIR, Criterion, Gaussian, GeoVI, LatentPosterior, MeanField, Rejection

DIM = 4


def linear_prior(outputs=6, dim=DIM, families="normal"):
    torch.manual_seed(0)
    return PriorModule.from_decoder(nn.Linear(dim, outputs).double(), families)


def gaussian_question(outputs=6, dim=DIM):
    """A linear model with correlated noise, and the mean and covariance of its posterior."""
    prior = linear_prior(outputs, dim)
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(outputs, generator=generator).double()
    root = 0.4 * torch.randn(outputs, outputs, generator=generator).double()
    noise = root @ root.T + 0.2 * torch.eye(outputs)
    slope, offset = prior.decoder.weight, prior.decoder.bias
    covariance = torch.linalg.inv(torch.eye(dim) + slope.T @ torch.linalg.solve(noise, slope))
    mean = covariance @ slope.T @ torch.linalg.solve(noise, y - offset)
    return LatentPosterior(prior, Gaussian(None, y, covariance=noise)), mean, covariance


def criterion_question(beta=1.5):
    """f = a . xi tilts N(0, I) to N(beta a, I)."""
    prior = PriorModule.from_decoder(nn.Identity().double(), latent_dim=DIM).double()
    a = torch.tensor([1.0, -0.5, 0.2, 0.0]).double()
    return LatentPosterior(prior, Criterion(lambda x: x @ a, beta)), beta * a


def assert_moments(draws, mean, covariance, effective):
    """Mean and covariance within 5 standard errors of that many independent draws."""
    xi = draws.flat
    std = covariance.diagonal().sqrt()
    assert ((xi.mean(0) - mean).abs() < 5 * std / math.sqrt(effective)).all()
    error = torch.outer(std, std) * math.sqrt(2 / effective)
    assert ((xi.T.cov() - covariance).abs() < 5 * error).all()


@pytest.mark.parametrize("trajectory", ["chees", "fixed"])
@pytest.mark.parametrize("integrator", ["leapfrog", "rotation"])
def test_hmc_recovers_a_gaussian(integrator, trajectory):
    posterior, mean, covariance = gaussian_question()
    method = HMC(chains=32, integrator=integrator, trajectory=trajectory, steps=5)
    draws = method.run(posterior, warmup=150, draws=150, seed=1)
    effective = min(draws.of_xi.ess_bulk.min(), draws.of_xi_square.ess_bulk.min())
    assert effective > 300
    assert_moments(draws, mean, covariance, effective)
    assert 0.6 < float(draws.acceptance.mean()) <= 1
    assert int(draws.divergences.sum()) == 0


def test_hmc_is_exact_also_with_a_wrong_step_and_no_warmup():
    posterior, mean, covariance = gaussian_question()
    method = HMC(chains=64, trajectory="fixed", steps=3, step_size=0.35)
    draws = method.run(posterior, warmup=0, draws=300, seed=2)
    assert draws.info["step_size"] == 0.35
    assert 0.3 < float(draws.acceptance.mean()) < 0.97  # the correction is at work
    assert_moments(draws, mean, covariance, min(draws.of_xi.ess_bulk.min(), draws.of_xi_square.ess_bulk.min()))


@pytest.mark.parametrize("method", [MGVI(pairs=3, rounds=2), GeoVI(pairs=3, rounds=2)], ids=lambda m: m.name)
@pytest.mark.parametrize("outputs", [2, 9], ids=["few outputs", "many outputs"])
def test_mgvi_is_exact_for_linear_models(method, outputs):
    posterior, mean, covariance = gaussian_question(outputs)
    pairs = method.run(posterior, seed=1)
    torch.testing.assert_close(pairs.flat.mean(0), mean)  # antithetic pairs average to the mean itself
    draws = method.run(posterior, draws=20_000, seed=1)
    assert_moments(draws, mean, covariance, 20_000)


@pytest.mark.parametrize("outputs", [2, 9], ids=["few outputs", "many outputs"])
def test_mgvi_covariance_and_log_weights_are_exact(outputs):
    posterior, mean, covariance = gaussian_question(outputs)
    draws = MGVI(rounds=2).run(posterior, draws=200, seed=1)
    torch.testing.assert_close(draws.transport.loc, mean)
    torch.testing.assert_close(draws.transport.root @ draws.transport.root.T, covariance)
    torch.testing.assert_close(draws.log_weights, draws.log_weights[:, :1].expand(-1, 200))


def test_as_prior_of_an_exact_answer_updates_as_one_question():
    posterior, _, _ = gaussian_question()
    second = Gaussian(lambda x: x[:, :2], torch.ones(2).double(), 0.5)
    both = LatentPosterior(posterior.prior, [*posterior.constraints, second])
    at_once = MGVI(rounds=2).run(both, seed=1)
    chained = MGVI(rounds=2).run(LatentPosterior(MGVI(rounds=2).run(posterior).as_prior(), second), seed=1)
    expected, got = at_once.as_prior(), chained.as_prior()
    z = expected.sample(5)
    torch.testing.assert_close(got.log_prob(z), expected.log_prob(z))


@pytest.mark.parametrize("pairs", [DIM, 6])
def test_mean_field_is_exact_where_it_can_be(pairs):
    posterior, mean, covariance = gaussian_question()
    draws = MeanField(pairs=pairs).run(posterior, seed=1)
    torch.testing.assert_close(draws.transport.loc, mean, atol=1e-5, rtol=1e-5)
    precision = torch.linalg.inv(covariance)
    torch.testing.assert_close(draws.transport.root, precision.diagonal().rsqrt(), atol=1e-5, rtol=1e-5)
    # ELBO = log evidence - KL(q || p), both known
    covariance_of_y = posterior.prior.decoder.weight @ posterior.prior.decoder.weight.T + (
        posterior.constraints[0].factor @ posterior.constraints[0].factor.T
    )
    y = posterior.constraints[0].y
    log_evidence = torch.distributions.MultivariateNormal(posterior.prior.decoder.bias, covariance_of_y).log_prob(y)
    q = torch.distributions.MultivariateNormal(draws.transport.loc, draws.transport.root.square().diag())
    p = torch.distributions.MultivariateNormal(mean, covariance)
    kl = torch.distributions.kl_divergence(q, p)
    assert draws.info["elbo"] == pytest.approx(float(log_evidence - kl), abs=1e-6)


def test_advi_comes_close():
    posterior, mean, covariance = gaussian_question()
    draws = MeanField(optimizer="advi", iterations=1500).run(posterior, seed=1)
    torch.testing.assert_close(draws.transport.loc, mean, atol=0.02, rtol=0)
    precision = torch.linalg.inv(covariance)
    torch.testing.assert_close(draws.transport.root, precision.diagonal().rsqrt(), atol=0.05, rtol=0.1)


def test_map_of_a_gaussian_is_its_mean():
    posterior, mean, _ = gaussian_question()
    draws = MAP(restarts=4).run(posterior, draws=3)
    for xi in draws.flat:
        torch.testing.assert_close(xi, mean, atol=1e-6, rtol=1e-6)
    assert (draws.log_prob.diff() <= 0).all()


def test_sir_and_its_evidence():
    posterior, mean, covariance = gaussian_question(outputs=2)
    draws = SIR(candidates=50_000).run(posterior, draws=5000, seed=1)
    assert_moments(draws, mean, covariance, min(5000, draws.info["effective"]))
    slope, bias = posterior.prior.decoder.weight, posterior.prior.decoder.bias
    factor = posterior.constraints[0].factor
    evidence = torch.distributions.MultivariateNormal(bias, slope @ slope.T + factor @ factor.T)
    expected = float(evidence.log_prob(posterior.constraints[0].y))
    assert draws.info["log_evidence"] == pytest.approx(expected, abs=5 / math.sqrt(draws.info["effective"]))


def test_rejection_is_exact_and_its_rate_is_the_evidence():
    posterior, mean, covariance = gaussian_question(outputs=2)
    draws = Rejection(batch=5000).run(posterior, draws=2000, seed=1)
    assert_moments(draws, mean, covariance, 2000)
    slope, bias = posterior.prior.decoder.weight, posterior.prior.decoder.bias
    factor = posterior.constraints[0].factor
    evidence = torch.distributions.MultivariateNormal(bias, slope @ slope.T + factor @ factor.T)
    rate = float((evidence.log_prob(posterior.constraints[0].y) - posterior.log_bound).exp())
    assert draws.info["acceptance_rate"] == pytest.approx(rate, rel=5 / math.sqrt(2000))


def test_rejection_without_a_bound_is_refused_and_a_wrong_bound_flagged():
    posterior, _ = criterion_question()
    with pytest.raises(ValueError, match="no upper bound"):
        Rejection().run(posterior)
    draws = Rejection(log_bound=0.0).run(posterior, draws=200)
    assert any("exceeds log_bound" in flag for flag in draws.flags)
    sharp = LatentPosterior(linear_prior(), Gaussian(None, torch.ones(6).double() * 9, 1e-3))
    with pytest.raises(ValueError, match="too sharp for rejection"):
        Rejection(max_tries=2000).run(sharp)


@pytest.mark.parametrize(
    "method",
    [
        HMC(chains=32),
        HMC(chains=32, integrator="rotation"),
        MGVI(rounds=2),
        GeoVI(rounds=2),
        MeanField(),
        SIR(candidates=50_000),
    ],
    ids=lambda m: m.name,
)
def test_a_linear_criterion_moves_the_prior(method):
    posterior, mean = criterion_question()
    arguments = {"warmup": 150, "draws": 150} if isinstance(method, HMC) else {"draws": 2000}
    draws = method.run(posterior, seed=1, **arguments)
    effective = 2000.0
    if draws.mcmc:
        effective = min(draws.of_xi.ess_bulk.min(), draws.of_xi_square.ess_bulk.min())
    elif "effective" in draws.info:
        effective = min(effective, draws.info["effective"])
    assert_moments(draws, mean, torch.eye(DIM).double(), effective)
    if draws.transport is not None:
        torch.testing.assert_close(draws.transport.loc, mean, atol=1e-6, rtol=1e-6)


def test_map_of_a_linear_criterion():
    posterior, mean = criterion_question()
    torch.testing.assert_close(MAP().run(posterior).flat[0], mean, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", ["cauchy", "uniform", "gumbel", "exponential"])
def test_other_families_against_a_one_dimensional_integral(family):
    """One latent of any family, measured: the posterior of z by quadrature over the source."""
    prior = PriorModule(nn.Linear(1, 1).double(), [family])
    with torch.no_grad():
        prior.decoder.weight.fill_(1.0)
        prior.decoder.bias.fill_(0.0)
    posterior = LatentPosterior(prior, Gaussian(None, torch.tensor([0.8]).double(), 0.5))
    grid = torch.linspace(-9, 9, 4001).double()[:, None]
    weights = posterior.log_prob(grid).softmax(0)
    quantities = torch.cat([grid, grid.square(), prior.from_normal(grid).atan()], 1)
    expected = weights @ quantities
    spread = (weights @ (quantities - expected).square()).sqrt()
    for integrator in ("leapfrog", "rotation"):
        draws = HMC(chains=64, integrator=integrator).run(posterior, warmup=150, draws=150, seed=1)
        xi = draws.flat
        found = torch.cat([xi, xi.square(), prior.from_normal(xi).atan()], 1).mean(0)
        effective = min(draws.of_xi.ess_bulk.min(), draws.of_xi_square.ess_bulk.min(), draws.of_energy.ess_bulk.min())
        assert ((found - expected).abs() < 5 * spread / math.sqrt(effective)).all()
