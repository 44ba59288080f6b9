r"""The base of all families: a fixed standard law of eps, with z = loc + scale * eps.

A law is its log density, its distribution function, and the monotone map from a standard normal xi to eps and back.
Support, moments, entropy, score and every divergence follow; a law may override them with closed forms.

Going through icdf(cdf(xi)) overflows in float32 at abs(xi) = 5.5, because the upper tail 1 - cdf rounds to 0. Here every
map goes through the *smaller tail* probability p = ndtr(-abs xi), which float64 carries to abs(xi) = 37, and the two
quantiles `lower(p)` and `upper(p)` for p <= 1/2, computed in float64 and returned in the dtype of the input.

| base          | to implement                                                 |
|---------------|--------------------------------------------------------------|
| LocationScale | log_prob, cdf, icdf, from_normal, to_normal, sample          |
| ByTails       | log_prob, median, the tails below and above, their quantiles |
| Symmetric     | log_prob, one tail, one quantile                             |
| Mirrored      | the law that it mirrors                                      |

Derived quantities assume that log_prob is analytic except at eps = 0 and at the ends of the support.
Not here: the laws, see `families`; how derived quantities are integrated, see `integration`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import torch
from torch import Generator, Tensor

from autovae.beliefs.integration import entropy, moment
from autovae.finiteness import TAILS, Tails

__all__ = ["ByTails", "Kind", "LocationScale", "Mirrored", "Symmetric", "log1p_square", "minus_abs"]

INF, NAN = math.inf, math.nan
XI_MAX = 37.0  # ndtr(-37) = 6e-300 is the last whole number of deviations that float64 holds as a normal number
Kind = dict[str, Any]  # dtype, device and generator of a draw


def minus_abs(x: Tensor) -> Tensor:
    """-abs(x) with slope -1 at 0, where the slope of torch.abs is 0 and would zero the gradient of an odd map."""
    return torch.where(x < 0, x, -x)


def log1p_square(x: Tensor) -> Tensor:
    """log(1 + x^2) for every finite x: x^2 overflows float32 at 2e19, which a Cauchy reaches at xi = 9."""
    large = x.abs() > 1e9
    near = torch.log1p(torch.where(large, 0.0, x).square())
    far = 2 * torch.log(torch.where(large, x.abs(), 1.0))
    return torch.where(large, far, near)


class LocationScale(ABC):
    """The standard law of eps. Instances are constants; all methods act elementwise on tensors."""

    name: str
    symmetric: bool = False  # about 0
    is_source: bool = False  # whether this is the standard normal, the source of every `from_normal`

    @property
    def tails(self) -> Tails:
        return TAILS[self.name]

    @property
    def smooth(self) -> bool:
        """False if the support moves with loc and scale: some gradient estimators are then wrong."""
        return self.tails.whole_line

    @cached_property
    def support(self) -> tuple[float, float]:
        """The ends of the standard law: quantiles of 0 and 1 at bounded ends."""
        ends = self.icdf(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        low, high = (tail.bounded for tail in self.tails.ends)
        return ends[0] + 0.0 if low else -INF, ends[1] if high else INF

    @cached_property
    def centre(self) -> float:
        """The median, away from both ends of the support."""
        return float(self.icdf(torch.tensor(0.5, dtype=torch.float64)))

    @cached_property
    def mean(self) -> float:
        """The mean, nan if undefined. Integrated unless overridden."""
        return moment(self, 1) if self.tails.power > 1 else NAN

    @cached_property
    def variance(self) -> float:
        """The variance: inf if infinite, nan if undefined. Integrated unless overridden."""
        if not self.tails.power > 2:
            return INF if self.tails.power > 1 else NAN
        return moment(self, 2) - self.mean**2

    @cached_property
    def entropy(self) -> float:
        """The entropy in nats. Integrated unless overridden."""
        return entropy(self)

    def score(self, eps: Tensor) -> Tensor:
        """The derivative of `log_prob`."""
        return torch.func.grad(lambda x: self.log_prob(x).sum())(eps)

    @abstractmethod
    def log_prob(self, eps: Tensor) -> Tensor:
        """Log density, in the dtype of the input; -inf outside the support."""

    @abstractmethod
    def cdf(self, eps: Tensor) -> Tensor: ...

    @abstractmethod
    def icdf(self, u: Tensor) -> Tensor:
        """Quantile of u in [0, 1]. For a standard normal source use `from_normal`, which keeps the upper tail."""

    @abstractmethod
    def from_normal(self, xi: Tensor) -> Tensor:
        """The increasing map under which xi ~ N(0, 1) becomes this law; constant beyond abs(xi) = 37."""

    @abstractmethod
    def to_normal(self, eps: Tensor) -> Tensor:
        """The inverse of `from_normal`, finite for every eps."""

    @abstractmethod
    def sample(
        self,
        shape: tuple[int, ...] | torch.Size,
        generator: Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor: ...

    def __repr__(self) -> str:
        return f"<family {self.name}>"


class ByTails(LocationScale):
    """A law given by the probabilities and quantiles of its two ends, each accurate where it is small."""

    median: float  # `below` serves up to here, `above` beyond: P(X <= median) near 1/2

    @abstractmethod
    def below(self, eps: Tensor) -> Tensor:
        """P(X <= eps) for float64 eps, with small relative error wherever it is at most 1/2."""

    @abstractmethod
    def above(self, eps: Tensor) -> Tensor:
        """P(X > eps), likewise."""

    @abstractmethod
    def lower(self, p: Tensor) -> Tensor:
        """The eps with `below` = p, for 0 < p <= 1/2."""

    @abstractmethod
    def upper(self, p: Tensor) -> Tensor:
        """The eps with `above` = p, for 0 < p <= 1/2."""

    def draw(self, shape: tuple[int, ...] | torch.Size, kind: Kind) -> Tensor:
        """Draws by quantiles of normals; a law may override it with cheaper draws."""
        return self.from_normal(torch.randn(shape, **kind))

    def cdf(self, eps: Tensor) -> Tensor:
        x = eps.double()
        return torch.where(x < self.median, self.below(x), 1 - self.above(x)).to(eps.dtype)

    def icdf(self, u: Tensor) -> Tensor:
        v = u.double()
        p = torch.where(v < 0.5, v, 1 - v)
        return torch.where(v < 0.5, self.lower(p), self.upper(p)).to(u.dtype)

    def from_normal(self, xi: Tensor) -> Tensor:
        x = xi.double().clamp(-XI_MAX, XI_MAX)
        p = 0.5 * torch.erfc(minus_abs(x) * -math.sqrt(0.5))
        # Both quantiles are finite for 0 < p <= 1/2, so the one not chosen has a zero gradient, not NaN.
        eps = torch.where(x < 0, self.lower(p), self.upper(p))
        largest = torch.finfo(xi.dtype).max
        return eps.clamp(-largest, largest).to(xi.dtype)

    def to_normal(self, eps: Tensor) -> Tensor:
        x = eps.double()
        # The end not chosen has p near 1, where ndtri is infinite; 3/4 keeps its derivative finite.
        below = torch.special.ndtri(self.below(x).clamp(1e-300, 0.75))
        above = torch.special.ndtri(self.above(x).clamp(1e-300, 0.75))
        return torch.where(x < self.median, below, -above).to(eps.dtype)

    def sample(
        self,
        shape: tuple[int, ...] | torch.Size,
        generator: Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        return self.draw(shape, {"generator": generator, "dtype": dtype, "device": device})


class Symmetric(ByTails):
    """A law that is even about 0: one tail and one quantile suffice."""

    median = 0.0
    symmetric = True

    @abstractmethod
    def tail(self, t: Tensor) -> Tensor:
        """P(X > t) for t >= 0."""

    def above(self, eps: Tensor) -> Tensor:
        tail = self.tail(-minus_abs(eps))
        return torch.where(eps < 0, 1 - tail, tail)

    def below(self, eps: Tensor) -> Tensor:
        tail = self.tail(-minus_abs(eps))
        return torch.where(eps < 0, tail, 1 - tail)

    def lower(self, p: Tensor) -> Tensor:
        return -self.upper(p)


class Mirrored(LocationScale):
    """The law of -X, for X of another law."""

    def __init__(self, name: str, of: LocationScale) -> None:
        self.name, self.of = name, of

    def log_prob(self, eps: Tensor) -> Tensor:
        return self.of.log_prob(-eps)

    def cdf(self, eps: Tensor) -> Tensor:
        return 1 - self.of.cdf(-eps)

    def icdf(self, u: Tensor) -> Tensor:
        return -self.of.icdf(1 - u)

    def from_normal(self, xi: Tensor) -> Tensor:
        return -self.of.from_normal(-xi)

    def to_normal(self, eps: Tensor) -> Tensor:
        return -self.of.to_normal(-eps)

    def sample(
        self,
        shape: tuple[int, ...] | torch.Size,
        generator: Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        return -self.of.sample(shape, generator, dtype, device)
