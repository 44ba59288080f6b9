"""`autovae restore`: train the models of a published study again from its small files.

    results/STUDY/study.toml, summary.json, finals.csv     the specs, and the best seed of each on validation
    winners/1, baseline, learned_priors/NAME               the models trained again, with that seed
    curves.csv                                             computed again, since it needs the models

The same spec, seed and data order give the same weights on the same machine. On another, rounding grows with the epochs
until a fit differs as much as another seed's would; the card therefore keeps the new score next to the published one.
Finalists that did not win are not trained again. Not here: one trial of a search with its log (`search.export`), the report.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from autovae.data.datasets import Data
from autovae.export.card import save_vae
from autovae.metrics.bits import log_mass_bounds, score
from autovae.renames import folder_named
from autovae.search.curves import curve_rows
from autovae.search.result import ResultsError, ResultsFolder
from autovae.search.verdict import Final, Gain, Verdict
from autovae.spec import VAESpec
from autovae.training.loop import Event, fit_population

__all__ = ["finals_of", "restore"]


def restore(
    folder: str | Path,
    data_dir: str | Path | None = None,
    device: str | None = None,
    on_event: Callable[[Event], Any] | None = None,
) -> tuple[list[dict[str, Any]], Data]:
    """Train, save and score the models; a row a model (place, belief, seed, bits as published and now), and the data.

    Raises `ResultsError` if the finals are not finished, or the data differ from the study's.
    """
    results = ResultsFolder(Path(folder))
    finals = finals_of(folder)
    data, summary = results.data(data_dir), results.read_json("summary.json") or {}
    fits = fit_population([final.spec for final, _ in finals.values()], data, on_event=on_event, device=device)
    samples = int(summary["samples"])
    bounds = log_mass_bounds([fit.model for fit in fits], data, data.validation, samples, seed=1)
    rows = []
    for (place, (final, spread)), fit, bound in zip(finals.items(), fits, bounds, strict=True):
        final.fits.append(fit)
        now, published = score(bound, data, data.validation, samples).bits, float(final.validation[0])
        about = {
            "study": results.study["name"],
            "trial": final.trial,
            "score": {
                "validation bits per dimension": f"{now:.4f}",
                "mean over seeds": spread,
                "importance samples K": str(samples),
                "levels": str(data.levels),
                "as published, before the weights were trained again": f"{published:.4f}",
            },
        }
        save_vae(fit.model, data, results.path / place, about)
        found = {"model": place, "belief": final.spec.belief, "seed": final.spec.seed}
        rows.append({**found, "published": published, "now": now})
    results.write_table("curves.csv", curve_rows(_verdict(summary, {p: f for p, (f, _) in finals.items()}), data))
    return rows, data


def finals_of(folder: str | Path) -> dict[str, tuple[Final, str]]:
    """Winner, baseline and learned priors by their folder: the best seed of each, not yet trained, and its mean in words."""
    path = Path(folder)
    summary, table = ResultsFolder(path).read_json("summary.json"), path / "finals.csv"
    if summary is None or not table.is_file() or not {"winner", "baseline", "samples"} <= set(summary):
        raise ResultsError(
            f"{folder} has no finished finals: it needs summary.json and finals.csv; run the study to its end"
        )
    baseline, learned = VAESpec.from_dict(summary["baseline"]), folder_named(path, "learned_priors").name
    models = [
        ("1", "finalist", "winners/1", VAESpec.from_dict(summary["winner"])),
        ("baseline", "baseline", "baseline", baseline),
    ]
    for name in summary.get("gain_over_learned_priors") or {}:
        models.append((name, name, f"{learned}/{name}", baseline.replace(learned_prior=name)))
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for rank, role, place, spec in models:
        own = [row for row in rows if row["rank"] == rank]
        bits = [float(row["validation"]) for row in own]
        if not any(map(math.isfinite, bits)):
            raise ResultsError(f"{table} has no row of rank {rank}; run the study to its end")
        at = int(np.nanargmin(bits))
        spread = float(np.std(bits, ddof=1)) if len(bits) > 1 else math.nan
        seeded = spec.replace(seed=int(own[at]["seed"]))
        final = Final(role, seeded, int(own[at]["trial"]), [], np.array([bits[at]]))
        found[place] = final, f"{np.mean(bits):.4f} (sd {spread:.4f}, {len(bits)} seeds)"
    return found


def _verdict(summary: Mapping[str, Any], finals: Mapping[str, Final]) -> Verdict:
    """The published verdict around the new fits."""
    return Verdict(
        finalists=[finals["winners/1"]],
        baseline=finals["baseline"],
        gain_validation=Gain(**summary["gain_validation"]),
        gain_test=Gain(**summary["gain_test"]),
        bound_gap=summary["bound_gap"],
        samples=summary["samples"],
    )
