"""Run a study: search, finals, and the files of its results folder; the same call resumes an interrupted study.

    Run(load_study("quickstart"), "results").execute()

A `Run` is the `Search` of a driver (`workers.driver`). Trials of a batch are asked one by one, trained as one population,
and told in trial order; trials that were asked and not told are trained again with the same seeds. So an interrupted and
resumed study has the same trials as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna import Study as OptunaStudy
from optuna.trial import FrozenTrial, TrialState

import autovae
from autovae.data.datasets import DATASETS, Data, load
from autovae.search.evaluate import Asked, Outcome, evaluate, in_halves
from autovae.search.events import Event, OnEvent, OnProgress, Progress
from autovae.search.finals import candidates, run_finals, twins
from autovae.search.requirements import check_requirements, fit_likelihoods
from autovae.search.result import FORMAT, ResultsFolder
from autovae.search.save import save_verdict
from autovae.search.study import Study
from autovae.search.trials import Batch, Trials
from autovae.search.verdict import Verdict
from autovae.search.workers.driver import Driver
from autovae.search.workers.sharing import agree, bring_home, check_home
from autovae.search.workers.storage import TRIALS, StudyStorage, open_storage, patiently
from autovae.training.loop import Event as TrainingEvent
from autovae.training.train_state import CheckpointError

__all__ = ["Run"]

LOSS = 120.0  # seconds of training that a killed process may lose in a study without rungs


class Run:
    """One study over one results folder. Raises `ValueError` if study and data do not fit."""

    def __init__(
        self,
        study: Study,
        results: str | Path = "results",
        dataset: str | None = None,
        data_dir: str | Path | None = None,
        trials: int | None = None,
        device: str | None = None,
        on_progress: OnProgress = lambda _: None,
        on_event: OnEvent | None = None,
    ) -> None:
        self.device, self.on_progress, self.on_event = device, on_progress, on_event
        self.target, self.batch = trials or study.file.trials, study.file.batch
        self.source = dataset or study.file.data
        self.data: Data = load(self.source, data_dir=data_dir, seed=study.file.seed)
        own_data = self.source == study.file.data
        self.folder = ResultsFolder(Path(results) / (study.name if own_data else f"{study.name}-{self.data.name}"))
        self.study, self.notes = fit_likelihoods(study, self.data, own_data)
        check_requirements(self.study, self.data, self.target)
        self.trials: Trials  # once the storage is open
        self._before = 0  # finished trials when the storage was opened
        self._asked, self._outcomes = Batch(), list[Outcome]()
        self._progress = Progress("search", 0, self.target)

    def identity(self) -> dict[str, Any]:
        """What may not change once there are results."""
        path = {} if self.source in DATASETS else {"path": str(Path(self.source).resolve())}
        about = {"name": self.data.name, "digest": self.data.digest, "levels": self.data.levels}
        return {**self.study.identity, "data": {**about, **path}}

    def finished_count(self) -> int:
        """How many trials are finished; 0 before the storage is open."""
        return len(self.trials.finished()) if hasattr(self, "trials") else 0

    @property
    def added(self) -> int:
        """How many trials were finished since the storage was opened."""
        return self.finished_count() - self._before

    def execute(self) -> Verdict | None:
        """Run or resume in this process. Returns the verdict of the finals, or None if it stood already."""
        with self.joined() as driver:
            driver.run()
            if driver.ended:
                self.notes.append(driver.ended)
            return self.conclude(driver)

    @contextlib.contextmanager
    def joined(
        self,
        url: str | None = None,
        name: str = "",
        workers: int = 1,
        say: Callable[[str], Any] = lambda _: None,
        expected: int = 1,
    ) -> Iterator[Driver]:
        """A driver of this study on the storage at `url` (the folder's journal by default), open until the block ends.

        `workers` is how many the storage must serve, `expected` how many share the remaining trials.

        Raises `StorageError` or `ResultsError` if storage, folder, study and version do not fit together.
        """
        self.folder.open(self.identity(), self.target)
        home = self.folder.journal
        is_home = url is None or Path(url).absolute() == home.absolute()
        if not is_home:
            check_home(home, self.study.name)
        storage = open_storage(url or home, self.folder.path, self.folder.path.name, workers)
        try:
            patiently(lambda: self._open(storage, alone=is_home and workers == 1), say, 0.0)
            self.report_search()
            yield Driver(self, storage, name, say, expected=expected)
        finally:
            storage.close()

    def _open(self, storage: StudyStorage, alone: bool) -> None:
        with storage.mutex(TRIALS):
            # in a database a study on other data has another name, as its folder has
            name = self.study.name if storage.kind == "journal" else self.folder.path.name
            self.trials = Trials(self.study, storage.optuna, name)
            self._before = self.finished_count()
            if alone:
                return  # the folder's study.toml was compared
            about = self.identity()
            about["data"].pop("path", None)  # the same data may lie elsewhere on each machine: their digest counts
            agree(self.trials.optuna, {"version": autovae.__version__, "format": FORMAT, "study": about})

    # ------------------------------------------------------------------------------------------- the search of a driver

    @property
    def optuna(self) -> OptunaStudy:
        return self.trials.optuna

    def finished(self) -> Sequence[FrozenTrial]:
        return self.trials.finished()

    def ended(self) -> str:
        return self.trials.over()

    def ask(self, left: Sequence[FrozenTrial], count: int) -> Sequence[int]:
        self.trials.refresh()
        self._asked = self.trials.ask(count, [trial.number for trial in left])
        self.report_search()
        return self._asked.running

    def train(self) -> None:
        """Train and score the batch; an interrupted one resumes from its last rung or checkpoint."""
        batch = self._asked
        specs = [(asked.number, asked.spec) for asked in batch.asked if asked.spec is not None]
        outcomes = {asked.number: Outcome(asked.number, reason=asked.reason) for asked in batch.asked}
        try:
            trained = self._train(batch, specs)
        except CheckpointError:  # of another batch, or damaged
            self._forget(batch)
            trained = self._train(batch, specs)
        outcomes |= {outcome.number: outcome for outcome in trained}
        self._outcomes = list(outcomes.values())

    def _train(self, batch: Batch, specs: Sequence[Asked]) -> list[Outcome]:
        folder, every = self._checkpoints(batch, specs)

        def run(part: Sequence[Asked]) -> list[Outcome]:
            kept = folder if len(part) == len(specs) else None  # members of a half have other places
            return evaluate(self.study, self.data, part, self.on_epoch, self.device, batch.earlier, kept, every)

        return in_halves(specs, run) if specs else []

    def _checkpoints(self, batch: Batch, specs: Sequence[Asked]) -> tuple[Path | None, int]:
        """The folder of a batch's checkpoints, None if it is too short for any, and the epochs between them.

        A study with rungs saves at the rungs. Others save every `LOSS` seconds, estimated from the batch before, or at
        every quarter of the first batch.
        """
        folder, epochs = self._folder(batch), max((spec.epochs for _, spec in specs), default=self.study.epochs)
        if self.study.file.pruning.rungs:
            return folder, epochs
        seconds = batch.pace * len(batch.asked)
        share = 1 / 4 if math.isnan(seconds) else LOSS / max(seconds, LOSS)
        every = math.ceil(share * epochs)
        return (folder if every < epochs or folder.exists() else None), every

    def tell(self, numbers: Sequence[int]) -> None:
        trials, batch = self.trials, self._asked
        trials.refresh()
        for asked, outcome in zip(batch.asked, self._outcomes, strict=True):
            if asked.number in numbers:
                trials.tell(asked.trial, outcome)
                if self.on_event is not None:
                    losses = [row["loss"] for row in outcome.trained.history] if outcome.trained else []
                    self.on_event(Event("trial", trials.row(asked.number), losses))
        for trial, leader in batch.followers:
            if trial.number in numbers:
                trials.repeat(trial, leader)
        self._forget(batch)
        self.write_trials()
        self.report_search()

    def _forget(self, batch: Batch) -> None:
        shutil.rmtree(self._folder(batch), ignore_errors=True)

    def _folder(self, batch: Batch) -> Path:
        return self.folder.path / "checkpoints" / f"batch-{batch.first}"

    def write_trials(self) -> Path:
        """trials.csv from the storage."""
        return self.folder.write_table("trials.csv", self.trials.rows())

    # --------------------------------------------------------------------------------------------------------- progress

    def on_epoch(self, event: TrainingEvent) -> None:
        """Report an epoch with the search's last known state: training does not wait for the storage."""
        if event.kind == "epoch":
            self.on_progress(replace(self._progress, epoch=event.epoch, rate=_rate(event)))

    def report_search(self) -> None:
        """Report the state of the search in the storage."""
        trials = self.trials
        trials.refresh()
        states = [trial.state for trial in trials.finished()]
        best = min(trials.complete(), key=lambda t: t.values[0], default=None)
        self._progress = Progress(
            "search",
            len(states),
            self.target,
            epochs=self.study.epochs,
            best=best.values[0] if best else math.nan,
            belief=trials.specs[best.number].belief if best else "",
            failed=states.count(TrialState.FAIL),
            pruned=states.count(TrialState.PRUNED),
        )
        self.on_progress(self._progress)

    # ----------------------------------------------------------------------------------------------------------- finals

    def conclude(self, driver: Driver, again: bool | None = None) -> Verdict | None:
        """Finals and their files, by one of the workers; None if the verdict stands or another worker draws it.

        `again` repeats finals that are concluded; by default if this folder has no summary.
        """
        verdicts: list[Verdict] = []

        def action() -> None:
            verdicts.append(self._finals())
            self._bring_home(driver)

        missing = self.folder.read_json("summary.json") is None
        default = driver.patiently(lambda: None if missing or self.added else self.finished_count())
        driver.conclude(action, missing if again is None else again, default)
        return verdicts[0] if verdicts else None

    def _finals(self) -> Verdict:
        self.write_trials()
        self.trials.refresh()
        rows = self.trials.complete_rows()
        if not rows:
            reasons = [t.user_attrs.get("reason", "unknown") for t in self.finished()]
            raise ValueError(f"all {len(reasons)} trials failed; the last reason: {reasons[-1] if reasons else '-'}")
        finalists, baseline = candidates(self.study, rows)
        epochs = max(row["spec"].epochs for row in [*finalists, baseline])
        beliefs = len(finalists) + 1 + len(twins(finalists, baseline["spec"]))
        total = beliefs * len(self.study.final_seeds(self.target))

        def on_event(event: TrainingEvent) -> None:
            if event.kind == "epoch":
                self.on_progress(Progress("finals", 0, total, event.epoch, epochs, rate=_rate(event)))

        def on_scored(done: int, total: int) -> None:
            self.on_progress(Progress("scores", done, total))

        verdict = run_finals(self.study, self.data, finalists, baseline, on_event, self.device, self.target, on_scored)
        summary = save_verdict(self.folder, self.study.name, self.data, verdict)
        if self.on_event is not None:
            self.on_event(Event("end", summary))
        return verdict

    def _bring_home(self, driver: Driver) -> None:
        """Copy the trials of a storage elsewhere into the results folder."""
        storage, home = driver.storage, self.folder.journal.absolute()
        if storage.shown != str(home):
            trials = patiently(self.trials.all, driver.say, storage.patience)
            bring_home(home, self.study.name, storage.shown, self.optuna, trials)


def _rate(event: TrainingEvent) -> float:
    """VAE epochs per second of a population."""
    return len(event.members) / event.seconds if event.seconds > 0 else math.nan
