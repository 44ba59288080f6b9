"""All that was tried: finals over seeds, trials, beliefs with all their trials, failures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autovae.report.content import Content
from autovae.report.finals import finals_rows
from autovae.report.page import Column, Table, words
from autovae.report.record import Record, pair_of, pairing_text, role_words

__all__ = ["leaderboard_part"]

MOST = 1000  # rows of a table
FAILURES = 20  # reasons listed
CHOICES = 40  # values of a column that can be filtered by choice
MEASURES = {"nats": "nats", "elbo": "ELBO", "nll": "NLL", "inception_score": "IS", "fid": "FID", "kid": "KID"}
DIGITS = {"nats": 2, "elbo": 2, "nll": 2, "inception_score": 2, "fid": 2}


def leaderboard_part(content: Content) -> dict[str, Any]:
    record = content.record
    about = {"failures": [(count, reason or "no reason given") for reason, count in record.reasons[:FAILURES]]}
    if not record.complete:
        return {**about, "trials": None}
    rows = sorted(record.complete, key=lambda row: row["score"])[:MOST]
    columns, cells = _columns(content, rows), [_cells(place, row, record) for place, row in enumerate(rows, 1)]
    cut = f", the best {MOST:,} of {len(record.complete):,}" if len(record.complete) > MOST else ""
    finals, beliefs, measured = _finals(record), *_beliefs(record)
    return {
        **about,
        "trials": Table(columns, cells, f"Trials by score, lower is better{cut}", "trials", sortable=True),
        "filters": _filters(columns, cells),
        "finals": finals,
        "common_head": finals is not None and any(column.key == "common_head" for column in finals.columns),
        "beliefs": beliefs,
        "measured": measured,
        "features": record.floor.get("features"),
    }


def _columns(content: Content, rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Fixed columns, then every other axis on which trials differ, then what was measured next to the score."""
    names = [*(axis.name for axis in content.importance.axes), *content.importance.branches]
    extra = [name for name in names if name in rows[0] and name not in ("posterior", "prior", "likelihood")]
    return [
        Column("#", "place", True), Column("bits/dim", "score", True), Column("± se", "score_se", True),
        Column("posterior", "posterior"), Column("prior", "prior"), Column("likelihood", "likelihood"),
        *[Column(words(name), name, isinstance(rows[0][name], (int, float)), 3) for name in extra],
        *_measures(name for name in MEASURES if name in rows[0]),
        Column("trial", "number", True), Column("seconds", "seconds", True, 1),
    ]  # fmt: skip


def _measures(names: Any) -> list[Column]:
    return [Column(MEASURES[name], name, True, DIGITS.get(name, 4)) for name in names]


def _cells(place: int, row: Mapping[str, Any], record: Record) -> dict[str, Any]:
    posterior, prior = pair_of(row) or (pairing_text(row), "")
    winner = (record.summary or {}).get("winner") or {}
    plain = pair_of(row) == ("normal", "normal") and not row.get("learned_prior")
    kind = "baseline" if plain else "winner" if _same(row, winner) else ""
    likelihood = words(row.get("likelihood", ""))
    return {**row, "place": place, "posterior": posterior, "prior": prior, "likelihood": likelihood, "class": kind}


def _same(row: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    """Whether a trial holds the pairs and the likelihood of a spec."""
    sides = {name: tuple(own) if isinstance(own := spec.get(name), list) else own for name in ("posterior", "prior")}
    wanted = {**sides, "likelihood": spec.get("likelihood")}
    return bool(spec) and all(row.get(name) == value for name, value in wanted.items())


def _filters(columns: Sequence[Column], cells: Sequence[Mapping[str, Any]]) -> list[tuple[int, str, list[str]]]:
    """Columns that can be filtered by choice: (place, title, choices)."""
    found = []
    for place, column in enumerate(columns):
        values = sorted({str(row.get(column.key, "")) for row in cells} - {""})
        if not column.numeric and 1 < len(values) <= CHOICES:
            found.append((place, column.title, values))
    return found


def _finals(record: Record) -> Table | None:
    lines = finals_rows(record)
    for line in lines:
        rank = line["rank"]
        line["class"] = {"1": "winner", "baseline": "baseline"}.get(rank, "")
        line |= {"rank": rank if rank.isdigit() else role_words(rank), "belief": words(line["belief"])}
    several = len({line["network"] for line in lines}) > 1
    common_head = any(math.isfinite(line["common_head"]) for line in lines)
    columns = [
        Column("rank", "rank"), Column("belief", "belief"), *[Column("network", "network")] * several,
        Column("validation", "validation", True), Column("± sd", "validation_sd", True),
        *[Column("common head", "common_head", True)] * common_head,
        Column("test", "test", True), Column("± sd", "test_sd", True), Column("seeds", "seeds", True),
    ]  # fmt: skip
    caption = "Mean bits per dimension over seeds, with the standard deviation between them"
    return Table(columns, lines, caption) if lines else None


def _beliefs(record: Record) -> tuple[Table, bool]:
    """Pairs x likelihoods: every belief once, with all its trials; whether anything was measured next to the score."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in record.complete:
        groups.setdefault((pairing_text(row), words(row.get("likelihood", ""))), []).append(row)
    measures = [name for name in MEASURES if any(name in row for row in record.complete)]
    lines: list[dict[str, Any]] = []
    for (pair, likelihood), group in groups.items():
        scores = [row["score"] for row in group]
        others = {name: float(np.mean([row[name] for row in group if name in row] or [math.nan])) for name in measures}
        lines.append({"pair": pair, "likelihood": likelihood, "best": min(scores), "mean": float(np.mean(scores)),
                      "trials": len(group), **others})  # fmt: skip
    lines.sort(key=lambda line: line["best"])
    if record.floor:
        lines.insert(0, {"pair": "real data", "likelihood": "", **record.floor})
    columns = [
        Column("posterior|prior", "pair"), Column("likelihood", "likelihood"), Column("best", "best", True),
        Column("mean", "mean", True), Column("trials", "trials", True), *_measures(measures),
    ]  # fmt: skip
    return Table(columns, lines[:MOST], "Pairs and likelihoods, best first", "beliefs", sortable=True), bool(measures)
