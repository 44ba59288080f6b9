"""A new family is its law and its tails: registered in these two tables alone, it obeys every contract of the ten."""

from __future__ import annotations

import importlib.util
import itertools
import math
from pathlib import Path

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from autovae import VAESpec, fit
from autovae.beliefs.divergences import kl, kl_kind
from autovae.beliefs.families import FAMILIES, Mirrored, Symmetric
from autovae.beliefs.pairing import Pairing
from autovae.beliefs.renyi import renyi
from autovae.finiteness import BOUNDED, TAILS, Tails, finiteness, power_tail, stretched_tail
from autovae.testing import check_family

F64 = torch.float64
_found = importlib.util.spec_from_file_location("contracts_of_a_law", Path(__file__).with_name("test_families.py"))
laws = importlib.util.module_from_spec(_found)
_found.loader.exec_module(laws)


class Sech2(Symmetric):
    """A logistic law of half the width: exponential tails of rate 2."""

    name = "sech2"

    def log_prob(self, eps: Tensor) -> Tensor:
        t = 2 * eps.abs()
        return -t - 2 * torch.log1p(torch.exp(-t)) + math.log(2)

    def tail(self, t: Tensor) -> Tensor:
        return torch.sigmoid(-2 * t)

    def upper(self, p: Tensor) -> Tensor:
        return 0.5 * (torch.log1p(-p) - torch.log(p))


class StudentT2(Symmetric):
    """Power tails of index 2: a mean and no variance."""

    name = "student_t2"

    def log_prob(self, eps: Tensor) -> Tensor:
        return -1.5 * torch.log1p(eps.square() / 2) - 1.5 * math.log(2)

    def tail(self, t: Tensor) -> Tensor:
        root = torch.sqrt(2 + t.square())
        return 1 / (root * (root + t))

    def upper(self, p: Tensor) -> Tensor:
        return (1 - 2 * p) / torch.sqrt(2 * p * (1 - p))


class Triangular(Symmetric):
    """On [-1, 1], with a kink inside and a density that vanishes at the ends."""

    name = "triangular"

    def log_prob(self, eps: Tensor) -> Tensor:
        return torch.where(eps.abs() <= 1, torch.log1p(-eps.abs().clamp(max=1)), -math.inf)

    def tail(self, t: Tensor) -> Tensor:
        return 0.5 * (1 - t).clamp(min=0).square()

    def upper(self, p: Tensor) -> Tensor:
        return 1 - torch.sqrt(2 * p)


NEW = {
    "sech2": (Sech2(), Tails(stretched_tail(1, rate=2), stretched_tail(1, rate=2))),
    "student_t2": (StudentT2(), Tails(power_tail(2), power_tail(2))),
    "triangular": (Triangular(), Tails(BOUNDED, BOUNDED)),
    "gumbel_left": (Mirrored("gumbel_left", FAMILIES["gumbel"]), TAILS["gumbel"].mirrored),
    "exponential_left": (Mirrored("exponential_left", FAMILIES["exponential"]), TAILS["exponential"].mirrored),
}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for name, (law, tails) in NEW.items():
        monkeypatch.setitem(FAMILIES, name, law)
        monkeypatch.setitem(TAILS, name, tails)


def inside(posterior, prior, count=6):
    """Places at which the divergence is finite, as training finds them."""
    generator = torch.Generator().manual_seed(len(posterior) + 10 * len(prior))
    raw = torch.randn(1, count, 2, generator=generator, dtype=F64)
    loc, scale = Pairing([[(posterior, prior)]]).parametrise(raw)
    return loc.flatten(), scale.flatten()


PAIRS = [(new, old) for new in NEW for old in [*laws.NAMES, *NEW]] + [(old, new) for new in NEW for old in laws.NAMES]


def finite_pairs():
    for q, p in PAIRS:
        if finiteness(q, p) != "infinite":
            yield q, p


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize(
    "contract",
    [
        laws.test_density_integrates_to_one_with_its_mean_variance_and_entropy,
        laws.test_cdf_is_the_integral_of_the_density,
        laws.test_quantiles_undo_the_cdf,
        laws.test_from_normal_has_the_slope_of_a_change_of_variables,
        laws.test_from_normal_far_out_stays_finite,
        laws.test_to_normal_undoes_from_normal,
        laws.test_from_normal_works_in_forward_mode_and_vmap,
        laws.test_samples_follow_the_cdf,
        laws.test_log_prob_has_finite_gradients_inside_the_support,
    ],
    ids=lambda test: test.__name__.removeprefix("test_"),
)
def test_contract_of_a_law(contract, name):
    if contract is laws.test_from_normal_has_the_slope_of_a_change_of_variables:
        if name == "triangular":
            pytest.skip("its density vanishes at the ends, where eps has no digits left to tell how far they are")
        contract(name, F64)
    else:
        contract(name)


@pytest.mark.parametrize("name", NEW)
def test_the_shipped_contract(name):
    check_family(name)


def test_every_pair_is_decided():
    kinds = {pair: kl_kind(*pair) for pair in PAIRS}
    assert all((kind == "infinite") == (finiteness(*pair) == "infinite") for pair, kind in kinds.items())
    assert kinds["sech2", "normal"] == "elementary"  # by its moments
    assert kinds["gumbel_left", "laplace"] == "special"  # the mirror image of gumbel|laplace
    assert kinds["exponential_left", "exponential_left"] == "elementary"
    assert kinds["student_t2", "normal"] == kinds["exponential_left", "exponential"] == "infinite"
    assert finiteness("sech2", "gumbel") == finiteness("triangular", "uniform") == "conditional"


def test_a_law_of_another_width_is_the_law_moved():
    """sech2 at (m, s) is logistic at (m, s / 2): every cell of both columns against the table's."""
    for other in laws.NAMES:
        if finiteness("sech2", other) != "infinite":
            loc, scale = inside("sech2", other)
            same = kl("logistic", other, loc, scale / 2)
            torch.testing.assert_close(kl("sech2", other, loc, scale), same, rtol=1e-10, atol=1e-12)
        if finiteness(other, "sech2") != "infinite":
            loc, scale = inside(other, "sech2")
            same = kl(other, "logistic", 2 * loc, 2 * scale)
            torch.testing.assert_close(kl(other, "sech2", loc, scale), same, rtol=1e-10, atol=1e-12)


def test_a_law_that_is_mirrored_has_mirrored_divergences():
    for q, p in (("normal", "gumbel"), ("gumbel", "gumbel"), ("uniform", "exponential"), ("gumbel", "cauchy")):
        turned = tuple({"gumbel": "gumbel_left", "exponential": "exponential_left"}.get(name, name) for name in (q, p))
        loc, scale = inside(*turned)
        torch.testing.assert_close(kl(*turned, loc, scale), kl(q, p, -loc, scale))
        for alpha in (0.5, 1.1):
            torch.testing.assert_close(
                renyi(alpha, *turned, loc, scale), renyi(alpha, q, p, -loc, scale), rtol=1e-8, atol=0
            )


@pytest.mark.parametrize("name", NEW)
def test_divergences_are_their_integrals(name):
    """Every finite pair against scipy's adaptive quadrature of q log(q / p), in the quantiles of q."""
    for q, p in (pair for pair in finite_pairs() if name in pair):
        loc, scale = (float(v[0]) for v in inside(q, p))
        law, prior = FAMILIES[q], FAMILIES[p]

        def log_ratio(u: float, loc=loc, scale=scale, law=law, prior=prior) -> float:
            xi = torch.tensor(u, dtype=F64)
            eps = law.from_normal(xi)
            density = math.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)
            value = float(law.log_prob(eps) - math.log(scale) - prior.log_prob(loc + scale * eps))
            return density * value if math.isfinite(value) else 0.0

        # The kinks: where eps and where z is 0.
        kinks = law.to_normal(torch.tensor([0.0, -loc / scale], dtype=F64)).clamp(-7.9, 7.9)
        cuts = sorted({-36.0, -20.0, -8.0, 8.0, 20.0, 36.0, *kinks.tolist()})
        expected = sum(quad(log_ratio, a, b, epsabs=1e-8, limit=100)[0] for a, b in itertools.pairwise(cuts))
        assert float(kl(q, p, torch.tensor(loc, dtype=F64), scale)) == pytest.approx(expected, abs=2e-6), (q, p)


def test_divergences_are_not_negative_and_have_their_slopes():
    for q, p in finite_pairs():
        at = [v.clone().requires_grad_() for v in inside(q, p, 2)]
        value = kl(q, p, *at)
        assert bool((value >= -1e-12).all() & value.isfinite().all()), (q, p)
        assert torch.autograd.gradcheck(lambda m, s, q=q, p=p: kl(q, p, m, s), at, eps=1e-6, atol=2e-5, rtol=1e-4), (
            q,
            p,
        )
        single = kl(q, p, *(v.detach().float() for v in at))
        torch.testing.assert_close(single.double(), value.detach(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", NEW)
def test_a_divergence_to_itself_is_zero_and_curves(name):
    zero = torch.zeros((), dtype=F64, requires_grad=True)
    assert abs(kl(name, name, zero, 1.0).item()) < 1e-13
    assert abs(renyi(0.5, name, name, zero, 1.0).item()) < 1e-8
    if TAILS[name].whole_line:
        (slope,) = torch.autograd.grad(kl(name, name, zero, 1.0), zero, create_graph=True)
        (curvature,) = torch.autograd.grad(slope, zero)
        ahead = [kl(name, name, torch.tensor(step, dtype=F64), 1.0).item() for step in (-1e-3, 1e-3)]
        assert float(curvature) == pytest.approx(sum(ahead) / 1e-6, rel=1e-4)


@pytest.mark.parametrize("pair", [("sech2", "normal"), ("student_t2", "sech2"), ("gumbel_left", "gumbel"),
                                  ("gumbel", "gumbel_left"), ("triangular", "uniform")], ids="|".join)  # fmt: skip
def test_renyi_is_its_integral_and_joins_the_kl(pair):
    loc, scale = 0.3, 0.3  # where log q / p has a variance, so that the limit is reached soon
    law, prior = (FAMILIES[name] for name in pair)

    def powers(z: float) -> float:
        x = torch.tensor(z, dtype=F64)
        q = float(law.log_prob((x - loc) / scale)) - math.log(scale)
        p = float(prior.log_prob(x))
        return math.exp(0.6 * q + 0.4 * p) if math.isfinite(q + p) else 0.0

    low, high = (max(min(loc + scale * end, 200.0), -200.0) for end in law.support)
    cuts = sorted({low, high, *(v for v in (loc, 0.0, 5.0, -5.0) if low < v < high)})
    expected = math.log(sum(quad(powers, a, b, epsabs=1e-10, limit=200)[0] for a, b in itertools.pairwise(cuts)))
    at = torch.tensor(loc, dtype=F64)
    assert float(renyi(0.6, *pair, at, scale)) == pytest.approx(expected / -0.4, rel=1e-4)
    values = [float(renyi(alpha, *pair, at, scale)) for alpha in (0.3, 0.9, 1 - 1e-7, 1.0)]
    assert values == sorted(values)
    assert values[-2] == pytest.approx(values[-1], rel=1e-5)


def test_training_cannot_leave_the_region_of_a_conditional_pair():
    for q, p in finite_pairs():
        if finiteness(q, p) == "conditional":
            for dtype in (torch.float32, F64):
                raw = 20 * torch.randn(1, 500, 2, dtype=dtype, generator=torch.Generator().manual_seed(3))
                pairing = Pairing([[(q, p)]])
                assert bool(pairing.divergence(*pairing.parametrise(raw)).isfinite().all()), (q, p)


@pytest.mark.parametrize(("posterior", "prior"), [("sech2", "gumbel_left"), ("triangular", "uniform")])
def test_a_vae_trains_with_it(posterior, prior):
    spec = VAESpec(posterior=posterior, prior=prior, latent_dim=2, hidden=(8,), epochs=2, batch_size=16)
    assert f"{posterior}|{prior}" in spec.belief
    x = torch.rand(32, 6, generator=torch.Generator().manual_seed(0)).round()
    trained = fit(spec, x.numpy())
    assert bool(torch.stack([p.isfinite().all() for p in trained.model.parameters()]).all())


def test_an_infinite_pair_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="E z\\^2 diverges under tails of power 2"):
        VAESpec(posterior="student_t2")
