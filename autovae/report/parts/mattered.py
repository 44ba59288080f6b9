"""Importances of the belief axes with their intervals, and the best score of each pair under each likelihood."""

from __future__ import annotations

from functools import partial
from typing import Any

from autovae.report.content import Content
from autovae.report.figures.importance import curve_figure, importance_figure
from autovae.report.figures.pairs import pair_families, pair_figure, score_limits, surface_figure
from autovae.report.importance import Importance, importance_rows
from autovae.report.page import Column, Table, words
from autovae.report.record import pair_of, pairing_text

__all__ = ["mattered_part"]

CURVES = 6  # axes with a curve of their own
COUNTS = 20  # choices whose trials are counted in a caption
SPOKEN = 8  # importances named in the label of the figure


def mattered_part(content: Content) -> dict[str, Any]:
    found = content.importance
    if found.decomposition is None:
        return {"reason": found.reason, "pairs": _pairs(content)}
    rows = importance_rows(found)
    return {
        "reason": "",
        "bars": content.drawing(importance_figure(found), "importance"),
        "trials": found.trials,
        "r2": found.decomposition.r2,
        "holes": found.holes,
        "strongest": rows[:SPOKEN],
        "interaction": content.attempt("Interaction map", lambda: _interaction(content, found), None),
        "curves": _curves(content, found),
        "numbers": _numbers(rows, bool(found.branches)),
        "pairs": _pairs(content),
    }


def _interaction(content: Content, found: Importance) -> dict[str, Any] | None:
    if found.surface is None:
        return None
    first, second, values = found.surface
    return {
        "drawing": content.drawing(surface_figure(found), "interaction"),
        "names": [words(found.axes[place].name) for place in (first, second)],
        "low": f"{values.min():.3f}",
        "high": f"{values.max():.3f}",
        "share": f"{100 * found.values[first, second]:.0f}",
    }


def _curves(content: Content, found: Importance) -> list[dict[str, Any]]:
    order = sorted(range(len(found.axes)), key=lambda place: -found.values[place, place])
    curves = []
    for place in order[:CURVES]:
        axis = found.axes[place]
        make = partial(curve_figure, found, place, content.record.complete)
        figure = content.attempt(f"Curve of {axis.name}", make, None)
        if figure is not None:
            drawing = content.drawing(figure, f"axis_{axis.name.replace(' ', '_')}")
            counts = list(found.counts[place].items())[:COUNTS] if axis.categorical else []
            curves.append({"drawing": drawing, "name": words(axis.name), "counts": counts})
    return curves


def _numbers(rows: list[dict[str, Any]], branches: bool) -> Table:
    columns = [
        Column("axis", "axis"), Column("with", "with_axis"), Column("fANOVA", "importance", True, 3),
        Column("from", "low", True, 3), Column("to", "high", True, 3), Column("Optuna's fANOVA", "optuna", True, 3),
        Column("PED-ANOVA", "ped_anova", True, 3), Column("values", "values", True), Column("trials", "trials", True),
    ]  # fmt: skip
    return Table(columns + [Column("among", "branch")] * branches, rows, "Importance by axis and pair of axes")


def _pairs(content: Content) -> list[dict[str, Any]]:
    """A map of posterior and prior for every likelihood, the best likelihood first."""
    rows = [row for row in content.record.complete if pair_of(row)]
    families, limits = pair_families(rows), score_limits([row["score"] for row in rows])
    likelihoods: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["score"]):
        likelihoods.setdefault(str(row.get("likelihood", "")), []).append(row)
    return [
        {
            "drawing": content.drawing(pair_figure(own, families, limits), f"pairs_{place}_{name or 'all'}"),
            "likelihood": words(name),
            "best": pairing_text(own[0]),
            "score": own[0]["score"],
            "trials": len(own),
        }
        for place, (name, own) in enumerate(likelihoods.items(), 1)
    ]
