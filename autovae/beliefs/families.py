r"""Location-scale families: the ten laws of a latent.

A belief about one latent is a law of z = loc + scale * eps; families differ only in the standard law of eps:

| name        | density of eps             | support     | entropy                        |
|-------------|----------------------------|-------------|--------------------------------|
| normal      | exp(-x^2 / 2) / sqrt(2 pi) | line        | log(2 pi e) / 2                |
| laplace     | exp(-abs x) / 2            | line        | 1 + log 2                      |
| cauchy      | 1 / (pi (1 + x^2))         | line        | log 4 pi                       |
| logistic    | sech^2(x / 2) / 4          | line        | 2                              |
| gumbel      | exp(-x - exp(-x))          | line        | 1 + Euler's gamma              |
| uniform     | 1 / 2                      | [-1, 1]     | log 2                          |
| exponential | exp(-x)                    | [0, inf)    | 1                              |
| hypsecant   | sech(x) / pi               | line        | log 2 pi                       |
| student_t3  | (1 + x^2 / 3)^-2 ...       | line        | 2 (psi(2) - psi(3/2)) + ...    |
| student_t5  | (1 + x^2 / 5)^-3 ...       | line        | 3 (psi(3) - psi(5/2)) + ...    |

The quantile of Student's t with nu = 3 is Kepler's equation of eccentricity 1: with x = sqrt(nu) cot(y / 2) the upper
tail is (y - sin y) / 2 pi; nu = 5 has its sibling (y - 4/3 sin y + 1/6 sin 2y) / 2 pi. Two Newton
steps from a polynomial solve it; both are differentiated, which makes derivatives up to the third exact.

Not here: divergences between families (`divergences`), which pairs are finite (`autovae.finiteness`), mixtures and
learned densities (`mixtures`, `learned_priors`); what a law must provide (`location_scale`).

To add one: subclass `Symmetric` (or `ByTails`), implement its few functions, add it to FAMILIES and its tails to
`autovae.finiteness.TAILS`. Everything else is derived, and the contract tests pick it up from the table. A closed-form
divergence in `divergences.KL` is optional: it is faster than the derived rule.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Generator, Tensor

from autovae.beliefs.location_scale import (
    ByTails,
    Kind,
    LocationScale,
    Mirrored,
    Symmetric,
    log1p_square,
    minus_abs,
)
from autovae.beliefs.special import horner

__all__ = ["EULER", "FAMILIES", "ByTails", "LocationScale", "Mirrored", "Symmetric", "minus_abs", "mirrored_pair"]

EULER = 0.57721566490153286061
INF, NAN = math.inf, math.nan


class Normal(LocationScale):
    name = "normal"
    symmetric, is_source = True, True
    mean, variance, entropy = 0.0, 1.0, 0.5 * math.log(2 * math.pi * math.e)

    def log_prob(self, eps: Tensor) -> Tensor:
        return -0.5 * eps.square() - 0.5 * math.log(2 * math.pi)

    def cdf(self, eps: Tensor) -> Tensor:
        return torch.special.ndtr(eps)

    def icdf(self, u: Tensor) -> Tensor:
        return torch.special.ndtri(u)

    def from_normal(self, xi: Tensor) -> Tensor:
        return xi

    def to_normal(self, eps: Tensor) -> Tensor:
        return eps

    def sample(
        self,
        shape: tuple[int, ...] | torch.Size,
        generator: Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype, device=device)


def exponential_draw(shape: tuple[int, ...] | torch.Size, kind: Kind) -> Tensor:
    eps = torch.empty(shape, dtype=kind["dtype"], device=kind["device"])
    # exponential_ guarantees values > 0, so the logarithm is finite.
    return eps.exponential_(generator=kind["generator"])


class Laplace(Symmetric):
    name = "laplace"
    mean, variance, entropy = 0.0, 2.0, 1 + math.log(2)

    def log_prob(self, eps: Tensor) -> Tensor:
        return -eps.abs() - math.log(2)

    def tail(self, t: Tensor) -> Tensor:
        return 0.5 * torch.exp(-t)

    def upper(self, p: Tensor) -> Tensor:
        return -torch.log(2 * p)

    def draw(self, shape: tuple[int, ...] | torch.Size, kind: Kind) -> Tensor:
        return exponential_draw(shape, kind) - exponential_draw(shape, kind)


class Cauchy(Symmetric):
    name = "cauchy"
    mean, variance, entropy = NAN, NAN, math.log(4 * math.pi)

    def log_prob(self, eps: Tensor) -> Tensor:
        return -log1p_square(eps) - math.log(math.pi)

    def tail(self, t: Tensor) -> Tensor:
        return torch.atan2(torch.ones_like(t), t) / math.pi

    def upper(self, p: Tensor) -> Tensor:
        # Not 1 / tan: its second derivative at p = 1/2 is 1e16 - 1e16.
        return torch.cos(math.pi * p) / torch.sin(math.pi * p)

    def draw(self, shape: tuple[int, ...] | torch.Size, kind: Kind) -> Tensor:
        return torch.tan(math.pi * (torch.rand(shape, **kind) - 0.5))


class Logistic(Symmetric):
    name = "logistic"
    mean, variance, entropy = 0.0, math.pi**2 / 3, 2.0

    def log_prob(self, eps: Tensor) -> Tensor:
        t = eps.abs()
        return -t - 2 * torch.log1p(torch.exp(-t))

    def tail(self, t: Tensor) -> Tensor:
        return torch.sigmoid(-t)

    def upper(self, p: Tensor) -> Tensor:
        return torch.log1p(-p) - torch.log(p)

    def draw(self, shape: tuple[int, ...] | torch.Size, kind: Kind) -> Tensor:
        return torch.log(exponential_draw(shape, kind)) - torch.log(exponential_draw(shape, kind))


class HyperbolicSecant(Symmetric):
    """The law of log abs(C) and of asinh(C) for a standard Cauchy C."""

    name = "hypsecant"
    mean, variance, entropy = 0.0, math.pi**2 / 4, math.log(2 * math.pi)

    def log_prob(self, eps: Tensor) -> Tensor:
        t = eps.abs()
        return -t - torch.log1p(torch.exp(-2 * t)) - math.log(math.pi / 2)

    def tail(self, t: Tensor) -> Tensor:
        return torch.atan(torch.exp(-t)) * (2 / math.pi)

    def upper(self, p: Tensor) -> Tensor:
        return -torch.log(torch.tan(0.5 * math.pi * p))

    def draw(self, shape: tuple[int, ...] | torch.Size, kind: Kind) -> Tensor:
        return torch.asinh(torch.tan(math.pi * (torch.rand(shape, **kind) - 0.5)))


class Gumbel(ByTails):
    """The law of the maximum of many, cdf exp(-exp(-x))."""

    name = "gumbel"
    mean, variance, entropy = EULER, math.pi**2 / 6, 1 + EULER
    median = -math.log(math.log(2))

    def log_prob(self, eps: Tensor) -> Tensor:
        return -eps - torch.exp(-eps)

    def below(self, eps: Tensor) -> Tensor:
        # At -7 the tail is 0 in float64 (exp(-1096)); further out exp(-eps) would overflow and give 0 * inf.
        return torch.exp(-torch.exp(-eps.clamp(min=-7)))

    def above(self, eps: Tensor) -> Tensor:
        return -torch.expm1(-torch.exp(-eps.clamp(min=-7)))

    def lower(self, p: Tensor) -> Tensor:
        return -torch.log(-torch.log(p))

    def upper(self, p: Tensor) -> Tensor:
        return -torch.log(-torch.log1p(-p))

    def draw(self, shape: tuple[int, ...] | torch.Size, kind: Kind) -> Tensor:
        return -torch.log(exponential_draw(shape, kind))


class Uniform(Symmetric):
    """On [-1, 1], so that loc is the centre and scale the half width."""

    name = "uniform"
    mean, variance, entropy = 0.0, 1 / 3, math.log(2)

    def log_prob(self, eps: Tensor) -> Tensor:
        return torch.where(eps.abs() <= 1, 0 * eps - math.log(2), -INF)

    def tail(self, t: Tensor) -> Tensor:
        return 0.5 * (1 - t).clamp(0, 1)

    def upper(self, p: Tensor) -> Tensor:
        return 1 - 2 * p

    def draw(self, shape: tuple[int, ...] | torch.Size, kind: Kind) -> Tensor:
        return 2 * torch.rand(shape, **kind) - 1


class Exponential(ByTails):
    name = "exponential"
    mean, variance, entropy = 1.0, 1.0, 1.0
    median = math.log(2)

    def log_prob(self, eps: Tensor) -> Tensor:
        return torch.where(eps >= 0, -eps, -INF)

    def below(self, eps: Tensor) -> Tensor:
        return -torch.expm1(-eps.clamp(min=0))

    def above(self, eps: Tensor) -> Tensor:
        return torch.exp(-eps.clamp(min=0))

    def lower(self, p: Tensor) -> Tensor:
        return -torch.log1p(-p)

    def upper(self, p: Tensor) -> Tensor:
        return -torch.log(p)

    def draw(self, shape: tuple[int, ...] | torch.Size, kind: Kind) -> Tensor:
        return exponential_draw(shape, kind)


class StudentT(Symmetric):
    """Student's t with nu = 3 or 5: power tails with a mean and a variance."""

    mean = 0.0

    def __init__(self, nu: int) -> None:
        self.nu, self.name, self.variance = nu, f"student_t{nu}", nu / (nu - 2)
        # psi((nu + 1) / 2) - psi(nu / 2) = 2 log 2 - 1 for nu = 3, 2 log 2 - 7/6 for nu = 5, and B(nu / 2, 1/2).
        self.log_norm, self.entropy = {
            3: (math.log(math.sqrt(3) * math.pi / 2), math.log(8 * math.sqrt(3) * math.pi) - 2),
            5: (math.log(3 * math.sqrt(5) * math.pi / 8), math.log(24 * math.sqrt(5) * math.pi) - 3.5),
        }[nu]
        # kepler(y) = y^nu P(y^2) by the sine series, which is exact to rounding on all of [0, pi].
        sines, terms = {3: ({1: 1.0}, 14), 5: ({1: 4 / 3, 2: -1 / 6}, 20)}[nu]
        self.series = [
            -((-1) ** k) * sum(c * m ** (2 * k + 1) for m, c in sines.items()) / math.factorial(2 * k + 1)
            for k in range((nu - 1) // 2, (nu - 1) // 2 + terms)
        ]
        # Its inverse to 1e-6, y = t P(t^2) in t = (kepler / series[0])^(1 / nu): the start of Newton's method.
        y = 0.5 * math.pi * (1 + np.cos(math.pi * (np.arange(200) + 0.5) / 200))
        t = (np.polynomial.polynomial.polyval(y**2, self.series) / self.series[0]) ** (1 / nu) * y
        self.inverse = np.polynomial.polynomial.polyfit(t**2, y / t, 9).tolist()

    def kepler(self, y: Tensor) -> Tensor:
        """y - sin y (nu = 3), y - 4/3 sin y + 1/6 sin 2y (nu = 5): no cancellation for small y."""
        square = y.square()
        total = horner(self.series, square) * (square * y)
        return total * square if self.nu == 5 else total

    def log_prob(self, eps: Tensor) -> Tensor:
        return -0.5 * (self.nu + 1) * log1p_square(eps / math.sqrt(self.nu)) - self.log_norm

    def tail(self, t: Tensor) -> Tensor:
        y = 2 * torch.atan2(torch.full_like(t, math.sqrt(self.nu)), t)
        return self.kepler(y) / (2 * math.pi)

    def upper(self, p: Tensor) -> Tensor:
        target = 2 * math.pi * p
        with torch.no_grad():
            t = (target / self.series[0]) ** (1 / self.nu)
            y = t * horner(self.inverse, t.square())
        for _ in range(2):
            slope = 2 * torch.sin(0.5 * y).square()
            slope = (2 / 3) * slope.square() if self.nu == 5 else slope
            y = y + (target - self.kepler(y)) / slope
        return math.sqrt(self.nu) * torch.cos(0.5 * y) / torch.sin(0.5 * y)

    def draw(self, shape: tuple[int, ...] | torch.Size, kind: Kind) -> Tensor:
        normals = torch.randn((self.nu + 1, *shape), **kind)
        return normals[0] * torch.rsqrt(normals[1:].square().mean(0))


FAMILIES: dict[str, LocationScale] = {
    family.name: family
    for family in (
        Normal(),
        Laplace(),
        Cauchy(),
        Logistic(),
        Gumbel(),
        Uniform(),
        Exponential(),
        HyperbolicSecant(),
        StudentT(3),
        StudentT(5),
    )
}


def mirrored_pair(posterior: str, prior: str) -> tuple[str, str] | None:
    """The families of -X for X of these two, if the table has both."""
    posterior, prior = _mirror_of(posterior), _mirror_of(prior)
    return (posterior, prior) if posterior and prior else None


def _mirror_of(name: str) -> str:
    law = FAMILIES[name]
    if law.symmetric:
        return name
    for other in FAMILIES.values():
        if (isinstance(other, Mirrored) and other.of is law) or (isinstance(law, Mirrored) and law.of is other):
            return other.name
    return ""
