"""What callers rely on: public names, their arguments, and kinds of divergences that agree with finiteness."""

import inspect

import pytest
import torch

import autovae
from autovae.beliefs.divergences import kl_kind
from autovae.finiteness import TAILS, finiteness


def arguments(function):
    return list(inspect.signature(function).parameters)


def test_public_names():
    assert arguments(autovae.kl)[:4] == ["posterior", "prior", "loc", "scale"]
    assert arguments(autovae.kl_kind) == ["posterior", "prior"]
    assert arguments(autovae.renyi)[:5] == ["alpha", "posterior", "prior", "loc", "scale"]
    assert arguments(autovae.fit)[:4] == ["spec", "data", "encoder", "decoder"]
    assert arguments(autovae.fit_population)[:2] == ["specs", "data"]
    assert arguments(autovae.VAESpec)[:4] == ["posterior", "prior", "likelihood", "alpha"]
    assert arguments(autovae.load_prior)[0] == "folder"
    for name in ("sample", "log_prob", "decode", "from_normal", "to_normal", "latent_dim", "from_decoder"):
        assert hasattr(autovae.PriorModule, name)


def test_bounds_are_reachable_by_their_names():
    weights = torch.zeros(3, 5)
    bounds = autovae.model.bounds
    for value in (bounds.iwae(weights), bounds.vr(weights, 0.5), bounds.vr(weights, float("-inf"))):
        assert value.shape == (5,)
    grouped = torch.zeros(2, 3, 5)
    assert bounds.miwae(grouped).shape == (5,)
    assert bounds.elbo(torch.zeros(5), torch.ones(5)).tolist() == [-1.0] * 5


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="frobnicate"):
        _ = autovae.frobnicate


@pytest.mark.parametrize("posterior", TAILS)
def test_kinds_agree_with_finiteness(posterior):
    for prior in TAILS:
        assert (kl_kind(posterior, prior) == "infinite") == (finiteness(posterior, prior) == "infinite")


def test_core_cells_are_counted():
    core = ["normal", "laplace", "cauchy", "logistic", "gumbel", "uniform", "exponential"]
    kinds = [kl_kind(q, p) for q in core for p in core]
    assert kinds.count("infinite") == 15
    assert kinds.count("elementary") == 20
