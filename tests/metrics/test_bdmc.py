"""AIS and its reverse on trained VAEs: log p(x) lies between, where it is known; every belief can be asked."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from autovae.data.datasets import load
from autovae.metrics.bdmc import enclose
from autovae.metrics.log_likelihood import VAEModel, log_likelihood
from autovae.model.vae import build
from autovae.spec import VAESpec


def grey_data():
    grey = torch.randint(0, 17, (60, 6), generator=torch.Generator().manual_seed(0))
    return load(grey.numpy(), levels=17)


def exact_law(vae) -> torch.distributions.MultivariateNormal:
    w, sigma = vae.decoder.module.weight.detach(), vae.scale.detach()
    covariance = w @ w.T + sigma**2 * torch.eye(len(w), dtype=w.dtype)
    return torch.distributions.MultivariateNormal(torch.zeros(len(w), dtype=w.dtype), covariance)


def test_log_p_of_a_linear_model_is_enclosed(linear_vae) -> None:
    vae, data, exact = linear_vae(shift=3.0)  # the encoder is wrong, and not used
    found = enclose(vae, data, points=20, chains=8, temperatures=40, leapfrogs=4, density="density")
    truth = exact_law(vae).log_prob(found.simulated)
    error = 3 * float(found.gap.per_point.std()) / math.sqrt(20)
    below, above = truth - found.simulated_lower.per_point, found.simulated_upper.per_point - truth
    assert float(below.mean()) > -error
    assert float(above.mean()) > -error
    assert found.gap.mean == pytest.approx(float((above + below).mean()))
    assert found.gap.mean < 0.3
    lost = exact[:20] - found.data.per_point
    assert -error < float(lost.mean()) < 0.3
    few = enclose(vae, data, points=20, chains=8, temperatures=5, leapfrogs=5, density="density")
    assert few.gap.mean > 3 * found.gap.mean


def test_upper_and_lower_change_places_if_the_direction_is_wrong(linear_vae) -> None:
    """With hardly any annealing the lower bound is far below, the upper far above, point by point."""
    vae, data, _ = linear_vae()
    found = enclose(vae, data, points=30, chains=1, temperatures=2, leapfrogs=1, density="density")
    truth = exact_law(vae).log_prob(found.simulated)
    assert float((truth - found.simulated_lower.per_point).mean()) > 1
    assert float((found.simulated_upper.per_point - truth).mean()) > 1


@pytest.mark.parametrize(
    "settings",
    [
        {"likelihood": "bernoulli"},
        {"likelihood": "beta", "posterior": "logistic", "prior": "logistic"},
        {"likelihood": "normal", "posterior": "uniform", "prior": "exponential"},
        {"likelihood": "student_t", "posterior": "cauchy", "prior": "cauchy"},
        {"learned_prior": "mixture", "components": 3},
        {"learned_prior": "vampprior", "components": 3},
        {"learned_prior": "flow"},
    ],
)
def test_every_belief_is_enclosed_and_agrees_with_importance_sampling(settings) -> None:
    data = grey_data()
    vae = build(VAESpec(latent_dim=2, hidden=(8,), **settings), data.domain)
    found = enclose(vae, data, points=5, chains=8, temperatures=15, leapfrogs=3)
    estimate = log_likelihood(VAEModel(vae, data), samples=4000, defensive=0.5, points=5)
    lost = estimate.per_point - found.data.per_point
    assert bool(lost.isfinite().all())
    assert abs(float(lost.mean())) < 0.3
    assert -0.4 < found.gap.mean < 0.4
    assert float(found.simulated.min()) >= 0
    assert found.simulated.max() <= 16
    assert torch.equal(found.simulated, found.simulated.round())


def test_binary_data_are_enclosed_and_unobserved_values_drop_out() -> None:
    x = (torch.rand(80, 12, generator=torch.Generator().manual_seed(0)) < 0.3).numpy()
    data = load(x)
    vae = build(VAESpec(latent_dim=2, hidden=(8,)), data.domain)
    found = enclose(vae, data, points=4, chains=4, temperatures=10, leapfrogs=2)
    assert set(found.simulated.unique().tolist()) <= {0.0, 1.0}
    assert found.to_dict()["ais_points"] == 4
    assert "gap" in str(found)
    again = enclose(vae, data, points=4, chains=4, temperatures=10, leapfrogs=2)
    assert torch.equal(again.data.per_point, found.data.per_point)
    nothing = replace(data, test=replace(data.test, mask=torch.zeros(data.test.x.shape, dtype=torch.bool)))
    assert enclose(vae, nothing, points=4, chains=2, temperatures=3, leapfrogs=1).data.per_point.abs().max() == 0


def test_bad_questions_are_refused() -> None:
    data = grey_data()
    vae = build(VAESpec(latent_dim=2, hidden=(8,)), data.domain)
    with pytest.raises(ValueError, match="'mass'"):
        enclose(vae, data, density="both")
    with pytest.raises(ValueError, match="no density of grey levels"):
        enclose(vae, data, density="density")
    with pytest.raises(ValueError, match="chains = 0"):
        enclose(vae, data, chains=0)
