r"""Divergences and their gradients by brute force in 25 digits: ground truth for the closed forms.

KL(q || p) = -h(X) - log sigma + C_p + E U_p(mu + sigma X) with -log p = C_p + U_p; the expectation and its derivatives,
E U'(z) and E X U'(z) (which do not differentiate the density, so they also hold for laws with moving support), are summed by
40-point Gauss-Legendre rules on panels that double in length away from the features of the integrand: the origin of
x = (z - mu) / sigma, and the origin of z. It deliberately shares no code with `beliefs.divergences`.

Rényi divergences integrate q^alpha p^(1 - alpha) on the same panels.

Uses mpmath, which torch installs through sympy.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import mpmath
from mpmath import mp, mpf

__all__ = ["LAWS", "Law", "kl_and_gradient", "renyi"]

DIGITS = 25
Scalar = Callable[[mpf], mpf]


@dataclass(frozen=True)
class Law:
    """A standard law for the oracle: -log density and its slope, entropy, and where its mass ends for 25 digits."""

    energy: Scalar  # -log p(z) inside the support
    slope: Scalar  # d energy / dz
    entropy: Callable[[], mpf]
    low: float
    high: float
    support: tuple[float, float] = (-math.inf, math.inf)


def _log_cosh(z: mpf) -> mpf:
    return abs(z) + mpmath.log1p(mpmath.exp(-2 * abs(z))) - mpmath.log(2)


def _gumbel(z: mpf) -> mpf:
    return z + mpmath.exp(-z) if z > -1000 else mpf("1e400")  # beyond any precision used here


def _student(nu: int) -> Law:
    def normaliser() -> mpf:
        return mpmath.log(mpmath.sqrt(nu) * mpmath.beta(mpf(nu) / 2, mpf(1) / 2))

    def entropy() -> mpf:
        half = mpf(nu + 1) / 2
        return half * (mpmath.psi(0, half) - mpmath.psi(0, mpf(nu) / 2)) + normaliser()

    reach = 2.0 ** (84 / (nu - 2))  # E z^2 loses reach^(2 - nu)
    return Law(
        lambda z: normaliser() + mpf(nu + 1) / 2 * mpmath.log1p(z * z / nu),
        lambda z: (nu + 1) * z / (nu + z * z),
        entropy,
        -reach,
        reach,
    )


LAWS: dict[str, Law] = {
    "normal": Law(
        lambda z: z * z / 2 + mpmath.log(2 * mpmath.pi) / 2,
        lambda z: z,
        lambda: (mpmath.log(2 * mpmath.pi) + 1) / 2,
        -12,
        12,
    ),
    "laplace": Law(lambda z: abs(z) + mpmath.log(2), lambda z: mpmath.sign(z), lambda: 1 + mpmath.log(2), -64, 64),
    "cauchy": Law(
        lambda z: mpmath.log1p(z * z) + mpmath.log(mpmath.pi),
        lambda z: 2 * z / (1 + z * z),
        lambda: mpmath.log(4 * mpmath.pi),
        -(2.0**80),
        2.0**80,
    ),
    "logistic": Law(
        lambda z: 2 * (_log_cosh(z / 2) + mpmath.log(2)), lambda z: mpmath.tanh(z / 2), lambda: mpf(2), -64, 64
    ),
    "gumbel": Law(_gumbel, lambda z: 1 - mpmath.exp(-z), lambda: 1 + mpmath.euler, -4.25, 64),
    "uniform": Law(lambda z: mpmath.log(2), lambda z: mpf(0), lambda: mpmath.log(2), -1, 1, (-1, 1)),
    "exponential": Law(lambda z: z, lambda z: mpf(1), lambda: mpf(1), 0, 64, (0, math.inf)),
    "hypsecant": Law(
        lambda z: _log_cosh(z) + mpmath.log(mpmath.pi),
        lambda z: mpmath.tanh(z),
        lambda: mpmath.log(2 * mpmath.pi),
        -64,
        64,
    ),
    "student_t3": _student(3),
    "student_t5": _student(5),
}


@functools.lru_cache(maxsize=4)
def _gauss_legendre(points: int) -> tuple[tuple[mpf, mpf], ...]:
    """Nodes and weights on [-1, 1], by Newton from Chebyshev guesses."""
    nodes = []
    for k in range(points):
        x = mpmath.cos(mpmath.pi * (k + mpf(3) / 4) / (points + mpf(1) / 2))
        for _ in range(8):
            before, value = mpf(1), x
            for n in range(2, points + 1):
                before, value = value, ((2 * n - 1) * x * value - (n - 1) * before) / n
            slope = points * (x * value - before) / (x * x - 1)
            x = x - value / slope
        nodes.append((x, 2 / ((1 - x * x) * slope * slope)))
    return tuple(nodes)


def _panels(posterior: str, prior: str, mu: mpf, sigma: mpf) -> list[mpf]:
    law = LAWS[posterior]
    low, high = mpf(law.low), mpf(law.high)
    if prior == "gumbel" and law.support[0] == -math.inf:
        # exp(-z) tilts the density: by sigma for the normal, to the rate 1 - sigma for an exponential tail.
        low = low - sigma if posterior == "normal" else low / (1 - sigma) if posterior != "gumbel" else low - 3
    doubling = [mpf(0)] + [sign * mpf(2) ** k for k in range(-1, 84) for sign in (-1, 1)]
    # Both ends of a moving panel grid: around x = 0 for q, around z = 0 for p.
    cuts = set(doubling) | {(z - mu) / sigma for z in doubling}
    if posterior == "gumbel":
        cuts |= {mpf(k) / 2 for k in range(-15, 1)}
    return [low, *sorted(x for x in cuts if low < x < high), high]


def kl_and_gradient(posterior: str, prior: str, loc: float, scale: float) -> tuple[mpf, mpf, mpf]:
    """KL, d KL / d loc and d KL / d log scale. For points where it is finite."""
    with mp.workdps(DIGITS):
        q, p, mu, sigma = LAWS[posterior], LAWS[prior], mpf(loc), mpf(scale)
        energy = slope = pull = mpf(0)
        cuts = _panels(posterior, prior, mu, sigma)
        for left, right in itertools.pairwise(cuts):
            half, centre = (right - left) / 2, (right + left) / 2
            for node, weight in _gauss_legendre(40):
                x = centre + half * node
                z = mu + sigma * x
                mass = half * weight * mpmath.exp(-q.energy(x))
                force = mass * p.slope(z)
                energy += mass * p.energy(z)
                slope += force
                pull += force * sigma * x
        return energy - q.entropy() - mpmath.log(sigma), slope, pull - 1


def renyi(alpha: float, posterior: str, prior: str, loc: float, scale: float) -> mpf:
    """D_alpha = log integral q^alpha p^(1 - alpha) / (alpha - 1), if the integral is finite."""
    with mp.workdps(DIGITS):
        q, p, mu, sigma, order = LAWS[posterior], LAWS[prior], mpf(loc), mpf(scale), mpf(alpha)
        low, high = ((mpf(end) - mu) / sigma for end in p.support)
        # q^alpha has tails alpha times as thin: widen where alpha < 1 and p does not help.
        widen = 1 / min(order, mpf(1)) * 4
        law = LAWS[posterior]
        ends = [mpf(max(low, max(law.support[0], law.low * widen)))]
        ends.append(mpf(min(high, min(law.support[1], law.high * widen))))
        if ends[0] >= ends[1]:
            return mpf("inf")
        doubling = [mpf(0)] + [sign * mpf(2) ** k for k in range(-1, 84) for sign in (-1, 1)]
        cuts = set(doubling) | {(z - mu) / sigma for z in doubling}
        cuts |= {(mpf(k) / 2 - mu) / sigma for k in range(-20, 21)} | {mpf(k) / 2 for k in range(-20, 21)}
        points = [ends[0], *sorted(x for x in cuts if ends[0] < x < ends[1]), ends[1]]
        total = mpf(0)
        for left, right in itertools.pairwise(points):
            half, centre = (right - left) / 2, (right + left) / 2
            for node, weight in _gauss_legendre(40):
                x = centre + half * node
                exponent = -order * (q.energy(x) + mpmath.log(sigma)) - (1 - order) * p.energy(mu + sigma * x)
                total += half * weight * mpmath.exp(exponent)
        return mpmath.log(sigma * total) / (order - 1)
