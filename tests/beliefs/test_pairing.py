"""Pairing: each pair once, whichever member it belongs to; a conditional pair cannot leave its region."""

import pytest
import torch
from torch.nn import functional as F

from autovae.beliefs.divergences import kl_unchecked
from autovae.beliefs.families import FAMILIES
from autovae.beliefs.pairing import Pairing
from autovae.beliefs.regions import FREE, region_of
from autovae.finiteness import TAILS, finiteness

CONDITIONAL = [(q, p) for q in TAILS for p in TAILS if finiteness(q, p) == "conditional"]
MIXED = [
    [("normal", "normal"), ("laplace", "normal"), ("cauchy", "cauchy")],
    [("normal", "normal"), ("normal", "normal"), ("uniform", "uniform")],
]


@pytest.fixture
def raw():
    return 3 * torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_columns_are_computed_by_their_own_pair(raw):
    pairing = Pairing(MIXED)
    loc, scale = pairing.parametrise(raw)
    for member, pairs in enumerate(MIXED):
        total = sum(kl_unchecked(q, p, loc[member, :, d], scale[member, :, d]) for d, (q, p) in enumerate(pairs))
        torch.testing.assert_close(pairing.divergence(loc, scale)[member], total)
        xi = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        eps, z = pairing.noise(xi), pairing.sample_prior(xi)
        for d, (q, p) in enumerate(pairs):
            torch.testing.assert_close(eps[member, :, d], FAMILIES[q].from_normal(xi[member, :, d]))
            torch.testing.assert_close(z[member, :, d], FAMILIES[p].from_normal(xi[member, :, d]))


def test_densities_are_those_of_the_families(raw):
    pairing = Pairing(MIXED)
    loc, scale = pairing.parametrise(raw)
    eps = pairing.noise(torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    z = loc + scale * eps
    log_q = sum(
        FAMILIES[q].log_prob((z[0, :, d] - loc[0, :, d]) / scale[0, :, d]) - scale[0, :, d].log()
        for d, (q, _) in enumerate(MIXED[0])
    )
    torch.testing.assert_close(pairing.log_posterior(eps, scale)[0], log_q)
    log_p = sum(FAMILIES[p].log_prob(z[0, :, d]) for d, (_, p) in enumerate(MIXED[0]))
    torch.testing.assert_close(pairing.log_prior(z)[0], log_p)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pair", CONDITIONAL, ids="|".join)
def test_a_conditional_pair_stays_finite_wherever_the_network_goes(pair, dtype):
    raw = 20 * torch.randn(1, 20000, 2, dtype=dtype, generator=torch.Generator().manual_seed(3))
    pairing = Pairing([[pair]])
    divergence = pairing.divergence(*pairing.parametrise(raw))
    assert torch.isfinite(divergence).all()


def test_every_conditional_pair_has_a_region_and_no_other():
    for q in TAILS:
        for p in TAILS:
            assert ((q, p) in CONDITIONAL) == (region_of(q, p) != FREE)


def test_regions_are_those_of_the_supports_and_tails():
    """The maps written out, of which training runs with them depend to the last digit."""
    m, s = torch.randn(2, 50, generator=torch.Generator().manual_seed(4))
    expected = {
        ("uniform", "uniform"): ((1 - s.sigmoid()) * (1 - 1e-6) * m.tanh(), s.sigmoid()),
        ("uniform", "exponential"): (s.exp() + F.softplus(m), s.exp()),
        ("exponential", "exponential"): (F.softplus(m), s.exp()),
        ("logistic", "gumbel"): (m, s.sigmoid()),
    }
    for pair, (loc, scale) in expected.items():
        found = region_of(*pair).parametrise(m, s)
        torch.testing.assert_close(found, (loc, scale), rtol=1e-6, atol=1e-7)


def test_members_of_one_pairing_have_equal_size():
    with pytest.raises(ValueError, match="same number"):
        Pairing([[("normal", "normal")], [("normal", "normal")] * 2])
