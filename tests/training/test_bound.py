"""What training follows: the value is the bound, and every estimator's mean gradient is the bound's own."""

from dataclasses import replace

import pytest
import torch

from autovae.data.datasets import load
from autovae.data.minibatches import Minibatches
from autovae.model.vae import VAEStack, build
from autovae.spec import VAESpec
from autovae.training.bound import bound_of

BASE = VAESpec(latent_dim=2, hidden=(5,), samples=3)


def setting(spec, points=2, draws=1):
    data = load("digits")
    stack = VAEStack([build(spec, data.domain)]).double()
    feed = Minibatches(data)
    batch = feed.batch(torch.arange(points), stack.target_kinds)
    batch = type(batch)(batch.inputs.double(), {k: v.double() for k, v in batch.targets.items()})
    repeated = type(batch)(
        batch.inputs.repeat_interleave(draws, 0), {k: v.repeat_interleave(draws, 0) for k, v in batch.targets.items()}
    )
    xi = torch.randn(
        1, spec.draws, points * draws, spec.latent_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    one = torch.ones(1, 1, dtype=torch.float64)
    return stack, repeated, xi, one * spec.alpha, one * spec.beta


def gradient(spec, draws):
    """The gradient of the mean bound over many noise draws, encoder and decoder apart."""
    stack, batch, xi, alpha, beta = setting(spec, draws=draws)
    bound_of(stack.specs[0]).terms(stack, batch, xi, alpha, beta).surrogate.mean().backward()
    return [
        torch.cat([p.grad.flatten() for p in part.parameters() if p.grad is not None])
        for part in (stack.encoder, stack.decoder)
    ]


@pytest.mark.parametrize(("alpha", "estimator"), [(1.0, "stl"), (1.0, "dreg"), (0.5, "dreg"), (0.0, "dreg")])
def test_estimators_have_the_pathwise_mean(alpha, estimator):
    spec = BASE.replace(alpha=alpha)
    for one, other in zip(
        gradient(spec.replace(estimator="pathwise"), 20_000),
        gradient(spec.replace(estimator=estimator), 20_000),
        strict=True,
    ):
        assert (one - other).norm() < 0.05 * one.norm()


def test_dreg_is_less_noisy_than_pathwise_at_alpha_zero():
    spec = BASE.replace(alpha=0.0, samples=20)
    exact = gradient(spec.replace(estimator="pathwise"), 5000)[0]
    errors = {}
    for estimator in ("pathwise", "dreg"):
        errors[estimator] = (gradient(spec.replace(estimator=estimator), 20)[0] - exact).norm()
    assert errors["dreg"] < errors["pathwise"]


@pytest.mark.parametrize("posterior", ["normal", "laplace", "logistic", "uniform", "exponential"])
def test_at_alpha_one_closed_form_and_samples_agree(posterior):
    """The ELBO with the divergence in closed form is the mean of the ELBO by samples."""
    spec = BASE.replace(posterior=posterior, prior="normal", samples=1)
    stack, batch, xi, alpha, beta = setting(spec, draws=20_000)
    closed = bound_of(stack.specs[0]).terms(stack, batch, xi, alpha, beta)
    loc, scale = stack.encode(batch.inputs)
    z, eps = stack.latents(loc, scale, xi)
    sampled = closed.log_likelihood + stack.log_latent_ratio(z, eps, loc, scale, 1)[:, 0]
    error = sampled.std() / len(sampled[0]) ** 0.5
    assert abs(sampled.mean() - closed.value.mean()) < 5 * error


def test_more_samples_and_smaller_alpha_raise_the_bound():
    values = {}
    for samples, alpha in ((1, 0.0), (8, 0.0), (8, 0.5), (8, 1.0)):
        spec = BASE.replace(samples=samples, alpha=alpha)
        stack, batch, xi, order, beta = setting(spec, draws=2000)
        values[samples, alpha] = float(bound_of(stack.specs[0]).terms(stack, batch, xi, order, beta).value.mean())
    assert values[8, 0.0] > values[8, 0.5] > values[8, 1.0]
    assert values[8, 0.0] > values[1, 0.0]


@pytest.mark.parametrize("name", ["miwae", "ciwae", "piwae"])
def test_grouped_bounds_train_encoder_and_decoder(name):
    spec = BASE.replace(bound=name, groups=4, alpha=0.0)
    for part in gradient(spec, 50):
        assert torch.isfinite(part).all()
        assert part.norm() > 0


def test_moving_supports_take_the_full_path():
    assert bound_of(BASE.replace(posterior="uniform", alpha=0.0)).estimator == "pathwise"
    assert bound_of(BASE.replace(alpha=0.0)).estimator == "dreg"
    assert bound_of(BASE).estimator == "pathwise"
    with pytest.raises(ValueError, match="support of uniform moves"):
        build(BASE.replace(posterior="uniform", alpha=0.0, estimator="dreg"), load("digits").domain)


@pytest.mark.parametrize("objective", ["density", "mass"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "normal", "beta"])
def test_unobserved_values_drop_out_of_the_likelihood(likelihood, objective):
    """Their values are not seen, neither by the encoder nor by the likelihood; all others count as before."""
    data = load("digits")
    mask = torch.ones_like(data.train.x, dtype=torch.bool)
    mask[:, 2:5] = False
    other = data.train.x.clone()
    other[:, 2:5] = 7
    stack = VAEStack([build(BASE.replace(likelihood=likelihood, objective=objective), data.domain)])
    xi, one = torch.randn(1, 3, 4, 2, generator=torch.Generator().manual_seed(0)), torch.ones(1, 1)
    found = []
    for x in (data.train.x, other):
        feed = Minibatches(replace(data, train=replace(data.train, x=x, mask=mask)))
        noise = feed.dequantiser().manual_seed(0)
        batch = feed.batch(torch.arange(4), stack.target_kinds, edges=objective == "mass", generator=noise)
        found.append(bound_of(stack.specs[0]).terms(stack, batch, xi, one, one).log_likelihood)
    torch.testing.assert_close(found[0], found[1])
    whole = Minibatches(data).batch(
        torch.arange(4), stack.target_kinds, objective == "mass", Minibatches(data).dequantiser()
    )
    assert not torch.allclose(bound_of(stack.specs[0]).terms(stack, whole, xi, one, one).log_likelihood, found[0])
