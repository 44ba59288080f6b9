"""Run a study: ask, train, score and tell in batches; resume where it was left; finals, winners, importance, report.

One process, batch-synchronous: trials of a batch are asked one by one (each with a sampler made from the study's seed
and the trial's number), trained as one population, and told in trial order. So a study that was interrupted and
resumed gives the same trials as one that was not: what was asked and not told is run again, with the same seeds.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from autovae.beliefs.flows import import_zuko
from autovae.beliefs.likelihoods import check_support
from autovae.data.datasets import DATASETS, Data, load
from autovae.export.card import save_vae
from autovae.search.finals import Final, Verdict, candidates, run_finals
from autovae.search.objective import Outcome, run_batch
from autovae.search.results import ResultsFolder
from autovae.search.samplers import SAMPLERS
from autovae.search.space import Choices, Space
from autovae.search.study import Study
from autovae.spec import VAESpec
from autovae.streams import stream_seed
from autovae.training.loop import Event

__all__ = ["Progress", "Run", "trial_rows"]

STARTUP = 10  # random trials before a model-based sampler has anything to model


@dataclass(frozen=True)
class Progress:
    """What a run tells: a phase, how far it is, the best so far."""

    phase: str  # "search", "finals", "report"
    done: int
    total: int
    epoch: int = 0
    epochs: int = 0
    best: float = math.nan
    belief: str = ""
    failed: int = 0


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
    ) -> None:
        self.study, self.device, self.on_progress = study, device, on_progress
        self.trials = trials or study.file.trials
        self.source = dataset or study.file.data
        self.data: Data = load(self.source, data_dir=data_dir, seed=study.file.seed)
        name = study.name if dataset is None or dataset == study.file.data else f"{study.name}-{self.data.name}"
        self.folder = ResultsFolder(Path(results) / name)
        self.added = 0
        self.notes: list[str] = []
        self._fit_likelihoods(own_data=self.source == study.file.data)
        self._check_rivals()

    def _check_rivals(self) -> None:
        """A baseline whose package is not installed is an error before anything is trained."""
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
            parameters = {**self.study.space.parameters, "likelihood": Choices(choices=fitting)}
            space = self.study.space
            self.study = replace(self.study, space=Space(space.name, space.purpose, parameters, space.fixed))

    def identity(self) -> dict[str, Any]:
        path = {} if self.source in DATASETS else {"path": str(Path(self.source).resolve())}
        about = {"name": self.data.name, "digest": self.data.digest, "levels": self.data.levels}
        return {**self.study.identity, "data": {**about, **path}}

    def finished_count(self) -> int:
        """How many trials are finished; 0 before the storage is open."""
        return len(self.finished()) if hasattr(self, "optuna") else 0

    def execute(self) -> Verdict | None:
        """Run or resume to the end. Returns the verdict of the finals, or None where they stood already."""
        self.folder.open(self.identity(), self.trials)
        self._open_storage()
        self._search()
        if self.folder.read_json("summary.json") and not self.added:
            return None
        verdict = self._finals()
        return verdict

    def _open_storage(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(JournalFileBackend(str(self.folder.journal)))
        self.optuna = optuna.create_study(
            study_name=self.study.name, storage=storage, direction="minimize", load_if_exists=True
        )
        if not self.optuna.trials:
            for settings in self.study.baselines():
                params = self.study.space.params_of(settings)
                if len(params) == len(self.study.space.parameters) or "pair" in params:
                    self.optuna.enqueue_trial(params, skip_if_exists=True)

    def finished(self) -> list[FrozenTrial]:
        return [t for t in self.optuna.get_trials(deepcopy=False) if t.state.is_finished()]

    def _search(self) -> None:
        self._report_search()
        while (done := len(self.finished())) < self.trials:
            asked = self._ask(min(self.study.file.batch, self.trials - done))
            outcomes = run_batch(
                self.study, self.data, [(t.number, settings) for t, settings in asked], self._on_epoch, self.device
            )
            for (trial, _), outcome in zip(asked, outcomes, strict=True):
                self._tell(trial, outcome)
            self.added += len(asked)
            self.write_trials()
            self._report_search()

    def _ask(self, count: int) -> list[tuple[optuna.Trial, dict[str, Any]]]:
        """The next batch: first what was asked before and never told, in trial order, then new trials."""
        left = [t for t in self.optuna.get_trials(deepcopy=False) if t.state == TrialState.RUNNING]
        trials = [optuna.Trial(self.optuna, t._trial_id) for t in left[:count]]
        while len(trials) < count:
            self.optuna.sampler = self._sampler(len(self.optuna.get_trials(deepcopy=False)))
            trials.append(self.optuna.ask())
        asked = []
        for trial in trials:  # the study's own sampler answers what enqueued and new trials left open
            self.optuna.sampler = self._sampler(trial.number)
            asked.append((trial, self.study.space.suggest(trial)))
        return asked

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """A sampler for one question, seeded by (study seed, trial number); a share of the trials is random."""
        file = self.study.file
        seed = stream_seed(file.seed, "sampler", number) % 2**32
        share = file.random_share
        is_random = math.floor((number + 1) * share) > math.floor(number * share)
        return SAMPLERS["random" if is_random else file.sampler](seed, STARTUP)

    def _tell(self, trial: optuna.Trial, outcome: Outcome) -> None:
        if outcome.spec is not None:
            trial.set_user_attr("spec", outcome.spec.to_dict())
        for name in ("bits", "standard_error", "nats", "seconds"):
            value = getattr(outcome, name)
            if math.isfinite(value):
                trial.set_user_attr(name, value)
        if outcome.trained is not None:
            trial.set_user_attr("loss", [row["loss"] for row in outcome.trained.history])
        for epoch, bits in outcome.rungs:
            trial.report(bits, epoch)
        if outcome.pruned_at:
            self.optuna.tell(trial, state=TrialState.PRUNED)
        elif outcome.ok:
            self.optuna.tell(trial, outcome.bits)
        else:
            trial.set_user_attr("reason", outcome.reason)
            self.optuna.tell(trial, state=TrialState.FAIL)

    def _on_epoch(self, event: Event) -> None:
        if event.kind == "epoch":
            self._report_search(event)

    def _report_search(self, event: Event | None = None) -> None:
        finished = self.finished()
        complete = [t for t in finished if t.state == TrialState.COMPLETE and t.value is not None]
        best = min(complete, key=lambda t: t.value or math.inf, default=None)
        belief = VAESpec.from_dict(best.user_attrs["spec"]).belief if best else ""
        epochs = int(self.study.file.training.get("epochs", 100))
        self.on_progress(
            Progress(
                "search",
                len(finished),
                self.trials,
                event.epoch if event else 0,
                epochs,
                best.value if best and best.value is not None else math.nan,
                belief,
                sum(t.state == TrialState.FAIL for t in finished),
            )
        )

    def write_trials(self) -> Path:
        """trials.csv from the storage."""
        rows = trial_rows(self.optuna.get_trials(deepcopy=False))
        return self.folder.write_table("trials.csv", rows)

    def complete_rows(self) -> list[dict[str, Any]]:
        """Complete trials as rows with their spec."""
        return [
            {"number": t.number, "bits": t.value, "spec": VAESpec.from_dict(t.user_attrs["spec"])}
            for t in self.finished()
            if t.state == TrialState.COMPLETE
        ]

    def _finals(self) -> Verdict:
        self.write_trials()
        rows = self.complete_rows()
        if not rows:
            reasons = [t.user_attrs.get("reason", "unknown") for t in self.finished()]
            raise ValueError(f"all {len(reasons)} trials failed; the last reason: {reasons[-1] if reasons else '-'}")
        finalists, baseline = candidates(self.study, rows)
        epochs = max(row["spec"].epochs for row in [*finalists, baseline])
        total = (len(finalists) + 1 + len(self.study.rivals_for(self.trials))) * len(
            self.study.final_seeds(self.trials)
        )

        def on_event(event: Event) -> None:
            if event.kind == "epoch":
                self.on_progress(Progress("finals", 0, total, event.epoch, epochs))

        verdict = run_finals(self.study, self.data, finalists, baseline, on_event, self.device, self.trials)
        self._save(verdict)
        return verdict

    def _save(self, verdict: Verdict) -> None:
        finals = [*verdict.finalists, verdict.baseline, *verdict.rivals]
        rows = [row for rank, final in enumerate(finals, 1) for row in self._final_rows(final, rank, verdict)]
        self.folder.write_table("finals.csv", rows)
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

    @staticmethod
    def _final_rows(final: Final, rank: int, verdict: Verdict) -> list[dict[str, Any]]:
        return [
            {
                "rank": rank if final.role == "finalist" else final.role,
                "trial": final.trial,
                "belief": final.spec.belief,
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


def trial_rows(trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """A row a finished trial: number, state, score with error, belief, settings, seed, seconds, reason."""
    rows = []
    for trial in trials:
        if not trial.state.is_finished():
            continue
        spec = trial.user_attrs.get("spec", {})
        names = (
            "posterior",
            "prior",
            "likelihood",
            "alpha",
            "latent_dim",
            "hidden",
            "epochs",
            "learning_rate",
            "rival",
            "seed",
        )
        rows.append(
            {
                "number": trial.number,
                "state": trial.state.name,
                "score": trial.value,
                "score_se": trial.user_attrs.get("standard_error"),
                **{name: spec.get(name) for name in names},
                "seconds": trial.user_attrs.get("seconds"),
                "reason": trial.user_attrs.get("reason", ""),
            }
        )
    return rows
