"""The files of the finals: finals.csv, curves.csv, summary.json, and the models of winners, baseline and learned priors."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from autovae.data.datasets import Data
from autovae.export.card import save_vae
from autovae.search.curves import curve_rows
from autovae.search.result import ResultsFolder
from autovae.search.verdict import Final, Verdict, network_words

__all__ = ["save_verdict"]


def save_verdict(folder: ResultsFolder, study: str, data: Data, verdict: Verdict) -> dict[str, Any]:
    """Write the files of a verdict over older ones; returns the summary."""
    finals = [*verdict.finalists, verdict.baseline, *verdict.twins, *verdict.learned_priors]
    rows = [row for rank, final in enumerate(finals, 1) for row in _rows(final, rank, verdict.samples)]
    folder.write_table("finals.csv", rows)
    folder.write_table("curves.csv", curve_rows(verdict, data))
    for old in ("winners", "baseline", "learned_priors", "rivals"):
        shutil.rmtree(folder.path / old, ignore_errors=True)
    models = {f"winners/{rank}": final for rank, final in enumerate(verdict.finalists, 1)}
    models |= {
        "baseline": verdict.baseline,
        **{f"learned_priors/{final.role}": final for final in verdict.learned_priors},
    }
    for place, final in models.items():
        _save_model(final, folder.path / place, study, data, verdict.samples)
    summary = {
        "sentence": verdict.sentence,
        "wins": verdict.wins,
        "winner": verdict.winner.spec.to_dict(),
        "baseline": verdict.baseline.spec.to_dict(),
        "gain_test": vars(verdict.gain_test),
        "gain_validation": vars(verdict.gain_validation),
        "gain_over_learned_priors": {name: vars(gain) for name, gain in verdict.learned_prior_gains.items()},
        "bound_gap": verdict.bound_gap,
        "samples": verdict.samples,
        "levels": data.levels,
        "rounded": data.rounded,
        "data": data.describe(),
        "finished": time.strftime("%Y-%m-%d"),
    }
    folder.write_json("summary.json", summary)
    return summary


def _rows(final: Final, rank: int, samples: int) -> list[dict[str, Any]]:
    """The rows of finals.csv of one final, one per seed."""
    return [
        {
            "rank": rank if final.role == "finalist" else final.role,
            "trial": final.trial,
            "belief": final.spec.belief,
            "network": network_words(final.spec),
            "seed": fit.spec.seed,
            "validation": float(final.validation[place]),
            "test": None if final.test is None else float(final.test[place]),
            "samples": samples,
            "common_head": None if final.common_head is None else float(final.common_head[place]),
        }
        for place, fit in enumerate(final.fits)
    ]


def _save_model(final: Final, folder: Path, study: str, data: Data, samples: int) -> None:
    """Save the fit of the best seed."""
    score = {
        "validation bits per dimension": f"{final.validation[final.best]:.4f}",
        "mean over seeds": f"{final.mean:.4f} (sd {float(final.validation.std(ddof=1)):.4f}, {len(final.fits)} seeds)",
        "importance samples K": str(samples),
        "levels": str(data.levels),
    }
    save_vae(final.fits[final.best].model, data, folder, {"study": study, "trial": final.trial, "score": score})
