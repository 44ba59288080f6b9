"""Tightness of the bounds of winner and baseline, against K and against alpha."""

from __future__ import annotations

from typing import Any

from autovae.report.content import Content
from autovae.report.figures.bounds import against_alpha, against_k

__all__ = ["bounds_part"]


def bounds_part(content: Content) -> dict[str, Any] | None:
    rows = content.record.curves
    if not rows:
        if content.record.finals:
            title = content.record.title
            content.missing.append(f"Bounds against K and alpha: {title} has no curves.csv; autovae restore makes it.")
        return None
    return {
        "points": int(rows[0]["points"]),
        "largest": f"{max(row['K'] for row in rows):g}",
        "by_k": content.drawing(against_k(rows, (0.0, 1.0)), "bound_k"),
        "by_alpha": content.drawing(against_alpha(rows, (5.0, 50.0)), "bound_alpha"),
    }
