"""Being in a table is being tested: every row obeys the contract of its table, and a wrong law is found."""

from __future__ import annotations

import pytest
import torch

from autovae import registry
from autovae.beliefs.families import FAMILIES, Laplace
from autovae.beliefs.likelihoods import LIKELIHOODS
from autovae.beliefs.likelihoods.line import LogisticHead
from autovae.export.prior import PriorModule
from autovae.finiteness import TAILS
from autovae.model.networks import MLP, Network
from autovae.reasoning.constraints import Criterion
from autovae.reasoning.tables import CONSTRAINTS
from autovae.testing import check_bound, check_constraint, check_family, check_likelihood, check_network
from autovae.training.bound import MIWAE


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name):
    assert FAMILIES[name].name == name
    check_family(name)


@pytest.mark.parametrize("name", registry.LIKELIHOODS)
def test_likelihoods(name):
    assert LIKELIHOODS[name].name == name
    check_likelihood(name)


@pytest.mark.parametrize("name", registry.BOUNDS)
def test_bounds(name):
    check_bound(name)


@pytest.mark.parametrize("name", registry.NETWORKS)
def test_networks(name):
    check_network(name)


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints(name):
    check_constraint(CONSTRAINTS[name].example(), _plain_prior())


def _plain_prior():
    """x = z, three normal latents."""
    return PriorModule.from_decoder(torch.nn.Identity(), latent_dim=3).double()


class WrongFamily(Laplace):
    """Its density is that of scale 1, its draws are those of scale 1.1."""

    name = "wrong"

    def upper(self, p):
        return 1.1 * super().upper(p)


class WrongLikelihood(LogisticHead):
    """Its masses are too large by 1 %."""

    def log_mass(self, lower, upper, params, scale=None):
        return super().log_mass(lower, upper, params, scale) + 0.01


class WrongBound(MIWAE):
    """Its encoder follows v instead of v^2."""

    def weights(self, log_weights, alpha):
        model, _ = super().weights(log_weights, alpha)
        return model, model


class _Mixing(torch.nn.Module):
    """A layer through which points see each other."""

    def forward(self, x):
        return x - x.mean(0)


def test_a_wrong_family_is_found(monkeypatch):
    monkeypatch.setitem(FAMILIES, "wrong", WrongFamily())
    monkeypatch.setitem(TAILS, "wrong", TAILS["laplace"])
    with pytest.raises(AssertionError, match="wrong: log_prob is the density"):
        check_family("wrong")


def test_a_wrong_likelihood_is_found(monkeypatch):
    row = registry.LikelihoodRow(WrongLikelihood, registry.LINE, has_scale=True)
    monkeypatch.setitem(registry.LIKELIHOODS, "wrong", row)
    with pytest.raises(AssertionError, match="wrong: masses sum to one"):
        check_likelihood("wrong")


def test_a_wrong_bound_is_found(monkeypatch):
    monkeypatch.setitem(registry.BOUNDS, "wrong", registry.BoundRow(WrongBound))
    with pytest.raises(AssertionError, match="wrong: the encoder's gradient"):
        check_bound("wrong")


def test_a_wrong_network_is_found(monkeypatch):
    def encoder(spec, shape):
        return torch.nn.Sequential(MLP.encoder(spec, shape), _Mixing())

    monkeypatch.setitem(registry.NETWORKS, "wrong", registry.Row(Network(encoder, MLP.decoder, "")))
    with pytest.raises(AssertionError, match="wrong: encoder treats points one by one"):
        check_network("wrong")


def test_a_wrong_constraint_is_found():
    coupled = Criterion(lambda x: x.square().sum(-1) / x.shape[0], 1.0)  # depends on the size of the batch
    with pytest.raises(AssertionError, match="Criterion: one by one as in a batch"):
        check_constraint(coupled, _plain_prior())
