"""Evaluate a batch of trials: train them as one population and score them in bits per dimension.

Every trial of a batch is scored with the same points, K and noise. A diverging training fails only its own trial.
Not here: which specs are trained (`trials`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autovae.data.datasets import Data
from autovae.files import write_text
from autovae.metrics.bits import Score, log_mass_bounds, score
from autovae.model.vae import VAE
from autovae.search.extras import EXTRAS
from autovae.search.pruners import PRUNERS, Rung
from autovae.search.study import Study
from autovae.spec import VAESpec
from autovae.training.loop import Event, Trained, choose_device, fit_population

__all__ = ["Outcome", "evaluate", "in_halves"]

Asked = tuple[int, VAESpec]  # a trial's number and its spec


@dataclass
class Outcome:
    """The result of one trial: a score (bits per dimension) with its error, or the reason for its failure."""

    number: int
    spec: VAESpec | None = None
    bits: float = math.nan
    standard_error: float = math.nan
    nats: float = math.nan
    reason: str = ""
    also: tuple[float, ...] = ()  # further objectives of the study, in its order
    rungs: list[tuple[int, tuple[float, ...]]] = field(default_factory=list)  # (epoch, all objectives) at each rung
    pruned_at: int = 0  # the epoch at which it was pruned, else 0
    seconds: float = math.nan
    trained: Trained | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        return not self.reason

    @property
    def values(self) -> tuple[float, ...]:
        """All objectives: bits per dimension first."""
        return (self.bits, *self.also)


def evaluate(
    study: Study,
    data: Data,
    asked: Sequence[Asked],
    on_event: Callable[[Event], Any] | None = None,
    device: str | None = None,
    earlier: Mapping[int, Sequence[tuple[float, ...]]] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int | None = None,
) -> list[Outcome]:
    """Train and score trials as one population, in the order given.

    `earlier` holds, by epoch, the objectives of earlier trials at a rung. With `checkpoint`, a folder of this batch, an
    interrupted batch resumes from its last rung, or from the last checkpoint of every so many epochs.
    """
    began, where = time.perf_counter(), choose_device(device)
    outcomes = [Outcome(number, spec) for number, spec in asked]

    def scores(models: Sequence[VAE]) -> list[tuple[Score, tuple[float, ...]]]:
        """The score of each model, and all objectives of the study."""
        rule = study.file.score
        bounds = log_mass_bounds(models, data, data.validation, rule.samples, rule.points, device=where)
        found = [score(per_point, data, data.validation, rule.samples) for per_point in bounds]
        also = [EXTRAS[name](models, data) for name in rule.also]
        return [(one, (one.bits, *rest)) for one, *rest in zip(found, *also, strict=True)]

    def on_training(event: Event) -> list[int]:
        if on_event is not None:
            on_event(event)
        if event.kind != "rung":
            return []
        for place, (_, values) in zip(event.members, scores(event.models), strict=True):
            before = [rung for rung in outcomes[place].rungs if rung[0] != event.epoch]
            outcomes[place].rungs = [*before, (event.epoch, values)]
        if checkpoint is not None:
            _write_rungs(checkpoint, outcomes)
        return _stopped(study, outcomes, event, (earlier or {}).get(event.epoch, ()))

    if checkpoint is not None:
        _read_rungs(checkpoint, outcomes)
    fits = fit_population(
        [spec for _, spec in asked],
        data,
        rungs=study.file.pruning.rungs,
        on_event=on_training,
        device=device,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
    )
    trained = [outcome for outcome, fit in zip(outcomes, fits, strict=True) if _is_whole(outcome, fit)]
    if trained:
        models = [outcome.trained.model for outcome in trained if outcome.trained]
        for outcome, (found, values) in zip(trained, scores(models), strict=True):
            outcome.bits, outcome.standard_error, outcome.nats = found.bits, found.standard_error, found.nats
            outcome.also = values[1:]
            if not all(map(math.isfinite, values)):
                outcome.reason = f"the score is not finite ({values}): some level has probability 0"
    for outcome in outcomes:
        outcome.seconds = (time.perf_counter() - began) / len(outcomes)
    return outcomes


def _is_whole(outcome: Outcome, fit: Trained) -> bool:
    """Record a fit in its outcome; returns whether it was trained to the end."""
    outcome.trained = fit
    if fit.diverged:
        epoch = next(int(row["epoch"]) for row in fit.history if row["loss"] != row["loss"])
        outcome.reason = f"training diverged: the loss is NaN from epoch {epoch}"
    elif len(fit.history) < fit.spec.epochs:  # stopped at a rung, now or before an interruption
        outcome.pruned_at = len(fit.history)
    else:
        return True
    return False


def in_halves(asked: Sequence[Asked], run: Callable[[Sequence[Asked]], list[Outcome]]) -> list[Outcome]:
    """`run` of a batch, which is halved if it does not fit into memory; a single trial that does not fit fails."""
    try:
        return run(asked)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate memory" not in str(error):  # torch's message on a CPU
            raise
        if len(asked) == 1:
            ((number, spec),) = asked
            words = " ".join(str(error).split()) or "allocation failed"
            return [Outcome(number, spec, reason=f"out of memory: {words}"[:500])]
    half = len(asked) // 2
    return [*in_halves(asked[:half], run), *in_halves(asked[half:], run)]


def _write_rungs(folder: Path, outcomes: Sequence[Outcome]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "scores.json", json.dumps({str(outcome.number): outcome.rungs for outcome in outcomes}))


def _read_rungs(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """The objectives at the rungs that were passed before an interruption."""
    if (folder / "scores.json").is_file():
        found = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        for outcome in outcomes:
            outcome.rungs = [(epoch, tuple(values)) for epoch, values in found.get(str(outcome.number), [])]


def _stopped(
    study: Study, outcomes: Sequence[Outcome], event: Event, earlier: Sequence[tuple[float, ...]]
) -> list[int]:
    """The members that the study's pruner stops; matched normals continue, since the baseline gets its full budget."""
    rule = study.file.pruning
    rung = Rung(
        values={place: outcomes[place].rungs[-1][1] for place in event.members},
        numbers={place: outcomes[place].number for place in event.members},
        index=sorted(rule.rungs).index(event.epoch),
        rungs=len(rule.rungs),
        keep=rule.keep,
        earlier=earlier,
    )
    stopped = set(PRUNERS[rule.rule](rung))
    return [
        place
        for place in event.members
        if place in stopped and not getattr(outcomes[place].spec, "matched_normal", False)
    ]
