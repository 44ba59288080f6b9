r"""Integrals that need only the log density of a location-scale law: moments, entropy, and the energy of a pair.

For a pair without a closed form, KL(q || p) = -h - log sigma + E U(mu + sigma X), U = -log p, and the mean is integrated
in x, the standard units of q. The line is cut where log densities may have a kink: at x = 0, at z = mu + sigma x = 0,
and at the ends of the support. On each piece the distance d from a cut is mapped so that one grid resolves all scales
from rounding to the far tail, and the trapezoid rule converges geometrically:

    unbounded     d = s exp(w - exp(-w))                        s = min(1, 1 / sigma), the finest scale
    bounded       d = length sigmoid(g), g = v + exp(v - V) - exp(-v - V)      V = log(length / s) + 1

How far a tail reaches follows from `Tails`. Derivatives are means too, of -score and -x score, and the cuts move with mu
and sigma, so second derivatives are right even under a prior with a kink.

| rule   | nodes per piece | error relative to max(KL, 1e-3) |
|--------|-----------------|---------------------------------|
| fine   | 320             | 1e-12                           |
| coarse | 112             | 2e-6, for float32               |

Cost: some hundred evaluations of each log density per element, so a closed form in `divergences.KL` trains much faster.
References: Takahasi and Mori, Double exponential formulas for numerical integration, 1974.
Not here: pairs with a rule of their own, see `quadrature`; Renyi divergences, see `renyi`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from autovae.beliefs.special import Constants, column, in_blocks
from autovae.finiteness import Tail, stretched_tail

if TYPE_CHECKING:
    from autovae.beliefs.cross_entropy import Three
    from autovae.beliefs.location_scale import LocationScale

__all__ = ["energy_rule", "entropy", "inside", "moment"]

INF = math.inf
ROUNDING = 4e-16


class Grid(Constants):
    """Equidistant nodes in [0, 1], and how far to go."""

    def __init__(self, points: int, nats: float, log_range: float, start: float) -> None:
        super().__init__(np.linspace(0, 1, points))
        self.nats = nats  # the drop of the log density at which its tail is cut
        self.log_range = log_range  # the same for power tails, with the remainder weighted by distance
        self.start = start  # of w and, past V, of v: the least distance is exp(start - exp(-start)) of the finest scale


GRIDS = {True: Grid(320, 45.0, 36.0, -3.4), False: Grid(112, 28.0, 22.0, -2.9)}


def inside(law: LocationScale, eps: Tensor) -> Tensor:
    """`eps` moved to where log_prob is finite: off the ends of the support, and not past exp(500) in the exponent."""
    low, high = law.support
    low = low + ROUNDING * max(1.0, abs(low)) if math.isfinite(low) else low
    high = high - ROUNDING * max(1.0, abs(high)) if math.isfinite(high) else high
    left, right = law.tails.ends
    if left.double_exponential:
        low = -500 / left.rate
    if right.double_exponential:
        high = 500 / right.rate
    return eps if math.isinf(low) and math.isinf(high) else eps.clamp(low, high)


def _reach(q: Tail, p: Tail, sigma: Tensor, grid: Grid) -> Tensor:
    """How far beyond the outermost cut, in units of x, the density of q times the growth of U matters."""
    one = torch.ones_like(sigma)
    if q.power < INF:
        return one * math.exp(min(grid.log_range / (q.power - min(p.growth, q.power - 0.1)), 300))
    if q.double_exponential:
        growth = 10 * p.rate / q.rate * sigma if p.double_exponential else 0.0
        return one + torch.log1p(grid.nats + growth * one) / q.rate
    own = one * (grid.nats / q.rate) ** (1 / q.growth)
    if not p.double_exponential:
        return own
    if q.growth == 1:  # the means exist where sigma a < b
        return grid.nats / (q.rate - sigma * p.rate).clamp(min=1e-9)
    return own + 2 * (sigma * p.rate / (q.growth * q.rate)) ** (1 / (q.growth - 1))


def _beyond(
    edge: Tensor, sign: int, reach: Tensor, finest: Tensor, unit: Tensor, start: float
) -> tuple[Tensor, Tensor]:
    """Nodes and weights from a cut to infinity."""
    length = torch.log((reach / finest).clamp(min=1.0)) + 1 - start
    w = start + length * unit
    fall = torch.exp(-w)
    distance = finest * torch.exp(w - fall)
    return edge + sign * distance, distance * (1 + fall) * (length / (len(unit) - 1))


def _between(left: Tensor, right: Tensor, finest: Tensor, unit: Tensor, start: float) -> tuple[Tensor, Tensor]:
    """Nodes and weights between two cuts; distances count from the nearer one."""
    length = right - left
    span = 1 + torch.log((length / finest).clamp(min=1.0)).detach()
    v = (2 * unit - 1) * (span - start)
    rise, fall = torch.exp(v - span), torch.exp(-v - span)
    size = (v + rise - fall).abs()
    share = torch.sigmoid(-size)
    step = 2 * (span - start) / (len(unit) - 1)
    nodes = torch.where(v < 0, left + length * share, right - length * share)
    return nodes, length * share * torch.sigmoid(size) * (1 + rise + fall) * step


def _nodes(law: LocationScale, kink: Tensor, sigma: Tensor, ends: tuple[Tail, Tail], grid: Grid) -> tuple[Tensor, ...]:
    """Nodes x (nodes, *shape), their weights, and the log density of the law on them."""
    low, high = law.support
    unit = column(grid.on(kink.device)[0], kink)
    finest = (1 / sigma).clamp(max=1.0).detach()
    origin = torch.full_like(kink, min(max(0.0, low), high))
    kink = kink.clamp(low, high)
    first, last = torch.minimum(kink, origin), torch.maximum(kink, origin)
    reach = [_reach(q, p, sigma.detach(), grid) for q, p in zip(law.tails.ends, ends, strict=True)]
    if math.isinf(low):
        pieces = [_beyond(first, -1, reach[0], finest, unit, grid.start)]
    else:
        pieces = [_between(torch.full_like(kink, low), first, finest, unit, grid.start)]
    pieces.append(_between(first, last, finest, unit, grid.start))
    if math.isinf(high):
        pieces.append(_beyond(last, 1, reach[1], finest, unit, grid.start))
    else:
        pieces.append(_between(last, torch.full_like(kink, high), finest, unit, grid.start))
    x, weight = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return x, weight, law.log_prob(inside(law, x))


@in_blocks
def _energy(mu: Tensor, sigma: Tensor, grid: Grid, q: LocationScale, p: LocationScale) -> Three:
    x, weight, log_density = _nodes(q, -mu / sigma, sigma, p.tails.ends, grid)
    wanted = mu + sigma * x
    z = inside(p, wanted)
    # Past exp(500) a double exponential tail is extrapolated by its growth; the density of q outweighs it there.
    left, right = p.tails.ends
    if left.double_exponential:
        log_density = log_density + left.rate * (z - wanted).clamp(min=0)
    if right.double_exponential:
        log_density = log_density + right.rate * (wanted - z).clamp(min=0)
    mass = weight * torch.exp(log_density)
    fall = mass * p.score(z)
    return -(mass * p.log_prob(z)).sum(0), -fall.sum(0), -(fall * x).sum(0)


def energy_rule(q: LocationScale, p: LocationScale, fine: bool) -> Callable[[Tensor, Tensor], Three]:
    """E[-log p(mu + sigma X)] for X of q, with its gradient, where the pair is finite."""

    def energy(mu: Tensor, sigma: Tensor) -> Three:
        return _energy(mu, sigma, GRIDS[fine], q, p)

    return energy


def _of_standard(law: LocationScale, growth: float) -> tuple[Tensor, ...]:
    one = torch.ones(1, dtype=torch.float64)
    end = stretched_tail(growth)
    x, weight, log_density = _nodes(law, 0 * one, one, (end, end), GRIDS[True])
    return x, weight * torch.exp(log_density), log_density


def moment(law: LocationScale, order: int) -> float:
    """E X^order, for an order below the power of the tails."""
    x, mass, _ = _of_standard(law, order)
    return float((mass * x**order).sum())


def entropy(law: LocationScale) -> float:
    """-E log density, in nats."""
    _, mass, log_density = _of_standard(law, 0.1)
    return -float((mass * log_density).sum())
