r"""Special functions that torch lacks: real arithmetic on real and imaginary parts, elementwise, without branches.

| function                     | domain                          | value                                  | absolute error |
|------------------------------|---------------------------------|----------------------------------------|----------------|
| `scaled_exp_integral`        | w = x + iy, not on (-inf, 0]    | e^w E1(w)                              | 3e-13, coarse 1e-7 |
| `exp_integral_of_exp`        | real t                          | E1(e^t) for t > 0, Ein(e^t) for t <= 0 | 1e-15          |
| `digamma_less_log`           | x > 0, any y                    | Re psi(1/2 + w) - log w                | 1e-14          |
| `half_digamma_and_log_gamma` | x >= 0, any y                   | Re psi, Re log Gamma, Re psi' at 1/2 + w | 1e-13 (of abs w)   |
| `log_gamma_quarters`         | x > 0, any y                    | Re log Gamma(w + 3/4) - log Gamma(w + 1/4) | 1e-14       |
| `inverse_tangent_integral`   | 0 <= x <= 1                     | Ti2(x) = Im Li2(ix)                    | 1e-15          |
| `dilogarithm_of_exp`         | t >= 0                          | -Li2(-e^-t)                            | 1e-15          |

Methods. E1: the integral of exp(-t) / (w + t) on a ray turned away from its pole, by the trapezoid rule in
u, t = exp(u - exp(-u)): a sum of fixed poles, so neither branches nor NaN. Gamma functions: the recurrence moves the
argument right by SHIFT, where the asymptotic series in the midpoint holds. Alternating series of moments
a_k = integral of y^k dm(y), m >= 0 on [0, 1]: `alternating` weights the first n terms so that the error is 5.8^-n
whatever m is (Convergence acceleration of alternating series, Cohen, Rodriguez Villegas and Zagier, 2000).

All take float64. Not here: which divergence needs which (`special_cells`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Constants",
    "alternating",
    "digamma_less_log",
    "dilogarithm_of_exp",
    "exp_integral_of_exp",
    "half_digamma_and_log_gamma",
    "inverse_tangent_integral",
    "log_gamma_quarters",
    "polynomial",
    "scaled_exp_integral",
]

SHIFT = 8
TERMS = 8  # of the asymptotic series: the next one is below 1e-16 at abs w >= SHIFT


class Constants:
    """Rows of float64 constants that live on a device once asked for: no copy to the device in a captured graph."""

    def __init__(self, *rows: Sequence[float] | np.ndarray) -> None:
        self.rows = [[float(value) for value in row] for row in rows]
        self._on: dict[torch.device, tuple[Tensor, ...]] = {}

    def on(self, device: torch.device) -> tuple[Tensor, ...]:
        if device not in self._on:
            self._on[device] = tuple(torch.tensor(row, dtype=torch.float64, device=device) for row in self.rows)
        return self._on[device]


def polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """sum_k coefficients[k] x^k by Horner's rule."""
    total = torch.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total


@functools.cache
def alternating(terms: int) -> list[float]:
    """Weights c_k with sum_k (-1)^k a_k ~ sum_{k < terms} c_k a_k, for a_k the moments of a positive measure."""
    d = (3 + math.sqrt(8)) ** terms
    d = (d + 1 / d) / 2
    b, c, weights = -1.0, -d, []
    for k in range(terms):
        c = b - c
        weights.append(c / d)
        b *= (k + terms) * (k - terms) / ((k + 0.5) * (k + 1))
    return weights


@functools.cache
def bernoulli_polynomial(n: int, x: Fraction) -> Fraction:
    """B_n(x), exactly."""
    numbers = [Fraction(1)]
    for m in range(1, n + 1):
        numbers.append(-sum((math.comb(m + 1, k) * numbers[k] for k in range(m)), Fraction(0)) / (m + 1))
    return sum((math.comb(n, k) * numbers[k] * x ** (n - k) for k in range(n + 1)), Fraction(0))


# --- exponential integral ---


def _poles(points: int, low: float, high: float, angle: float) -> Constants:
    u = np.linspace(low, high, points)
    t, turn = np.exp(u - np.exp(-u)), np.exp(1j * angle)
    weights = turn * (u[1] - u[0]) * t * (1 + np.exp(-u)) * np.exp(-t * turn)
    return Constants((t * turn).real, (t * turn).imag, weights.real, weights.imag)


POLES = {True: _poles(72, -3.45, 3.9, 0.95), False: _poles(36, -2.75, 3.2, 0.95)}


def scaled_exp_integral(x: Tensor, y: Tensor, fine: bool = True) -> tuple[Tensor, Tensor]:
    """Re and Im of S(w) = e^w E1(w), w = x + iy with y > 0 (or x > 0). S' = S - 1 / w."""
    pole_x, pole_y, weight_x, weight_y = POLES[fine].on(x.device)
    shape = (-1,) + (1,) * x.dim()
    real, imag = x + pole_x.view(shape), y + pole_y.view(shape)
    inverse = 1 / (real.square() + imag.square())
    real, imag = (real * inverse).flatten(1), (imag * inverse).flatten(1)
    return (weight_x @ real + weight_y @ imag).view_as(x), (weight_y @ real - weight_x @ imag).view_as(x)


_EIN = [(-1) ** k / ((k + 1) * math.factorial(k + 1)) for k in range(19)]
_STIELTJES = np.linspace(-3.4, 3.5, 26)


def exp_integral_of_exp(t: Tensor) -> Tensor:
    """E1(e^t) for t > 0, Ein(e^t) for t <= 0, where Ein(x) = E1(x) + log x + Euler's gamma. Both have slopes in exp."""
    below = torch.exp(t.clamp(max=0))
    series = below * polynomial(_EIN, below)
    # E1(40) = 1e-19: constant from there, so that e^t does not overflow.
    above = torch.exp(t.clamp(0, math.log(40)))
    total = torch.zeros_like(above)
    for u in _STIELTJES:
        node = math.exp(u - math.exp(-u))
        weight = (_STIELTJES[1] - _STIELTJES[0]) * node * (1 + math.exp(-u)) * math.exp(-node)
        total = total + weight / (above + node)
    return torch.where(t > 0, torch.exp(-above) * total, series)


# --- gamma functions of complex argument ---


def _even_powers(coefficients: Sequence[float], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Re and Im of sum_k coefficients[k] w^(-2k - 2)."""
    inverse = 1 / (x.square() + y.square())
    real, imag = (x - y) * (x + y) * inverse.square(), -2 * x * y * inverse.square()  # 1 / w^2
    total_x, total_y = torch.full_like(x, coefficients[-1]), torch.zeros_like(x)
    for coefficient in coefficients[-2::-1]:
        total_x, total_y = total_x * real - total_y * imag + coefficient, total_x * imag + total_y * real
    return total_x * real - total_y * imag, total_x * imag + total_y * real


_HALF, _QUARTER = Fraction(1, 2), Fraction(1, 4)
# psi(1/2 + w) - log w = -sum B_2k(1/2) / (2k w^2k)
_DIGAMMA = [-float(bernoulli_polynomial(2 * k, _HALF) / (2 * k)) for k in range(1, TERMS + 1)]
# log Gamma(w + 3/4) - log Gamma(w + 1/4) - log(w) / 2 = sum B_{2k+1}(1/4) / (k (2k + 1) w^2k)
_QUARTERS = [float(bernoulli_polynomial(2 * k + 1, _QUARTER) / (k * (2 * k + 1))) for k in range(1, TERMS + 1)]


def digamma_less_log(x: Tensor, y: Tensor) -> Tensor:
    """Re(psi(1/2 + w) - log w), small for large w."""
    right = x + SHIFT
    total = 0.5 * torch.log1p(SHIFT * (2 * x + SHIFT) / (x.square() + y.square())) + _even_powers(_DIGAMMA, right, y)[0]
    square = y.square()
    for k in range(SHIFT):
        real = x + (0.5 + k)
        total = total - real / (real.square() + square)
    return total


def log_gamma_quarters(x: Tensor, y: Tensor) -> Tensor:
    """Re(2 log Gamma(w + 3/4) - 2 log Gamma(w + 1/4) - log w), small for large w."""
    right, square = x + SHIFT, y.square()
    total = (
        0.5 * torch.log1p(SHIFT * (2 * x + SHIFT) / (x.square() + square)) + 2 * _even_powers(_QUARTERS, right, y)[0]
    )
    ratio = torch.ones_like(x)
    for k in range(SHIFT):
        low = (x + (k + 0.25)).square() + square
        ratio = ratio * (1 + (x + (k + 0.5)) / low)  # abs((w + k + 3/4) / (w + k + 1/4))^2
    return total - torch.log(ratio)


def half_digamma_and_log_gamma(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Re psi(1/2 + w), Re log Gamma(1/2 + w) and Re psi'(1/2 + w)."""
    right, square = x + SHIFT, y.square()
    log = 0.5 * torch.log(right.square() + square)
    digamma = log + _even_powers(_DIGAMMA, right, y)[0]
    # log Gamma(1/2 + w) = w log w - w + log(2 pi) / 2 + w sum c_k w^-2k, from the integral of the digamma series.
    series_x, series_y = _even_powers([c / (1 - 2 * k) for k, c in enumerate(_DIGAMMA, 1)], right, y)
    angle = torch.atan2(y, right)
    log_gamma = right * (log - 1 + series_x) - y * (angle + series_y) + 0.5 * math.log(2 * math.pi)
    # psi'(1/2 + w) = 1 / w - sum 2k c_k w^(-2k - 1)
    trigamma_x, trigamma_y = _even_powers([-2 * k * c for k, c in enumerate(_DIGAMMA, 1)], right, y)
    inverse = 1 / (right.square() + square)
    trigamma = (right * (1 + trigamma_x) + y * trigamma_y) * inverse
    product = torch.ones_like(x)
    for k in range(SHIFT):
        real = x + (0.5 + k)
        modulus = real.square() + square
        digamma = digamma - real / modulus
        trigamma = trigamma + (real.square() - square) / modulus.square()
        product = product * modulus
    return digamma, log_gamma - 0.5 * torch.log(product), trigamma


# --- polylogarithms ---


_TI2 = [weight / (2 * k + 1) ** 2 for k, weight in enumerate(alternating(21))]
# Li2(-x) in u = log(1 + x): -u - u^2/4 - u^3/36 + ..., terms B_2k u^(2k+1) / (2k+1)! beyond the first two
_DILOG = [float(bernoulli_polynomial(2 * k, Fraction(0)) / math.factorial(2 * k + 1)) for k in range(11)]


def inverse_tangent_integral(x: Tensor) -> Tensor:
    """Ti2(x) = sum (-1)^k x^(2k+1) / (2k+1)^2 for 0 <= x <= 1; its slope is atan(x) / x."""
    return x * polynomial(_TI2, x.square())


def dilogarithm_of_exp(u: Tensor) -> Tensor:
    """-Li2(-e^-t) for t >= 0, given u = log(1 + e^-t) in (0, log 2]."""
    return u * (polynomial(_DILOG, u.square()) + 0.25 * u)
