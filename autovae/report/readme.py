"""README.md of a results folder: the verdict, finals, importances and fidelity, and the commands that made them."""

from __future__ import annotations

from typing import Any

from autovae.report.finals import finals_rows
from autovae.report.importance import Importance, importance_rows
from autovae.report.page import render_markdown
from autovae.report.parts.fidelity import cards_of, facts_of, fidelity_rows, labels_of
from autovae.report.record import Record, role_words

__all__ = ["readme"]

MOST = 8  # rows of the importance table


def readme(record: Record, importance: Importance) -> str:
    """The text of README.md. Text from files is escaped."""
    rows = finals_rows(record)
    for row in rows:
        row["role"] = role_words(row["rank"])
    return render_markdown(
        "readme",
        record=record,
        summary=record.summary or {},
        states=sorted(record.states.items()),
        repeats=sum(1 for row in record.trials if row.get("duplicate_of")),
        finals=rows,
        twins=any(row["rank"].startswith("twin") for row in rows),
        networks=len({row["network"] for row in rows}) > 1,
        importance=importance,
        effects=_effects(importance),
        branches={name: _effects(own, name) for name, own in importance.branches.items()},
        fidelity=_fidelity(record),
    )


def _effects(found: Importance, name: str = "") -> list[dict[str, Any]]:
    """The largest main effects and interactions, or the main effect of one axis."""
    rows = [row for row in importance_rows(found) if not row["branch"]]
    if name:
        return [row for row in rows if row["axis"] == name and not row["with_axis"]]
    return sorted(rows, key=lambda row: -row["importance"])[:MOST]


def _fidelity(record: Record) -> list[dict[str, Any]]:
    """The scores with each network; none if the cards are broken, which the page reports."""
    try:
        cards = cards_of(record.folder)
        labels = labels_of(cards)
    except ValueError:
        return []
    return [{"network": facts_of(cards, label), "rows": fidelity_rows(record, cards, label)} for label in labels]
