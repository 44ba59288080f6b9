r"""Closed forms of Renyi divergences, as functions of delta = alpha - 1, mu and sigma.

All are written as log1p(delta k) / delta, which is accurate as alpha -> 1. `autovae.registry.RENYI` maps pairs to these
functions; `renyi` returns inf outside the region where the divergence is finite.
To add one: a function of (delta, mu, sigma) in float64, and its row.
Reference: Gil, Alajaji and Linder, Renyi divergence measures for commonly used univariate continuous distributions, 2013.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["cauchy", "exponential", "laplace", "normal", "uniform"]


def normal(delta: float, mu: Tensor, sigma: Tensor) -> Tensor:
    excess = (sigma - 1) * (sigma + 1)
    variance = 1 - delta * excess  # alpha + (1 - alpha) sigma^2
    log = torch.log1p(-delta * excess)
    return -torch.log(sigma) - 0.5 * log / delta + 0.5 * (1 + delta) * mu.square() / variance


def laplace(delta: float, mu: Tensor, sigma: Tensor) -> Tensor:
    a = torch.where(mu < 0, -mu, mu)
    gap = (1 + delta) / sigma + delta  # the difference of the rates A = alpha / sigma and B = 1 - alpha
    s = gap * a
    size = s.abs()
    small = size < 1e-5
    ratio = torch.where(small, 1 - size / 2, -torch.expm1(-size) / torch.where(small, 1.0, size))
    # k = a (1 - exp(-s)) / s; for s < 0 (alpha < 1 only) it grows like exp(abs s), so its logarithm is split.
    plain = torch.log1p(-delta * a * ratio * torch.exp((-s).clamp(0, 30)))
    grown = torch.logaddexp(torch.zeros_like(s), size + torch.log((abs(delta) * a * ratio).clamp(min=1e-300)))
    log = torch.where(s < -30, grown, plain)
    return a - torch.log(sigma) + (log - torch.log1p(-delta * (sigma - 1))) / delta


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
_ANGLES = [(math.pi / 4 * (1 + x), math.pi / 4 * w) for x, w in zip(_NODES.tolist(), _WEIGHTS.tolist(), strict=True)]


def cauchy(delta: float, mu: Tensor, sigma: Tensor) -> Tensor:
    r"""log P_delta(cosh eta) / delta with sinh^2(eta / 2) = ((sigma - 1)^2 + mu^2) / 4 sigma, P a Legendre function.

    Mehler's integral, P - 1 = (2 / pi) integral of 2 sinh((1 + delta) t / 2) sinh(delta t / 2) / cosh(t / 2) over phi in
    (0, pi / 2), sinh(t / 2) = sinh(eta / 2) sin(phi), in the variable psi with t = eta sin(psi).
    """
    square = ((sigma - 1).square() + mu.square()) / (4 * sigma)
    eta = 2 * torch.asinh(torch.sqrt(square.clamp(min=1e-200)))
    total = torch.zeros_like(eta)
    for angle, weight in _ANGLES:
        t = eta * math.sin(angle)
        rest = eta * (2 * math.sin(0.5 * (0.5 * math.pi - angle)) ** 2)  # eta - t
        root = torch.sqrt(torch.sinh(0.5 * (eta + t)) * torch.sinh(0.5 * rest))
        density = (2 / math.pi) * weight * math.cos(angle) * eta / root  # d phi cosh(t / 2)^-1, but for 1 / 2 and 2
        total = total + density * torch.sinh(0.5 * (1 + delta) * t) * (torch.sinh(0.5 * delta * t) / delta)
    return torch.log1p(delta * total) / delta


def uniform(delta: float, mu: Tensor, sigma: Tensor) -> Tensor:
    overlap = torch.minimum(mu + sigma, torch.ones_like(mu)) - torch.maximum(mu - sigma, -torch.ones_like(mu))
    # Where q lies inside, the share is 1 and not 1 + rounding.
    share = torch.where(mu.abs() + sigma <= 1, 1.0, overlap / (2 * sigma))
    return -torch.log(sigma) + torch.log(share) / delta


def exponential(delta: float, mu: Tensor, sigma: Tensor) -> Tensor:
    outside = (1 + delta) * mu.clamp(max=0) / (sigma * delta)
    return -torch.log(sigma) - torch.log1p(-delta * (sigma - 1)) / delta + mu.clamp(min=0) + outside
