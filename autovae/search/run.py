"""Run a study: ask, train, score and tell in batches; resume where it was left; finals, winners, importance, report.

One process, batch-synchronous: trials of a batch are asked one by one (each with a sampler made from the study's seed
and the trial's number), trained as one population, and told in trial order. So a study that was interrupted and
resumed gives the same trials as one that was not: what was asked and not told is run again, with the same seeds.
"""

from __future__ import annotations

import math
import os
import shutil
import socket
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from autovae.beliefs.flows import import_zuko
from autovae.beliefs.likelihoods import check_support
from autovae.data.datasets import DATASETS, Data, load
from autovae.export.card import save_vae
from autovae.search.curves import curve_rows
from autovae.search.events import Event as SearchEvent
from autovae.search.events import OnEvent
from autovae.search.extras import NEEDS
from autovae.search.finals import Final, Verdict, candidates, network_words, run_finals, twins
from autovae.search.journal import open_journal
from autovae.search.ledger import Batch, Ledger
from autovae.search.locks import FileLock
from autovae.search.objective import Asked, Outcome, run_batch, run_in_parts
from autovae.search.parameters import Choices
from autovae.search.results import ResultsError, ResultsFolder
from autovae.search.study import Study
from autovae.search.worker import CONCLUDED
from autovae.spec import VAESpec
from autovae.training.loop import Event
from autovae.training.member import CheckpointError

__all__ = ["Progress", "Run"]

LOSS = 120.0  # seconds of training that a killed process may lose, where its study has no rungs


@dataclass(frozen=True)
class Progress:
    """What a run tells: a phase, how far it is, the best so far."""

    phase: str  # "search", "finals", "scores", "report"
    done: int
    total: int
    epoch: int = 0
    epochs: int = 0
    best: float = math.nan
    belief: str = ""
    failed: int = 0
    pruned: int = 0
    rate: float = math.nan  # VAE epochs a second, of the population in training


OnProgress = Callable[[Progress], Any]


def _quiet(_: Progress) -> None:
    return None


class Run:
    """One study over one results folder."""

    def __init__(
        self,
        study: Study,
        results: str | Path = "results",
        dataset: str | None = None,
        data_dir: str | Path | None = None,
        trials: int | None = None,
        device: str | None = None,
        on_progress: OnProgress = _quiet,
        on_event: OnEvent | None = None,
    ) -> None:
        self.study, self.device, self.on_progress, self.on_event = study, device, on_progress, on_event
        self.trials = trials or study.file.trials
        self.source = dataset or study.file.data
        self.data: Data = load(self.source, data_dir=data_dir, seed=study.file.seed)
        name = study.name if dataset is None or dataset == study.file.data else f"{study.name}-{self.data.name}"
        self.folder = ResultsFolder(Path(results) / name)
        self.added = 0
        self._progress = Progress("search", 0, self.trials)
        self.notes: list[str] = []
        self._fit_likelihoods(own_data=self.source == study.file.data)
        self._check_needs()

    def _check_needs(self) -> None:
        """An objective or a baseline that cannot be had here is an error before anything is trained."""
        for name in self.study.file.score.also:
            if reason := NEEDS.get(name, lambda data: "")(self.data):
                raise ValueError(f"{self.study.name}: {reason}")
        if "flow" not in self.study.rivals_for(self.trials):
            return
        try:
            import_zuko()
        except ImportError as error:
            raise ValueError(f"{self.study.name} has a flow prior among its baselines: {error}") from None

    def _fit_likelihoods(self, own_data: bool) -> None:
        """A likelihood that does not fit the data's support: an error in a study on its own data, left out on other data."""
        choice = self.study.space.parameters.get("likelihood")
        if not isinstance(choice, Choices):
            fixed = {**self.study.file.training, **self.study.space.fixed}.get("likelihood", "bernoulli")
            check_support(str(fixed), self.data.support)
            return
        reasons = {str(name): _misfit(str(name), self.data.support) for name in choice.choices}
        fitting = [name for name in choice.choices if not reasons[str(name)]]
        misfits = [reason for reason in reasons.values() if reason]
        if misfits and (own_data or not fitting):
            raise ValueError(misfits[0])
        if misfits:
            left_out = ", ".join(name for name, reason in reasons.items() if reason)
            self.notes.append(f"{left_out} left out: {self.data.name} is {self.data.support}")
            space = self.study.space.replace("likelihood", Choices(choices=fitting))
            self.study = replace(self.study, space=space)

    def identity(self) -> dict[str, Any]:
        path = {} if self.source in DATASETS else {"path": str(Path(self.source).resolve())}
        about = {"name": self.data.name, "digest": self.data.digest, "levels": self.data.levels}
        return {**self.study.identity, "data": {**about, **path}}

    def finished_count(self) -> int:
        """How many trials are finished; 0 before the storage is open."""
        return len(self.ledger.finished()) if hasattr(self, "ledger") else 0

    def execute(self) -> Verdict | None:
        """Run or resume to the end, alone. Returns the verdict of the finals, or None where they stood already."""
        self.folder.open(self.identity(), self.trials)
        note = f"process {os.getpid()} on {socket.gethostname()}"
        alone = FileLock(f"{self.folder.journal}.in-use", note=note, passing=True)
        if not alone.acquire(wait=False):
            raise ResultsError(
                f"{self.folder.path} is in use by {alone.holder() or 'workers'}; wait for its end, or stop it (finished "
                "trials are kept) and run again with --workers to share the work"
            )
        try:
            self._open_storage()
            self._search()
            count = len(self.ledger.finished())
            concluded = self.ledger.optuna.user_attrs.get(CONCLUDED, None if self.added else count)
            if self.folder.read_json("summary.json") and concluded == count:
                return None
            verdict = self.conclude()
            self.ledger.optuna.set_user_attr(CONCLUDED, count)
            return verdict
        finally:
            alone.release()

    def _open_storage(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.ledger = Ledger(self.study, open_journal(self.folder.journal))

    def _search(self) -> None:
        self.report_search()
        while (done := len(self.ledger.finished())) < self.trials or self.ledger.unfinished:
            if not self.ledger.unfinished and (reason := self.ledger.over()):
                self.notes.append(reason)
                break
            batch = self.ledger.ask(min(self.study.file.batch, self.trials - done))
            self.tell(batch, self.train(batch))

    def train(self, batch: Batch) -> list[Outcome]:
        """Train and score a batch; one that was cut off goes on from its last rung or checkpoint."""
        asked = [(trial.number, settings) for trial, settings in batch.asked]
        if not asked:
            return []
        folder, every = self._checkpoints(batch)

        def run(part: Sequence[Asked]) -> list[Outcome]:
            kept = folder if len(part) == len(asked) else None  # a part of a batch has other places
            return run_batch(self.study, self.data, part, self._on_epoch, self.device, batch.earlier, kept, every)

        try:
            return run_in_parts(self.study, asked, run)
        except CheckpointError:  # of another batch, or damaged: worth nothing
            self._forget(batch)
            return run_in_parts(self.study, asked, run)

    def _checkpoints(self, batch: Batch) -> tuple[Path | None, int]:
        """Where a batch is saved on its way, None where it is too short for that; and every how many epochs.

        With rungs at the rungs. Without: as many epochs as take `LOSS` seconds, a quarter while no batch was timed.
        """
        folder = self._folder(batch)
        epochs = max(int(settings.get("epochs", self.study.epochs)) for _, settings in batch.asked)
        if self.study.file.pruning.rungs:
            return folder, epochs
        seconds = batch.pace * len(batch.asked)
        share = 1 / 4 if math.isnan(seconds) else LOSS / max(seconds, LOSS)
        every = math.ceil(share * epochs)
        return (folder if every < epochs or folder.exists() else None), every

    def tell(self, batch: Batch, outcomes: Sequence[Outcome], only: Collection[int] | None = None) -> None:
        """Tell a batch in trial order, or `only` those trials of it that still wait for it."""
        for (trial, _), outcome in zip(batch.asked, outcomes, strict=True):
            if trial.number not in batch.told and (only is None or trial.number in only):
                self.ledger.tell(trial, outcome)
                self.added += 1
                if self.on_event is not None:
                    losses = [row["loss"] for row in outcome.trained.history] if outcome.trained else []
                    self.on_event(SearchEvent("trial", self.ledger.row(trial.number), losses))
        for trial, leader in batch.followers:
            if only is None or trial.number in only:
                self.ledger.repeat(trial, leader)
        self._forget(batch)
        self.write_trials()
        self.report_search()

    def _forget(self, batch: Batch) -> None:
        shutil.rmtree(self._folder(batch), ignore_errors=True)

    def _folder(self, batch: Batch) -> Path:
        return self.folder.path / "checkpoints" / f"batch-{batch.first}"

    def _on_epoch(self, event: Event) -> None:
        """Tell of an epoch, with what was known when the batch began: training does not wait for the storage."""
        if event.kind == "epoch":
            rate = len(event.members) / event.seconds if event.seconds > 0 else math.nan
            self.on_progress(replace(self._progress, epoch=event.epoch, rate=rate))

    def report_search(self) -> None:
        """Tell how far the search is, as the storage knows it."""
        finished = self.ledger.finished()
        complete = [t for t in finished if t.state == TrialState.COMPLETE]
        best = min(complete, key=lambda t: t.values[0], default=None)
        self._progress = Progress(
            "search",
            len(finished),
            self.trials,
            epochs=self.study.epochs,
            best=best.values[0] if best else math.nan,
            belief=VAESpec.from_dict(best.user_attrs["spec"]).belief if best else "",
            failed=sum(t.state == TrialState.FAIL for t in finished),
            pruned=sum(t.state == TrialState.PRUNED for t in finished),
        )
        self.on_progress(self._progress)

    def write_trials(self) -> Path:
        """trials.csv from the storage."""
        return self.folder.write_table("trials.csv", self.ledger.rows())

    def conclude(self) -> Verdict:
        """Finals over what was found, and their files."""
        self.write_trials()
        rows = self.ledger.complete_rows()
        if not rows:
            reasons = [t.user_attrs.get("reason", "unknown") for t in self.ledger.finished()]
            raise ValueError(f"all {len(reasons)} trials failed; the last reason: {reasons[-1] if reasons else '-'}")
        finalists, baseline = candidates(self.study, rows)
        epochs = max(row["spec"].epochs for row in [*finalists, baseline])
        beliefs = len(finalists) + 1 + len(twins(finalists, baseline["spec"]))
        total = beliefs * len(self.study.final_seeds(self.trials))

        def on_event(event: Event) -> None:
            if event.kind == "epoch":
                rate = len(event.members) / event.seconds if event.seconds > 0 else math.nan
                self.on_progress(Progress("finals", 0, total, event.epoch, epochs, rate=rate))

        def on_scored(done: int, total: int) -> None:
            self.on_progress(Progress("scores", done, total))

        verdict = run_finals(self.study, self.data, finalists, baseline, on_event, self.device, self.trials, on_scored)
        self._save(verdict)
        return verdict

    def _save(self, verdict: Verdict) -> None:
        finals = [*verdict.finalists, verdict.baseline, *verdict.twins, *verdict.rivals]
        rows = [row for rank, final in enumerate(finals, 1) for row in self._final_rows(final, rank, verdict)]
        self.folder.write_table("finals.csv", rows)
        self.folder.write_table("curves.csv", curve_rows(verdict, self.data))
        for old in ("winners", "baseline", "rivals"):
            shutil.rmtree(self.folder.path / old, ignore_errors=True)
        for rank, final in enumerate(verdict.finalists, 1):
            self._export(final, self.folder.path / "winners" / str(rank), verdict)
        self._export(verdict.baseline, self.folder.path / "baseline", verdict)
        for rival in verdict.rivals:
            self._export(rival, self.folder.path / "rivals" / rival.role, verdict)
        summary = {
            "sentence": verdict.sentence,
            "wins": verdict.wins,
            "winner": verdict.winner.spec.to_dict(),
            "baseline": verdict.baseline.spec.to_dict(),
            "gain_test": vars(verdict.gain_test),
            "gain_validation": vars(verdict.gain_validation),
            "gain_over_rivals": {name: vars(gain) for name, gain in verdict.rival_gains.items()},
            "bound_gap": verdict.bound_gap,
            "samples": verdict.samples,
            "levels": self.data.levels,
            "rounded": self.data.rounded,
            "data": self.data.describe(),
            "finished": time.strftime("%Y-%m-%d"),
        }
        self.folder.write_json("summary.json", summary)
        if self.on_event is not None:
            self.on_event(SearchEvent("end", summary))

    @staticmethod
    def _final_rows(final: Final, rank: int, verdict: Verdict) -> list[dict[str, Any]]:
        return [
            {
                "rank": rank if final.role == "finalist" else final.role,
                "trial": final.trial,
                "belief": final.spec.belief,
                "network": network_words(final.spec),
                "seed": fit.spec.seed,
                "validation": float(final.validation[place]),
                "test": None if final.test is None else float(final.test[place]),
                "samples": verdict.samples,
                "common_head": None if final.common_head is None else float(final.common_head[place]),
            }
            for place, fit in enumerate(final.fits)
        ]

    def _export(self, final: Final, folder: Path, verdict: Verdict) -> None:
        fit = final.fits[final.best]
        spread = float(final.validation.std(ddof=1))
        about = {
            "study": self.study.name,
            "trial": final.trial,
            "score": {
                "validation bits per dimension": f"{final.validation[final.best]:.4f}",
                "mean over seeds": f"{final.mean:.4f} (sd {spread:.4f}, {len(final.fits)} seeds)",
                "importance samples K": str(verdict.samples),
                "levels": str(self.data.levels),
            },
        }
        save_vae(fit.model, self.data, folder, about)


def _misfit(likelihood: str, support: str) -> str:
    """Why a likelihood does not fit a support; empty where it does."""
    try:
        check_support(likelihood, support)
    except ValueError as error:
        return str(error)
    return ""
