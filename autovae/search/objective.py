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
from autovae.metrics.bits import Score, log_mass_bounds, score
from autovae.model.vae import VAE
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
    rungs: list[tuple[int, float]] = field(default_factory=list)  # (epoch, bits per dimension) on the way
    pruned_at: int = 0  # the epoch at which it was stopped, 0 if it was not
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

    def bits_of(models: Sequence[VAE]) -> list[Score]:
        rule = study.file.score
        bounds = log_mass_bounds(models, data, data.validation, rule.samples, rule.points)
        return [score(per_point, data, data.validation, rule.samples) for per_point in bounds]

    def on_training(event: Event) -> list[int]:
        if on_event is not None:
            on_event(event)
        if event.kind != "rung":
            return []
        for place, result in zip(event.members, bits_of(event.models), strict=True):
            alive[place].rungs.append((event.epoch, result.bits))
        dropped = _worst(study, alive, event.members)
        for place in dropped:
            alive[place].pruned_at = event.epoch
        return dropped

    specs = [outcome.spec for outcome in alive if outcome.spec]
    fits = fit_population(specs, data, rungs=study.file.pruning.rungs, on_event=on_training, device=device)
    scored = []
    for outcome, trained in zip(alive, fits, strict=True):
        outcome.trained = trained
        if trained.diverged:
            epoch = next(int(row["epoch"]) for row in trained.history if row["loss"] != row["loss"])
            outcome.reason = f"training diverged: the loss is NaN from epoch {epoch}"
        elif not outcome.pruned_at:
            scored.append(outcome)
    if scored:
        results = bits_of([outcome.trained.model for outcome in scored if outcome.trained])
        for outcome, result in zip(scored, results, strict=True):
            outcome.bits, outcome.standard_error, outcome.nats = result.bits, result.standard_error, result.nats
            if not math.isfinite(outcome.bits):
                outcome.reason = f"the score is not finite ({outcome.bits}): some level has probability 0"
    share = (time.perf_counter() - began) / len(alive)
    for outcome in alive:
        outcome.seconds = share
    return outcomes


def _worst(study: Study, alive: Sequence[Outcome], places: Sequence[int]) -> list[int]:
    """The members to stop at a rung: all but the best share; the matched normals stay, as the baseline's budget is whole."""
    baselines = {place for place in places if getattr(alive[place].spec, "matched_normal", False)}
    ranked = sorted(places, key=lambda place: (not math.isfinite(b := alive[place].rungs[-1][1]), b, place))
    kept = ranked[: max(1, math.ceil(study.file.pruning.keep * len(places)))]
    return [place for place in places if place not in kept and place not in baselines]
