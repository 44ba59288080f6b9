"""Studies side by side: gains, importances, samples and settings on one page.

    compare(["results/quickstart", "results/mnist_pairing_v1"])     -> results/compare.html

Gains over each study's own baseline compare across studies. Bits per dimension do only if data, levels and the rule of the
score are the same; the page says if they are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from autovae.files import write_text
from autovae.report.content import Content
from autovae.report.figures.gain import gain_figure
from autovae.report.figures.importance import importance_figure
from autovae.report.finals import Gain
from autovae.report.page import Column, Table, render, words
from autovae.report.parts.drawings import samples_of
from autovae.report.parts.result import sentence_of
from autovae.report.record import pairing_text, read_record

__all__ = ["compare"]

Studies = Mapping[str, Content]


def compare(folders: Sequence[str | Path], to: str | Path | None = None) -> Path:
    """Write the page next to the first results folder, or to `to`; returns its path.

    Raises `ValueError` for fewer than two folders, or one that holds no study.
    """
    if len(folders) < 2:
        raise ValueError(f"got {len(folders)} results folder, expected at least two to compare; give another")
    studies: dict[str, Content] = {}
    for folder in folders:
        content = Content(read_record(folder))
        studies[_unique(content.record.title, studies)] = content
    parts = [
        ("results", "Results", render("compare/results", **_results(studies))),
        ("mattered", "What mattered", render("compare/mattered", **_mattered(studies))),
        ("drawings", "Samples", render("compare/drawings", samples=_samples(studies))),
        ("settings", "Settings", render("compare/settings", settings=_settings(studies))),
    ]
    notes = [f"{name}: {note}" for name, study in studies.items() for note in (*study.record.notes, *study.missing)]
    if notes:
        parts.append(("missing", "Not shown", render("parts/missing", notes=notes)))
    path = Path(to) if to is not None else Path(folders[0]).resolve().parent / "compare.html"
    return write_text(path, render("compare", studies=list(studies), parts=parts))


def _unique(name: str, known: Mapping[str, Any]) -> str:
    return name if name not in known else next(f"{name} ({n})" for n in range(2, 1000) if f"{name} ({n})" not in known)


def _results(studies: Studies) -> dict[str, Any]:
    gains: dict[str, Gain] = {}
    rows = []
    for name, content in studies.items():
        record, gain = content.record, (content.record.summary or {}).get("gain_test")
        if isinstance(gain, dict) and gain:
            gains[name] = Gain([], gain["mean"], gain["low"], gain["high"], gain.get("level", math.nan))
        best = min(record.complete, key=lambda row: row["score"], default=None)
        rows.append(
            {
                "study": name, "data": record.data_name, "trials": len(record.complete), "sentence": sentence_of(record),
                "best": best["score"] if best else None, "belief": pairing_text(best) if best else "–",
                "gain": gains[name].mean if name in gains else None,
            }
        )  # fmt: skip
    columns = [
        Column("study", "study"), Column("data", "data"), Column("trials", "trials", True),
        Column("best bits/dim", "best", True), Column("best pair", "belief"), Column("gain on test", "gain", True),
        Column("in words", "sentence"),
    ]  # fmt: skip
    first = next(iter(studies.values()))
    return {
        "differences": _differences(studies),
        "gains": gains,
        "chart": first.drawing(gain_figure(gains), "gains") if gains else None,
        "results": Table(columns, rows, "One line per study", sortable=True),
    }


def _differences(studies: Studies) -> list[str]:
    """Why the scores do not compare across studies; empty if they do."""
    rules = {
        "data": ("data", "digest"), "levels": ("data", "levels"), "samples K of the score": ("score", "samples"),
        "points of the score": ("score", "points"),
    }  # fmt: skip
    return [
        name
        for name, (table, key) in rules.items()
        if len({str(content.record.study.get(table, {}).get(key)) for content in studies.values()}) > 1
    ]


def _mattered(studies: Studies) -> dict[str, Any]:
    found = {study: content.importance for study, content in studies.items()}
    names = sorted({axis.name for importance in found.values() for axis in importance.axes})
    rows = []
    for name in names:
        row: dict[str, Any] = {"axis": words(name)}
        for study, own in found.items():
            place = next((place for place, axis in enumerate(own.axes) if axis.name == name), None)
            row[study] = "did not vary"
            if place is not None and own.decomposition is not None:
                share, low, high = (100 * values[place, place] for values in (own.values, own.low, own.high))
                row[study] = f"{share:.0f} % ({low:.0f}–{high:.0f})"
        rows.append(row)
    columns = [Column("axis", "axis"), *[Column(study, study) for study in studies]]
    charts = {
        study: (studies[study].drawing(importance_figure(own), f"importance_{place}"), own.trials)
        for place, (study, own) in enumerate(found.items())
        if own.decomposition is not None
    }
    caption = "Share of the score's variance, main effects, with 95 % interval"
    return {"charts": charts, "importances": Table(columns, rows, caption) if rows else None}


def _samples(studies: Studies) -> dict[str, Any]:
    found = {}
    for place, (study, content) in enumerate(studies.items()):
        if "Winner" in content.models:
            make = partial(samples_of, content, content.models["Winner"], f"samples_{place}")
            found[study] = content.attempt(f"Samples of {study}", make, None)
    return {study: samples for study, samples in found.items() if samples is not None}


def _settings(studies: Studies) -> Table | None:
    flat = {name: dict(_flat(content.record.study)) for name, content in studies.items()}
    keys = dict.fromkeys(key for values in flat.values() for key in values if key != "name")
    rows = [{"setting": key, **{name: values.get(key, "–") for name, values in flat.items()}} for key in keys]
    rows = [row for row in rows if len({str(row[name]) for name in flat}) > 1]
    columns = [Column("setting", "setting"), *[Column(name, name) for name in studies]]
    return Table(columns, rows, "Settings in which the studies differ") if rows else None


def _flat(values: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        where = f"{place}.{key}" if place else key
        if isinstance(value, Mapping):
            yield from _flat(value, where)
        else:
            yield where, ", ".join(map(str, value)) if isinstance(value, list) else value
