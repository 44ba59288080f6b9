"""Everything that was tried: finals over seeds, beliefs with all their trials, trials one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autovae.report.content import Content
from autovae.report.page import Column, esc, section, table
from autovae.report.record import Record, pair_of, pairing_text, role_words

__all__ = ["leaderboard_part"]

MOST = 1000
MEASURES = {"nats": "nats", "elbo": "ELBO", "nll": "NLL", "inception_score": "IS", "fid": "FID", "kid": "KID"}
DIGITS = {"nats": 2, "elbo": 2, "nll": 2, "inception_score": 2, "fid": 2}


def leaderboard_part(content: Content) -> str:
    record = content.record
    if not record.complete:
        return section("leaderboard", "Leaderboard", content.warning("No trial has a score."), failures(record))
    rows = sorted(record.complete, key=lambda row: row["score"])[:MOST]
    cut = f", the best {MOST:,} of {len(record.complete):,}" if len(record.complete) > MOST else ""
    columns, cells = _columns(content, rows), [_cells(place, row, record) for place, row in enumerate(rows, 1)]
    return section(
        "leaderboard",
        "Leaderboard",
        _finals(record),
        "<h3>Trials of the search</h3>",
        "<p class='note'>Single fits, one seed each: neighbours in this list may change places with another seed. "
        "Blue marks the winner's belief, orange the matched normal. Headings sort.</p>",
        _tools(columns, cells),
        table(columns, cells, f"Trials by score, lower is better{cut}", "trials", sortable=True),
        _beliefs(record),
        failures(record),
    )


def _cells(place: int, row: Mapping[str, Any], record: Record) -> dict[str, Any]:
    posterior, prior = pair_of(row) or (pairing_text(row), "")
    winner = (record.summary or {}).get("winner") or {}
    plain = pair_of(row) == ("normal", "normal") and not row.get("learned_prior")
    kind = "baseline" if plain else "winner" if _same(row, winner) else ""
    likelihood = str(row.get("likelihood", "")).replace("_", " ")
    return {**row, "place": place, "posterior": posterior, "prior": prior, "likelihood": likelihood, "class": kind}


def _same(row: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    sides = (
        (tuple(spec[name]) if isinstance(spec.get(name), list) else spec.get(name), name)
        for name in ("posterior", "prior")
    )
    return (
        bool(spec)
        and all(row.get(name) == value for value, name in sides)
        and row.get("likelihood") == spec.get("likelihood")
    )


def _columns(content: Content, rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Fixed columns, then every other axis on which trials differ, then measures that were taken beside the score."""
    shown = {"posterior", "prior", "likelihood"}
    names = [*(axis.name for axis in content.importance.axes), *content.importance.branches]
    extra = [name for name in names if name in rows[0] and name not in shown]
    measures = [name for name in MEASURES if name in rows[0]]
    return [
        Column("#", "place", True), Column("bits/dim", "score", True), Column("± se", "score_se", True),
        Column("posterior", "posterior"), Column("prior", "prior"), Column("likelihood", "likelihood"),
        *[Column(name.replace("_", " "), name, isinstance(rows[0][name], (int, float)), 3) for name in extra],
        *[Column(MEASURES[name], name, True, DIGITS.get(name, 4)) for name in measures],
        Column("trial", "number", True), Column("seconds", "seconds", True, 1),
    ]  # fmt: skip


def _tools(columns: Sequence[Column], cells: Sequence[Mapping[str, Any]]) -> str:
    selects = []
    for place, column in enumerate(columns):
        values = sorted({str(row.get(column.key, "")) for row in cells} - {""})
        if not column.numeric and 1 < len(values) <= 40:
            options = "".join(f"<option>{esc(value)}</option>" for value in values)
            selects.append(
                f'<label>{esc(column.title)}<select data-column="{place}"><option value="">all</option>{options}</select></label>'
            )
    return (
        f'<div class="tools" data-table="trials" hidden><label>find<input type="search" placeholder="words"></label>'
        f'{"".join(selects)}<output class="note" aria-live="polite"></output></div>'
    )


def _finals(record: Record) -> str:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in record.finals:
        groups.setdefault(str(row.get("rank")), []).append(row)
    lines = []
    for rank, group in groups.items():
        line: dict[str, Any] = {
            "rank": rank,
            "belief": str(group[0].get("belief", "")).replace("_", " "),
            "network": str(group[0].get("network") or ""),
            "seeds": len(group),
        }
        for part in ("validation", "test", "common_head"):
            values = np.array([row.get(part, math.nan) for row in group], float)
            values = values[np.isfinite(values)]
            line[part] = float(values.mean()) if len(values) else math.nan
            line[f"{part}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else math.nan
        line["rank"] = rank if rank.isdigit() else role_words(rank)
        line["class"] = "winner" if rank == "1" else "baseline" if rank == "baseline" else ""
        lines.append(line)
    if not lines:
        return "<p class='note'>The finals have not run, so beliefs are not yet compared over seeds.</p>"
    columns = [
        Column("rank", "rank"), Column("belief", "belief"), Column("validation", "validation", True),
        Column("± sd", "validation_sd", True), Column("test", "test", True), Column("± sd", "test_sd", True),
        Column("seeds", "seeds", True),
    ]  # fmt: skip
    if len({line["network"] for line in lines}) > 1:
        columns.insert(2, Column("network", "network"))
    note = "Test was measured once, after picking on validation, for the winner and the baselines alone."
    if any(math.isfinite(line["common_head"]) for line in lines):
        columns.insert(4, Column("one head", "common_head", True))
        note += (
            " One head: validation bits of the means alone, all under one logistic law with a fitted scale and as few "
            "samples as in the search; what differs there is not the shape of the likelihood."
        )
    caption = "Mean bits per dimension over seeds, with the standard deviation between them"
    return f"<h3>Finals</h3>{table(columns, lines, caption)}<p class='note'>{note}</p>"


def _beliefs(record: Record) -> str:
    """Pairs x likelihoods: every belief once, with all its trials and whatever else was measured."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in record.complete:
        groups.setdefault((pairing_text(row), str(row.get("likelihood", ""))), []).append(row)
    measures = [name for name in MEASURES if any(name in row for row in record.complete)]
    lines = []
    for (pair, likelihood), group in groups.items():
        scores = [row["score"] for row in group]
        others = {name: float(np.mean([row[name] for row in group if name in row] or [math.nan])) for name in measures}
        lines.append({"pair": pair, "likelihood": likelihood.replace("_", " "), "best": min(scores),
                      "mean": float(np.mean(scores)), "trials": len(group), **others})  # fmt: skip
    lines.sort(key=lambda line: line["best"])
    if record.floor:
        lines.insert(0, {"pair": "real data", "likelihood": "", **record.floor})
    columns = [
        Column("posterior|prior", "pair"), Column("likelihood", "likelihood"), Column("best", "best", True),
        Column("mean", "mean", True), Column("trials", "trials", True),
        *[Column(MEASURES[name], name, True, DIGITS.get(name, 4)) for name in measures],
    ]  # fmt: skip
    caption = "Pairs and likelihoods, best first"
    body = table(columns, lines[:MOST], caption, "beliefs", sortable=True)
    if not measures:
        return f"<details><summary>All {len(groups)} combinations of pair and likelihood</summary>{body}</details>"
    features = f" on {esc(record.floor['features'])}" if record.floor.get("features") else ""
    return (
        f"<h3>Pairs and likelihoods by every measure</h3>{body}<p class='note'>Means over the trials of a belief, single fits "
        "mostly. Best, mean: bits per dimension. ELBO and NLL: nats a validation point of the masses of levels, so that "
        f"likelihoods compare. IS, FID and KID of draws of the prior against training points{features}: FID and KID lower, "
        "IS higher is nearer; the first row is real test data.</p>"
    )


def failures(record: Record) -> str:
    """Why trials have no score."""
    if not record.reasons:
        return ""
    items = "".join(f"<li>{count} × {esc(reason or 'no reason given')}</li>" for reason, count in record.reasons[:20])
    return f'<div class="card warning"><h3>Trials without a score</h3><ul>{items}</ul></div>'
