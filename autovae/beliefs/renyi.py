r"""Rényi divergences between location-scale families.

    D_alpha(q || p) = log integral q^alpha p^(1 - alpha) / (alpha - 1),   alpha in [0, inf), D_1 = KL(q || p),

of q = the law of mu + sigma X against a standard prior p. Notation: delta = alpha - 1, d = sigma - 1, r = log sigma.

Finiteness follows from the ends of the line (`renyi_finite`). For alpha < 1 the integral is at most 1, so D is finite
unless the supports are disjoint. For alpha > 1 the support of q must lie inside that of p, and at each end

| tails of q and p          | condition                                                    |
|---------------------------|--------------------------------------------------------------|
| q lighter than p          | finite                                                       |
| q heavier than p          | infinite                                                     |
| stretched k, rates a, a'  | alpha a / sigma^k - delta a' > 0 (gaussian k = 2, exponential k = 1) |
| power nu, power nu'       | alpha (nu + 1) - delta (nu' + 1) > 1                         |
| double exponential, both  | sigma < a / a', or equal and alpha exp(-a mu / sigma) > delta, mu pointing outwards |

The pairs of `autovae.registry.RENYI`, and their mirror images, have closed forms (`renyi_closed`). All others are
integrated from the log densities: the line is cut at the centres of q and p and at the ends of the supports, and each
piece is mapped so that the integrand decays exponentially at both ends, on every scale at once (z = edge +- e^t outside, a
logistic map inside), where the trapezoid rule converges geometrically. Error 1e-8 relative to max(D, 1e-3); the number of
nodes favours accuracy over speed, so this is not for training.

References: Rényi divergence and Kullback-Leibler divergence, van Erven and Harremoës (2014); Rényi divergence measures
for commonly used univariate continuous distributions, Gil, Alajaji and Linder (2013).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from autovae import registry
from autovae.beliefs.divergences import kl_unchecked, standardised
from autovae.beliefs.families import FAMILIES, mirrored_pair
from autovae.beliefs.integration import inside
from autovae.beliefs.regions import FREE, region_of
from autovae.finiteness import TAILS, Tail
from autovae.registry import Resolved

__all__ = ["renyi", "renyi_finite"]

INF = math.inf
CLOSED: Mapping[tuple[str, str], Callable[[float, Tensor, Tensor], Tensor]] = Resolved(registry.RENYI)
OUTER, MIDDLE = 640, 400  # nodes on an unbounded and on a bounded piece
FINER = 4  # times as many under a double exponential tail, which is narrow on a logarithmic scale
NEAR = 0.1  # the distance of alpha to 1 that counts as near
BLOCK = 1 << 20  # nodes times elements at once


def renyi(
    alpha: float,
    posterior: str,
    prior: str,
    loc: Tensor | float,
    scale: Tensor | float,
    prior_loc: Tensor | float | None = None,
    prior_scale: Tensor | float | None = None,
) -> Tensor:
    """D_alpha(q || p) elementwise, q the law of loc + scale * eps, p the standard prior or that at (prior_loc,
    prior_scale). Shapes broadcast. Returns inf where the divergence is infinite.

    Raises ValueError for an alpha outside [0, inf), unknown families, scales <= 0, non-finite values and shapes that do
    not broadcast.
    """
    order = _order(alpha)
    mu, sigma = standardised(posterior, prior, loc, scale, prior_loc, prior_scale)
    if order == 1:
        return kl_unchecked(posterior, prior, mu, sigma)
    mu, sigma = torch.broadcast_tensors(mu, sigma)
    dtype = mu.dtype
    mu, sigma = mu.double(), sigma.double()
    if order == 0:
        return _order_zero(posterior, mu, sigma, prior).to(dtype)
    finite = renyi_finite(order, posterior, prior, mu, sigma)
    inside_mu, inside_sigma = _safe(posterior, prior)
    mu, sigma = torch.where(finite, mu, inside_mu), torch.where(finite, sigma, inside_sigma)
    mirror = mirrored_pair(posterior, prior)
    if (posterior, prior) in CLOSED:
        value = CLOSED[posterior, prior](order - 1, mu, sigma)
    elif mirror is not None and mirror in CLOSED:
        value = CLOSED[mirror](order - 1, -mu, sigma)
    else:
        value = _by_quadrature(order, posterior, prior, mu, sigma)
    return torch.where(finite, value, INF).to(dtype)


def _order(alpha: float) -> float:
    try:
        order = float(alpha)
    except (TypeError, ValueError):
        order = math.nan
    if not 0 <= order < INF:
        raise ValueError(f"alpha must be one number in [0, inf) (1 gives the KL divergence), got {alpha!r}")
    return order


# --- where finite ---


def _end_finite(alpha: float, q: Tail, p: Tail, mu: Tensor, sigma: Tensor) -> Tensor | bool:
    """Whether q^alpha p^(1 - alpha) is integrable at one unbounded end of both, alpha > 1; `mu` points outwards."""
    delta = alpha - 1
    if q.growth != p.growth:
        return q.growth > p.growth  # the lighter tail grows faster in -log density
    if q.power < INF:
        return alpha * (q.power + 1) - delta * (p.power + 1) > 1
    if q.double_exponential:
        rate, wanted = q.rate / sigma, p.rate
        return (rate > wanted) | ((rate == wanted) & (alpha * torch.exp(-rate * mu) > delta))
    return alpha * q.rate / sigma**q.growth - delta * p.rate > 0


def _support(family: str, mu: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    low, high = FAMILIES[family].support
    return mu + sigma * low, mu + sigma * high


def _supports(posterior: str, prior: str, mu: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return *_support(posterior, mu, sigma), *_support(prior, torch.zeros_like(mu), torch.ones_like(sigma))


def renyi_finite(alpha: float, posterior: str, prior: str, mu: Tensor, sigma: Tensor) -> Tensor:
    """Where D_alpha is finite, from the ends of the two laws; 0 < alpha, alpha != 1."""
    q_low, q_high, p_low, p_high = _supports(posterior, prior, mu, sigma)
    if alpha < 1:
        return torch.maximum(q_low, p_low) < torch.minimum(q_high, p_high)
    finite = (q_low >= p_low) & (q_high <= p_high)
    for sign, end_q, end_p in zip((-1, 1), TAILS[posterior].ends, TAILS[prior].ends, strict=True):
        if not end_q.bounded and not end_p.bounded:
            finite = finite & _end_finite(alpha, end_q, end_p, sign * mu, sigma)
    return finite


def _safe(posterior: str, prior: str) -> tuple[float, float]:
    """A (mu, sigma) at which every formula is finite, for the elements that will be inf."""
    region = region_of(posterior, prior)
    if region is not FREE:
        return region.safe
    return FAMILIES[prior].centre - 0.5 * FAMILIES[posterior].centre, 0.5


def _order_zero(posterior: str, mu: Tensor, sigma: Tensor, prior: str) -> Tensor:
    """D_0 = -log of the prior mass under the support of q."""
    low, high = _support(posterior, mu, sigma)
    if TAILS[posterior].whole_line:
        return torch.zeros_like(mu)
    family = FAMILIES[prior]
    return -torch.log(family.cdf(high) - family.cdf(low))


# --- quadrature ---


def _reach(alpha: float, q: Tail, p: Tail, mu: Tensor, sigma: Tensor) -> Tensor:
    """How far beyond the centres q^alpha p^(1 - alpha), and q near alpha = 1, matter at one end.

    Generous, since the map is logarithmic.
    """

    def own_reach(tail: Tail, weight: float | Tensor, scale: Tensor) -> Tensor:
        weight = torch.as_tensor(weight).clamp(min=1e-9)
        if tail.power < INF:
            return scale * torch.exp((40 / (weight * (tail.power + 1))).clamp(max=300))
        if tail.double_exponential:
            return (scale * torch.log1p(45 / weight) + scale) / tail.rate
        return scale * (45 / (weight * tail.rate)) ** (1 / tail.growth)

    delta, one = alpha - 1, torch.ones_like(sigma)
    if q.power < INF and p.power < INF:
        excess = alpha * (q.power + 1) - delta * (p.power + 1) - 1
        return torch.maximum(sigma, one) * math.exp(min(30 / min(excess, q.power), 300))
    if alpha < 1:
        own = own_reach(q, alpha, sigma)
        if abs(delta) > NEAR:
            return mu.abs() + torch.minimum(own, own_reach(p, -delta, one))
        return mu.abs() + (own if q.power == INF else sigma * math.exp(36 / q.power))
    if q.double_exponential and p.double_exponential:
        return mu.abs() + _crossing(alpha, q, p, mu, sigma, 2).clamp(min=0) + 5 * torch.maximum(sigma, one)
    if q.growth == p.growth:
        own_rate = alpha * q.rate / sigma**q.growth
        left = (own_rate - delta * p.rate).clamp(min=1e-9)
        bulk = mu.abs() if q.growth == 1 else mu.abs() * (1 + own_rate / left)
        return bulk + one * (45 / left) ** (1 / q.growth)
    # q falls faster: its own reach, and the point up to which p^(1 - alpha) wins.
    return mu.abs() + 2 * own_reach(q, alpha, sigma) + 3 * delta * (sigma + sigma.square())


def _crossing(alpha: float, q: Tail, p: Tail, mu: Tensor, sigma: Tensor, times: float) -> Tensor:
    """Where the double exponentials q^alpha and p^((alpha - 1) times) are equal; `mu` points outwards."""
    rate = q.rate / sigma
    return (math.log(times * (alpha - 1) / alpha + 1e-9) + rate * mu) / (rate - p.rate).clamp(min=1e-3)


def _pieces(alpha: float, posterior: str, prior: str, mu: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes z and logarithms of their weights, (nodes, elements)."""
    q_low, q_high, p_low, p_high = _supports(posterior, prior, mu, sigma)
    low, high = torch.maximum(q_low, p_low), torch.minimum(q_high, p_high)
    q, p = TAILS[posterior], TAILS[prior]
    centres = [mu, torch.zeros_like(mu)]
    for sign, end_q, end_p in zip((-1, 1), q.ends, p.ends, strict=True):
        if alpha > 1 and end_q.double_exponential and end_p.double_exponential:
            # Far out two double exponentials nearly cancel and leave a narrow peak where their slopes are equal.
            slopes = torch.log(end_p.rate * sigma / end_q.rate)
            rate = end_q.rate / sigma
            peak = (math.log((alpha - 1) / alpha) + slopes + rate * sign * mu) / (rate - end_p.rate).clamp(min=1e-3)
            centres.append(sign * peak)
    centres = [torch.minimum(torch.maximum(centre, low), high) for centre in centres]
    cuts = torch.stack(centres).sort(0).values.unbind(0)
    finest = torch.log(sigma.clamp(max=1))
    finer = FINER if any(end.double_exponential for end in (*q.ends, *p.ends)) else 1
    outer, middle = OUTER * finer, MIDDLE * finer
    nodes, logs = [], []

    def bounded(left: Tensor, right: Tensor) -> None:
        u = torch.linspace(-45, 45, middle, dtype=mu.dtype, device=mu.device)[:, None]
        length = right - left
        # Distances from the nearer end, to keep their digits.
        share = torch.sigmoid(-u.abs())
        nodes.append(torch.where(u < 0, left + length * share, right - length * share))
        log = -u.abs() - 2 * torch.log1p(torch.exp(-u.abs())) + math.log(90 / (middle - 1))
        logs.append(log + torch.log(length.clamp(min=1e-300)))

    def unbounded(edge: Tensor, sign: int, q: Tail, p: Tail) -> None:
        start, stop = finest - 30, torch.log(_reach(alpha, q, p, sign * mu, sigma).detach())
        step = (stop - start) / (outer - 1)
        t = start + step * torch.arange(outer, dtype=mu.dtype, device=mu.device)[:, None]
        nodes.append(edge + sign * torch.exp(t))
        logs.append(t + torch.log(step))

    if q.left.bounded or p.left.bounded:
        bounded(low, cuts[0])
    else:
        unbounded(cuts[0], -1, q.left, p.left)
    for left, right in itertools.pairwise(cuts):
        bounded(left, right)
    if q.right.bounded or p.right.bounded:
        bounded(cuts[-1], high)
    else:
        unbounded(cuts[-1], 1, q.right, p.right)
    return torch.cat([n.expand(-1, mu.numel()) for n in nodes]), torch.cat([n.expand(-1, mu.numel()) for n in logs])


def _block(alpha: float, posterior: str, prior: str, mu: Tensor, sigma: Tensor) -> Tensor:
    delta = alpha - 1
    z, log_weight = _pieces(alpha, posterior, prior, mu, sigma)
    q, p = FAMILIES[posterior], FAMILIES[prior]
    log_q = q.log_prob(inside(q, (z - mu) / sigma)) - torch.log(sigma)
    log_p = p.log_prob(inside(p, z))
    far = torch.logsumexp(log_weight + alpha * log_q - delta * log_p, 0) / delta
    if abs(delta) > NEAR:
        return far
    # Near alpha = 1 the logarithm above is about 0: integrate (exp(delta l) - 1) / delta, l = log q / p, instead.
    tilt = delta * (log_q - log_p)
    mass = torch.exp(log_weight + log_q)
    small = mass * torch.expm1(tilt.clamp(-1, 1))
    term = torch.where(tilt.abs() < 1, small, torch.exp(log_weight + log_q + tilt.clamp(min=-700)) - mass)
    q_low, q_high, p_low, p_high = _supports(posterior, prior, mu, sigma)
    return torch.where((q_low >= p_low) & (q_high <= p_high), torch.log1p(term.sum(0)) / delta, far)


def _by_quadrature(alpha: float, posterior: str, prior: str, mu: Tensor, sigma: Tensor) -> Tensor:
    size = BLOCK // (FINER * 2 * (OUTER + MIDDLE))
    blocks = zip(mu.flatten().split(size), sigma.flatten().split(size), strict=True)
    return torch.cat([_block(alpha, posterior, prior, m, s) for m, s in blocks]).view_as(mu)
