"""A study in an external storage: workers agree on it, and its trials are copied to the results folder at the end.

The worker that concludes the study copies the trials into the journal of the results folder, so that report and export
need only the folder.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from autovae.search.result import ResultsError, counted, differences, with_old_defaults
from autovae.search.workers.driver import CONCLUDED
from autovae.search.workers.journal import open_journal
from autovae.search.workers.storage import StorageError

__all__ = ["agree", "bring_home", "check_home"]

COPY = "copy_of"  # attribute of a copied study: its original storage


def agree(study: optuna.Study, about: dict[str, Any]) -> None:
    """Check this worker's study file, data and version against the storage; the first worker records them.

    Called under the mutex. Raises `StorageError` that lists the differences.
    """
    stored = study.user_attrs.get("autovae")
    if stored is None:
        study.set_user_attr("autovae", about)
        return
    if stored.get("version") != about["version"]:
        raise StorageError(
            f"this is autovae {about['version']}, but the study {study.study_name} in the storage was started with "
            f"{stored.get('version')}; install the same version for all workers, or start again under another name"
        )
    changes = list(differences(with_old_defaults(stored.get("study") or {}), about["study"]))
    if changes:
        raise StorageError(
            f"the storage holds another study under the name {study.study_name} ({'; '.join(changes[:4])}"
            f"{'; ...' if len(changes) > 4 else ''}); give all workers the same study file and data, or copy the study "
            "file under a new name"
        )


def check_home(journal: Path, study: str) -> None:
    """Refuse to replace a journal that is not a copy: it contains the trials of another search."""
    if not journal.is_file():
        return
    with contextlib.suppress(KeyError):
        if COPY not in optuna.load_study(study_name=study, storage=open_journal(journal)).user_attrs:
            raise ResultsError(
                f"{journal.parent} holds a search with a journal of its own; leave --storage out to continue it, or use "
                "--results with another folder"
            )


def bring_home(journal: Path, name: str, source: str, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
    """Write the `trials` of a concluded study in the storage `source` as the folder's journal, atomically."""
    temporary = journal.with_name(f".{journal.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        copy = optuna.create_study(study_name=name, storage=open_journal(temporary), directions=study.directions)
        copy.add_trials([trial for trial in trials if trial.state != TrialState.RUNNING])
        copy.set_user_attr(COPY, source)
        copy.set_user_attr(CONCLUDED, len(counted(trials)))
        os.replace(temporary, journal)
    finally:
        temporary.unlink(missing_ok=True)
