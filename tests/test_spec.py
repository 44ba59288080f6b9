"""A spec is checked once at the door, and survives the round trip through plain values."""

import json

import pytest

from autovae.beliefs.likelihoods import LIKELIHOODS
from autovae.finiteness import TAILS, finite_priors, finiteness
from autovae.spec import VAESpec, largest_remainder


@pytest.mark.parametrize(
    ("posterior", "prior", "pairing", "text"),
    [
        ("normal", "normal", "matched", "normal|normal"),
        ("logistic", "normal", "mismatched", "logistic|normal"),
        ({"normal": 1, "logistic": 1}, "normal", "heterogeneous", "normal|normal x1 + logistic|normal x1"),
    ],
)
def test_a_pairing_is_named_by_its_pairs(posterior, prior, pairing, text):
    spec = VAESpec(posterior=posterior, prior=prior, latent_dim=2)
    assert (spec.pairing, spec.pair_text) == (pairing, text)


def test_shares_by_count_fraction_and_list_agree():
    by_count = VAESpec(posterior={"logistic": 14, "cauchy": 6}, prior={"normal": 14, "cauchy": 6})
    by_share = VAESpec(posterior={"logistic": 0.7, "cauchy": 0.3}, prior={"normal": 0.7, "cauchy": 0.3})
    by_list = VAESpec(posterior=["logistic"] * 14 + ["cauchy"] * 6, prior=["normal"] * 14 + ["cauchy"] * 6)
    assert by_count == by_share == by_list
    assert by_count.pair_text == "logistic|normal x14 + cauchy|cauchy x6"
    assert by_count.pairing == "heterogeneous"


def test_largest_remainder_sums_to_the_total():
    for total in range(1, 40):
        counts = largest_remainder({"a": 0.35, "b": 0.35, "c": 0.3}, total)
        assert sum(counts.values()) == total


@pytest.mark.parametrize("alpha", [1.0, 0.0, float("inf"), float("-inf"), 0.5])
def test_round_trip_through_json(alpha):
    spec = VAESpec(posterior={"logistic": 1, "normal": 2}, latent_dim=3, alpha=alpha, hidden=(7,))
    again = VAESpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.pairs == spec.pairs, "pairs are derived, and no part of equality"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"posterior": "lapalce"}, ["unknown posterior family 'lapalce'", "'laplace'"]),
        ({"likelihood": "bernouli"}, ["'bernoulli'"]),
        ({"posterior": "cauchy"}, ["KL(cauchy || normal) is infinite", "E z^2", "alpha < 1"]),
        ({"prior": "uniform"}, ["KL(normal || uniform) is infinite", "support", "uniform"]),
        ({"prior": "uniform", "alpha": 0.5, "allow": "alpha<1"}, ["wrong pathwise gradient"]),
        ({"posterior": "cauchy", "prior": "cauchy", "saturate": False}, ["saturates", "alpha < 1"]),
        ({"posterior": {"normal": 3}}, ["count 3", "latent_dim = 20"]),
        ({"posterior": {"normal": 0.3}}, ["sum to 0.3"]),
        ({"alpha": float("nan")}, ["alpha", "nan"]),
        ({"samples": 0}, ["samples", ">= 1", "0"]),
        ({"latent_dim": True}, ["latent_dim"]),
        ({"learning_rate": -1.0}, ["learning_rate", "-1.0"]),
        ({"scale": "globl"}, ["'global'", "'globl'"]),
    ],
)
def test_refusals_say_what_was_got_and_what_to_do(settings, words):
    with pytest.raises(ValueError) as error:
        VAESpec(**settings)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_infinite_pairs_are_admitted_below_one_when_the_spec_says_so():
    spec = VAESpec(posterior="cauchy", alpha=0.5, allow="alpha<1")
    assert spec.saturate is False
    assert VAESpec(posterior="cauchy", prior="cauchy").saturate is True


def test_unknown_setting_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'latent_dim'"):
        VAESpec.from_dict({"latent_dims": 3})


def test_every_posterior_has_a_finite_prior_and_matched_pairs_are_never_infinite():
    for family in TAILS:
        assert finiteness(family, family) != "infinite"
        assert finite_priors(family)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learned_prior": "vamprior"}, "vampprior"),
        ({"learned_prior": 3}, "name of a learned prior"),
        ({"learned_prior": "mixture", "components": 0}, "components must be a whole number >= 1"),
        ({"learned_prior": "flow", "posterior": "uniform", "prior": "uniform"}, "prior on the whole line"),
        ({"learned_prior": "mixture", "posterior": "laplace", "prior": "gumbel"}, "finite everywhere"),
        ({"learned_prior": "vampprior", "posterior": "laplace"}, "expected prior = 'laplace'"),
        ({"posterior_flow": True, "posterior": "laplace"}, "use posterior = 'normal'"),
        ({"posterior_flow": True, "learned_prior": "vampprior"}, "invert the flow at every component"),
        ({"posterior_flow": 1}, "true or false"),
    ],
)
def test_learned_beliefs_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        VAESpec(**settings)


def test_learned_beliefs_are_named_and_come_back():
    spec = VAESpec(learned_prior="flow", posterior_flow=True, components=7)
    assert VAESpec.from_dict(spec.to_dict()) == spec
    assert spec.belief == "normal|normal + posterior flow + flow prior, bernoulli, alpha 1"
    assert not spec.matched_normal
    assert VAESpec().matched_normal


def test_a_belief_names_the_kind_of_its_scale_where_it_has_one():
    assert VAESpec(likelihood="beta", scale="pixel").belief == "normal|normal, beta (pixel scale), alpha 1"
    assert VAESpec(likelihood="normal", scale=0.25).belief == "normal|normal, normal (scale 0.25), alpha 1"
    assert VAESpec(likelihood="normal").belief == "normal|normal, normal, alpha 1"
    for name, likelihood in LIKELIHOODS.items():
        assert ("scale)" in VAESpec(likelihood=name, scale="pixel").belief) == likelihood.has_scale
