"""A new likelihood or learned prior is a class and a row of the registry, and obeys the contracts of its table."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autovae import VAESpec, fit, registry
from autovae.beliefs.learned_priors import Rival, log_normal
from autovae.beliefs.likelihoods import check_support
from autovae.beliefs.likelihoods.line import OnTheLine
from autovae.beliefs.likelihoods.line_masses import student_interval
from autovae.registry import LINE, LearnedPriorRow, LikelihoodRow
from autovae.testing import check_likelihood


def contracts(name):
    found = importlib.util.spec_from_file_location(f"contracts_{name}", Path(__file__).with_name(f"test_{name}.py"))
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


heads, priors = contracts("likelihoods"), contracts("learned_priors")


class StudentFive(OnTheLine):
    name, family = "student_five", "student_t5"
    formula = "−3 log(1 + d²/5) + const − log s, d = (x − η) / s"
    angles = staticmethod(student_interval(5.0))

    def law(self, d: Tensor) -> tuple[Tensor, Tensor]:
        constant = math.lgamma(3) - math.lgamma(2.5) - 0.5 * math.log(5 * math.pi)
        return constant - 3 * torch.log1p(d.square() / 5), -6 * d / (5 + d.square())

    def interval(self, a: Tensor, b: Tensor, width: Tensor) -> Tensor:
        return self.angles(a, b, width)


class Placed(Rival):
    """A normal prior at a learned place."""

    def __init__(self, loc):
        super().__init__()
        self.loc = nn.Parameter(loc)

    @classmethod
    def new(cls, latent_dim, features, components, generator):
        return cls(torch.zeros(1, 1, latent_dim))

    def log_prob(self, z, pairing, encode):
        return log_normal(z - self.loc)

    def sample(self, xi, uniform, pairing, encode):
        return xi + self.loc


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    row = LikelihoodRow(f"{__name__}:StudentFive", LINE, has_scale=True)
    monkeypatch.setitem(registry.LIKELIHOODS, "student_five", row)
    monkeypatch.setitem(registry.LEARNED_PRIORS, "placed", LearnedPriorRow(f"{__name__}:Placed"))


@pytest.mark.parametrize(
    "contract",
    [
        heads.test_every_row_loads_its_own_head,
        lambda: check_likelihood("student_five"),
        lambda: heads.test_the_row_says_whether_there_is_a_scale("student_five"),
        lambda: heads.test_a_narrow_bin_is_the_density_times_its_width("student_five"),
        lambda: heads.test_masses_sum_to_one("student_five", 17),
        lambda: heads.test_sums_of_masses_without_gradients_broadcast("student_five"),
        lambda: heads.test_slopes("student_five"),
        lambda: heads.test_draws_have_the_mean_and_the_masses("student_five"),
        heads.test_fitting_likelihoods_pass,
    ],
)
def test_contract_of_a_likelihood(contract):
    contract()


@pytest.mark.parametrize(
    "contract",
    [
        priors.test_components_of_posteriors_are_known_to_the_registry,
        lambda: priors.test_densities_integrate_to_one("placed", "normal"),
        lambda: priors.test_draws_follow_the_density("placed", "normal"),
        lambda: priors.test_members_side_by_side_give_each_its_own_numbers("placed"),
    ],
)
def test_contract_of_a_learned_prior(contract):
    contract()


def test_a_vae_trains_with_both():
    spec = VAESpec(likelihood="student_five", rival="placed", latent_dim=2, hidden=(8,), epochs=2, batch_size=16)
    check_support(spec.likelihood, "unit")
    trained = fit(spec, torch.rand(32, 6, generator=torch.Generator().manual_seed(0)).numpy())
    assert float(trained.model.rival.loc.detach().abs().max()) > 0
    assert "student_five" in spec.belief


def test_a_name_that_is_no_row_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'student_five'"):
        VAESpec(likelihood="student_fve")
