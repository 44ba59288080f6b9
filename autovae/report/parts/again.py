"""How to run this study again: command, versions, seeds, data."""

from __future__ import annotations

import math
from typing import Any

from autovae.report.content import Content
from autovae.report.page import Column, Table

__all__ = ["again_part"]


def again_part(content: Content) -> dict[str, Any]:
    record, study = content.record, content.record.study
    seeds = list(dict.fromkeys(str(row.get("seed")) for row in record.finals))
    values = {"seed of the study": study.get("seed", "?"), "seeds of the finals": ", ".join(seeds) or "–"}
    if content.models:
        card: dict[str, Any] = dict(next(iter(content.models.values())).card)
        origin = card.get("data", {})
        values |= {
            "versions": ", ".join(f"{name} {text}" for name, text in card.get("versions", {}).items()),
            "machine": card.get("machine", "not recorded"),
            "data from": origin.get("source", "?"),
            "licence of the data": origin.get("licence", "?"),
            "split": origin.get("note", "?"),
        }
    times = [row["seconds"] for row in record.trials if isinstance(row.get("seconds"), float)]
    rows = [{"name": name, "value": value} for name, value in values.items()]
    return {
        "study": study.get("name", record.name),
        "title": record.title,
        "path": study.get("data", {}).get("path"),
        "seconds": sum(time for time in times if math.isfinite(time)),
        "about": Table([Column("setting", "name"), Column("value", "value")], rows, "What the numbers depend on"),
    }
