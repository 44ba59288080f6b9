"""Export from a results folder: the saved winner, or any trial, trained again from its spec and seed."""

from __future__ import annotations

import shutil
from pathlib import Path

from autovae.export.card import load_prior, save_vae
from autovae.search.result import ResultsError, ResultsFolder
from autovae.spec import VAESpec
from autovae.training.loop import fit

__all__ = ["export_trial", "export_winner"]


def _empty(to: Path) -> Path:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ResultsError(f"{to} exists and is not an empty folder; choose another folder with --to")
    return to


def export_winner(results: str | Path, to: str | Path) -> Path:
    """Copy winners/1 of a results folder to `to`, after checking that it loads."""
    winner = Path(results) / "winners" / "1"
    if not winner.is_dir():
        raise ResultsError(f"{results} has no winners/1; run the study to its end first")
    load_prior(winner)
    target = _empty(Path(to))
    shutil.copytree(winner, target, dirs_exist_ok=True)
    return target


def export_trial(
    results: str | Path, number: int, to: str | Path, data_dir: str | Path | None = None, device: str | None = None
) -> Path:
    """Train trial `number` again (same spec, seed and data order give the same weights) and save it to `to`."""
    import optuna

    from autovae.search.workers.journal import open_journal

    folder = Path(results)
    if not (folder / "study.toml").is_file() or not (folder / "trials.journal").is_file():
        raise ResultsError(f"{folder} is no results folder: it needs study.toml and trials.journal")
    opened = ResultsFolder(folder)
    study = opened.study
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_journal(folder / "trials.journal")
    trials = optuna.load_study(study_name=study["name"], storage=storage).get_trials(deepcopy=False)
    known = [t for t in trials if t.number == number and "spec" in t.user_attrs]
    if not known:
        raise ResultsError(
            f"{folder} has no trial {number} with a spec; trials are 0 to {len(trials) - 1}, see trials.csv"
        )
    target = _empty(Path(to))
    data = opened.data(data_dir)
    trained = fit(VAESpec.from_dict(known[0].user_attrs["spec"]), data, device=device)
    about = {
        "study": study["name"],
        "trial": number,
        "score": {"bits per dimension in search": f"{known[0].value:.4f}"},
    }
    return save_vae(trained.model, data, target, about)
