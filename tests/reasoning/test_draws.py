"""Draws: diagnostics that catch what they should, plain summaries, and other forms."""

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from autovae.export.prior import PriorModule
from autovae.reasoning import Draws, LatentPosterior
from autovae.reasoning.draws import diagnose


def posterior(dim=3):
    return LatentPosterior(PriorModule.from_decoder(nn.Identity(), latent_dim=dim).double(), [])


def draws_of(xi, **settings):
    question = posterior(xi.shape[-1])
    settings = {"mcmc": True, **settings}
    return Draws(
        xi=xi, log_prob=question.log_prob(xi), posterior=question, method="hmc", seed=0, seconds=2.0, **settings
    )


def normal(chains=4, count=500, dim=3, seed=0):
    return torch.randn(chains, count, dim, generator=torch.Generator().manual_seed(seed)).double()


def test_independent_draws_have_no_problems():
    draws = draws_of(normal())
    assert draws.problems == ()
    assert draws.rhat.shape == (3,)
    assert (draws.rhat < 1.01).all()
    assert (np.abs(draws.ess / 2000 - 1) < 0.2).all()
    summary = draws.summary()
    assert summary["ess_per_second"] == pytest.approx(min(summary["ess_bulk_xi2"], summary["ess_bulk_energy"]) / 2)
    json.dumps(summary)


def test_chains_in_different_places_are_caught():
    xi = normal()
    xi[0, :, 1] += 1.0
    draws = draws_of(xi)
    assert draws.rhat[1] > 1.05
    assert any("R-hat of xi reaches" in problem for problem in draws.problems)


def test_chains_of_different_width_are_caught_by_the_squares():
    xi = normal()
    xi[0, :, 1] *= 2.0
    assert any("R-hat of xi^2" in problem for problem in draws_of(xi).problems)


def test_slow_chains_are_caught():
    slow = normal(dim=1).cumsum(1)
    assert any("ESS of xi is only" in problem for problem in draws_of(slow / slow.std()).problems)


def test_mirroring_is_caught():
    radius = normal(seed=1).abs()[:, ::25].repeat_interleave(25, 1)
    signs = torch.tensor([1.0, -1.0]).double().repeat(250)[None, :, None]
    draws = draws_of(radius * signs)
    assert (draws.of_xi.ess_bulk > 2000).all()
    assert any("mirror" in problem for problem in draws.problems)


def test_draws_without_chains_report_no_ess():
    draws = draws_of(normal(1, 50), mcmc=False)
    assert "ess_bulk_xi" not in draws.summary()
    assert draws.problems == ()


def test_khat_of_known_tails():
    """A normal proposal under a normal of twice the width: weights with a Pareto tail of index 3/4."""
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(0)).double()
    draws = draws_of(x[None, :, None], mcmc=False, log_weights=(0.5 * x.square() * 0.75)[None])
    assert draws.khat == pytest.approx(0.75, abs=0.15)
    narrow = draws_of(x[None, :, None], mcmc=False, log_weights=(-x.square())[None])
    assert narrow.khat < 0.3
    assert np.isnan(draws_of(x[None, :50, None], mcmc=False, log_weights=x[None, :50]).khat)


def test_too_few_draws_for_diagnostics():
    draws = draws_of(normal(2, 3))
    assert "rhat_xi" not in draws.summary()
    with pytest.raises(ValueError, match="at least 4"):
        diagnose(draws.xi)


def test_energy_fraction_needs_momenta():
    with pytest.raises(ValueError, match="momenta of HMC"):
        draws_of(normal()).e_bfmi()
    independent = draws_of(normal(), hamiltonian=normal(dim=1)[..., 0])
    torch.testing.assert_close(independent.e_bfmi(), torch.full((4,), 2.0).double(), atol=0.2, rtol=0)


def test_to_arviz_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_base", None)
    with pytest.raises(ImportError, match="pip install arviz-base"):
        draws_of(normal()).to_arviz()


def test_to_arviz_has_the_draws():
    pytest.importorskip("arviz_base")
    data = draws_of(normal()).to_arviz()
    assert data["posterior"]["xi"].shape == (4, 500, 3)
    assert data["sample_stats"]["lp"].shape == (4, 500)


def test_diagnostics_without_arviz_stats_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_stats.base", None)
    with pytest.raises(ImportError, match="pip install 'autovae"):
        _ = draws_of(normal()).rhat


def test_print():
    text = str(draws_of(normal()))
    assert "rhat_xi" in text
    assert "problems" in text
    assert "Draws(hmc, xi=(4, 500, 3)" in repr(draws_of(normal()))
