"""From trials to scores: specs, one population, bits per dimension; a failed trial keeps the reason why.

Every trial of a batch is scored the same way, with the same points, K and noise. A spec that is refused or a training
that diverges fails its own trial and no other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from autovae.data.datasets import Data
from autovae.metrics.bits import log_mass_bounds, score
from autovae.search.study import Study
from autovae.spec import VAESpec
from autovae.training.loop import Event, Trained, fit_population

__all__ = ["Outcome", "run_batch"]


@dataclass
class Outcome:
    """What became of one trial: a score (bits per dimension) with its error, or the reason why there is none."""

    number: int
    spec: VAESpec | None = None
    bits: float = math.nan
    standard_error: float = math.nan
    nats: float = math.nan
    reason: str = ""
    seconds: float = math.nan
    trained: Trained | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        return not self.reason


def run_batch(
    study: Study,
    data: Data,
    asked: Sequence[tuple[int, dict[str, Any]]],
    on_event: Callable[[Event], Any] | None = None,
    device: str | None = None,
) -> list[Outcome]:
    """Train and score trials (number, settings) as one population, in the order given."""
    outcomes = [Outcome(number) for number, _ in asked]
    for outcome, (number, settings) in zip(outcomes, asked, strict=True):
        try:
            outcome.spec = study.spec(settings, study.trial_seed(number))
        except (ValueError, TypeError) as error:
            outcome.reason = str(error)
    alive = [outcome for outcome in outcomes if outcome.spec is not None]
    if not alive:
        return outcomes
    began = time.perf_counter()
    fits = fit_population([o.spec for o in alive if o.spec], data, on_event=on_event, device=device)
    scored = []
    for outcome, trained in zip(alive, fits, strict=True):
        outcome.trained = trained
        if trained.diverged:
            epoch = next(int(row["epoch"]) for row in trained.history if row["loss"] != row["loss"])
            outcome.reason = f"training diverged: the loss is NaN from epoch {epoch}"
        else:
            scored.append(outcome)
    if scored:
        rule = study.file.score
        models = [o.trained.model for o in scored if o.trained]
        bounds = log_mass_bounds(models, data, data.validation, rule.samples, rule.points)
        for outcome, per_point in zip(scored, bounds, strict=True):
            result = score(per_point, data, data.validation, rule.samples)
            outcome.bits, outcome.standard_error, outcome.nats = result.bits, result.standard_error, result.nats
            if not math.isfinite(outcome.bits):
                outcome.reason = f"the score is not finite ({outcome.bits}): some level has probability 0"
    share = (time.perf_counter() - began) / len(alive)
    for outcome in alive:
        outcome.seconds = share
    return outcomes
