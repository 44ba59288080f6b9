"""Learned priors and ex-post densities as prior modules: saved, loaded, with an exact standard-normal source."""

import math

import pytest
import torch

import autovae
from autovae.beliefs.learned_priors import LEARNED_PRIORS
from autovae.data.datasets import load
from autovae.export.card import load_prior, load_vae, save_vae
from autovae.export.ex_post import DENSITIES, encoded, ex_post
from autovae.export.transports import TRANSPORTS, build
from autovae.model.vae import build as build_vae
from autovae.spec import VAESpec
from autovae.training.loop import Trained

BASE = VAESpec(latent_dim=3, hidden=(8,), components=6)


def learned(**settings):
    """A VAE whose learned prior is away from its start."""
    data = load("digits")
    vae = build_vae(BASE.replace(**settings), data.domain)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in (vae.learned_prior or vae.flow_posterior).parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    return vae, data


def normal(xi):
    return -0.5 * xi.square().sum(-1) - 0.5 * xi.shape[-1] * math.log(2 * math.pi)


@pytest.mark.parametrize("family", ["normal", "laplace"])
@pytest.mark.parametrize("learned_prior", LEARNED_PRIORS)
def test_a_learned_prior_is_saved_and_its_prior_is_the_one_of_training(tmp_path, learned_prior, family):
    vae, data = learned(learned_prior=learned_prior, posterior=family, prior=family)
    folder = save_vae(vae, data, tmp_path / "prior")
    prior = load_prior(folder)
    again, _ = load_vae(folder)
    for name, value in vae.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    z = prior.sample(20, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(prior.log_prob(z), vae.stacked.log_prior(z[None])[0], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(prior.from_normal(prior.to_normal(z)), z, rtol=1e-3, atol=1e-3)
    assert prior.decode(z).shape == (20, 8, 8)
    twice = prior.replicate(2)
    both = torch.cat([z[:5], z[5:10]], -1)
    torch.testing.assert_close(twice.log_prob(both), prior.log_prob(z[:5]) + prior.log_prob(z[5:10]))


@pytest.mark.parametrize("learned_prior", LEARNED_PRIORS)
def test_the_source_of_a_learned_prior_carries_gradients_and_volume(learned_prior):
    vae, data = learned(learned_prior=learned_prior)
    prior = autovae.to_prior(Trained(vae, [], vae.spec, data)).double()
    xi = torch.randn(3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: prior.from_normal(x[None])[0], xi)
    expected = normal(xi) - torch.linalg.slogdet(jacobian).logabsdet
    assert prior.log_prob(prior.from_normal(xi[None]))[0].item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_flow_posterior_is_saved(tmp_path):
    vae, data = learned(posterior_flow=True)
    again, _ = load_vae(save_vae(vae, data, tmp_path / "prior"))
    z, loc = torch.zeros(1, 4, 3), torch.ones(1, 4, 3)
    with torch.no_grad():
        one, other = (v.stacked.log_posterior_at(z, loc, loc) for v in (vae, again))
    assert torch.equal(one, other)


@pytest.mark.parametrize("learned_prior", ["mixture", "flow"])
def test_transports_of_learned_priors_are_rebuilt_from_their_plain_values(learned_prior):
    vae, data = learned(learned_prior=learned_prior)
    transport = autovae.to_prior(Trained(vae, [], vae.spec, data)).transport
    again = build(transport.config())
    assert type(again) is TRANSPORTS[learned_prior]
    again.load_state_dict(transport.state_dict())
    xi = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    for one, other in zip(transport(xi), again(xi), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("density", DENSITIES)
def test_an_ex_post_density_fits_the_encoded_points_better(density):
    spec = BASE.replace(likelihood="normal", epochs=8, batch_size=200, learning_rate=1e-2)
    trained = autovae.fit(spec, "digits")
    settings = {"steps": 100, "learning_rate": 1e-2} if density == "flow" else {}
    before, after = autovae.to_prior(trained), ex_post(trained, density, **settings)
    z = encoded(trained, part="test")
    assert after.log_prob(z).mean() > before.log_prob(z).mean() + 0.05
    assert after.card["ex_post"]["density"] == density
    torch.testing.assert_close(after.to_normal(after.from_normal(z)), z, rtol=1e-3, atol=1e-3)
