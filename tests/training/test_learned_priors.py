"""Training with a learned prior or a flow posterior: right gradients, one program for all members, better bounds."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from autovae import fit, fit_population
from autovae.beliefs.learned_priors import LEARNED_PRIORS
from autovae.data.datasets import Split, load
from autovae.data.minibatches import Minibatches
from autovae.metrics.bits import log_mass_bounds
from autovae.metrics.log_likelihood import VAEModel, log_likelihood
from autovae.model.vae import VAEStack, build
from autovae.spec import VAESpec
from autovae.training.bound import bound_of

BASE = VAESpec(latent_dim=2, hidden=(6,), components=4, epochs=2, batch_size=500)
LEARNED = [
    *({"learned_prior": name} for name in LEARNED_PRIORS),
    {"posterior_flow": True},
    {"posterior_flow": True, "learned_prior": "flow"},
]


def clusters(points=600):
    """Six tight groups of real data in 12 features: latents that no single normal fits."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 3, (6, 12))
    return load(centres[rng.integers(0, 6, points)] + rng.normal(0, 0.3, (points, 12)))


def moved(spec, data, seed=1):
    """An untrained VAE whose learned beliefs are away from their start, in float64."""
    vae = build(spec, data.domain).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in (vae.learned_prior, vae.flow_posterior):
            for p in part.parameters() if part is not None else ():
                p.add_(0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return vae


def followed(spec, draws):
    """The bound's value, and the mean gradient that training follows, for every parameter."""
    data = load("digits")
    stack = VAEStack([moved(spec, data)])
    batch = Minibatches(data).batch(torch.arange(2), stack.target_kinds)
    wide = type(batch)(
        batch.inputs.double().repeat_interleave(draws, 0),
        {kind: x.double().repeat_interleave(draws, 0) for kind, x in batch.targets.items()},
    )
    generator = torch.Generator().manual_seed(3)
    xi = torch.randn(1, spec.draws, 2 * draws, 2, generator=generator, dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.float64)
    terms = bound_of(stack.specs[0]).terms(stack, wide, xi, one * spec.alpha, one * spec.beta)
    terms.surrogate.mean().backward()
    return terms, {name: p.grad for name, p in stack.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("alpha", [1.0, 0.0])
@pytest.mark.parametrize("settings", LEARNED[:4])
def test_every_estimator_has_the_mean_of_the_full_gradient(settings, alpha):
    spec = BASE.replace(alpha=alpha, samples=2, **settings)
    assert bound_of(spec).estimator == ("stl" if alpha == 1 else "dreg")
    _, own = followed(spec, 4_000)
    _, full = followed(spec.replace(estimator="pathwise"), 4_000)
    assert own.keys() == full.keys()
    for group in ("encoder", "decoder", "learned_prior", "flow_posterior"):
        names = [name for name in own if name.startswith(group)]
        if names:
            mine, other = (torch.cat([grads[name].flatten() for name in names]) for grads in (own, full))
            assert mine.norm() > 0
            assert (mine - other).norm() < 0.12 * other.norm()


@pytest.mark.parametrize("settings", LEARNED)
def test_a_member_trained_in_company_is_the_one_trained_alone(settings):
    specs = [BASE.replace(seed=seed, **settings) for seed in range(3)]
    together = fit_population(specs, "digits")
    for spec, member in zip(specs, together, strict=True):
        alone = fit(spec, "digits")
        torch.testing.assert_close(
            dict(member.model.named_parameters()), dict(alone.model.named_parameters()), rtol=1e-3, atol=2e-5
        )


@pytest.mark.parametrize("settings", LEARNED)
def test_stopped_and_resumed_is_uninterrupted(tmp_path, settings):
    """Adam's moments of learned beliefs are the member's own, in whatever company it goes on."""
    specs = [BASE.replace(seed=seed, epochs=epochs, **settings) for seed, epochs in ((0, 4), (1, 2))]
    mixed = fit_population(specs, "digits", rungs=(1,), on_event=lambda e: [1] if e.kind == "rung" else None)
    alone = fit(specs[0], "digits")
    torch.testing.assert_close(
        dict(mixed[0].model.named_parameters()), dict(alone.model.named_parameters()), rtol=1e-3, atol=2e-5
    )
    fit(specs[0].replace(epochs=4), "digits", checkpoint=tmp_path)
    again = fit(specs[0], "digits", checkpoint=tmp_path)
    torch.testing.assert_close(dict(again.model.named_parameters()), dict(alone.model.named_parameters()))


def test_beliefs_of_all_kinds_are_fitted_in_one_call():
    specs = [BASE, *(BASE.replace(**settings) for settings in LEARNED)]
    for spec, trained in zip(specs, fit_population(specs, "digits"), strict=True):
        assert trained.spec == spec
        assert not trained.diverged
        assert trained.reconstruct(trained.data.test.x[:3]).shape == (3, 8, 8)


@pytest.mark.slow
def test_learned_priors_raise_the_bound_where_latents_are_clustered():
    data = clusters()
    base = VAESpec(
        latent_dim=2, hidden=(32,), likelihood="normal", epochs=30, batch_size=60, learning_rate=1e-2, components=12
    )
    specs = [base, *(base.replace(learned_prior=name) for name in LEARNED_PRIORS)]
    fits = fit_population(specs, data)
    nats = log_mass_bounds([f.model for f in fits], data, data.validation, samples=50).mean(1)
    for place, name in enumerate(LEARNED_PRIORS, 1):
        assert nats[place] > nats[0] + 0.3, f"{name}: {nats.tolist()}"


@pytest.mark.parametrize("settings", LEARNED)
def test_scores_see_the_learned_beliefs(settings):
    """The importance-sampled log likelihood does not depend on the share drawn from the prior."""
    data = load("digits")
    vae = moved(BASE.replace(**settings), data).float()
    model = VAEModel(vae, data, data.validation)
    plain = log_likelihood(model, samples=2000, defensive=0.0, points=8)
    mixed = log_likelihood(model, samples=2000, defensive=0.5, points=8)
    assert (plain.per_point - mixed.per_point).abs().max() < 0.2
    bits = log_mass_bounds([vae], data, data.validation, samples=2000, points=8)[0]
    assert (plain.per_point - bits).abs().max() < 0.2


def test_beta_weighs_a_divergence_by_samples():
    one, _ = followed(BASE.replace(learned_prior="mixture"), 1)
    three, _ = followed(BASE.replace(learned_prior="mixture", beta=3.0), 1)
    torch.testing.assert_close(one.value - three.value, 2 * one.divergence)


def test_pseudo_inputs_start_where_the_encoder_looks():
    """Dynamically binarised data are stored as grey levels; the encoder sees bits, and so does the VampPrior."""
    levels = torch.arange(256, dtype=torch.uint8).repeat(50, 1)
    binary = load((np.random.default_rng(0).random((60, 256)) < 0.5).astype(np.uint8))
    data = replace(binary, train=Split(levels, grey=256))
    spec = BASE.replace(learned_prior="vampprior", epochs=1, learning_rate=1e-12)
    inputs = fit(spec, data).model.learned_prior.inputs
    bits = inputs.round()
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    assert (inputs - bits).abs().max() < 0.1
