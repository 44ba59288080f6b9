"""The trials of a study in an Optuna storage: asked in batches, told in trial order, each belief trained `repeats` times.

Every trial has its own sampler, seeded by the study's seed and the trial's number. Trials that were asked but not told are
resumed first, so interruptions do not change a search. If the belief of a trial was already trained `repeats` times, the
trial takes the earlier result and another one is asked. A spec is built once per trial.
Not here: training and scoring (`evaluate`), sharing trials among workers (`workers`), the rows of trials.csv (`result`).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autovae.search.evaluate import Outcome
from autovae.search.result import DUPLICATE, counted, trial_rows
from autovae.search.samplers import EXHAUSTIVE
from autovae.search.space import belief_key
from autovae.search.stopping import outlook
from autovae.search.study import Study
from autovae.search.workers.driver import BATCH
from autovae.spec import VAESpec

__all__ = ["Asked", "Batch", "Trials"]

STARTUP = 10  # random trials before a model-based sampler uses its model
NOISE = "noise_run"  # attribute of a baseline trained again to measure the noise between seeds
EXHAUSTED = 100  # consecutive duplicates that end a search: the space or the sampler has nothing new


@dataclass(frozen=True)
class Asked:
    """A trial with its spec, or the reason why its settings were refused."""

    trial: optuna.Trial
    spec: VAESpec | None
    reason: str = ""

    @property
    def number(self) -> int:
        return self.trial.number


@dataclass
class Batch:
    """Trials that train together."""

    first: int | None = None  # the number of its first trial, its name
    asked: list[Asked] = field(default_factory=list)
    followers: list[tuple[optuna.Trial, int]] = field(
        default_factory=list
    )  # (trial, number of the trial in this batch with the same belief)
    told: set[int] = field(default_factory=set)
    earlier: dict[int, list[tuple[float, ...]]] = field(default_factory=dict)  # earlier trials' objectives, by rung
    pace: float = math.nan  # seconds per trial of the last batch

    @property
    def running(self) -> list[int]:
        """The numbers of the trials that are not told yet."""
        numbers = [asked.number for asked in self.asked] + [trial.number for trial, _ in self.followers]
        return [number for number in numbers if number not in self.told]


class Trials:
    """The trials of one study in one storage, under the study name `name`."""

    def __init__(self, study: Study, storage: BaseStorage, name: str = "") -> None:
        self.study = study
        self.optuna = optuna.create_study(
            study_name=name or study.name,
            storage=storage,
            directions=[StudyDirection.MINIMIZE] * (1 + len(study.file.score.also)),
            load_if_exists=True,
        )
        self.specs: dict[int, VAESpec] = {}  # of the trained trials
        self._numbers: dict[Hashable, list[int]] = {}  # of the trained trials, by belief, in order
        self._enqueue_baselines()
        self.refresh()

    def all(self) -> list[FrozenTrial]:
        return self.optuna.get_trials(deepcopy=False)

    def finished(self) -> list[FrozenTrial]:
        """Finished trials that were trained; duplicates are not counted."""
        return counted(self.all())

    def complete(self) -> list[FrozenTrial]:
        return [trial for trial in self.finished() if trial.state == TrialState.COMPLETE]

    def complete_rows(self) -> list[dict[str, Any]]:
        """Complete trials as rows with their spec."""
        return [{"number": t.number, "bits": t.values[0], "spec": self.specs[t.number]} for t in self.complete()]

    def rows(self) -> list[dict[str, Any]]:
        """The finished trials as the rows of trials.csv."""
        return trial_rows(self.all(), self.study.file.score.also)

    def row(self, number: int) -> dict[str, Any]:
        """One finished trial as a row of trials.csv."""
        (row,) = trial_rows([self.all()[number]], self.study.file.score.also)
        return row

    def refresh(self) -> None:
        """Read the beliefs of trials that other workers or earlier runs told."""
        for trial in self.finished():
            if trial.number not in self.specs and "spec" in trial.user_attrs:
                self._learn(trial.number, VAESpec.from_dict(trial.user_attrs["spec"]))

    def _learn(self, number: int, spec: VAESpec) -> None:
        if number not in self.specs:
            self.specs[number] = spec
            bisect.insort(self._numbers.setdefault(belief_key(spec), []), number)

    def _enqueue_baselines(self) -> None:
        """The matched normals first; the first of them several times if a stop rule needs the noise between seeds."""
        trials = self.all()
        if self.study.file.sampler in EXHAUSTIVE or any(trial.state != TrialState.WAITING for trial in trials):
            return
        wanted: list[tuple[dict[str, Any], dict[str, Any]]]
        wanted = [(params, {}) for s in self.study.baselines() if (params := self.study.space.params_of(s))]
        if self.study.file.stop and wanted:
            wanted += [(wanted[0][0], {NOISE: True})] * (self.study.file.stop.runs - 1)
        for params, attributes in wanted[len(trials) :]:  # some are there if this was interrupted
            self.optuna.enqueue_trial(params, user_attrs=attributes)

    def over(self) -> str:
        """Why the search ends before its target; an empty string while it continues."""
        trials = self.all()
        if len(trials) >= EXHAUSTED and all(DUPLICATE in trial.user_attrs for trial in trials[-EXHAUSTED:]):
            return f"{EXHAUSTED} consecutive suggestions were duplicates; the search ends"
        stop, finished = self.study.file.stop, counted(trials)
        if stop is None or len(finished) < stop.after:
            return ""
        complete = [t for t in finished if t.state == TrialState.COMPLETE]
        noise = [t.values[0] for t in complete if t.number == 0 or NOISE in t.user_attrs]
        seen = outlook(complete, noise, self.study.file.seed)
        return f"the search ended after {len(finished)} trials: {seen}" if seen is not None and seen.over else ""

    def ask(self, count: int, left: Collection[int] = ()) -> Batch:
        """The batch of the unfinished trials `left`, filled up to `count` with new ones.

        All trials of a batch are asked before any is told. A batch with told trials is trained again unchanged, because
        pruning compared its members with each other.
        """
        batch, members = self._unfinished(left)
        mine = {trial.number for trial in members}
        in_batch: dict[Hashable, list[int]] = {}  # trials of this batch, by belief
        duplicates = 0  # in a row
        while members or (not batch.told and len(batch.asked) < count and duplicates < EXHAUSTED):
            trial = members.pop(0) if members else self._new(batch)
            mine.add(trial.number)
            self._use_sampler(trial.number)  # for the parameters that enqueued and new trials left open
            asked = self._spec_of(trial)
            key = belief_key(asked.spec) if asked.spec else ("refused", trial.number)
            before = [number for number in self._numbers.get(key, []) if number not in mine]
            here = in_batch.setdefault(key, [])
            duplicates += 1
            if NOISE in trial.user_attrs or len(before) + len(here) < self.study.file.repeats:
                batch.asked.append(asked)
                here.append(trial.number)
                duplicates = 0
            elif before:
                self.repeat(trial, before[0])
            else:
                batch.followers.append((trial, here[0]))
        finished = self.finished()
        batch.earlier = _at_rungs([trial for trial in finished if trial.number not in batch.told])
        seconds = [t.user_attrs["seconds"] for t in finished if "seconds" in t.user_attrs]
        batch.pace = seconds[-1] if seconds else math.nan
        return batch

    def _unfinished(self, left: Collection[int]) -> tuple[Batch, list[optuna.Trial]]:
        """The batch of the trials `left`, and its members in order, without told duplicates."""
        trials = self.all()
        running = [trials[number] for number in sorted(left)]
        if not running:
            return Batch(), []
        batch = Batch(running[0].user_attrs.get(BATCH, running[0].number))
        members = {trial.number: optuna.Trial(self.optuna, trial._trial_id) for trial in running}
        for trial in running:
            if BATCH not in trial.user_attrs:  # interrupted right after it was created
                members[trial.number].set_user_attr(BATCH, batch.first)
        for trial in counted(trials):
            if trial.user_attrs.get(BATCH) == batch.first:
                members[trial.number] = optuna.Trial(self.optuna, trial._trial_id)
                batch.told.add(trial.number)
        return batch, [members[number] for number in sorted(members)]

    def _new(self, batch: Batch) -> optuna.Trial:
        self._use_sampler(len(self.all()))
        trial = self.optuna.ask()
        batch.first = trial.number if batch.first is None else batch.first
        trial.set_user_attr(BATCH, batch.first)
        return trial

    def _use_sampler(self, number: int) -> None:
        self.optuna.sampler = self.study.sampler_for(number, STARTUP)

    def _spec_of(self, trial: optuna.Trial) -> Asked:
        settings = self.study.space.suggest(trial)
        try:
            return Asked(trial, self.study.spec(settings, self.study.trial_seed(trial.number)))
        except (ValueError, TypeError) as error:
            return Asked(trial, None, str(error))

    def repeat(self, trial: optuna.Trial, leader: int) -> None:
        """Tell a duplicate the result of its belief: the mean of the complete runs, or the reason of the failure."""
        trials = self.all()
        first = trials[leader]
        runs = [trials[number] for number in self._numbers[belief_key(self.specs[leader])]]
        complete = [run for run in runs if run.state == TrialState.COMPLETE]
        trial.set_user_attr(DUPLICATE, leader)
        for name in ("spec", "standard_error", "reason"):
            if name in first.user_attrs:
                trial.set_user_attr(name, first.user_attrs[name])
        if complete:
            columns = zip(*(run.values for run in complete), strict=True)
            self.optuna.tell(trial, [math.fsum(column) / len(complete) for column in columns])
        else:
            for epoch, value in first.intermediate_values.items():
                trial.report(value, epoch)
            self.optuna.tell(trial, state=first.state)

    def tell(self, trial: optuna.Trial, outcome: Outcome) -> None:
        if outcome.spec is not None:
            trial.set_user_attr("spec", outcome.spec.to_dict())
            self._learn(trial.number, outcome.spec)
        for name in ("standard_error", "nats", "seconds"):
            value = getattr(outcome, name)
            if math.isfinite(value):
                trial.set_user_attr(name, value)
        if outcome.trained is not None:
            trial.set_user_attr("loss", [row["loss"] for row in outcome.trained.history])
        if outcome.rungs:
            trial.set_user_attr("rungs", [[epoch, list(values)] for epoch, values in outcome.rungs])
        if not self.study.file.score.also:  # Optuna keeps intermediate values for a single objective only
            for epoch, values in outcome.rungs:
                trial.report(values[0], epoch)
        if outcome.pruned_at:
            self.optuna.tell(trial, state=TrialState.PRUNED)
        elif outcome.ok:
            self.optuna.tell(trial, outcome.values)
        else:
            trial.set_user_attr("reason", outcome.reason)
            self.optuna.tell(trial, state=TrialState.FAIL)


def _at_rungs(trials: list[FrozenTrial]) -> dict[int, list[tuple[float, ...]]]:
    """All objectives of the trials, by the epoch of a rung."""
    found: dict[int, list[tuple[float, ...]]] = {}
    for trial in trials:
        for epoch, values in trial.user_attrs.get("rungs", []):
            found.setdefault(int(epoch), []).append(tuple(values))
    return found
