r"""Special functions that torch lacks: real arithmetic on real and imaginary parts, elementwise, without branches.

| function                     | domain                          | value                                  | absolute error |
|------------------------------|---------------------------------|----------------------------------------|----------------|
| `scaled_exp_integral`        | w = x + iy, not on (-inf, 0]    | e^w E1(w)                              | 3e-13, coarse 1e-7 |
| `exp_integral_of_exp`        | real t                          | E1(e^t) for t > 0, Ein(e^t) for t <= 0 | 1e-15          |
| `polygamma_half`             | x >= 0, any y                   | log Gamma, psi, psi', psi'' at 1/2 + w | 1e-13 of abs w |
| `log_gamma_quarters`         | x > 0, any y                    | Re 2 log(Gamma(w + 3/4) / Gamma(w + 1/4)) - log w | 1e-14 |
| `inverse_tangent_integral`   | 0 <= x <= 1                     | Ti2(x) = Im Li2(ix)                    | 1e-15          |
| `dilogarithm_of_exp`         | t >= 0                          | -Li2(-e^-t)                            | 1e-15          |

Methods. E1: the integral of exp(-t) / (w + t) on a ray rotated away from its pole, by the trapezoid rule in
u, t = exp(u - exp(-u)): a sum of fixed poles, so neither branches nor NaN. Gamma functions: the recurrence moves the
argument right, where the asymptotic series in the midpoint holds. Alternating series of moments
a_k = integral of y^k dm(y), m >= 0 on [0, 1]: `alternating` weights the first n terms so that the error is 5.8^-n for
every m (Convergence acceleration of alternating series, Cohen, Rodriguez Villegas and Zagier, 2000).

All take float64. Not here: which divergence needs which (`kl_special`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "POLES",
    "Constants",
    "alternating",
    "column",
    "dilogarithm_of_exp",
    "exp_integral_of_exp",
    "horner",
    "in_blocks",
    "inverse_tangent_integral",
    "log_gamma_quarters",
    "polygamma_half",
    "scaled_exp_integral",
    "sums",
]

BLOCK = 1 << 15  # float64 numbers of an array per thread: 256 KiB
F = TypeVar("F", bound=Callable[..., tuple[Tensor, ...]])
Complex = tuple[Tensor, Tensor]  # real and imaginary part
TERMS = 8  # of the asymptotic series of gamma functions


class Constants:
    """Arrays of float64 constants, copied once per device: no copy inside a captured graph."""

    def __init__(self, *arrays: Sequence[float] | np.ndarray) -> None:
        self.arrays = tuple(torch.tensor(np.asarray(array, dtype=np.float64)) for array in arrays)
        self.count = len(self.arrays[0])
        self._on = {torch.device("cpu"): self.arrays}

    def on(self, device: torch.device) -> tuple[Tensor, ...]:
        if device not in self._on:
            self._on[device] = tuple(array.to(device) for array in self.arrays)
        return self._on[device]


def in_blocks(function: F) -> F:
    """Decorator of function(x, y, rule, ...) with (nodes, *shape) intermediates: on a CPU it runs over blocks of elements.

    Blocks that fit the cache are twice as fast.
    """

    @functools.wraps(function)
    def blocked(x: Tensor, y: Tensor, rule: Constants, *rest: Any) -> tuple[Tensor, ...]:
        if torch.compiler.is_compiling() or x.device.type != "cpu":
            return function(x, y, rule, *rest)
        size = BLOCK * torch.get_num_threads() // rule.count
        if x.numel() <= size:
            return function(x, y, rule, *rest)
        blocks = zip(x.flatten().split(size), y.flatten().split(size), strict=True)
        parts = [function(a, b, rule, *rest) for a, b in blocks]
        return tuple(torch.cat(part).view_as(x) for part in zip(*parts, strict=True))

    return cast(F, blocked)


def column(nodes: Tensor, like: Tensor) -> Tensor:
    """Nodes as a leading dimension over the shape of `like`."""
    return nodes.view((-1,) + (1,) * like.dim())


def sums(weights: Tensor, terms: Tensor) -> Tensor:
    """sum_k weights[..., k] terms[k]: (nodes,) or (rows, nodes) with (nodes, *shape)."""
    return (weights @ terms.reshape(terms.shape[0], -1)).view(weights.shape[:-1] + terms.shape[1:])


def horner(coefficients: list[float], x: Tensor) -> Tensor:
    """sum_k coefficients[k] x^k."""
    total = coefficients[-1] * x + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
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
    t, rotation = np.exp(u - np.exp(-u)), np.exp(1j * angle)
    weights = rotation * (u[1] - u[0]) * t * (1 + np.exp(-u)) * np.exp(-t * rotation)
    # Re and Im of sum c_k / (w + p_k), from Re and -Im of 1 / (w + p_k)
    by_real, by_imag = np.stack([weights.real, weights.imag]), np.stack([weights.imag, -weights.real])
    return Constants((t * rotation).real, (t * rotation).imag, by_real, by_imag)


POLES = {True: _poles(72, -3.45, 3.9, 0.95), False: _poles(36, -2.75, 3.2, 0.95)}


@in_blocks
def scaled_exp_integral(x: Tensor, y: Tensor, poles: Constants) -> Complex:
    """Re and Im of S(w) = e^w E1(w), w = x + iy with y > 0 (or x > 0). S' = S - 1 / w."""
    pole_x, pole_y, by_real, by_imag = poles.on(x.device)
    real, imag = x + column(pole_x, x), y + column(pole_y, x)
    inverse = torch.reciprocal(torch.addcmul(real.square(), imag, imag))
    value = sums(by_real, real * inverse) + sums(by_imag, imag * inverse)
    return value[0], value[1]


_EIN = [(-1) ** k / ((k + 1) * math.factorial(k + 1)) for k in range(19)]


def _stieltjes(first: float, last: float, count: int) -> list[tuple[float, float]]:
    """(node, weight) of e^x E1(x) = int e^-s / (x + s) ds by the double exponential rule."""
    step = (last - first) / (count - 1)
    exponents = [first + k * step for k in range(count)]
    nodes = [math.exp(u - math.exp(-u)) for u in exponents]
    return [
        (node, step * node * (1 + math.exp(-u)) * math.exp(-node)) for node, u in zip(nodes, exponents, strict=True)
    ]


_STIELTJES = _stieltjes(-3.5, 3.3, 24)


def exp_integral_of_exp(t: Tensor) -> Tensor:
    """E1(e^t) for t > 0, Ein(e^t) for t <= 0, where Ein(x) = E1(x) + log x + Euler's gamma. Both have slopes in exp."""
    below = torch.exp(t.clamp(max=0))
    series = below * horner(_EIN, below)
    # E1(40) = 1e-19: constant from there, so that e^t does not overflow.
    above = torch.exp(t.clamp(0, math.log(40)))
    total = torch.zeros_like(above)
    for node, weight in _STIELTJES:
        total = total + weight / (above + node)
    return torch.where(t > 0, torch.exp(-above) * total, series)


# --- gamma functions of complex argument ---


_HALF, _QUARTER = Fraction(1, 2), Fraction(1, 4)
# psi(1/2 + w) - log w = sum c_k / w^2k
_DIGAMMA = [-float(bernoulli_polynomial(2 * k, _HALF) / (2 * k)) for k in range(1, TERMS + 1)]
# 2 log Gamma(w + 3/4) - 2 log Gamma(w + 1/4) - log w = sum d_k / w^2k
_QUARTERS = [float(2 * bernoulli_polynomial(2 * k + 1, _QUARTER) / (k * (2 * k + 1))) for k in range(1, TERMS + 1)]
SHIFTS = {True: (8, 8), False: (4, 5)}  # how far the recurrence moves, and terms of the series there


def _times(a: Complex, b: Complex) -> Complex:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _series(coefficients: Sequence[float], power: Complex) -> Complex:
    """sum_k coefficients[k] power^k by Horner's rule, for two coefficients and more."""
    x, y = power
    real, imag = coefficients[-1] * x + coefficients[-2], coefficients[-1] * y
    for coefficient in coefficients[-3::-1]:
        real, imag = real * x - imag * y + coefficient, real * y + imag * x
    return real, imag


def _inverse(x: Tensor, y: Tensor) -> Complex:
    size = torch.reciprocal(torch.addcmul(x.square(), y, y))
    return x * size, -y * size


def polygamma_half(x: Tensor, y: Tensor, fine: bool, orders: int) -> tuple[Tensor, list[Complex]]:
    """Re log Gamma(1/2 + w), and Re and Im of psi, psi', ... (`orders` of them, at most 3) at 1/2 + w."""
    shift, terms = SHIFTS[fine]
    series = _DIGAMMA[:terms]
    right = x + shift
    inverse = _inverse(right, y)
    square = _times(inverse, inverse)
    log, angle = 0.5 * torch.log(torch.addcmul(right.square(), y, y)), torch.atan2(y, right)
    # log Gamma(1/2 + w) = w log w - w + log(2 pi) / 2 + sum c_k / ((1 - 2k) w^(2k - 1)), the integral of psi's series
    tail = _times(_series([c / (1 - 2 * k) for k, c in enumerate(series, 1)], square), inverse)
    log_gamma = right * (log - 1) - y * angle + tail[0] + 0.5 * math.log(2 * math.pi)
    found = [_times(_series(series, square), square)]
    found[0] = (log + found[0][0], angle + found[0][1])
    if orders > 1:  # psi' = 1 / w - sum 2k c_k / w^(2k + 1)
        found.append(_times(_series([1.0, *(-2 * k * c for k, c in enumerate(series, 1))], square), inverse))
    if orders > 2:  # psi'' = -1 / w^2 + sum 2k (2k + 1) c_k / w^(2k + 2)
        slopes = [-1.0, *(2 * k * (2 * k + 1) * c for k, c in enumerate(series, 1))]
        found.append(_times(_series(slopes, square), square))
    moduli = torch.ones_like(x)
    squares = y.square()
    for k in range(shift):
        real = x + (0.5 + k)
        modulus = torch.addcmul(squares, real, real)
        moduli = moduli * modulus
        size = torch.reciprocal(modulus)
        pole = power = (real * size, -y * size)  # 1 / (1/2 + w + k)
        for order, sign in zip(range(orders), (-1, 1, -2), strict=False):
            power = _times(power, pole) if order else pole
            found[order] = (found[order][0] + sign * power[0], found[order][1] + sign * power[1])
    return log_gamma - 0.5 * torch.log(moduli), found


def log_gamma_quarters(x: Tensor, y: Tensor, fine: bool) -> tuple[Tensor, Complex]:
    """Re g(w) and g'(w), g = 2 log Gamma(w + 3/4) - 2 log Gamma(w + 1/4) - log w, small for large w."""
    shift, terms = SHIFTS[fine]
    series = _QUARTERS[:terms]
    right, squares = x + shift, y.square()
    inverse = _inverse(right, y)
    square = _times(inverse, inverse)
    # log(w + shift) - log w, and its slope with that of - log w
    value = 0.5 * torch.log1p(shift * (2 * x + shift) / torch.addcmul(squares, x, x))
    value = value + _times(_series(series, square), square)[0]
    slope = _series([1.0, *(-2 * k * c for k, c in enumerate(series, 1))], square)
    slope = _times(slope, inverse)
    here = _inverse(x, y)
    real, imag = slope[0] - here[0], slope[1] - here[1]
    ratio = torch.ones_like(x)
    for k in range(shift):
        low, high = x + (k + 0.25), x + (k + 0.75)
        below, above = torch.addcmul(squares, low, low), torch.addcmul(squares, high, high)
        ratio = ratio * (above / below)
        below, above = 2 / below, 2 / above
        real = real + (low * below - high * above)
        imag = imag - y * (below - above)
    return value - torch.log(ratio), (real, imag)


# --- polylogarithms ---


_TI2 = [weight / (2 * k + 1) ** 2 for k, weight in enumerate(alternating(21))]
# Li2(-x) in u = log(1 + x): -u - u^2/4 - u^3/36 + ..., terms B_2k u^(2k+1) / (2k+1)! beyond the first two
_DILOG = [float(bernoulli_polynomial(2 * k, Fraction(0)) / math.factorial(2 * k + 1)) for k in range(11)]


def inverse_tangent_integral(x: Tensor) -> Tensor:
    """Ti2(x) = sum (-1)^k x^(2k+1) / (2k+1)^2 for 0 <= x <= 1; its slope is atan(x) / x."""
    return x * horner(_TI2, x.square())


def dilogarithm_of_exp(u: Tensor) -> Tensor:
    """-Li2(-e^-t) for t >= 0, given u = log(1 + e^-t) in (0, log 2]."""
    return u * (horner(_DILOG, u.square()) + 0.25 * u)
