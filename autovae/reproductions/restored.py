"""`autovae restore`: the models of a study whose weights were not published, trained again from its small files.

    results/STUDY/study.toml, summary.json, finals.csv     the specs, and which seed was the best on validation
    results/STUDY/winners/1, baseline, rivals/NAME         what is trained again: that seed of each
    results/STUDY/curves.csv, report.html                  made anew, since they ask the models

The same spec, seed and data order give the same weights on the same machine. On another, rounding grows with the epochs
until a fit differs as another seed's would: the score of each is measured again, and the card keeps it beside the one that
was published.
Finalists that did not win are not trained again. Not here: one trial of a search whose log is at hand (`search.export`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from autovae.data.datasets import Data, load
from autovae.export.card import save_vae
from autovae.metrics.bits import log_mass_bounds, score
from autovae.report.html import build_report
from autovae.report.record import Record, read_record
from autovae.search.curves import curve_rows
from autovae.search.result import ResultsError, ResultsFolder
from autovae.search.verdict import Final, Gain, Verdict
from autovae.spec import VAESpec
from autovae.training.loop import Event, fit_population

__all__ = ["data_of", "restore"]


def restore(
    folder: str | Path,
    data_dir: str | Path | None = None,
    device: str | None = None,
    on_event: Callable[[Event], Any] | None = None,
) -> list[dict[str, Any]]:
    """Train, save and measure; a row a model: where it is, its belief, its bits as published and now.

    Raises `ResultsError` for a folder without finished finals, and for data that are no longer those of the study.
    """
    record = read_record(folder)
    finals = _finals(record)
    data = data_of(record, data_dir)
    fits = fit_population([final.spec for final in finals.values()], data, on_event=on_event, device=device)
    samples = int((record.summary or {})["samples"])
    bounds = log_mass_bounds([fit.model for fit in fits], data, data.validation, samples, seed=1)
    rows = []
    for (place, final), fit, bound in zip(finals.items(), fits, bounds, strict=True):
        final.fits.append(fit)
        now = score(bound, data, data.validation, samples).bits
        save_vae(fit.model, data, record.folder / place, _about(record, place, final, now, samples, data))
        rows.append(
            {
                "model": place,
                "belief": final.spec.belief,
                "seed": final.spec.seed,
                "published": float(final.validation[0]),
                "now": now,
            }
        )
    verdict = _verdict(record, finals)
    ResultsFolder(record.folder).write_table("curves.csv", curve_rows(verdict, data))
    build_report(record.folder, data)
    return rows


def _finals(record: Record) -> dict[str, Final]:
    """Winner, baseline and learned priors by their folder, each with its best seed and no fit yet."""
    summary = record.summary
    if summary is None or not record.finals or not {"winner", "baseline", "samples"} <= set(summary):
        raise ResultsError(
            f"{record.folder} has no finished finals: it needs summary.json and finals.csv; run the study to its end"
        )
    specs = {"1": VAESpec.from_dict(summary["winner"]), "baseline": VAESpec.from_dict(summary["baseline"])}
    for name in summary.get("gain_over_rivals") or {}:
        specs[name] = specs["baseline"].replace(rival=name)
    found = {}
    for rank, spec in specs.items():
        rows = [row for row in record.finals if str(row.get("rank")) == rank and math.isfinite(row["validation"])]
        if not rows:
            raise ResultsError(f"{record.folder / 'finals.csv'} has no row of rank {rank}; run the study to its end")
        best = min(rows, key=lambda row: row["validation"])
        place = "winners/1" if rank == "1" else rank if rank == "baseline" else f"rivals/{rank}"
        role = "finalist" if rank == "1" else rank
        bits = np.array([best["validation"]])
        found[place] = Final(role, spec.replace(seed=best["seed"]), int(best["trial"]), [], bits)
    return found


def data_of(record: Record, data_dir: str | Path | None = None) -> Data:
    """The data of a study, where they are still the same. Raises `ResultsError` where not."""
    about = record.study["data"]
    data = load(about.get("path") or about["name"], data_dir=data_dir, seed=record.study.get("seed", 0))
    if data.digest != about["digest"]:
        raise ResultsError(f"the data {data.name} are no longer those of the study (their digest differs)")
    return data


def _about(record: Record, place: str, final: Final, now: float, samples: int, data: Data) -> dict[str, Any]:
    rank = place.removeprefix("winners/").removeprefix("rivals/")
    values = [row["validation"] for row in record.finals if str(row.get("rank")) == rank]
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return {
        "study": record.name,
        "trial": final.trial,
        "score": {
            "validation bits per dimension": f"{now:.4f}",
            "mean over seeds": f"{np.mean(values):.4f} (sd {spread:.4f}, {len(values)} seeds)",
            "importance samples K": str(samples),
            "levels": str(data.levels),
            "as published, before the weights were trained again": f"{final.validation[0]:.4f}",
        },
    }


def _verdict(record: Record, finals: dict[str, Final]) -> Verdict:
    """The published verdict around the fits that were made again."""
    summary = record.summary or {}
    return Verdict(
        finalists=[finals["winners/1"]],
        baseline=finals["baseline"],
        gain_validation=Gain(**summary["gain_validation"]),
        gain_test=Gain(**summary["gain_test"]),
        bound_gap=summary["bound_gap"],
        samples=summary["samples"],
    )
