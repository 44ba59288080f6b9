"""Training losses by epoch of every trial, from the study's log of trials, else from losses.csv.

The log is not published; `autovae fidelity --beliefs`, which trains trials again, writes losses.csv (number, epoch, loss).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["quiet_optuna", "read_losses"]


def read_losses(folder: Path) -> dict[int, list[float]]:
    """Losses by trial number; empty if the folder has neither file (a shared storage keeps its log elsewhere)."""
    path = folder / "trials.journal"
    if not path.is_file():
        return _from_table(folder / "losses.csv")
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    with quiet_optuna():
        storage = JournalStorage(JournalFileBackend(str(path)))
        studies = storage.get_all_studies()
        trials = [trial for study in studies for trial in storage.get_all_trials(study._study_id, deepcopy=False)]
    return {trial.number: list(trial.user_attrs["loss"]) for trial in trials if trial.user_attrs.get("loss")}


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna without its notices; warnings stay."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _from_table(path: Path) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(int(row["number"]), []).append(float(row["loss"]))
    return found
