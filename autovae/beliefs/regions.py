r"""Where KL(q || p) of a conditional pair is finite, and a map of raw numbers (m, s) onto that region.

Both follow from tails and supports. With [a, b] the support of the standard q, [a', b'] that of p:

| ends of q and p                           | finite where            | map                                           |
|-------------------------------------------|-------------------------|-----------------------------------------------|
| q exp(-b r) under p exp(-exp(a r))        | scale < b / a           | scale = (b / a) sigmoid(s)                    |
| both bounded at the left (right alike)    | loc + scale a >= a'     | loc = a' - scale a + softplus(m)              |
| both bounded at both ends                 | and loc + scale b <= b' | scale <= (b' - a') / (b - a), loc between by tanh(m) |
| any other                                 | scale > 0               | scale = exp(s), loc = m                       |

The map keeps training inside the region: uniform|uniform gets scale = sigmoid(s) and loc = (1 - scale) tanh(m),
uniform|exponential loc = scale + softplus(m), laplace|gumbel scale = sigmoid(s).
Not here: which pairs are conditional, see `autovae.finiteness`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from autovae.beliefs.families import FAMILIES
from autovae.finiteness import finiteness

__all__ = ["LOG_SCALE_LIMIT", "Region", "region_of"]

INF = math.inf
# No latent needs a scale outside exp(+-12); beyond it float32 products overflow in the tails.
LOG_SCALE_LIMIT = 12.0
ROUNDING = 1e-6  # keeps abs(loc) + scale <= 1 in float32, where the sum may round up


@dataclass(frozen=True)
class Region:
    """The set of (loc, scale) with scale below a limit and the support of q inside that of p."""

    scale_limit: float = INF
    low: tuple[float, float] = (-INF, -INF)  # a, a' if both are bounded at the left, else -inf
    high: tuple[float, float] = (INF, INF)  # b, b'

    def contains(self, loc: Tensor, scale: Tensor) -> Tensor:
        """Where the divergence is finite."""
        inside = (scale < self.scale_limit) & (loc < INF)
        if math.isfinite(self.low[0]):
            inside = inside & (loc + scale * self.low[0] >= self.low[1])
        if math.isfinite(self.high[0]):
            inside = inside & (loc + scale * self.high[0] <= self.high[1])
        return inside

    def parametrise(self, m: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """(loc, scale) inside the region, from any raw numbers."""
        s = s.clamp(-LOG_SCALE_LIMIT, LOG_SCALE_LIMIT)
        left, right = math.isfinite(self.low[0]), math.isfinite(self.high[0])
        limit = self.scale_limit
        if left and right:
            limit = min(limit, (self.high[1] - self.low[1]) / (self.high[0] - self.low[0]))
        scale = s.exp() if math.isinf(limit) else s.sigmoid() if limit == 1 else limit * s.sigmoid()
        if left and right:
            first, last = self.low[1] - self.low[0] * scale, self.high[1] - self.high[0] * scale
            half = 0.5 * (last - first) * (1 - ROUNDING)
            return 0.5 * (first + last) + half * m.tanh(), scale
        if left:
            return self._off(self.low, scale, 1) + F.softplus(m), scale
        if right:
            return self._off(self.high, scale, -1) - F.softplus(-m), scale
        return m, scale

    @staticmethod
    def _off(end: tuple[float, float], scale: Tensor, sign: int) -> Tensor:
        """The loc at which both ends coincide, moved inside by a rounding error if p does not end at 0."""
        own, other = end
        meets = other - own * scale
        return meets if other == 0 else meets + sign * ROUNDING * (abs(other) + abs(own) * scale)

    @property
    def safe(self) -> tuple[float, float]:
        """A (loc, scale) well inside the region."""
        loc, scale = self.parametrise(torch.zeros((), dtype=torch.float64), torch.tensor(-math.log(2)).double())
        return float(loc), float(scale)


FREE = Region()


def region_of(posterior: str, prior: str) -> Region:
    """The region in which KL(posterior || prior) is finite; FREE if the pair is not conditional."""
    if finiteness(posterior, prior) != "conditional":
        return FREE
    q, p = FAMILIES[posterior], FAMILIES[prior]
    limits = [
        mine.rate / other.rate
        for mine, other in zip(q.tails.ends, p.tails.ends, strict=True)
        if other.double_exponential and mine.growth == 1
    ]
    left, right = (mine.bounded and other.bounded for mine, other in zip(q.tails.ends, p.tails.ends, strict=True))
    return Region(
        min(limits, default=INF),
        (q.support[0], p.support[0]) if left else FREE.low,
        (q.support[1], p.support[1]) if right else FREE.high,
    )
