r"""Several methods on the same test points: means with their errors, and leads over a baseline.

From values v (seeds, points) of each method, higher is better, such as log p(x) in nats:

    mean            over both
    error_seeds     spread of the seeds' means / sqrt(seeds); the spread is pooled over the methods, since a handful of
                    seeds tells little about a spread
    error_points    spread over points of the mean over seeds / sqrt(points)
    lead            mean over points of (v - baseline), with error hypot(both seed errors, spread of the paired
                    differences / sqrt(points)): points differ far more than methods do, and pairing removes that.
                    Seeds are taken as independent, although methods share them: that errs on the safe side
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Standing", "compare", "pooled_spread"]


@dataclass(frozen=True)
class Standing:
    """One method among several. Errors are standard errors; nan where nothing tells them."""

    mean: float
    error_seeds: float
    error_points: float
    lead: float
    lead_error: float

    @property
    def sure(self) -> bool:
        """Whether the lead exceeds two of its errors."""
        return abs(self.lead) > 2 * self.lead_error


def pooled_spread(values: Mapping[str, Tensor]) -> float:
    """Standard deviation of seeds' means within a method, pooled over the methods with several seeds; nan if none."""
    squares, freedom = 0.0, 0
    for per_seed in (v.double().mean(1) for v in values.values()):
        squares += float((per_seed - per_seed.mean()).square().sum())
        freedom += len(per_seed) - 1
    return math.sqrt(squares / freedom) if freedom else math.nan


def compare(values: Mapping[str, Tensor], baseline: str) -> dict[str, Standing]:
    """The standing of every method, from its values (seeds, points) on points that all methods share."""
    pooled = pooled_spread(values)

    def seed_error(v: Tensor) -> float:
        return pooled / math.sqrt(len(v))

    base = values[baseline].double()
    standings = {}
    for name, found in values.items():
        v = found.double()
        root = math.sqrt(v.shape[1])
        difference = v.mean(0) - base.mean(0)
        error = math.hypot(seed_error(base), seed_error(v), float(difference.std()) / root)
        standings[name] = Standing(
            float(v.mean()),
            seed_error(v),
            float(v.mean(0).std()) / root,
            float(difference.mean()),
            0.0 if name == baseline else error,
        )
    return standings
