"""The ten families: laws that every entry of FAMILIES obeys, and outside oracles (mpmath, scipy)."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
import scipy.stats
import torch
from scipy.integrate import quad

from autovae.beliefs.families import FAMILIES
from autovae.beliefs.integration import entropy, moment
from autovae.finiteness import TAILS

NAMES = list(FAMILIES)
SCIPY = {
    "normal": scipy.stats.norm(),
    "laplace": scipy.stats.laplace(),
    "cauchy": scipy.stats.cauchy(),
    "logistic": scipy.stats.logistic(),
    "gumbel": scipy.stats.gumbel_r(),
    "uniform": scipy.stats.uniform(-1, 2),
    "exponential": scipy.stats.expon(),
    "hypsecant": scipy.stats.hypsecant(),
    "student_t3": scipy.stats.t(3),
    "student_t5": scipy.stats.t(5),
}
XI = torch.cat([torch.linspace(-8, 8, 65), torch.tensor([1e-4, -1e-4, 0.37, -0.3665129, -0.43])])


def support(name: str) -> tuple[float, float]:
    return FAMILIES[name].support


def quantile_from_normal(name: str, xi: float) -> mpmath.mpf:
    """The exact eps of a standard normal xi, in 40 digits."""
    with mpmath.workdps(40):
        x = mpmath.mpf(xi)
        p, sign = mpmath.erfc(abs(x) / mpmath.sqrt(2)) / 2, (1 if x >= 0 else -1)
        if name.startswith("student"):
            nu = int(name[-1])
            kepler = {
                3: lambda y: y - mpmath.sin(y),
                5: lambda y: y - 4 * mpmath.sin(y) / 3 + mpmath.sin(2 * y) / 6,
            }[nu]
            start = min((2 * mpmath.pi * p * (6 if nu == 3 else 30)) ** (mpmath.mpf(1) / nu), mpmath.mpf(3))
            y = mpmath.findroot(lambda y: mpmath.log(kepler(y) / (2 * mpmath.pi * p)), start)
            return sign * mpmath.sqrt(nu) * mpmath.cot(y / 2)
        return {
            "normal": lambda: x,
            "laplace": lambda: -sign * mpmath.log(2 * p),
            "cauchy": lambda: sign * mpmath.cot(mpmath.pi * p),
            "logistic": lambda: sign * mpmath.log((1 - p) / p),
            "gumbel": lambda: -mpmath.log(-mpmath.log(p if x < 0 else 1 - p)),
            "uniform": lambda: mpmath.erf(x / mpmath.sqrt(2)),
            "exponential": lambda: -mpmath.log(p if x >= 0 else 1 - p),
            "hypsecant": lambda: -sign * mpmath.log(mpmath.tan(mpmath.pi * p / 2)),
        }[name]()


def relative_error(values: torch.Tensor, exact: list[mpmath.mpf]) -> float:
    pairs = zip(values.detach().tolist(), exact, strict=True)
    return max(float(abs(mpmath.mpf(value) - truth) / max(abs(truth), 1e-3)) for value, truth in pairs)


def test_families_are_those_with_tails() -> None:
    assert set(FAMILIES) == set(TAILS)


@pytest.mark.parametrize("name", NAMES)
def test_density_integrates_to_one_with_its_mean_variance_and_entropy(name: str) -> None:
    family = FAMILIES[name]

    def density(x: float) -> float:
        return math.exp(family.log_prob(torch.tensor(x, dtype=torch.float64)).item())

    def integral(f) -> float:
        low, high = support(name)
        below = quad(f, low, 0, epsabs=1e-11, epsrel=1e-11, limit=400)[0] if low < 0 else 0.0
        return below + (quad(f, 0, high, epsabs=1e-11, epsrel=1e-11, limit=400)[0] if high > 0 else 0.0)

    assert integral(density) == pytest.approx(1, abs=1e-8)
    assert integral(lambda x: -density(x) * math.log(density(x)) if density(x) > 0 else 0.0) == pytest.approx(
        family.entropy, abs=1e-6
    )
    if math.isfinite(family.mean):
        assert integral(lambda x: x * density(x)) == pytest.approx(family.mean, abs=1e-7)
    if math.isfinite(family.variance):
        second = integral(lambda x: (x - family.mean) ** 2 * density(x))
        assert second == pytest.approx(family.variance, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_cdf_is_the_integral_of_the_density(name: str) -> None:
    family, (low, high) = FAMILIES[name], support(name)
    ends = torch.linspace(max(low, -3.0), min(high, 3.0), 9, dtype=torch.float64)
    for a, b in itertools.pairwise(ends.tolist()):
        mass, _ = quad(lambda x: math.exp(family.log_prob(torch.tensor(x, dtype=torch.float64)).item()), a, b)
        cdf = family.cdf(torch.tensor([a, b], dtype=torch.float64))
        assert float(cdf[1] - cdf[0]) == pytest.approx(mass, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_quantiles_undo_the_cdf(name: str) -> None:
    u = torch.linspace(0.001, 0.999, 101, dtype=torch.float64)
    torch.testing.assert_close(FAMILIES[name].cdf(FAMILIES[name].icdf(u)), u, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_law_states_what_its_density_integrates_to(name: str) -> None:
    law = FAMILIES[name]
    assert law.entropy == pytest.approx(entropy(law), abs=1e-13)
    if law.tails.power > 1:
        assert law.mean == pytest.approx(moment(law, 1), abs=1e-13)
    if law.tails.power > 2:
        assert law.variance == pytest.approx(moment(law, 2) - law.mean**2, rel=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_scipy(name: str) -> None:
    family, oracle = FAMILIES[name], SCIPY[name]
    u = torch.linspace(0.001, 0.999, 101, dtype=torch.float64)
    eps = torch.from_numpy(oracle.ppf(u.numpy()))
    torch.testing.assert_close(family.icdf(u), eps, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(family.cdf(eps), u, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(family.log_prob(eps), torch.from_numpy(oracle.logpdf(eps.numpy())), rtol=1e-9, atol=1e-9)
    assert family.entropy == pytest.approx(float(oracle.entropy()), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_from_normal_is_exact(name: str) -> None:
    exact = [quantile_from_normal(name, float(x)) for x in XI]
    assert relative_error(FAMILIES[name].from_normal(XI), exact) < 2e-7
    assert relative_error(FAMILIES[name].from_normal(XI.double()), exact) < 5e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_from_normal_has_the_slope_of_a_change_of_variables(name: str, dtype: torch.dtype) -> None:
    family = FAMILIES[name]
    xi = XI.to(dtype).requires_grad_()
    eps = family.from_normal(xi)
    (slope,) = torch.autograd.grad(eps.sum(), xi)
    exact = torch.exp(FAMILIES["normal"].log_prob(xi.double()) - family.log_prob(family.from_normal(xi.double())))
    torch.testing.assert_close(slope.double(), exact, rtol=5e-6 if dtype == torch.float32 else 1e-11, atol=1e-300)
    assert torch.isfinite(slope).all()
    assert (slope[XI.abs() < 7.9] > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_from_normal_far_out_stays_finite(name: str) -> None:
    xi = torch.tensor([-1e4, -60.0, -20.0, 20.0, 60.0, 1e4], requires_grad=True)
    eps = FAMILIES[name].from_normal(xi)
    (slope,) = torch.autograd.grad(eps.sum(), xi)
    assert torch.isfinite(eps).all()
    assert torch.isfinite(slope).all()
    back = FAMILIES[name].to_normal(torch.tensor([-3e38, -1e4, 0.0, 1e4, 3e38]))
    assert torch.isfinite(back).all()


@pytest.mark.parametrize("name", NAMES)
def test_to_normal_undoes_from_normal(name: str) -> None:
    family = FAMILIES[name]
    # A uniform eps this near its ends has no float64 digits left: the tail is in 1 - eps.
    reach = torch.tensor([-8.0, 8.0]) * torch.tensor([0.6 if math.isfinite(end) else 1.0 for end in support(name)])
    reach = torch.where(torch.tensor(support(name)) == 0, torch.tensor([-8.0, 8.0]), reach)
    xi = torch.linspace(*reach.tolist(), 161, dtype=torch.float64)
    xi.requires_grad_()
    eps = family.from_normal(xi)
    back = family.to_normal(eps)
    torch.testing.assert_close(back, xi, rtol=0, atol=1e-9)
    (slope,) = torch.autograd.grad(back.sum(), xi)
    torch.testing.assert_close(slope, torch.ones_like(slope), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_from_normal_has_a_right_second_derivative(name: str) -> None:
    def slope(xi: torch.Tensor, create_graph: bool = False) -> torch.Tensor:
        xi = xi if create_graph else xi.detach().requires_grad_()
        return torch.autograd.grad(FAMILIES[name].from_normal(xi).sum(), xi, create_graph=create_graph)[0]

    xi = torch.linspace(-4, 4, 8, dtype=torch.float64, requires_grad=True)
    curvature = (slope(xi + 1e-4) - slope(xi - 1e-4)) / 2e-4
    if name != "normal":
        (found,) = torch.autograd.grad(slope(xi, create_graph=True).sum(), xi)
        torch.testing.assert_close(found, curvature, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_from_normal_works_in_forward_mode_and_vmap(name: str) -> None:
    family = FAMILIES[name]
    xi = torch.linspace(-3, 3, 7, dtype=torch.float64)
    _, tangent = torch.func.jvp(family.from_normal, (xi,), (torch.ones_like(xi),))
    slope = torch.func.vmap(torch.func.grad(family.from_normal))(xi)
    torch.testing.assert_close(tangent, slope)


@pytest.mark.parametrize("name", NAMES)
def test_samples_follow_the_cdf(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    draws = FAMILIES[name].sample((4, 5000), generator=generator, dtype=torch.float64)
    assert draws.shape == (4, 5000)
    assert draws.dtype == torch.float64
    assert torch.isfinite(draws).all()
    assert (
        scipy.stats.kstest(draws.flatten().numpy(), lambda x: FAMILIES[name].cdf(torch.from_numpy(x)).numpy()).pvalue
        > 1e-3
    )
    again = FAMILIES[name].sample((4, 5000), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(draws, again)


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_has_finite_gradients_inside_the_support(name: str) -> None:
    low, high = support(name)
    eps = torch.from_numpy(np.array([-30.0, -1.0, -0.5, 0.0, 0.5, 1.0, 30.0]))
    eps = eps[(eps > low) & (eps < high)].requires_grad_()
    value = FAMILIES[name].log_prob(eps)
    (slope,) = torch.autograd.grad(value.sum(), eps)
    assert torch.isfinite(value).all()
    assert torch.isfinite(slope).all()


def test_outside_the_support_the_density_is_zero() -> None:
    assert FAMILIES["uniform"].log_prob(torch.tensor([-1.5, 1.5])).tolist() == [-math.inf] * 2
    assert FAMILIES["exponential"].log_prob(torch.tensor([-0.1])).tolist() == [-math.inf]
