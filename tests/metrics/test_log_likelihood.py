"""Importance-sampled log likelihoods of models whose log p(x) is known, and of trained ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autovae.metrics.log_likelihood as module
from autovae.data.datasets import load
from autovae.data.minibatches import Minibatches
from autovae.metrics.log_likelihood import VAEModel, log_likelihood, log_weights
from autovae.model.bounds import iwae, vr
from autovae.model.chains import Chain
from autovae.model.vae import VAE, build
from autovae.spec import VAESpec


def test_the_exact_posterior_gives_log_p_without_error(linear_vae) -> None:
    vae, data, exact = linear_vae()
    model = VAEModel(vae, data, density="density")
    result = log_likelihood(model, samples=3, defensive=0.0)
    torch.testing.assert_close(result.per_point, exact, rtol=0, atol=1e-10)
    weights, strata = log_weights(model, slice(None), 7, defensive=0.0)
    assert strata == [7, 0]
    for alpha in (-math.inf, 0.0, 0.5, 1.0, 2.0, math.inf):
        torch.testing.assert_close(vr(weights, alpha), exact, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("shift", "stretch"), [(0.5, 1.0), (0.0, 0.7), (1.0, 1.4)])
def test_off_the_posterior_log_p_is_within_its_errors(linear_vae, shift: float, stretch: float) -> None:
    vae, data, exact = linear_vae(shift, stretch)
    result = log_likelihood(VAEModel(vae, data, density="density"), samples=2000)
    gap = result.per_point - exact
    assert abs(float(gap.mean()) - result.bias) < 3 * result.monte_carlo_error + 1e-6
    z = (gap - result.bias) / result.monte_carlo
    assert float(z.abs().mean()) == pytest.approx(math.sqrt(2 / math.pi), rel=0.25)
    assert result.untrusted < 0.1


class Toy:
    """z ~ N(0, 1), x|z ~ N(z, 1/4), q(z|x) = N(0.3, 0.25), and x = 0.5 for all of 30 points."""

    latent_dim, points, widest, device, dtype = 1, 30, 1, torch.device("cpu"), torch.float64

    def from_prior(self, xi: Tensor, uniform: Tensor) -> Tensor:
        return xi

    def from_proposal(self, index: slice, xi: Tensor) -> tuple[Tensor, Tensor]:
        z = 0.3 + 0.5 * xi
        return z, self.log_proposal(index, z)

    def log_prior(self, z: Tensor) -> Tensor:
        return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)

    def log_proposal(self, index: slice, z: Tensor) -> Tensor:
        value = torch.distributions.Normal(0.3, 0.5).log_prob(z).sum(-1)
        return value.expand(-1, len(range(self.points)[index]))

    def decode(self, z: Tensor) -> Tensor:
        return z

    def log_likelihood(self, index: slice, outputs: Tensor) -> Tensor:
        value = torch.distributions.Normal(outputs, 0.5).log_prob(torch.tensor(0.5)).sum(-1)
        return value.expand(-1, len(range(self.points)[index]))


def test_the_error_of_the_mean_counts_samples_that_points_share() -> None:
    runs = [log_likelihood(Toy(), samples=200, defensive=0.5, seed=seed) for seed in range(60)]
    exact = float(torch.distributions.Normal(0.0, math.sqrt(1.25)).log_prob(torch.tensor(0.5)))
    means = torch.tensor([run.mean for run in runs])
    stated = math.sqrt(np.mean([run.monte_carlo_error**2 for run in runs]))
    assert float(means.mean()) == pytest.approx(exact, abs=4 * stated / math.sqrt(60))
    assert float(means.std()) == pytest.approx(stated, rel=0.25)
    independent = math.sqrt(float(runs[0].monte_carlo.square().sum())) / 30
    assert stated > 2 * independent


@pytest.mark.parametrize("family", ["uniform", "exponential"])
def test_a_posterior_that_covers_too_little_needs_the_defence(linear_vae, family: str) -> None:
    vae, data, _ = linear_vae(posterior=family, prior=family)
    with torch.no_grad():
        vae.encoder.module.bias[3:] = -4.0  # scale far below the true posterior's
    model = VAEModel(vae, data, density="density")
    truth = log_likelihood(model, samples=20_000, defensive=0.9, points=3)
    plain = log_likelihood(model, samples=2000, defensive=0.0, points=3)
    defended = log_likelihood(model, samples=2000, defensive=0.5, points=3)
    assert plain.mean < truth.mean - 1
    assert abs(defended.mean - truth.mean) < 4 * math.hypot(defended.monte_carlo_error, truth.monte_carlo_error) + 0.05


def digits_vae(**settings: object) -> tuple[VAE, object]:
    data = load("digits")
    return build(VAESpec(latent_dim=5, hidden=(16,), **settings), data.domain), data  # type: ignore[arg-type]


@pytest.mark.parametrize("likelihood", ["bernoulli", "normal", "beta"])
def test_numbers_do_not_depend_on_chunks_or_on_other_points(likelihood: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vae, data = digits_vae(likelihood=likelihood)
    model = VAEModel(vae, data)  # type: ignore[arg-type]
    whole = log_likelihood(model, samples=50, points=12)
    assert bool(whole.per_point.isfinite().all())
    fewer = log_likelihood(model, samples=50, points=5)
    torch.testing.assert_close(fewer.per_point, whole.per_point[:5], rtol=1e-6, atol=1e-5)
    monkeypatch.setattr(module, "CHUNK", 2000)
    monkeypatch.setattr(module, "BLOCK", 3)
    small = log_likelihood(model, samples=50, points=12)
    torch.testing.assert_close(small.per_point, whole.per_point, rtol=1e-6, atol=1e-5)
    assert small.monte_carlo_error == pytest.approx(whole.monte_carlo_error, rel=1e-4)


def test_without_defence_it_is_the_importance_weighted_bound() -> None:
    vae, data = digits_vae(posterior="logistic", prior="normal")
    model = VAEModel(vae, data)  # type: ignore[arg-type]
    weights, _ = log_weights(model, slice(0, 6), 30, defensive=0.0, seed=4)
    result = log_likelihood(model, samples=30, defensive=0.0, points=6, seed=4)
    torch.testing.assert_close(iwae(weights.double()), result.per_point, rtol=1e-6, atol=1e-5)


def test_learned_priors_and_flow_posteriors_are_scored() -> None:
    for settings in ({"learned_prior": "mixture", "components": 3}, {"posterior_flow": True}):
        vae, data = digits_vae(**settings)
        result = log_likelihood(VAEModel(vae, data), samples=60, points=4)  # type: ignore[arg-type]
        assert bool(result.per_point.isfinite().all())


def test_bad_questions_are_refused() -> None:
    vae, data = digits_vae()
    with pytest.raises(ValueError, match="density = 'masses'"):
        VAEModel(vae, data, density="masses")  # type: ignore[arg-type]
    model = VAEModel(vae, data)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="k >= 1"):
        log_likelihood(model, samples=0)
    with pytest.raises(ValueError, match="defensive = 1"):
        log_likelihood(model, samples=5, defensive=1)


def relu_chain(dead: int) -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    chain = nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 6))
    with torch.no_grad():
        chain[0].bias[:dead] = -100.0
    return chain, torch.randn(50, 4)


@pytest.mark.parametrize("dead", [0, 15, 30])
def test_leaving_out_idle_units_changes_nothing(dead: int) -> None:
    chain, x = relu_chain(dead)
    fast = Chain.of(chain)
    assert fast is not None
    torch.testing.assert_close(fast(x), chain(x).detach(), rtol=1e-5, atol=1e-6)


def test_other_modules_are_no_chain() -> None:
    assert Chain.of(nn.Sequential(nn.Flatten(), nn.Linear(4, 4))) is None
    assert Chain.of(nn.Linear(4, 4)) is None


def test_a_unit_that_is_not_a_number_is_not_left_out() -> None:
    chain, x = relu_chain(15)
    with torch.no_grad():
        chain[0].bias[20] = math.nan
    fast = Chain.of(chain)
    assert fast is not None
    assert bool(fast(x).isnan().all())


def test_a_coin_of_two_levels_has_one_answer_by_either_way() -> None:
    data = load((torch.rand(80, 12, generator=torch.Generator().manual_seed(0)) < 0.4).numpy())
    vae = build(VAESpec(latent_dim=2, hidden=(8,)), data.domain)
    mass, density = (log_likelihood(VAEModel(vae, data, density=name), 40, points=4) for name in ("mass", "density"))
    assert torch.equal(mass.per_point, density.per_point)
    stack, batch = vae.stacked.eval(), Minibatches(data, data.test).batch(slice(0, 4), edges=True)
    outputs = stack.decode(torch.zeros(1, 4, 2))
    assert batch.lower is not None
    assert batch.upper is not None
    levels = {"levels": batch.inputs}
    torch.testing.assert_close(stack.log_mass(outputs, batch.lower, batch.upper), stack.log_likelihood(outputs, levels))
