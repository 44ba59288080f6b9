"""Divergences that may stand in place of the KL: against quadrature, their slopes against differences, their order."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from autovae.beliefs.families import FAMILIES
from autovae.beliefs.regularisers import REGULARISERS
from autovae.finiteness import TAILS, finiteness
from autovae.registry import RENYI

CLOSED = [q for q, p in RENYI if q == p]
PLACES = {"uniform": [(0.2, 0.7), (-0.3, 0.1)], "exponential": [(0.3, 0.6), (0.1, 2.0)]}
ANYWHERE = [(0.0, 1.1), (0.7, 0.4), (-1.5, 2.0)]
BOTH_WAYS = [(q, p) for q in TAILS for p in TAILS if {finiteness(q, p), finiteness(p, q)} == {"finite"}]


def log_densities(posterior: str, prior: str, loc: float, scale: float, z: float) -> tuple[float, float]:
    x = torch.tensor([z], dtype=torch.float64)
    q = FAMILIES[posterior].log_prob((x - loc) / scale).item() - math.log(scale)
    return q, FAMILIES[prior].log_prob(x).item()


def integral(function, family: str, loc: float, scale: float) -> float:
    low = {"uniform": loc - scale, "exponential": loc}.get(family, -np.inf)
    high = loc + scale if family == "uniform" else np.inf
    if math.isfinite(low) and math.isfinite(high):
        return quad(function, low, high, epsabs=1e-11)[0]
    if math.isfinite(low):
        return quad(function, low, high, epsabs=1e-11)[0]
    return quad(function, low, loc, epsabs=1e-11, limit=200)[0] + quad(function, loc, high, epsabs=1e-11, limit=200)[0]


def of(name: str, order: float, posterior: str, prior: str, loc: float, scale: float) -> float:
    at = (torch.tensor([v], dtype=torch.float64) for v in (loc, scale))
    return REGULARISERS[name](order, posterior, prior, *at).item()


@pytest.mark.parametrize("order", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("family", CLOSED)
def test_renyi_is_its_integral(family: str, order: float) -> None:
    for loc, scale in PLACES.get(family, ANYWHERE):

        def powers(z: float, loc: float = loc, scale: float = scale) -> float:
            q, p = log_densities(family, family, loc, scale, z)
            return math.exp(order * q + (1 - order) * p) if math.isfinite(q + p) else 0.0

        expected = math.log(integral(powers, family, loc, scale)) / (order - 1)
        assert of("renyi", order, family, family, loc, scale) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("posterior", "prior"), [("normal", "laplace"), ("laplace", "laplace"), ("logistic", "normal")]
)
def test_jeffreys_is_its_integral(posterior: str, prior: str) -> None:
    for loc, scale in ANYWHERE:

        def both(z: float, loc: float = loc, scale: float = scale) -> float:
            q, p = log_densities(posterior, prior, loc, scale, z)
            return (math.exp(q) - math.exp(p)) * (q - p)

        expected = quad(both, -60, loc, limit=400)[0] + quad(both, loc, 60, limit=400)[0]
        assert of("jeffreys", 0.5, posterior, prior, loc, scale) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "posterior", "prior"),
    [
        *(("renyi", family, family) for family in CLOSED),
        ("jeffreys", "normal", "normal"),
        ("jeffreys", "laplace", "normal"),
    ],
)
def test_slopes_are_those_of_differences(name: str, posterior: str, prior: str) -> None:
    for loc, scale in PLACES.get(posterior, ANYWHERE):
        at = [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (loc or 0.05, scale)]
        assert torch.autograd.gradcheck(
            lambda m, s: REGULARISERS[name](0.4, posterior, prior, m, s), at, eps=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("family", CLOSED)
def test_renyi_grows_with_its_order_up_to_the_kl(family: str) -> None:
    loc, scale = PLACES.get(family, ANYWHERE)[-1]
    values = [of("renyi", order, family, family, loc, scale) for order in (0.1, 0.5, 0.9, 1 - 1e-7)]
    values.append(of("kl", 0.5, family, family, loc, scale))
    assert all(b >= a - 1e-6 for a, b in itertools.pairwise(values))
    assert values[-2] == pytest.approx(values[-1], rel=1e-5)


@pytest.mark.parametrize(("posterior", "prior"), [pair for pair in BOTH_WAYS if "gumbel" not in pair])  # exp(-loc)
def test_jeffreys_is_at_least_the_kl_and_finite_in_float32(posterior: str, prior: str) -> None:
    loc = torch.tensor([0.0, 3.0, -20.0, 0.1])
    scale = torch.tensor([1.0, 1e-4, 30.0, 0.5])
    value = REGULARISERS["jeffreys"](0.5, posterior, prior, loc, scale)
    assert bool(value.isfinite().all())
    assert bool((value >= REGULARISERS["kl"](0.5, posterior, prior, loc, scale) - 1e-5).all())
