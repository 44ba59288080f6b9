"""Studies side by side: gains, importances, winners and samples on one page, and whether their scores may be compared.

    compare(["results/quickstart", "results/mnist_pairing_v1"])     -> results/compare.html

Gains over the own baseline can be read across studies. Bits per dimension can only where data, levels and the rule of the
score are the same; the page says where they are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from autovae.files import write_text
from autovae.report import figures as draw
from autovae.report.content import Content
from autovae.report.page import Column, esc, page, section, table
from autovae.report.parts.drawings import sample_figure
from autovae.report.parts.result import sentence_of
from autovae.report.record import pairing_text, read_record

__all__ = ["compare"]


def compare(folders: Sequence[str | Path], to: str | Path | None = None) -> Path:
    """Write the page beside the first results folder, or to `to`; returns its path.

    Raises `ValueError` for fewer than two folders, or one that holds no study.
    """
    if len(folders) < 2:
        raise ValueError(f"got {len(folders)} results folder, expected at least two to compare; give another")
    studies: dict[str, Content] = {}
    for folder in folders:
        content = Content(read_record(folder))
        studies[_unique(content.record.title, studies)] = content
    parts = [
        ("results", "Results", _results(studies)),
        ("mattered", "What mattered", _mattered(studies)),
        ("drawings", "Samples", _drawings(studies)),
        ("settings", "Settings", _settings(studies)),
    ]
    notes = [f"{name}: {note}" for name, study in studies.items() for note in (*study.record.notes, *study.missing)]
    if notes:
        items = "".join(f"<li>{esc(note)}</li>" for note in notes)
        parts.append(("missing", "Not shown", section("missing", "What cannot be shown, and why", f"<ul>{items}</ul>")))
    header = (
        f'<p class="kicker">AutoVAE</p><h1>{len(studies)} studies</h1><p class="lede">{esc(", ".join(studies))}</p>'
    )
    path = Path(to) if to is not None else Path(folders[0]).resolve().parent / "compare.html"
    return write_text(
        path, page("Studies compared – AutoVAE", header, parts, "Made by AutoVAE from the results folders alone.")
    )


def _unique(name: str, known: Mapping[str, Any]) -> str:
    return name if name not in known else next(f"{name} ({n})" for n in range(2, 1000) if f"{name} ({n})" not in known)


def _results(studies: Mapping[str, Content]) -> str:
    gains: dict[str, tuple[list[float], dict[str, float]]] = {}
    rows = []
    for name, content in studies.items():
        record, summary = content.record, content.record.summary or {}
        gain = summary.get("gain_test") if isinstance(summary.get("gain_test"), dict) else None
        if gain:
            gains[name] = ([], gain)
        best = min(record.complete, key=lambda row: row["score"], default=None)
        rows.append(
            {
                "study": name, "data": record.data_name, "trials": len(record.complete), "sentence": sentence_of(record),
                "best": best["score"] if best else None, "belief": pairing_text(best) if best else "–",
                "gain": gain.get("mean") if gain else None,
            }
        )  # fmt: skip
    columns = [
        Column("study", "study"), Column("data", "data"), Column("trials", "trials", True),
        Column("best bits/dim", "best", True), Column("best pair", "belief"), Column("gain on test", "gain", True),
        Column("in words", "sentence"),
    ]  # fmt: skip
    chart = ""
    if gains:
        spoken = "; ".join(
            f"{name} {gain['mean']:.4f}, {gain['low']:.4f} to {gain['high']:.4f}" for name, (_, gain) in gains.items()
        )
        first = next(iter(studies.values()))
        chart = '<div class="figures">' + first.chart(
            draw.gain_figure(gains),
            "gains",
            "Gain over the own baseline, on test",
            f"Bits per dimension saved against each study's matched normal, with intervals: {spoken}",
            "Mean and interval over seeds, corrected for picking the best. To the right of the orange line the winner is "
            "better than its own study's matched normal.",
        ) + "</div>"  # fmt: skip
    return section(
        "results", "Results", _comparable(studies), chart, table(columns, rows, "One line a study", sortable=True)
    )


def _comparable(studies: Mapping[str, Content]) -> str:
    """Whether the scores may be read across studies, and if not, why."""
    reasons = []
    rules: list[tuple[str, Any]] = [
        ("data", lambda study: study.get("data", {}).get("digest")),
        ("levels", lambda study: study.get("data", {}).get("levels")),
        ("samples K of the score", lambda study: study.get("score", {}).get("samples")),
        ("points of the score", lambda study: study.get("score", {}).get("points")),
    ]
    for what, of in rules:
        if len({str(of(content.record.study)) for content in studies.values()}) > 1:
            reasons.append(what)
    if not reasons:
        return "<p>The studies share data and the rule of the score, so their bits per dimension may be compared.</p>"
    return (
        f'<p class="card warning">Bits per dimension must not be compared across these studies: they differ in '
        f"{esc(', '.join(reasons))}. Gains over each study's own baseline may.</p>"
    )


def _mattered(studies: Mapping[str, Content]) -> str:
    names = sorted({axis.name for content in studies.values() for axis in content.importance.axes})
    rows = []
    for name in names:
        row: dict[str, Any] = {"axis": name.replace("_", " ")}
        for study, content in studies.items():
            places = [place for place, axis in enumerate(content.importance.axes) if axis.name == name]
            if places and content.importance.decomposition is not None:
                values, place = content.importance, places[0]
                low, high = values.low[place, place], values.high[place, place]
                row[study] = f"{100 * values.values[place, place]:.0f} % ({100 * low:.0f}–{100 * high:.0f})"
            else:
                row[study] = "did not vary"
        rows.append(row)
    columns = [Column("axis", "axis"), *[Column(study, study) for study in studies]]
    charts = [
        content.chart(
            draw.importance_figure(content.importance), f"importance_{place}", study,
            f"Importances of {study}", f"{content.importance.trials} complete trials.",
        )
        for place, (study, content) in enumerate(studies.items()) if content.importance.decomposition is not None
    ]  # fmt: skip
    shown = table(columns, rows, "Share of the score's variance, alone, with 95 % interval") if rows else ""
    return section(
        "mattered", "What mattered", f'<div class="figures">{"".join(charts)}</div>' if charts else "", shown
    )


def _drawings(studies: Mapping[str, Content]) -> str:
    shown = []
    for place, (study, content) in enumerate(studies.items()):
        if "Winner" in content.models:
            make = partial(sample_figure, content, "Winner", f"{study}: winner", f"samples_{place}")
            shown.append(content.attempt(f"Samples of {study}", make, ""))
    return section("drawings", "What the winners draw", f'<div class="figures">{"".join(shown)}</div>')


def _settings(studies: Mapping[str, Content]) -> str:
    flat = {name: dict(_flat(content.record.study)) for name, content in studies.items()}
    keys = list(dict.fromkeys(key for values in flat.values() for key in values))
    rows = [
        {"setting": key, **{name: values.get(key, "–") for name, values in flat.items()}}
        for key in keys
        if len({str(values.get(key)) for values in flat.values()}) > 1 and key != "name"
    ]
    columns = [Column("setting", "setting"), *[Column(name, name) for name in studies]]
    what = table(columns, rows, "Settings in which the studies differ") if rows else "<p>The settings are the same.</p>"
    return section("settings", "Where they differ", what)


def _flat(values: Mapping[str, Any], place: str = "") -> Any:
    for key, value in values.items():
        where = f"{place}.{key}" if place else key
        if isinstance(value, Mapping):
            yield from _flat(value, where)
        else:
            yield where, ", ".join(map(str, value)) if isinstance(value, list) else value
