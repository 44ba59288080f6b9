"""Likelihood heads: densities against outside oracles, bins that sum to one, tails, slopes, draws, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
from scipy import stats
from torch import Tensor

from autovae.beliefs.likelihoods import LIKELIHOODS, check_support
from autovae.beliefs.likelihoods.line import STUDENT_NU
from autovae.beliefs.likelihoods.line_masses import normal_bins
from autovae.beliefs.likelihoods.tilted import tilted_bins_sum

LEVELS = [2, 17, 256]
F64 = torch.float64


def edges(levels: int, dtype: torch.dtype = F64) -> tuple[Tensor, Tensor]:
    """Lower and upper edges of the bins of the unit interval, as scores use them."""
    inner = torch.arange(1, levels, dtype=dtype) / levels
    infinity = torch.tensor([math.inf], dtype=dtype)
    return torch.cat([-infinity, inner]), torch.cat([inner, infinity])


def params_and_scale(
    name: str, count: int = 12, dtype: torch.dtype = F64, levels: int = 256
) -> tuple[Tensor, Tensor | None]:
    """Outputs (count, 1) as a decoder gives them, and scales from the floor of these levels up."""
    head = LIKELIHOODS[name]
    generator = torch.Generator().manual_seed(5)
    params = torch.randn(count, 1, generator=generator, dtype=F64)
    params = params * 0.4 + 0.5 if "real" in head.supports else params * 3
    scale = torch.logspace(math.log10(0.25 / levels), 0, count, dtype=F64)[:, None]
    return params.to(dtype), scale.to(dtype) if head.has_scale else None


def test_every_row_loads_its_own_head() -> None:
    for name, head in LIKELIHOODS.items():
        assert head.name == name
        assert head.formula
        assert head.supports <= {"binary", "unit", "real"}
        assert head.trains_on in ("levels", "dequantised")


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_row_says_whether_there_is_a_scale(name: str) -> None:
    head, x, params = LIKELIHOODS[name], torch.tensor(0.3), torch.tensor(0.4)
    narrow, wide = (head.log_prob(x, params, torch.tensor(scale)) for scale in (0.1, 0.2))
    assert bool(narrow != wide) == head.has_scale


# ------------------------------------------------------------------------------------------ densities


def oracle_log_prob(name: str, x: float, eta: float, scale: float) -> float:
    """The same density from scipy, or written out in 40 digits."""
    with mpmath.workdps(40):
        e = mpmath.mpf(eta)
        if name == "bernoulli":
            return float(x * e - mpmath.log1p(mpmath.exp(e)))
        if name == "continuous_bernoulli":
            return float(x * e - (mpmath.log(mpmath.expm1(e) / e) if eta else 0))
        if name == "beta":
            mean, nu = 1 / (1 + mpmath.exp(-e)), 1 / (4 * mpmath.mpf(scale) ** 2)
            a, b = mean * nu, (1 - mean) * nu
            log_beta = mpmath.loggamma(a) + mpmath.loggamma(b) - mpmath.loggamma(nu)
            return float((a - 1) * mpmath.log(x) + (b - 1) * mpmath.log(1 - mpmath.mpf(x)) - log_beta)
    if name == "laplace":
        return -abs(x - eta) / scale - math.log(2 * scale)
    laws = {"normal": stats.norm, "logistic": stats.logistic, "mse": stats.norm}
    law = stats.t(STUDENT_NU) if name == "student_t" else laws[name]
    s = math.sqrt(0.5) if name == "mse" else scale
    return float(law.logpdf((x - eta) / s) - math.log(s))


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_log_prob_agrees_with_an_oracle(name: str, dtype: torch.dtype) -> None:
    for eta in (-30.0, -1.5, -1e-3, 0.0, 1e-6, 0.4, 2.0, 12.0):
        for x in (1e-4, 0.3, 0.5, 0.9375):
            for scale in (1 / 1024, 0.05, 0.25, 1.0):
                scales = torch.tensor(scale, dtype=dtype) if LIKELIHOODS[name].has_scale else None
                value = LIKELIHOODS[name].log_prob(torch.tensor(x, dtype=dtype), torch.tensor(eta, dtype=dtype), scales)
                exact = oracle_log_prob(name, float(torch.tensor(x, dtype=dtype)), eta, scale)
                assert value.dtype == dtype
                # the terms of a beta at the floor are of order nu = 262144; float32 keeps 7 digits of them
                size = abs(exact) + (0.25 / scale**2 if name == "beta" else 1)
                assert abs(float(value) - exact) < (3e-6 if dtype == torch.float32 else 3e-13) * size


@pytest.mark.parametrize("name", [n for n in LIKELIHOODS if n != "bernoulli"])
def test_a_narrow_bin_is_the_density_times_its_width(name: str) -> None:
    params, scale = params_and_scale(name)
    x = torch.linspace(0.05, 0.95, 7, dtype=F64)
    mass = LIKELIHOODS[name].log_mass(x - 1e-7, x + 1e-7, params, scale)
    torch.testing.assert_close(
        mass - math.log(2e-7), LIKELIHOODS[name].log_prob(x, params, scale), rtol=1e-6, atol=1e-6
    )


# ------------------------------------------------------------------------------------------ masses


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_masses_sum_to_one(name: str, levels: int) -> None:
    for dtype, tolerance in ((F64, 2e-6 if name == "beta" else 1e-10), (torch.float32, 2e-5)):
        params, scale = params_and_scale(name, dtype=dtype, levels=levels)
        lower, upper = edges(levels, dtype)
        total = LIKELIHOODS[name].log_mass(lower, upper, params, scale).logsumexp(-1)
        rounding = 4e-8 * (0.25 / scale[:, 0] ** 2) if name == "beta" and scale is not None else 0
        assert bool((total.abs() < tolerance + rounding).all()), dtype


def oracle_log_mass(name: str, lower: float, upper: float, eta: float, scale: float) -> float:
    """The same mass by mpmath; every law in its textbook form, with digits to spare."""
    with mpmath.workdps(60 if name != "beta" else 300):
        e, s = mpmath.mpf(eta), mpmath.mpf(scale)
        low, high = max(mpmath.mpf(lower), 0), min(mpmath.mpf(upper), 1)
        if name in ("bernoulli", "continuous_bernoulli"):
            if eta == 0:
                return float(mpmath.log(high - low))
            return float(mpmath.log((mpmath.exp(high * e) - mpmath.exp(low * e)) / mpmath.expm1(e)))
        if name == "beta":
            mean, nu = 1 / (1 + mpmath.exp(-e)), 1 / (4 * s**2)
            return float(mpmath.log(mpmath.betainc(mean * nu, (1 - mean) * nu, low, high, regularized=True)))
        s = mpmath.sqrt(0.5) if name == "mse" else s
        a, b = (mpmath.mpf(lower) - e) / s, (mpmath.mpf(upper) - e) / s
        if a + b > 0:  # all are symmetric: the left tail keeps the digits
            a, b = -b, -a
        cdfs: dict[str, Callable[[Any], Any]] = {
            "normal": lambda z: mpmath.erfc(-z / mpmath.sqrt(2)) / 2,
            "laplace": lambda z: mpmath.exp(z) / 2 if z < 0 else 1 - mpmath.exp(-z) / 2,
            "logistic": lambda z: 1 / (1 + mpmath.exp(-z)),
            "student_t": _student_cdf,
        }
        cdf = cdfs["normal" if name == "mse" else name]
        return float(mpmath.log(cdf(b) - cdf(a)))


def _student_cdf(z: Any) -> Any:
    if mpmath.isinf(z):
        return mpmath.mpf(0 if z < 0 else 1)
    y = z / mpmath.sqrt(3)
    return mpmath.mpf(1) / 2 + (y / (1 + y * y) + mpmath.atan(y)) / mpmath.pi


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_masses_agree_with_an_oracle(name: str, dtype: torch.dtype) -> None:
    head = LIKELIHOODS[name]
    inf = math.inf
    bins = [(-inf, 1 / 256), (0.25, 65 / 256), (0.5, 0.625), (255 / 256, inf), (0.1875, 0.75)]
    etas = [-6.0, -0.2, 0.0, 1e-4, 0.3, 0.6, 3.0] if name != "beta" else [-6.0, -1.0, 0.0, 2.0, 4.0]
    for scale in (1 / 16, 0.25, 1.0) if head.has_scale else (1.0,):
        for lower, upper in bins:
            for eta in etas:
                args = [torch.tensor(v, dtype=dtype) for v in (lower, upper, eta)]
                value = float(head.log_mass(*args, torch.tensor(scale, dtype=dtype) if head.has_scale else None))
                exact = oracle_log_mass(name, lower, upper, float(args[2]), scale)
                # Gauss-Legendre with 16 nodes meets the wide bin of a narrow beta to 1e-5
                tolerance = 3e-5 if dtype == torch.float32 else (1e-5 if name == "beta" else 1e-9)
                assert abs(value - exact) < tolerance * max(1, abs(exact)), (lower, upper, eta, scale, value, exact)


@pytest.mark.parametrize("name", [n for n in LIKELIHOODS if n not in ("student_t", "beta")])
def test_masses_are_finite_and_right_to_minus_1e4_nats_in_float32(name: str) -> None:
    head = LIKELIHOODS[name]
    far = {"normal": 140.0, "mse": 100.0}.get(name, 1e4)  # standard units, or logits
    for sign in (-1.0, 1.0):
        if head.has_scale or name == "mse":
            eta, scale = sign * far * 0.01 + 0.5, 0.01
            if name == "mse":
                eta = sign * far
        else:
            eta, scale = sign * far, 1.0
        for lower, upper in ((-math.inf, 1 / 256), (0.5, 129 / 256), (255 / 256, math.inf)):
            params = torch.tensor(eta, requires_grad=True)
            value = head.log_mass(
                torch.tensor(lower), torch.tensor(upper), params, torch.tensor(scale) if head.has_scale else None
            )
            if not (head.has_scale or name == "mse") and (lower, upper) == (0.5, 129 / 256):
                assert float(value.detach()) < -4.9e3
            exact = oracle_log_mass(name, lower, upper, float(params.detach()), float(torch.tensor(scale)))
            assert float(value.detach()) == pytest.approx(exact, rel=2e-5, abs=2e-3)
            value.backward()
            assert params.grad is not None
            assert bool(params.grad.isfinite())


@pytest.mark.parametrize("scale", [1 / 1024, 0.01, 0.032, 0.2, 2.0, "pixel"])
@pytest.mark.parametrize("levels", [2, 8, 256])
def test_normal_masses_without_gradients_are_those_with(levels: int, scale: float | str) -> None:
    """In both the quick form and where its bins are too wide: to float32 of a reference in float64, and in their sum."""
    generator = torch.Generator().manual_seed(0)
    eta = torch.randn(3, 5, 1, 1, generator=generator)
    width = torch.rand(3, 5, 1, levels, generator=generator) + 0.05 if scale == "pixel" else torch.tensor(scale)
    lower, upper = edges(levels, torch.float32)
    lower, upper = lower.expand(4, levels), upper.expand(4, levels)
    for name in ("normal", "mse"):
        head, given = LIKELIHOODS[name], width if name == "normal" else None
        exact = head.log_mass(lower.double(), upper.double(), eta.double(), None if given is None else given.double())
        with torch.no_grad():
            found = head.log_mass(lower, upper, eta, given)
            total = head.log_mass_sum(lower, upper, eta, given)
            quick = normal_bins(lower, upper, eta, torch.tensor(math.sqrt(0.5)) if given is None else given) is not None
        sharp = 2e-6 if quick else 1e-4 if scale == 1 / 1024 else 2e-5  # the edges' own rounding, in such units
        torch.testing.assert_close(found.double(), exact, rtol=sharp, atol=5e-6)
        torch.testing.assert_close(total.double(), exact.sum(-1), rtol=sharp, atol=1e-4)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_sums_of_masses_without_gradients_broadcast(name: str) -> None:
    """Parameters of one point against the bins of several, scales of their own."""
    head = LIKELIHOODS[name]
    lower, upper = (edge.expand(4, 16) for edge in edges(16, torch.float32))
    for shape, scales in (((16,), (1,)), ((2, 1, 16), (2, 1, 1)), ((1, 16), (3, 1, 16))):
        eta, scale = torch.linspace(-1, 1, math.prod(shape)).view(shape), torch.full(scales, 0.7)
        args = (eta, scale if head.has_scale else None)
        with torch.no_grad():
            found = head.log_mass_sum(lower, upper, *args)
        torch.testing.assert_close(found, head.log_mass(lower, upper, *args).sum(-1), rtol=1e-5, atol=1e-4)


def test_the_quick_form_of_normal_masses_knows_its_limits() -> None:
    lower, upper = edges(256, torch.float32)
    eta = torch.full((2, 256), 0.5)
    assert normal_bins(lower, upper, eta, torch.tensor(0.05)) is not None
    assert normal_bins(lower, upper, eta, torch.tensor(0.03)) is None  # bins of .13
    assert normal_bins(lower, upper, eta + 20, torch.tensor(0.05)) is None  # a bin far out in the tail is tilted
    assert normal_bins(lower, upper, eta * math.nan, torch.tensor(0.05)) is None
    assert normal_bins(lower.double(), upper.double(), eta.double(), torch.tensor(0.05)) is None


@pytest.mark.parametrize("levels", [4, 8, 256])
@pytest.mark.parametrize("size", [1e-9, 0.5, 20.0, 100.0])
def test_tilted_masses_without_gradients_are_those_with(levels: int, size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    eta = size * torch.randn(3, 2, 5, 83, generator=generator)
    index = torch.randint(levels, (5, 83), generator=generator)
    lower, upper = (edge[index] for edge in edges(levels, torch.float32))
    for name in ("continuous_bernoulli", "bernoulli"):
        exact = LIKELIHOODS[name].log_mass(lower.double(), upper.double(), eta.double()).sum(-1)
        with torch.no_grad():
            found = LIKELIHOODS[name].log_mass_sum(lower, upper, eta)
        torch.testing.assert_close(found.double(), exact, rtol=2e-6, atol=2e-6 * float(eta.abs().sum(-1).max()) + 1e-4)
    assert (tilted_bins_sum(lower, upper, eta) is None) == (float(eta.abs().max()) / levels >= 0.5)


def test_the_heaviest_and_sharpest_stay_finite() -> None:
    lower, upper = edges(256, torch.float32)
    for eta in (-60.0, -8.0, 0.0, 8.0, 60.0):
        for scale in (1 / 1024, 0.05, 1.0, 30.0):
            for name in ("beta", "student_t"):
                params, s = torch.tensor(eta, requires_grad=True), torch.tensor(scale, requires_grad=True)
                mass = LIKELIHOODS[name].log_mass(lower, upper, params, s)
                slopes = torch.autograd.grad(mass.sum(), (params, s))
                assert bool(mass.isfinite().all()), (name, eta, scale)
                assert all(bool(slope.isfinite()) for slope in slopes), (name, eta, scale)


def test_the_bernoulli_is_exact_on_two_levels_and_continuous_on_more() -> None:
    params = torch.linspace(-8, 8, 9, dtype=F64)[:, None]
    bernoulli, continuous = LIKELIHOODS["bernoulli"], LIKELIHOODS["continuous_bernoulli"]
    two = bernoulli.log_mass(*edges(2), params)
    torch.testing.assert_close(two, bernoulli.log_prob(torch.tensor([0.0, 1.0], dtype=F64), params))
    assert (two - continuous.log_mass(*edges(2), params)).abs().max() > 0.1
    torch.testing.assert_close(bernoulli.log_mass(*edges(17), params), continuous.log_mass(*edges(17), params))


# ------------------------------------------------------------------------------------------ slopes


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_slopes(name: str) -> None:
    head = LIKELIHOODS[name]
    params, scale = params_and_scale(name, 5, levels=4)
    params = params[:, None].repeat(1, 2, 1).requires_grad_()
    lower, upper = edges(9)
    x = (torch.arange(9, dtype=F64) + 0.37) / 9
    if scale is None:
        assert torch.autograd.gradcheck(lambda p: head.log_prob(x, p), params)
        assert torch.autograd.gradcheck(lambda p: head.log_mass(lower, upper, p), params)
    else:
        scale = scale[:, None].requires_grad_()  # a scale per member, broadcast over points and pixels
        assert torch.autograd.gradcheck(lambda p, s: head.log_prob(x, p, s), (params, scale))
        assert torch.autograd.gradcheck(lambda p, s: head.log_mass(lower, upper, p, s), (params, scale), atol=2e-5)


@pytest.mark.parametrize("name", ["bernoulli", "continuous_bernoulli"])
def test_slopes_in_float32_near_zero(name: str) -> None:
    params = torch.tensor([0.0, 1e-12, -1e-7, 1e-4, -0.01, 0.05, 0.1, 0.3, -2.0, 40.0, -90.0], requires_grad=True)
    exact = params.detach().double().requires_grad_()
    lower, upper = (torch.tensor(v) for v in (0.25, 0.5))
    for function in (lambda p: LIKELIHOODS[name].log_prob(torch.tensor(0.3, dtype=p.dtype), p).sum(),
                     lambda p: LIKELIHOODS[name].log_mass(lower, upper, p).sum()):  # fmt: skip
        (single,) = torch.autograd.grad(function(params), params)
        (double,) = torch.autograd.grad(function(exact), exact)
        torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-6)


@pytest.mark.parametrize("features", [7, 100, 784])
def test_sums_over_pixels_equal_their_terms(features: int) -> None:
    generator = torch.Generator().manual_seed(2)
    params = (torch.randn(3, 5, features, generator=generator) * 40).requires_grad_()
    x = torch.randint(0, 2, (5, features), generator=generator).float()
    lower = torch.where(x > 0, 0.5, -math.inf)
    upper = torch.where(x > 0, math.inf, 0.5)
    head = LIKELIHOODS["bernoulli"]
    for terms, total in (
        (head.log_prob(x, params), head.log_prob_sum(x, params)),
        (head.log_mass(lower, upper, params), head.log_mass_sum(lower, upper, params)),
    ):
        torch.testing.assert_close(total, terms.sum(-1), rtol=1e-5, atol=1e-4)
        (slopes,) = torch.autograd.grad(total.sum(), params)
        torch.testing.assert_close(slopes, torch.autograd.grad(terms.sum(), params)[0])
    common = params.detach()[:, :1]  # as samples that all points share
    for points in (x, x[:1], x[0]):
        torch.testing.assert_close(
            head.log_prob_sum(points, common), head.log_prob(points, common).sum(-1), rtol=1e-5, atol=1e-4
        )


# ------------------------------------------------------------------------------------------ means and draws


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_draws_have_the_mean_and_the_masses(name: str) -> None:
    head = LIKELIHOODS[name]
    eta, scale = (0.4, 0.2) if "real" in head.supports else (-1.3, 0.3)
    params = torch.full((200_000,), eta)
    s = torch.tensor(scale) if head.has_scale else None
    draws = head.sample(params, s, torch.Generator().manual_seed(0))
    again = head.sample(params, s, torch.Generator().manual_seed(0))
    assert torch.equal(draws, again)
    error = float(draws.std()) / math.sqrt(len(draws))
    assert float(draws.mean()) == pytest.approx(float(head.mean(params[:1], s)), abs=4.5 * error)
    levels = 2 if name == "bernoulli" else 8
    lower, upper = edges(levels, torch.float32)
    expected = head.log_mass(lower, upper, params[:1, None], s).exp().flatten()
    counts = torch.stack([((draws >= a) & (draws < b)).float().mean() for a, b in zip(lower, upper, strict=True)])
    assert (counts - expected).abs().max() < 4.5 * math.sqrt(0.25 / len(draws))


def test_mean_of_the_continuous_bernoulli_is_differentiable() -> None:
    head = LIKELIHOODS["continuous_bernoulli"]
    params = torch.tensor([-20.0, -0.31, -0.29, 0.0, 1e-5, 3.0], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(head.mean, params)
    torch.testing.assert_close(head.mean(params).detach(), head.mean(params.detach()), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mean_of_the_continuous_bernoulli_has_a_slope_everywhere(dtype: torch.dtype) -> None:
    """Black pixels of a trained decoder have logits below -88, where exp overflows in float32."""
    params = torch.tensor([-300, -100, -88, -20, -1, -0.3, 0, 0.3, 1, 20, 88, 100, 300], dtype=dtype).requires_grad_()
    mean = LIKELIHOODS["continuous_bernoulli"].mean(params, None)
    (slope,) = torch.autograd.grad(mean.sum(), params)
    exact = params.detach().double().abs()
    far = exact >= 20
    torch.testing.assert_close(slope[far].double(), exact[far] ** -2, rtol=1e-4, atol=0)
    torch.testing.assert_close(slope, slope.flip(0), rtol=1e-4, atol=0)
    assert bool((slope > 0).all())
    with torch.no_grad():
        torch.testing.assert_close(mean.detach(), LIKELIHOODS["continuous_bernoulli"].mean(params.detach(), None))


def test_beta_draws_survive_tiny_shapes() -> None:
    draws = LIKELIHOODS["beta"].sample(torch.tensor([-40.0, 40.0, 0.0]), torch.tensor(5.0))
    assert bool(((draws >= 0) & (draws <= 1)).all())


# ------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("name", "support", "dequantise", "reason"),
    [
        ("bernoulli", "real", True, "expected binary or unit; choose one of: normal"),
        ("beta", "unit", False, "dequantise = true"),
        ("beta", "binary", True, "dequantise"),
        ("beta", "real", True, "expected unit"),
        ("berno", "unit", True, "did you mean 'bernoulli'"),
        ("normal", "reel", True, "did you mean 'real'"),
    ],
)
def test_a_likelihood_that_does_not_fit_is_refused(name: str, support: str, dequantise: bool, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_support(name, support, dequantise)


def test_fitting_likelihoods_pass() -> None:
    for name, head in LIKELIHOODS.items():
        for support in head.supports:
            check_support(name, support)


def test_a_missing_scale_is_named() -> None:
    with pytest.raises(ValueError, match="'laplace' got no scale"):
        LIKELIHOODS["laplace"].log_prob(torch.zeros(2), torch.zeros(2))
