r"""Several methods on the same test points: means with their errors, and leads over a baseline.

From values v (seeds, points) of each method, higher is better, such as log p(x) in nats:

    mean            over both
    error_seeds     spread of the seeds' means / sqrt(seeds), pooled over the methods, since each has few seeds
    error_points    spread over points of the mean over seeds / sqrt(points)
    lead            mean over points of (v - baseline), with error hypot(both seed errors, spread of the paired
                    differences / sqrt(points)): points differ far more than methods, and pairing removes that.
                    Seeds are treated as independent although methods share them, which is conservative
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["Standing", "compare", "in_words", "pooled_spread"]


@dataclass(frozen=True)
class Standing:
    """One method among several. Errors are standard errors; nan if unknown."""

    mean: float
    error_seeds: float
    error_points: float
    lead: float
    lead_error: float

    @property
    def errors(self) -> dict[str, float]:
        """Columns of a table: the errors of the mean."""
        return {"error_seeds": round(self.error_seeds, 3), "error_points": round(self.error_points, 3)}

    @property
    def leads(self) -> dict[str, Any]:
        """Columns of a table: the lead over the first method, and whether it is beyond its error."""
        found = {"lead_over_first": round(self.lead, 3), "lead_error": round(self.lead_error, 3)}
        return {**found, "beyond_error": self.sure}

    @property
    def sure(self) -> bool:
        """Whether the lead exceeds two of its errors."""
        return abs(self.lead) > 2 * self.lead_error


def in_words(row: Mapping[str, Any], other: str) -> str:
    """How a row with the columns of `Standing.leads` compares with the first method, `other`."""
    verb = "leads" if row["lead_over_first"] > 0 else "trails"
    doubt = "" if row["beyond_error"] else " (within two standard errors)"
    return f"{verb} {other} by {abs(row['lead_over_first']):.2f} ± {row['lead_error']:.2f} nats{doubt}"


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
