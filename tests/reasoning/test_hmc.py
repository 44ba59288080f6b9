"""HMC: whole states are kept, the mirror trap, flags, and what warm-up learns."""

import math

import pytest
import torch
from torch import nn

from autovae.export.prior import PriorModule
from autovae.reasoning import HMC, Criterion, Gaussian, LatentPosterior
from autovae.reasoning.hmc import _Run
from autovae.reasoning.trajectory import INTEGRATORS


def identity_prior(dim):
    return PriorModule.from_decoder(nn.Identity(), latent_dim=dim).double()


def bent_question():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5)).double()
    return LatentPosterior(PriorModule.from_decoder(decoder), Gaussian(None, torch.zeros(5).double(), 0.3))


@pytest.mark.parametrize("name", INTEGRATORS)
def test_a_rejected_chain_keeps_its_whole_state(name):
    posterior = bent_question()
    settings = HMC(chains=64, integrator=name, trajectory="fixed", step_size=0.6, steps=3)
    run = _Run(settings, posterior, torch.randn(64, 3).double(), torch.Generator().manual_seed(0))
    before = run.state.xi
    run.iterate(0.5)
    stayed = (run.state.xi == before).all(-1)
    assert 0 < int(stayed.sum()) < 64
    expected = run.trajectory.at(run.state.xi)
    torch.testing.assert_close(run.state.gradient, expected.gradient)
    torch.testing.assert_close(run.state.log_prob, expected.log_prob)


def test_rotation_solves_the_prior_exactly():
    posterior = LatentPosterior(identity_prior(3), [])
    draws = HMC(integrator="rotation", trajectory="fixed", step_size=1.0, jitter=0.0).run(posterior, 20, warmup=0)
    torch.testing.assert_close(draws.acceptance, torch.ones(8).double())


def mirror_question():
    """Latents of one frequency: half a turn later every chain is at its mirror image."""
    return LatentPosterior(identity_prior(20), Gaussian(None, torch.zeros(20).double(), 0.5))


def test_mirroring_chains_are_caught_by_the_ess_of_squares():
    std = math.sqrt(0.2)
    half_turn = HMC(chains=4, steps=10, trajectory="fixed", step_size=math.pi * std / 10, jitter=0.0)
    draws = half_turn.run(mirror_question(), 300, warmup=0, seed=1, start=torch.randn(4, 20).double() * std)
    assert draws.of_xi.ess_bulk.min() > 5 * draws.of_xi_square.ess_bulk.max()
    assert any("mirror" in problem for problem in draws.problems)


def test_adapted_trajectories_do_not_mirror():
    draws = HMC(chains=4).run(mirror_question(), 300, warmup=200, seed=1)
    assert draws.of_xi.ess_bulk.mean() < 5 * draws.of_xi_square.ess_bulk.mean()
    assert not any("mirror" in problem for problem in draws.problems)


def test_warmup_reaches_the_target_and_learns_the_mass():
    scales = torch.tensor([0.02, 0.1, 0.5, 5.0]).double()
    posterior = LatentPosterior(identity_prior(4), Gaussian(None, torch.zeros(4).double(), scales))
    std = (1 + scales**-2).rsqrt()
    learnt = HMC(chains=8, target=0.7, trajectory="fixed").run(posterior, 200, warmup=400, seed=1)
    assert 0.55 < float(learnt.acceptance.mean()) < 0.92
    unit = HMC(chains=8, mass="unit", target=0.7, trajectory="fixed").run(posterior, 200, warmup=400, seed=1)
    # with the mass learnt the step is of the order of one, without it of the smallest scale
    assert learnt.info["step_size"] > 0.4 > 8 * unit.info["step_size"]
    torch.testing.assert_close(learnt.flat.std(0), std, rtol=0.25, atol=0)


def test_chees_finds_longer_trajectories_for_wider_targets():
    lengths = []
    for slowest in (1.0, 8.0):
        scales = torch.tensor([slowest, 1.0, 1.0, 1.0]).double()
        target = Criterion(lambda x, s=scales: 0.5 * x.square().sum(-1) - 0.5 * (x / s).square().sum(-1))
        draws = HMC(chains=16, mass="unit").run(LatentPosterior(identity_prior(4), target), 20, warmup=400, seed=1)
        lengths.append(draws.info["trajectory_length"])
    assert lengths[1] > 2.5 * lengths[0]


def test_a_chain_that_starts_where_evidence_is_steep_is_not_left_behind():
    """A Cauchy latent at xi = 3 lies at z = 235; with the others' step it would never move."""
    prior = PriorModule(nn.Linear(1, 1).double(), ["cauchy"])
    posterior = LatentPosterior(prior, Gaussian(None, torch.tensor([0.8]).double(), 0.5))
    start = torch.zeros(16, 1).double()
    start[0] = 3.0
    draws = HMC(chains=16).run(posterior, 50, warmup=150, start=start, seed=1)
    assert draws.xi[0].abs().max() < 2.9
    assert float(draws.acceptance.min()) > 0.2


def test_chains_that_all_diverge_are_flagged_with_the_constraint():
    cliff = Criterion(lambda x: -1e8 * x.square().sum(-1).square())
    posterior = LatentPosterior(identity_prior(2), [Gaussian(None, torch.zeros(2).double(), 1.0), cliff])
    draws = HMC(chains=4, trajectory="fixed", step_size=0.5).run(posterior, 20, warmup=0)
    assert "all chains diverge" in draws.flags[0]
    assert "Criterion" in draws.flags[0]
    assert "Gaussian" not in draws.flags[0]
    assert draws.problems[: len(draws.flags)] == draws.flags


def test_a_hole_in_the_evidence_is_not_entered():
    """Beyond the edge the evidence is impossible (NaN): trajectories that end there are rejected, not followed."""
    hole = Criterion(lambda x: torch.where(x[:, 0] > -2.5, x[:, 0], math.nan))
    posterior = LatentPosterior(identity_prior(2), [])
    posterior = LatentPosterior(posterior.prior, hole)
    draws = HMC(chains=8).run(posterior, 200, warmup=100, seed=1)
    assert draws.log_prob.isfinite().all()
    assert (draws.flat[:, 0] > -2.5).all()
    assert abs(float(draws.flat[:, 0].mean()) - 1) < 0.2


def test_warmup_is_kept_on_request():
    posterior = mirror_question()
    assert HMC(chains=2).run(posterior, 3, warmup=5).warmup is None
    assert HMC(chains=2, keep_warmup=True).run(posterior, 3, warmup=5).warmup.shape == (2, 5, 20)


def test_energy_fraction():
    draws = HMC(chains=4).run(mirror_question(), 400, warmup=150, seed=1)
    assert ((draws.e_bfmi() > 0.5) & (draws.e_bfmi() < 1.6)).all()
