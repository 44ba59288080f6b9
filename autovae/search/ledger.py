"""The ledger of a search: what is asked, what was told, and which beliefs are known, in one Optuna storage.

Trials are asked one by one, each with a sampler made from the study's seed and the trial's number, and told in trial
order. What was asked and never told is asked again first, so a search that was interrupted goes on as if it had not
been. A belief that was trained often enough (`repeats`) is not trained again: the trial is told what that gave, and
another one is asked. Not here: training and scoring (`objective`), finals and files (`run`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autovae.registry import LIKELIHOODS
from autovae.search.objective import Outcome
from autovae.search.samplers import EXHAUSTIVE
from autovae.search.space import canonical
from autovae.search.stopping import outlook
from autovae.search.study import Study
from autovae.spec import VAESpec

__all__ = ["TIRED", "Batch", "Ledger", "counted", "trial_rows"]

STARTUP = 10  # random trials before a model-based sampler has anything to model
DUPLICATE = "duplicate_of"  # attribute of a trial that repeats a known belief: the trial it repeats
BATCH = "batch"  # attribute of a trial: the first trial of its batch
NOISE = "noise_run"  # attribute of a baseline trained again for the noise between seeds
TIRED = 100  # questions in a row that bring nothing new: the space is exhausted, or the sampler is


@dataclass
class Batch:
    """Trials that train together: those to train, those that ask what one of them asks, and those told already."""

    first: int | None = None  # the number of its first trial, its name
    asked: list[tuple[optuna.Trial, dict[str, Any]]] = field(default_factory=list)
    followers: list[tuple[optuna.Trial, int]] = field(default_factory=list)
    told: set[int] = field(default_factory=set)
    earlier: dict[int, list[tuple[float, ...]]] = field(default_factory=dict)  # what others had, by the epoch of a rung
    pace: float = math.nan  # seconds that a trial of the batch told last took

    @property
    def new(self) -> int:
        """How many trials it adds to the finished ones."""
        return sum(trial.number not in self.told for trial, _ in self.asked)


class Ledger:
    """The trials of one study in one storage."""

    def __init__(self, study: Study, storage: BaseStorage, name: str = "", asker: str = "") -> None:
        """`name` is the study's in the storage, its own by default; `asker` is a worker among several."""
        self.study, self.asker = study, asker
        self.directions = [StudyDirection.MINIMIZE] * (1 + len(study.file.score.also))
        self.optuna = optuna.create_study(
            study_name=name or study.name, storage=storage, directions=self.directions, load_if_exists=True
        )
        if not self.optuna.trials:
            self._enqueue_baselines()
        self.refresh()

    def refresh(self) -> None:
        """Learn what was told, by this process and others: beliefs and the trials that trained them."""
        self.known: dict[VAESpec, list[int]] = {}
        for trial in self.finished():
            if "spec" in trial.user_attrs:
                self.known.setdefault(canonical(VAESpec.from_dict(trial.user_attrs["spec"])), []).append(trial.number)

    def _enqueue_baselines(self) -> None:
        """The matched normals first; the first of them several times where a stop rule needs the noise between seeds."""
        if self.study.file.sampler in EXHAUSTIVE:
            return
        asked = [params for s in self.study.baselines() if (params := self.study.space.params_of(s))]
        for params in asked:
            self.optuna.enqueue_trial(params, skip_if_exists=True)
        for _ in range(self.study.file.stop.runs - 1 if self.study.file.stop and asked else 0):
            self.optuna.enqueue_trial(asked[0], user_attrs={NOISE: True})

    def finished(self) -> list[FrozenTrial]:
        """Finished trials that were trained; those that only repeat a belief are not counted."""
        return counted(self.optuna.get_trials(deepcopy=False))

    def complete_rows(self) -> list[dict[str, Any]]:
        """Complete trials as rows with their spec."""
        return [
            {"number": t.number, "bits": t.values[0], "spec": VAESpec.from_dict(t.user_attrs["spec"])}
            for t in self.finished()
            if t.state == TrialState.COMPLETE
        ]

    def _earlier(self, batch: Batch) -> dict[int, list[tuple[float, ...]]]:
        """By epoch, what the trials of earlier batches had at that rung."""
        at: dict[int, list[tuple[float, ...]]] = {}
        for trial in self.finished():
            if trial.number not in batch.told:
                for epoch, values in trial.user_attrs.get("rungs", []):
                    at.setdefault(int(epoch), []).append(tuple(values))
        return at

    def over(self) -> str:
        """Why the search ends here, before its count; empty where it goes on."""
        latest = self.optuna.get_trials(deepcopy=False)[-TIRED:]
        if len(latest) == TIRED and all(DUPLICATE in trial.user_attrs for trial in latest):
            return f"the search ended: {TIRED} questions in a row brought no belief that was not trained"
        stop = self.study.file.stop
        complete = [t for t in self.finished() if t.state == TrialState.COMPLETE]
        if stop is None or len(self.finished()) < stop.after:
            return ""
        first = [t for t in complete if t.number == 0 or NOISE in t.user_attrs]
        seen = outlook(complete, [t.values[0] for t in first], self.study.file.seed)
        if seen is None or not seen.over:
            return ""
        return f"the search ended after {len(self.finished())} trials: {seen}"

    @property
    def unfinished(self) -> bool:
        """Whether trials were asked and not told."""
        return any(t.state == TrialState.RUNNING for t in self.optuna.get_trials(deepcopy=False))

    def ask(self, count: int, left: Sequence[int] | None = None) -> Batch:
        """The next batch: the unfinished one again if there is one, else `count` new trials.

        Where others train at the same time, `left` says which of the unfinished trials are nobody's.

        A batch is asked whole before any of its trials is trained. So one that has told trials was whole, and is trained
        again as it was, since its members were judged against each other at the rungs; one without was cut while it was
        asked, and is filled up. A trial whose belief was trained often enough before is told what that gave, at once.
        """
        batch, members = self._unfinished_batch(left)
        mine = {trial.number for trial in members}
        here: dict[VAESpec, list[int]] = {}
        barren = 0
        while members or (not batch.told and len(batch.asked) < count and barren < TIRED):
            trial = members.pop(0) if members else self._new(batch)
            mine.add(trial.number)
            self.optuna.sampler = self._sampler(trial.number)  # answers what enqueued and new trials left open
            settings = self.study.space.suggest(trial)
            belief = self._belief(settings)
            noise = NOISE in trial.user_attrs
            before = [n for n in self.known.get(belief, []) if n not in mine] if belief and not noise else []
            beside = here.setdefault(belief, []) if belief else []
            barren += 1
            if before and len(before) + len(beside) >= self.study.file.repeats:
                self.repeat(trial, before[0])
            elif not noise and len(beside) >= self.study.file.repeats:
                batch.followers.append((trial, beside[0]))
            else:
                batch.asked.append((trial, settings))
                beside.append(trial.number)
                barren = 0
        batch.earlier = self._earlier(batch)
        seconds = [t.user_attrs["seconds"] for t in self.finished() if "seconds" in t.user_attrs]
        batch.pace = seconds[-1] if seconds else math.nan
        return batch

    def _new(self, batch: Batch) -> optuna.Trial:
        self.optuna.sampler = self._sampler(len(self.optuna.get_trials(deepcopy=False)))
        trial = self.optuna.ask()
        batch.first = trial.number if batch.first is None else batch.first
        trial.set_user_attr(BATCH, batch.first)
        return trial

    def _unfinished_batch(self, left: Sequence[int] | None) -> tuple[Batch, list[optuna.Trial]]:
        """The batch of the trials that were asked and never told, and its trials in order; told repeats are left out."""
        trials = self.optuna.get_trials(deepcopy=False)
        running = [t for t in trials if t.state == TrialState.RUNNING and (left is None or t.number in left)]
        if not running:
            return Batch(), []
        mine = {t.number for t in running}
        first = running[0].user_attrs.get(BATCH, running[0].number)
        batch = Batch(first)
        members = []
        for trial in trials:
            if trial.number in mine:
                members.append(trial)
            elif (
                trial.user_attrs.get(BATCH) == first and trial.state.is_finished() and DUPLICATE not in trial.user_attrs
            ):
                members.append(trial)
                batch.told.add(trial.number)
        return batch, [optuna.Trial(self.optuna, t._trial_id) for t in members]

    def _belief(self, settings: dict[str, Any]) -> VAESpec | None:
        """The canonical form of a choice; None where the spec is refused, which is then the trial's failure."""
        try:
            return canonical(self.study.spec(settings, 0))
        except (ValueError, TypeError):
            return None

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        return self.study.sampler_for(number, STARTUP, self.asker)

    def repeat(self, trial: optuna.Trial, leader: int) -> None:
        """Tell a trial what its belief gave when it was trained: the mean of the complete ones, or why there is none."""
        first = self.optuna.get_trials(deepcopy=False)[leader]
        belief = canonical(VAESpec.from_dict(first.user_attrs["spec"]))
        runs = [self.optuna.get_trials(deepcopy=False)[number] for number in self.known[belief]]
        whole = [run for run in runs if run.state == TrialState.COMPLETE]
        trial.set_user_attr(DUPLICATE, leader)
        for name in ("spec", "standard_error", "reason"):
            if name in first.user_attrs:
                trial.set_user_attr(name, first.user_attrs[name])
        if whole:
            means = [math.fsum(column) / len(whole) for column in zip(*(run.values for run in whole), strict=True)]
            self.optuna.tell(trial, means)
        else:
            for epoch, value in first.intermediate_values.items():
                trial.report(value, epoch)
            self.optuna.tell(trial, state=first.state)

    def tell(self, trial: optuna.Trial, outcome: Outcome) -> None:
        if outcome.spec is not None:
            trial.set_user_attr("spec", outcome.spec.to_dict())
            self.known.setdefault(canonical(outcome.spec), []).append(trial.number)
        for name in ("standard_error", "nats", "seconds"):
            value = getattr(outcome, name)
            if math.isfinite(value):
                trial.set_user_attr(name, value)
        if outcome.trained is not None:
            trial.set_user_attr("loss", [row["loss"] for row in outcome.trained.history])
        if outcome.rungs:
            trial.set_user_attr("rungs", [[epoch, list(values)] for epoch, values in outcome.rungs])
        if not self.study.file.score.also:  # Optuna keeps intermediate values for one objective alone
            for epoch, values in outcome.rungs:
                trial.report(values[0], epoch)
        if outcome.pruned_at:
            self.optuna.tell(trial, state=TrialState.PRUNED)
        elif outcome.ok:
            self.optuna.tell(trial, outcome.values)
        else:
            trial.set_user_attr("reason", outcome.reason)
            self.optuna.tell(trial, state=TrialState.FAIL)

    def row(self, number: int) -> dict[str, Any]:
        """One finished trial as a row of trials.csv."""
        (row,) = trial_rows([self.optuna.get_trials(deepcopy=False)[number]], self.study.file.score.also)
        return row

    def rows(self) -> list[dict[str, Any]]:
        """The finished trials as the rows of trials.csv."""
        return trial_rows(self.optuna.get_trials(deepcopy=False), self.study.file.score.also)


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The finished trials that were trained."""
    return [trial for trial in trials if trial.state.is_finished() and DUPLICATE not in trial.user_attrs]


# Of a trial's spec, always in trials.csv; whatever else differs between trials comes after them.
SETTINGS = ("posterior", "prior", "likelihood", "alpha", "latent_dim", "hidden", "epochs", "learning_rate", "rival")
UNTOLD = ("seed", "data_seed", "saturate", "estimator")  # follow from the trial's number or its belief


def _setting(spec: Mapping[str, Any], name: str) -> Any:
    row = LIKELIHOODS.get(spec.get("likelihood", ""))
    if name == "scale" and row is not None and not row.has_scale:
        return None  # asked for, and not used
    return spec.get(name)


def _varied(specs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings beside SETTINGS that are not the same in all trials."""
    names = dict.fromkeys(name for spec in specs for name in spec if name not in (*SETTINGS, *UNTOLD))
    return [name for name in names if len({str(_setting(spec, name)) for spec in specs if spec} - {"None"}) > 1]


def trial_rows(trials: Sequence[FrozenTrial], also: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A row a finished trial: number, state, score with error, belief, settings, seed, seconds, reason.

    `also` names further objectives; `duplicate_of` is the trial whose training a repeated belief reuses.
    """
    rows = []
    repeated = any(DUPLICATE in trial.user_attrs for trial in trials)
    names = [*SETTINGS, *_varied([trial.user_attrs.get("spec", {}) for trial in trials])]
    for trial in trials:
        if not trial.state.is_finished():
            continue
        spec = trial.user_attrs.get("spec", {})
        rows.append(
            {
                "number": trial.number,
                "state": trial.state.name,
                "score": trial.values[0] if trial.values else None,
                "score_se": trial.user_attrs.get("standard_error"),
                **{name: _setting(spec, name) for name in names},
                "seed": spec.get("seed"),
                "seconds": trial.user_attrs.get("seconds"),
                "reason": trial.user_attrs.get("reason", ""),
                **dict(zip(also, (trial.values or ())[1:], strict=False)),
                **({"duplicate_of": trial.user_attrs.get(DUPLICATE)} if repeated else {}),
            }
        )
    return rows
