"""From trials to scores: specs, one population, bits per dimension; a failed trial keeps the reason why.

Every trial of a batch is scored the same way, with the same points, K and noise. A spec that is refused or a training
that diverges fails its own trial and no other.
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

__all__ = ["Asked", "Outcome", "run_batch", "run_in_parts"]

Asked = tuple[int, dict[str, Any]]  # a trial's number and its settings


@dataclass
class Outcome:
    """What became of one trial: a score (bits per dimension) with its error, or the reason why there is none."""

    number: int
    spec: VAESpec | None = None
    bits: float = math.nan
    standard_error: float = math.nan
    nats: float = math.nan
    reason: str = ""
    also: tuple[float, ...] = ()  # further objectives of the study, in its order
    rungs: list[tuple[int, tuple[float, ...]]] = field(default_factory=list)  # (epoch, all objectives) on the way
    pruned_at: int = 0  # the epoch at which it was stopped, 0 if it was not
    seconds: float = math.nan
    trained: Trained | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        return not self.reason

    @property
    def values(self) -> tuple[float, ...]:
        """All objectives: bits per dimension first."""
        return (self.bits, *self.also)


def run_batch(
    study: Study,
    data: Data,
    asked: Sequence[Asked],
    on_event: Callable[[Event], Any] | None = None,
    device: str | None = None,
    earlier: Mapping[int, Sequence[tuple[float, ...]]] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int | None = None,
) -> list[Outcome]:
    """Train and score trials (number, settings) as one population, in the order given.

    `earlier` holds, by epoch, what the trials of earlier batches had at a rung. With `checkpoint`, a folder of this batch,
    a batch that was cut off goes on from its last rung, or from the last checkpoint of every so many epochs.
    """
    outcomes = [Outcome(number) for number, _ in asked]
    for outcome, (number, settings) in zip(outcomes, asked, strict=True):
        try:
            outcome.spec = study.spec(settings, study.trial_seed(number))
        except (ValueError, TypeError) as error:
            outcome.reason = str(error)
    alive = [outcome for outcome in outcomes if outcome.spec is not None]
    if not alive:
        return outcomes
    began, where = time.perf_counter(), choose_device(device)

    def bits_of(models: Sequence[VAE]) -> list[Score]:
        rule = study.file.score
        bounds = log_mass_bounds(models, data, data.validation, rule.samples, rule.points, device=where)
        return [score(per_point, data, data.validation, rule.samples) for per_point in bounds]

    def on_training(event: Event) -> list[int]:
        if on_event is not None:
            on_event(event)
        if event.kind != "rung":
            return []
        values = _vectors(study, data, event.models, bits_of(event.models))
        for place, value in zip(event.members, values, strict=True):
            alive[place].rungs = [rung for rung in alive[place].rungs if rung[0] != event.epoch]
            alive[place].rungs.append((event.epoch, value))
        if checkpoint is not None:
            _write_rungs(checkpoint, alive)
        return _stopped(study, alive, event, (earlier or {}).get(event.epoch, ()))

    specs = [outcome.spec for outcome in alive if outcome.spec]
    rungs = study.file.pruning.rungs
    if checkpoint is not None:
        _read_rungs(checkpoint, alive)
    fits = fit_population(
        specs,
        data,
        rungs=rungs,
        on_event=on_training,
        device=device,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
    )
    scored = []
    for outcome, trained in zip(alive, fits, strict=True):
        outcome.trained = trained
        if trained.diverged:
            epoch = next(int(row["epoch"]) for row in trained.history if row["loss"] != row["loss"])
            outcome.reason = f"training diverged: the loss is NaN from epoch {epoch}"
        elif len(trained.history) < trained.spec.epochs:  # stopped at a rung, now or before it was cut off
            outcome.pruned_at = len(trained.history)
        else:
            scored.append(outcome)
    if scored:
        models = [outcome.trained.model for outcome in scored if outcome.trained]
        results = bits_of(models)
        vectors = _vectors(study, data, models, results)
        for outcome, result, vector in zip(scored, results, vectors, strict=True):
            outcome.bits, outcome.standard_error, outcome.nats = result.bits, result.standard_error, result.nats
            outcome.also = vector[1:]
            if not all(map(math.isfinite, vector)):
                outcome.reason = f"the score is not finite ({vector}): some level has probability 0"
    share = (time.perf_counter() - began) / len(alive)
    for outcome in alive:
        outcome.seconds = share
    return outcomes


def run_in_parts(
    study: Study, asked: Sequence[Asked], run: Callable[[Sequence[Asked]], list[Outcome]]
) -> list[Outcome]:
    """`run` of a batch; one that does not fit into memory is halved until the trial is found that does not fit alone."""
    try:
        return run(asked)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate memory" not in str(error):  # what torch says on a CPU
            raise
        if len(asked) == 1:
            ((number, settings),) = asked
            words = " ".join(str(error).split()) or "no more could be had"
            return [
                Outcome(number, study.spec(settings, study.trial_seed(number)), reason=f"out of memory: {words}"[:500])
            ]
    half = len(asked) // 2
    return [*run_in_parts(study, asked[:half], run), *run_in_parts(study, asked[half:], run)]


def _write_rungs(folder: Path, alive: Sequence[Outcome]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "scores.json", json.dumps({str(outcome.number): outcome.rungs for outcome in alive}))


def _read_rungs(folder: Path, alive: Sequence[Outcome]) -> None:
    """What the trials had at the rungs that they passed before the batch was cut off."""
    if (folder / "scores.json").is_file():
        found = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        for outcome in alive:
            outcome.rungs = [(epoch, tuple(values)) for epoch, values in found.get(str(outcome.number), [])]


def _vectors(study: Study, data: Data, models: Sequence[VAE], scores: Sequence[Score]) -> list[tuple[float, ...]]:
    """All objectives of each model: bits per dimension, then what the study scores also."""
    also = [EXTRAS[name](models, data) for name in study.file.score.also]
    return [(score.bits, *rest) for score, *rest in zip(scores, *also, strict=True)]


def _stopped(study: Study, alive: Sequence[Outcome], event: Event, earlier: Sequence[tuple[float, ...]]) -> list[int]:
    """The members that the study's pruner stops; the matched normals go on, as the baseline's budget is whole."""
    rule = study.file.pruning
    rung = Rung(
        values={place: alive[place].rungs[-1][1] for place in event.members},
        numbers={place: alive[place].number for place in event.members},
        index=sorted(rule.rungs).index(event.epoch),
        rungs=len(rule.rungs),
        keep=rule.keep,
        earlier=earlier,
    )
    stopped = set(PRUNERS[rule.rule](rung))
    return [p for p in event.members if p in stopped and not getattr(alive[p].spec, "matched_normal", False)]
