"""The divergence table against 25-digit quadrature, its laws, and its errors."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autovae.beliefs.cross_entropy import from_energy
from autovae.beliefs.divergences import jeffreys, kl, kl_kind
from autovae.beliefs.families import FAMILIES
from autovae.beliefs.integration import energy_rule
from autovae.beliefs.renyi import renyi
from autovae.bench.accuracy import accuracy
from autovae.finiteness import finiteness

HERE = Path(__file__).parent
REFERENCE = Path(os.environ.get("AUTOVAE_REFERENCE", HERE.parents[2] / "shared" / "reference"))
NAMES = {"HyperbolicSecant": "hypsecant", "StudentT3": "student_t3", "StudentT5": "student_t5"}
FINITE = [(q, p) for q in FAMILIES for p in FAMILIES if finiteness(q, p) != "infinite"]
PAIRS = st.sampled_from(FINITE)
LOCS, LOGS = st.floats(-6, 6), st.floats(-5, 2)


def test_exactly_the_pairs_that_are_finite_have_a_cell() -> None:
    for q in FAMILIES:
        for p in FAMILIES:
            assert (kl_kind(q, p) == "infinite") == (finiteness(q, p) == "infinite")


@pytest.mark.parametrize("row", accuracy(HERE / "kl_values.csv"), ids=lambda row: f"{row['posterior']}-{row['prior']}")
def test_value_and_gradient_against_quadrature(row: dict) -> None:
    assert row["float64"] <= (1e-12 if row["kind"] == "elementary" else 1e-10)
    assert row["float32"] <= 2e-5
    assert row["gradient"] <= 1e-8


@pytest.mark.parametrize("pair", FINITE, ids="|".join)
def test_the_derived_rule_is_the_cell(pair: tuple[str, str]) -> None:
    """Every row of the table against integration of the log densities, which serves pairs without a row."""
    q, p = (FAMILIES[name] for name in pair)
    with (HERE / "kl_values.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if (r["posterior"], r["prior"]) == pair]
    points = torch.tensor([[float(v) for v in list(row.values())[2:]] for row in rows], dtype=torch.float64)
    for fine, tolerance in ((True, 1e-12), (False, 5e-6)):
        mu, sigma = (points[:, place].clone().requires_grad_() for place in (0, 1))
        offset = None if q is p else -q.entropy
        value = from_energy(energy_rule(q, p, fine), offset)(mu, sigma, sigma.log())
        by_mu, by_sigma = torch.autograd.grad(value.sum(), (mu, sigma))
        found = torch.stack([value, by_mu, by_sigma * sigma], 1).detach()
        error = (found - points[:, 2:]).abs() / points[:, 2:].abs().clamp(min=1e-3)
        assert error.max() < tolerance


def test_against_the_reference_values() -> None:
    path = REFERENCE / "kl_reference.csv"
    if not path.exists():
        pytest.skip(f"no reference values at {path}")
    cells: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for row in csv.DictReader(path.open()):
        q, p = (NAMES.get(row[side], row[side].lower()) for side in ("posterior", "prior"))
        cells.setdefault((q, p), []).append((float(row["mu"]), float(row["sigma"]), float(row["kl"])))
    for (q, p), rows in cells.items():
        loc, scale, exact = torch.tensor(rows, dtype=torch.float64).unbind(1)
        value = kl(q, p, loc, scale)
        assert torch.equal(value.isinf(), exact.isinf()), (q, p)
        error = ((value - exact).abs() / exact.clamp(min=1e-3))[exact.isfinite()]
        assert error.numel() == 0 or error.max() <= (1e-12 if kl_kind(q, p) == "elementary" else 1e-10), (q, p)


def test_renyi_against_quadrature() -> None:
    for row in csv.DictReader((HERE / "renyi_values.csv").open()):
        loc, scale, exact = (float(row[name]) for name in ("loc", "scale", "renyi"))
        found = renyi(
            float(row["alpha"]), row["posterior"], row["prior"], torch.tensor(loc, dtype=torch.float64), scale
        )
        assert float(found) == pytest.approx(exact, rel=1e-8, abs=1e-11), row


@settings(max_examples=150, deadline=None)
@given(PAIRS, LOCS, LOGS)
def test_never_negative_and_finite_gradients(pair: tuple[str, str], loc: float, log: float) -> None:
    mu = torch.tensor(loc, dtype=torch.float64, requires_grad=True)
    r = torch.tensor(log, dtype=torch.float64, requires_grad=True)
    value = kl(*pair, mu, r.exp())
    gradients = torch.autograd.grad(value, (mu, r))
    assert value >= -1e-13
    assert all(torch.isfinite(g) for g in gradients)


@settings(max_examples=60, deadline=None)
@given(PAIRS, LOCS, LOGS, LOCS, st.floats(-1, 1))
def test_affine_invariance(pair: tuple[str, str], loc: float, log: float, m: float, log_s: float) -> None:
    loc_, scale, s = torch.tensor(loc, dtype=torch.float64), math.exp(log), math.exp(log_s)
    moved = kl(*pair, loc_ * s + m, scale * s, prior_loc=m, prior_scale=s)
    plain = kl(*pair, loc_, scale)
    if finiteness(*pair) == "finite":
        torch.testing.assert_close(moved, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_zero_on_itself(name: str) -> None:
    zero = torch.tensor(0.0, dtype=torch.float64)
    assert abs(float(kl(name, name, zero, 1.0))) < 1e-14
    assert abs(float(jeffreys(name, name, zero, 1.0))) < 1e-13
    assert abs(float(renyi(0.5, name, name, zero, 1.0))) < 1e-8


def test_renyi_grows_with_alpha_and_joins_kl() -> None:
    loc = torch.tensor(0.3, dtype=torch.float64)
    for q, p in (("normal", "normal"), ("logistic", "cauchy"), ("laplace", "laplace"), ("normal", "logistic")):
        values = [float(renyi(alpha, q, p, loc, 0.8)) for alpha in (0.3, 0.6, 0.99, 1.0, 1.01, 1.3)]
        assert values == sorted(values)
        assert float(renyi(1 + 1e-7, q, p, loc, 0.8)) == pytest.approx(values[3], rel=1e-5)


@pytest.mark.parametrize("pair", [("laplace", "laplace"), ("laplace", "logistic"), ("hypsecant", "laplace")])
def test_curvature_at_zero(pair: tuple[str, str]) -> None:
    def slope(x: float) -> torch.Tensor:
        mu = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(kl(*pair, mu, 0.5), mu)[0]

    mu = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(kl(*pair, mu, 0.5), mu, create_graph=True)
    (second,) = torch.autograd.grad(first, mu)
    assert float(second) == pytest.approx(float((slope(1e-5) - slope(-1e-5)) / 2e-5), rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("norml", "normal", 0.0, 1.0), "did you mean 'normal'"),
        (("normal", "normal", 0.0, -1.0), "scale must be positive"),
        (("normal", "normal", 0.0, 0.0), "scale must be positive"),
        (("normal", "normal", math.nan, 1.0), "loc must be finite"),
        (("normal", "normal", torch.zeros(2), torch.ones(3)), "do not broadcast"),
    ],
)
def test_bad_input_is_named(arguments: tuple, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        kl(*arguments)


@pytest.mark.parametrize("alpha", [-1.0, math.nan, math.inf, "one"])
def test_undefined_alpha_is_named(alpha: object) -> None:
    with pytest.raises(ValueError, match="alpha must be"):
        renyi(alpha, "normal", "normal", 0.0, 1.0)
