r"""`Likelihood`: one head p(x given z), elementwise in the features of x.

`params` is the raw output of a decoder, eta: a logit for heads on the unit interval, a location for heads on the line;
`scale` > 0 (its floor already applied) is given to heads that have one. x, bins and scale broadcast against params
(..., X). A density on discrete data is unbounded, so scores use `log_mass`, the log probability of the bin of a level.
Not here: the heads, see `coins`, `beta` and `line`; their names and facts, see `autovae.registry`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Generator, Tensor

from autovae.registry import LIKELIHOODS, LikelihoodRow

__all__ = ["Likelihood", "given"]


class Likelihood(ABC):
    """One head. Instances are constants; the facts of its row in the registry are attributes."""

    name: str  # of its row in the registry
    formula: str  # of log p(x), for reports
    linear_in_x: bool = False  # log p(x) = x eta - A(eta): a backend may have one kernel for its sum and slope

    @property
    def row(self) -> LikelihoodRow:
        return LIKELIHOODS[self.name]

    @property
    def supports(self) -> frozenset[str]:
        """Of the data it can describe: "binary", "unit", "real"."""
        return self.row.supports

    @property
    def has_scale(self) -> bool:
        return self.row.has_scale

    @property
    def trains_on(self) -> str:
        """ "dequantised" or "levels": the middle of the level's bin, 0 or 1 for binary data."""
        return self.row.trains_on

    @abstractmethod
    def log_prob(self, x: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        """Log density (for the Bernoulli: log probability) of x."""

    @abstractmethod
    def log_mass(self, lower: Tensor, upper: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        """Log probability of the bin [lower, upper]; lower may be -inf, upper +inf."""

    def log_prob_sum(self, x: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        """`log_prob` summed over the last axis; a head may find the sum with less work than its terms."""
        return self.log_prob(x, params, scale).sum(-1)

    def log_mass_sum(self, lower: Tensor, upper: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        """`log_mass` summed over the last axis."""
        return self.log_mass(lower, upper, params, scale).sum(-1)

    @abstractmethod
    def mean(self, params: Tensor, scale: Tensor | None = None) -> Tensor:
        """E x."""

    def folded_mean(self, params: Tensor, scale: Tensor | None, low: float, high: float) -> Tensor:
        """E of x with what lies outside [low, high] folded onto the ends: the mean of a head that follows masses."""
        return self.mean(params, scale)

    @abstractmethod
    def sample(self, params: Tensor, scale: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """One draw of x for every number of params."""

    def __repr__(self) -> str:
        return f"<likelihood {self.name}>"


def given(scale: Tensor | None, params: Tensor, name: str) -> Tensor:
    """The scale in the dtype of `params`; ValueError if a head that needs one got none."""
    if scale is None:
        raise ValueError(f"likelihood {name!r} got no scale, expected a positive tensor that broadcasts against params")
    return scale.to(params.dtype)
