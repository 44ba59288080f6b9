"""Training losses by epoch of every trial, from the study's own log of trials."""

from __future__ import annotations

from pathlib import Path

__all__ = ["read_losses"]


def read_losses(folder: Path) -> dict[int, list[float]]:
    """Losses by trial number; empty where the results have no log (a study on a shared storage keeps it elsewhere)."""
    path = folder / "trials.journal"
    if not path.is_file():
        return {}
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    loudness = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        studies = storage.get_all_studies()
        trials = [trial for study in studies for trial in storage.get_all_trials(study._study_id, deepcopy=False)]
    finally:
        optuna.logging.set_verbosity(loudness)
    return {trial.number: list(trial.user_attrs["loss"]) for trial in trials if trial.user_attrs.get("loss")}
