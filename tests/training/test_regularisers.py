"""Training with another divergence than the KL: the objective is what it says, refusals say why."""

from __future__ import annotations

import pytest
import torch

from autovae import fit_population
from autovae.beliefs.regularisers import REGULARISERS
from autovae.data.datasets import load
from autovae.data.minibatches import Minibatches
from autovae.model.vae import VAEStack, build
from autovae.spec import VAESpec
from autovae.training.bound import bound_of
from autovae.training.population import shape_key
from autovae.training.train_state import TrainState

BASE = VAESpec(latent_dim=2, hidden=(5,), samples=2, epochs=2, batch_size=500)
OTHERS = [
    {"regulariser": "renyi"},
    {"regulariser": "renyi", "regulariser_order": 0.2, "posterior": "laplace", "prior": "laplace"},
    {"regulariser": "jeffreys"},
    {"regulariser": "jeffreys", "posterior": "logistic", "prior": "laplace", "beta": 2.0},
]


@pytest.mark.parametrize("settings", OTHERS)
def test_the_objective_is_the_likelihood_less_the_divergence(settings) -> None:
    spec, data = BASE.replace(**settings), load("digits")
    stack = VAEStack([build(spec, data.domain)])
    batch = Minibatches(data).batch(torch.arange(4), stack.target_kinds)
    xi = torch.randn(1, 2, 4, 2, generator=torch.Generator().manual_seed(0))
    one = torch.ones(1, 1)
    terms = bound_of(stack.specs[0]).terms(stack, batch, xi, one, one * spec.beta)
    loc, scale = stack.encode(batch.inputs)
    order, (q, p) = spec.regulariser_order, spec.pairs[0]
    divergence = REGULARISERS[spec.regulariser](order, q, p, loc, scale).sum(-1)
    torch.testing.assert_close(terms.divergence, divergence)
    torch.testing.assert_close(terms.value, terms.log_likelihood - spec.beta * divergence)
    usual = VAEStack([build(spec.replace(regulariser="kl"), data.domain)])
    plain = bound_of(usual.specs[0]).terms(usual, batch, xi, one, one * spec.beta)
    assert not torch.allclose(plain.divergence, terms.divergence)


def test_members_of_different_regularisers_are_trained_in_one_call() -> None:
    specs = [BASE, *(BASE.replace(**settings) for settings in OTHERS)]
    fits = fit_population(specs, "digits")
    assert not any(fit.diverged for fit in fits)
    data = load("digits")
    keys = {shape_key(TrainState(build(spec, data.domain))) for spec in specs}
    assert len(keys) == 4  # the two jeffreys share a stack


def test_renyi_charges_less_and_jeffreys_more_than_the_kl() -> None:
    data = load("digits")
    inputs = Minibatches(data).batch(slice(0, 50)).inputs
    charged = []
    for settings in ({"regulariser": "renyi"}, {}, {"regulariser": "jeffreys"}):
        stack = VAEStack([build(BASE.replace(**settings), data.domain)])
        charged.append(stack.divergence(*stack.encode(inputs), stack.specs[0].regulariser))
    assert bool((charged[0] < charged[1]).all())
    assert bool((charged[1] < charged[2]).all())


def test_a_spec_round_trips_and_says_its_regulariser() -> None:
    spec = BASE.replace(regulariser="renyi", regulariser_order=0.3)
    assert VAESpec.from_dict(spec.to_dict()) == spec
    assert "renyi 0.3" in spec.belief
    assert not spec.matched_normal
    assert "renyi" not in BASE.belief


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"regulariser": "renji"}, "renyi"),
        ({"regulariser": "renyi", "regulariser_order": 1.5}, "in \\(0, 1\\)"),
        ({"regulariser": "renyi", "regulariser_order": float("nan")}, "in \\(0, 1\\)"),
        ({"regulariser": "renyi", "alpha": 0.0}, "alpha = 1"),
        ({"regulariser": "jeffreys", "learned_prior": "mixture"}, "without learned_prior"),
        ({"regulariser": "jeffreys", "estimator": "stl"}, "leave the estimator out"),
        ({"regulariser": "renyi", "posterior": "logistic"}, "closed form for normal.normal"),
        ({"regulariser": "jeffreys", "posterior": "normal", "prior": "cauchy"}, "infinite"),
        ({"regulariser": "jeffreys", "posterior": "uniform", "prior": "uniform"}, "conditional"),
    ],
)
def test_what_cannot_be_trained_is_refused(settings, words) -> None:
    with pytest.raises(ValueError, match=words):
        BASE.replace(**settings)
