r"""KL(q || p) by special functions: the energies E U_p(mu + sigma X), most with their derivatives.

Notation as in `elementary`; t = mu / sigma, a = abs(mu). A rule gives a triple: value, d/dmu, d/dsigma.

- E abs(z), for laplace priors, and as the non-decaying part of a logistic energy. Homogeneous in (mu, sigma), so
  E abs(z) = mu d/dmu + sigma d/dsigma, with d/dmu = 1 - 2 P(z < 0) elementary for every law.
- E log(1 + z^2), for cauchy and student_t priors: exponential integrals, gamma functions, and for the normal (a 2F2
  function that cancels in every series) the integral of 2 log(1 - iz) along a line moved away from its pole.
- E 2 log(2 cosh(z / 2)), for logistic and hypsecant priors. It is E abs(z + L) for L standard logistic, hence a
  student_t posterior gives gamma functions and a uniform one dilogarithms. For laplace and exponential (2F1 functions)
  expand 2 log(1 + exp(-abs z)) = sum (-1)^(n+1) 2 exp(-n abs z) / n: every term is elementary, and an alternating
  series of moments is summed with error 5.8^-terms at all (mu, sigma).

Not here: energies without such a form, see `quadrature`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from autovae.beliefs.cross_entropy import Rule, Three
from autovae.beliefs.families import EULER, minus_abs
from autovae.beliefs.special import (
    POLES,
    Constants,
    alternating,
    column,
    dilogarithm_of_exp,
    exp_integral_of_exp,
    horner,
    in_blocks,
    inverse_tangent_integral,
    log_gamma_quarters,
    polygamma_half,
    scaled_exp_integral,
    sums,
)

__all__ = ["along_contour", "contour_log_square", "student_log_cosh"]


def gumbel_gumbel(mu: Tensor, sigma: Tensor, r: Tensor) -> Tensor:
    """The matched cell, without the cancellation of the general form near sigma = 1."""
    return EULER * (sigma - 1) - r + torch.expm1(torch.lgamma(1 + sigma) - mu) + mu


# --- E abs(z) ---


def normal_abs(mu: Tensor, sigma: Tensor, fine: bool = True) -> Three:
    t = mu / sigma
    slope, base = torch.erf(t * math.sqrt(0.5)), math.sqrt(2 / math.pi) * torch.exp(-0.5 * t.square())
    return mu * slope + sigma * base, slope, base


def logistic_abs(mu: Tensor, sigma: Tensor, fine: bool = True) -> Three:
    t = -minus_abs(mu) / sigma
    decay = torch.exp(-t)
    slope = (1 - decay) / (1 + decay)
    base = 2 * (torch.log1p(decay) + t * decay / (1 + decay))
    return sigma * (t * slope + base), torch.where(mu < 0, -slope, slope), base


def hypsecant_abs(mu: Tensor, sigma: Tensor, fine: bool = True) -> Three:
    t = -minus_abs(mu) / sigma
    decay = torch.exp(-t)
    beyond = (4 / math.pi) * torch.atan(decay)
    rest = (4 / math.pi) * inverse_tangent_integral(decay)
    return sigma * (t + rest), torch.where(mu < 0, beyond - 1, 1 - beyond), rest + t * beyond


def gumbel_abs(mu: Tensor, sigma: Tensor, fine: bool = True) -> Three:
    t = mu / sigma
    below = torch.exp(-torch.exp(t.clamp(max=7)))  # P(z < 0), and 0 in float64 at t = 7
    rest = 2 * exp_integral_of_exp(t)
    right = t > 0
    value = torch.where(right, mu, -mu) + sigma * torch.where(right, EULER + rest, rest - EULER)
    by_sigma = torch.where(right, EULER + rest + 2 * below * t, rest - EULER - 2 * t * (1 - below))
    return value, 1 - 2 * below, by_sigma


# --- E log(1 + z^2) ---


def exponential_log_square(mu: Tensor, sigma: Tensor, fine: bool) -> Three:
    """log(1 + mu^2) + 2 Re S(w), w = (mu + i) / sigma, S' = S - 1 / w."""
    x, y = mu / sigma, 1 / sigma
    real, imag = scaled_exp_integral(x, y, POLES[fine])
    by_sigma = -2 * (x * real - y * imag - 1) / sigma
    return torch.log1p(mu.square()) + 2 * real, 2 * real / sigma, by_sigma


def laplace_log_square(mu: Tensor, sigma: Tensor, fine: bool) -> Three:
    """The mean over the two exponential laws, right and left of mu."""
    right, left = exponential_log_square(mu, sigma, fine), exponential_log_square(-mu, sigma, fine)
    return 0.5 * (right[0] + left[0]), 0.5 * (right[1] - left[1]), 0.5 * (right[2] + left[2])


def logistic_log_square(mu: Tensor, sigma: Tensor, fine: bool) -> Three:
    """2 log(2 pi sigma) + 2 Re psi(1/2 + w), w = (1 - i mu) / (2 pi sigma)."""
    x = 1 / (2 * math.pi * sigma)
    y = mu * x
    _, ((real, _), (slope_x, slope_y)) = polygamma_half(x, -y, fine, 2)
    value = 2 * real - 2 * torch.log(x)
    return value, 2 * x * slope_y, 2 * (1 - x * slope_x - y * slope_y) / sigma


def hypsecant_log_square(mu: Tensor, sigma: Tensor, fine: bool) -> Three:
    """log(1 + mu^2) + 2 Re g(w), w = (1 - i mu) / (2 pi sigma)."""
    x = 1 / (2 * math.pi * sigma)
    y = mu * x
    value, (slope_x, slope_y) = log_gamma_quarters(x, -y, fine)
    square = mu.square()
    by_mu = 2 * mu / (1 + square) + 2 * x * slope_y
    return torch.log1p(square) + 2 * value, by_mu, -2 * (x * slope_x + y * slope_y) / sigma


def along_contour(nodes: np.ndarray, weights: np.ndarray) -> Constants:
    """Complex nodes x_k with Im x_k > 0 and the masses of the density on them, for `contour_log_square`."""
    c = weights / weights.sum()
    m = c * nodes
    shift = nodes.imag if np.ptp(nodes.imag) else nodes.imag[:1]  # a line needs one row only
    by_real, by_imag = 2 * np.stack([c.imag, m.imag]), 2 * np.stack([c.real, m.real])
    return Constants(nodes.real, shift, c.real, 2 * c.imag, by_real, by_imag)


@in_blocks
def contour_log_square(mu: Tensor, sigma: Tensor, rule: Constants) -> Three:
    """2 Re sum_k c_k log(1 - i (mu + sigma x_k)): the branch point stays 1 + sigma Im(x_k) away."""
    node, shift, by_log, by_angle, by_real, by_imag = rule.on(mu.device)
    real, imag = 1 + sigma * column(shift, mu), torch.addcmul(mu, sigma, column(node, mu))
    square = torch.addcmul(imag.square(), real, real)
    value = sums(by_log, torch.log(square)) + sums(by_angle, torch.atan(imag / real))
    inverse = torch.reciprocal(square)
    slopes = sums(by_real, real * inverse) + sums(by_imag, imag * inverse)
    return value, slopes[0], slopes[1]


def _line(points: int, step: float, shift: float) -> Constants:
    x = (np.arange(points) - (points - 1) / 2) * step + 1j * shift
    return along_contour(x, np.exp(-0.5 * x * x))


NORMAL_LINE = {True: _line(32, 0.525, 2.6), False: _line(16, 0.725, 2.4)}


def normal_log_square(mu: Tensor, sigma: Tensor, fine: bool) -> Three:
    return contour_log_square(mu, sigma, NORMAL_LINE[fine])


# --- E 2 log(2 cosh(z / 2)) ---


def student_log_cosh(nu: int) -> Rule:
    r"""With s = sqrt(nu) sigma and w = (s - i mu) / 2 pi,

        (2 / pi) Re(s psi(1/2 + w) - 2 pi log Gamma(1/2 + w) + pi log(2 pi) [- s^2 psi'(1/2 + w) / 6 pi for nu = 5]).

    From E abs(c + sigma X) = (2 / pi)(c atan(c / s) + s [- (s / 3) / (1 + (c / s)^2)]), averaged over c = mu + L with
    E log(b - iL) = log(2 pi) + psi(1/2 + b / 2 pi), its integral and its derivative in b.
    """
    root = math.sqrt(nu)

    def rule(mu: Tensor, sigma: Tensor, fine: bool) -> Three:
        s = root * sigma
        log_gamma, found = polygamma_half(s / (2 * math.pi), mu / (-2 * math.pi), fine, 2 if nu == 3 else 3)
        (digamma, angle), (first_x, first_y), *second = found
        value = s * digamma - 2 * math.pi * log_gamma + math.pi * math.log(2 * math.pi)
        by_mu = s * first_y / (2 * math.pi) - angle
        by_s = s * first_x / (2 * math.pi)
        if second:
            square = s.square() / (6 * math.pi)
            value = value - square * first_x
            by_mu = by_mu - square * second[0][1] / (2 * math.pi)
            by_s = by_s - s * first_x / (3 * math.pi) - square * second[0][0] / (2 * math.pi)
        return (2 / math.pi) * value, (2 / math.pi) * by_mu, (2 * root / math.pi) * by_s

    return rule


def uniform_log_cosh(mu: Tensor, sigma: Tensor, fine: bool) -> Three:
    """E abs(z), and the mean of 2 log(1 + exp(-abs z)) between the ends by dilogarithms."""
    low, high = mu - sigma, mu + sigma
    decay_low, decay_high = (torch.log1p(torch.exp(minus_abs(z))) for z in (low, high))

    def primitive(z: Tensor, decay: Tensor) -> Tensor:
        half = math.pi**2 / 12 - dilogarithm_of_exp(decay)
        return torch.where(z < 0, -half, half)

    a = -minus_abs(mu)
    flat = a + 0.5 * sigma * torch.relu(1 - a / sigma).square()
    value = flat + (primitive(high, decay_high) - primitive(low, decay_low)) / sigma
    energy_low, energy_high = 2 * decay_low - minus_abs(low), 2 * decay_high - minus_abs(high)
    return value, 0.5 * (energy_high - energy_low) / sigma, (0.5 * (energy_high + energy_low) - value) / sigma


def _series(terms: int) -> Constants:
    n = np.arange(1, terms + 1)
    weight = 2 * np.array(alternating(terms)) / n
    return Constants(n, weight, np.stack([weight, -n * weight]))


Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
SERIES = {True: _series(18), False: _series(10)}
_FIRST_MOMENT = [(-1) ** k / (math.factorial(k) * (k + 2)) for k in range(13)]


def _first_moment(s: Tensor, decay: Tensor, fine: bool) -> Tensor:
    """The integral of y exp(-s y) over y in (0, 1), for s >= 0: (1 - (1 + s) exp(-s)) / s^2 without its cancellation."""
    series = horner(_FIRST_MOMENT if fine else _FIRST_MOMENT[:7], s.clamp(max=0.5))
    far = s.clamp(min=0.5)
    return torch.where(s < 0.5, series, (1 - decay - s * decay) / far.square())


@in_blocks
def _remainders(a: Tensor, sigma: Tensor, series: Constants, fine: bool) -> Six:
    r"""E 2 log(1 + exp(-abs z)) for z = a + sigma E and for z = -a + sigma E, with E exponential and a >= 0.

    Both triples in a row, derivatives in a and sigma. The terms E exp(-n abs z), P = exp(-n a) and D = exp(-a / sigma), are

        right: P / (1 + n sigma)
        left:  D / (1 + n sigma) + B,  B = integral over v in (0, a) of exp(-(a - v) / sigma - n v) / sigma.

    B = (D - P) / (n sigma - 1) is regular at n sigma = 1: written by the larger exponential and moments of the smaller
    over it, exp(-gap y) on y in (0, 1) with gap = a (n - 1 / sigma).
    """
    orders, weight, weights = series.on(a.device)
    n = column(orders, a)
    rate = 1 / sigma
    ratio = a * rate
    power, decay, outside = (
        torch.exp(-n * a),
        torch.exp(-ratio),
        torch.reciprocal(torch.addcmul(torch.ones_like(a), n, sigma)),
    )
    gap = n * a - ratio
    size = gap.abs()
    larger = torch.maximum(power, decay)
    smaller = torch.exp(-size)  # over the larger
    first = larger * _first_moment(size, smaller, fine)
    whole = size * first + larger * smaller
    # The mean of (a - v) / a under the integrand of B: the moment counts from the end where the integrand is larger.
    lever = torch.where(gap < 0, first, whole - first)
    right = power * outside
    out, out_square = sums(weight, outside), sums(weights[1], outside.square())
    between, right_sums, right_by_sigma = sums(weight, whole), sums(weights, right), sums(weights[1], right * outside)
    between = ratio * between
    left = decay * out + between
    left_by_sigma = (
        decay * (ratio * rate * out + out_square) - rate * between + ratio.square() * rate * sums(weight, lever)
    )
    left_by_a = rate * (sums(weight, power) - left)
    return right_sums[0], right_sums[1], right_by_sigma, left, left_by_a, left_by_sigma


def exponential_log_cosh(mu: Tensor, sigma: Tensor, fine: bool) -> Three:
    both = _remainders(-minus_abs(mu), sigma, SERIES[fine], fine)
    right, left = both[:3], both[3:]
    t = torch.where(mu < 0, mu, 0.0) / sigma
    decay, fall = torch.exp(t), torch.expm1(t)
    value = mu + sigma + 2 * sigma * (fall - t)
    negative = mu < 0
    return (
        value + torch.where(negative, left[0], right[0]),
        1 + 2 * fall + torch.where(negative, -left[1], right[1]),
        1 + 2 * (fall - t * decay) + torch.where(negative, left[2], right[2]),
    )


def laplace_log_cosh(mu: Tensor, sigma: Tensor, fine: bool) -> Three:
    a = -minus_abs(mu)
    both = _remainders(a, sigma, SERIES[fine], fine)
    right, left = both[:3], both[3:]
    decay = torch.exp(-a / sigma)
    by_a = 1 - decay + 0.5 * (right[1] + left[1])
    return (
        a + sigma * decay + 0.5 * (right[0] + left[0]),
        torch.where(mu < 0, -by_a, by_a),
        decay * (1 + a / sigma) + 0.5 * (right[2] + left[2]),
    )
