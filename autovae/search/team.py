"""A run as one of many: the same search, in a storage that other workers share.

    joined(run, url, name, workers, say)      opens the storage, checks that all speak of the same study, gives a `Worker`

The results folder holds what one machine sees; the storage holds the trials. Who concludes the study brings the trials home,
as the folder's own journal, so that report and export need nothing but the folder.
Not here: taking and telling (`worker`), the command line (`commands.cluster`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

import autovae
from autovae.search.journal import open_journal
from autovae.search.ledger import Batch, Ledger, counted
from autovae.search.objective import Outcome
from autovae.search.results import FORMAT, ResultsError, differences
from autovae.search.run import Run
from autovae.search.storage import TRIALS, SharedStorage, open_storage, patiently
from autovae.search.worker import CONCLUDED, Worker, agree

__all__ = ["bring_home", "joined"]

COPY = "copy_of"  # attribute of a study that was brought home: where from


class _Shared:
    """A run as the `Search` of a worker."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.optuna, self.trials, self.batch = run.ledger.optuna, run.trials, run.study.file.batch
        self._batch = Batch()
        self._outcomes: list[Outcome] = []

    def finished(self) -> Sequence[FrozenTrial]:
        return self.run.ledger.finished()

    def ask(self, left: Sequence[FrozenTrial], count: int) -> Sequence[int]:
        self.run.ledger.refresh()
        self._batch = self.run.ledger.ask(count, [trial.number for trial in left])
        self.run.report_search()
        running = [trial for trial, _ in [*self._batch.asked, *self._batch.followers]]
        return [trial.number for trial in running if trial.number not in self._batch.told]

    def train(self) -> None:
        self._outcomes = self.run.train(self._batch)

    def tell(self, numbers: Sequence[int]) -> None:
        self.run.ledger.refresh()
        self.run.tell(self._batch, self._outcomes, numbers)

    def ended(self) -> str:
        return self.run.ledger.over()


@contextlib.contextmanager
def joined(
    run: Run,
    url: str | None = None,
    name: str = "",
    workers: int = 1,
    say: Callable[[str], Any] = lambda _: None,
    expected: int = 1,
) -> Iterator[Worker]:
    """A worker of this run's study; the storage is let go at the end of the block.

    `workers` is how many the storage must bear, `expected` how many share what is left of the trials.

    Raises `StorageError` or `ResultsError` where storage, folder, study and version do not fit together.
    """
    run.folder.open(run.identity(), run.trials)
    home = run.folder.journal
    if url is not None and Path(url).absolute() != home.absolute():
        _check_home(home, run.study.name)
    storage = open_storage(url or home, run.folder.path, run.folder.path.name, workers)
    try:
        patiently(lambda: _open(run, storage), say, 0.0)
        worker = Worker(_Shared(run), storage, name, say, expected=expected)
        run.ledger.asker = worker.id
        yield worker
    finally:
        storage.close()


def _open(run: Run, storage: SharedStorage) -> None:
    about = run.identity()
    about["data"].pop("path", None)  # the same data may lie elsewhere on each machine: their digest counts
    with storage.mutex(TRIALS):
        # in a database a study on other data has another name, as its folder has
        name = run.study.name if storage.kind == "journal" else run.folder.path.name
        run.ledger = Ledger(run.study, storage.optuna, name)
        agree(run.ledger.optuna, {"version": autovae.__version__, "format": FORMAT, "study": about}, differences)


def _check_home(journal: Path, study: str) -> None:
    """The folder's own journal may only be a copy: another search's trials are not written over."""
    if not journal.is_file():
        return
    with contextlib.suppress(KeyError):
        if COPY not in optuna.load_study(study_name=study, storage=open_journal(journal)).user_attrs:
            raise ResultsError(
                f"{journal.parent} holds a search with a journal of its own; leave --storage out to go on with it, or use "
                "--results with another folder"
            )


def bring_home(run: Run, worker: Worker) -> None:
    """Write the trials of a shared storage as the results folder's own journal, whole or not at all."""
    home, storage = run.folder.journal, worker.storage
    if storage.shown == str(home.absolute()):
        return
    trials = patiently(lambda: run.ledger.optuna.get_trials(deepcopy=False), worker.say, storage.patience)
    temporary = home.with_name(f".{home.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        copy = optuna.create_study(
            study_name=run.study.name, storage=open_journal(temporary), directions=run.ledger.directions
        )
        copy.add_trials([trial for trial in trials if trial.state != TrialState.RUNNING])
        copy.set_user_attr(COPY, storage.shown)
        copy.set_user_attr(CONCLUDED, len(counted(trials)))
        os.replace(temporary, home)
    finally:
        temporary.unlink(missing_ok=True)
