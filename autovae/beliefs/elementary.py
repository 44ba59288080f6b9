r"""KL(q || p) by elementary functions.

Notation: q is the law of mu + sigma X with X of a standard family, p a standard prior with -log p(z) = C_p + U_p(z),
h the entropy of X, r = log sigma, d = sigma - 1, a = abs(mu), gamma Euler's constant. Every cell is

    KL(q || p) = -h - r + C_p + E U_p(mu + sigma X)

and only E U_p depends on the prior:

- normal, E z^2 / 2: the first two moments of X.
- laplace, E abs z: partial means of X.
- cauchy, E log(1 + z^2) = 2 log sigma + 2 Re L((1 - i mu) / sigma) with L(b) = E log(b - iX).
- student_t nu: (nu + 1) / 2 times the cauchy energy at (mu, sigma) / sqrt(nu).
- gumbel, E z + E exp(-z): the mean and the moment generating function, M(-sigma), of X.
- uniform and exponential: constants and means, where the support of q lies inside.

Matched cells are written in d and log1p so that nothing cancels near q = p, where KL is quadratic. abs(mu) is computed as
-`minus_abs`(mu), with slope 1 instead of 0 at mu = 0: the first derivative of these even functions still vanishes, and
the curvature at mu = 0 is right.

All are functions of (mu, sigma, r), elementwise, in the dtype of their arguments, without branches on data. For a cell
that is finite only in a region, `divergences` moves sigma and mu inside first and returns inf outside.

References: Gil, Alajaji and Linder, "Rényi divergence measures for commonly used univariate continuous distributions"
(2013), for the matched cells; the mismatched ones follow from the formula above.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from autovae.beliefs.cross_entropy import Divergence, constant
from autovae.beliefs.families import FAMILIES, minus_abs

__all__ = ["any_normal", "by_moment", "student_laplace"]

SQRT3, SQRT5 = math.sqrt(3), math.sqrt(5)

# --- normal prior ---


def normal_normal(mu: Tensor, sigma: Tensor, r: Tensor) -> Tensor:
    d = sigma - 1
    return 0.5 * (mu.square() + d * (2 + d)) - r


def any_normal(posterior: str) -> Divergence:
    """E z^2 / 2 by mean and variance."""
    family, offset = FAMILIES[posterior], constant(posterior, "normal")
    mean, variance = family.mean, family.variance

    def energy(mu: Tensor, sigma: Tensor, r: Tensor) -> Tensor:
        centre = mu + mean * sigma if mean else mu
        return 0.5 * (centre.square() + variance * sigma.square()) - r + offset

    return energy


# --- laplace prior ---


def laplace_laplace(mu: Tensor, sigma: Tensor, r: Tensor) -> Tensor:
    a = -minus_abs(mu)
    return (sigma - 1 - r) + (a + sigma * torch.expm1(-a / sigma))


def logistic_laplace(mu: Tensor, sigma: Tensor, r: Tensor) -> Tensor:
    a = -minus_abs(mu)
    return a + 2 * sigma * torch.log1p(torch.exp(-a / sigma)) - r + constant("logistic", "laplace")


def uniform_laplace(mu: Tensor, sigma: Tensor, r: Tensor) -> Tensor:
    a = -minus_abs(mu)
    return a + 0.5 * sigma * torch.relu(1 - a / sigma).square() - r + constant("uniform", "laplace")


def exponential_laplace(mu: Tensor, sigma: Tensor, r: Tensor) -> Tensor:
    below = torch.where(mu < 0, mu, 0.0)  # before the exponential, which would overflow for mu > 0
    return mu + sigma + 2 * (sigma * torch.expm1(below / sigma) - below) - r + constant("exponential", "laplace")


def student_laplace(nu: int) -> Divergence:
    family, offset = FAMILIES[f"student_t{nu}"], constant(f"student_t{nu}", "laplace")
    peak = math.exp(float(family.log_prob(torch.zeros((), dtype=torch.float64)))) * 2 * nu / (nu - 1)

    def energy(mu: Tensor, sigma: Tensor, r: Tensor) -> Tensor:
        u = mu / (sigma * math.sqrt(nu))
        decay = 1 / (1 + u.square())
        odd = torch.atan(u) + u * decay  # (pi / 2)(2 F - 1), odd in u
        if nu == 5:
            odd = odd + (2 / 3) * u * decay.square()
            decay = decay.square()
        return (2 / math.pi) * mu * odd + peak * sigma * decay - r + offset

    return energy


# --- cauchy and student_t priors: E log(1 + z^2) ---


def cauchy_log_square(mu: Tensor, sigma: Tensor) -> Tensor:
    return torch.log((1 + sigma).square() + mu.square())


def t3_log_square(mu: Tensor, sigma: Tensor) -> Tensor:
    reach = SQRT3 * sigma
    square = (1 + reach).square() + mu.square()
    return torch.log(square) - 2 * reach * (1 + reach) / square


def t5_log_square(mu: Tensor, sigma: Tensor) -> Tensor:
    reach = SQRT5 * sigma
    front = (1 + reach).square()
    square = front + mu.square()
    ratio = reach / square
    return torch.log(square) - 2 * ratio * (1 + reach) - (2 / 3) * ratio.square() * (front - mu.square())


def uniform_log_square(mu: Tensor, sigma: Tensor) -> Tensor:
    # log(1 + (a + s)^2) - log(1 + (a - s)^2) as one log1p, so that nothing cancels for small sigma.
    a = -minus_abs(mu)
    near = (a - sigma).square()
    rise = torch.log1p(4 * a * sigma / (1 + near))
    angle = torch.atan2(2 * sigma, 1 + (a - sigma) * (a + sigma))
    return torch.log1p(near) + 0.5 * (1 + a / sigma) * rise + angle / sigma - 2


def cauchy_cauchy(mu: Tensor, sigma: Tensor, r: Tensor) -> Tensor:
    return torch.log1p(((sigma - 1).square() + mu.square()) / (4 * sigma))


def t3_t3(mu: Tensor, sigma: Tensor, r: Tensor) -> Tensor:
    d, m = sigma - 1, mu.square() / 3
    square = (1 + sigma).square() + m
    return 2 * torch.log1p((d * (4 + d) + m) / 4) + 2 * (m - d * (2 + d)) / square - r


def t5_t5(mu: Tensor, sigma: Tensor, r: Tensor) -> Tensor:
    d, m = sigma - 1, mu.square() / 5
    front = (1 + sigma).square()
    square = front + m
    third = (m * (2 * front + m + 4 * sigma.square()) - d * front * (1 + 3 * sigma)) / (6 * square.square())
    return 3 * (torch.log1p((d * (4 + d) + m) / 4) + (m - d * (2 + d)) / square + third) - r


# --- gumbel prior: E z + E exp(-z) ---


def by_moment(posterior: str, moment: Callable[[Tensor, Tensor], Tensor]) -> Divergence:
    """A gumbel prior, from moment(mu, sigma) = exp(-mu) M(-sigma): exponents are joined before exp."""
    mean, offset = FAMILIES[posterior].mean, constant(posterior, "gumbel")

    def energy(mu: Tensor, sigma: Tensor, r: Tensor) -> Tensor:
        centre = mu + mean * sigma if mean else mu
        return centre + moment(mu, sigma) - r + offset

    return energy


def normal_moment(mu: Tensor, sigma: Tensor) -> Tensor:
    return torch.exp(0.5 * sigma.square() - mu)


def laplace_moment(mu: Tensor, sigma: Tensor) -> Tensor:
    return torch.exp(-mu) / ((1 - sigma) * (1 + sigma))


def logistic_moment(mu: Tensor, sigma: Tensor) -> Tensor:
    return torch.exp(-mu) * math.pi * sigma / torch.sin(math.pi * torch.minimum(sigma, 1 - sigma))


def hypsecant_moment(mu: Tensor, sigma: Tensor) -> Tensor:
    return torch.exp(-mu) / torch.sin(0.5 * math.pi * (1 - sigma))


def uniform_moment(mu: Tensor, sigma: Tensor) -> Tensor:
    return torch.exp(sigma - mu) * -torch.expm1(-2 * sigma) / (2 * sigma)


def exponential_moment(mu: Tensor, sigma: Tensor) -> Tensor:
    return torch.exp(-mu) / (1 + sigma)


# --- bounded priors ---


def uniform_uniform(mu: Tensor, sigma: Tensor, r: Tensor) -> Tensor:
    return 0 * mu - r


def uniform_exponential(mu: Tensor, sigma: Tensor, r: Tensor) -> Tensor:
    return mu - r - math.log(2)


def exponential_exponential(mu: Tensor, sigma: Tensor, r: Tensor) -> Tensor:
    return mu + (sigma - 1) - r
