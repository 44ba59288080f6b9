"""The objective that was maximised, the score that trials were judged by, and the limits of both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from autovae.report.content import Content
from autovae.report.formulas import objective_formula, score_formula
from autovae.report.page import words

__all__ = ["computed_part"]


def computed_part(content: Content) -> dict[str, Any]:
    record, summary = content.record, content.record.summary or {}
    winner = summary.get("winner") if isinstance(summary.get("winner"), dict) else None
    levels = summary.get("levels", record.study.get("data", {}).get("levels"))
    gap = summary.get("bound_gap")
    grey_bernoulli = any(row.get("likelihood") == "bernoulli" for row in record.trials) and levels and levels != 2
    return {
        "objective": objective_formula(winner, _support(content)) if winner else None,
        "differences": _differences(winner, summary.get("baseline") or {}) if winner else "",
        "score": score_formula(record.study, summary, _features(content)),
        "levels": levels,
        "gap": gap if isinstance(gap, (int, float)) else None,
        "rounded": summary.get("rounded"),
        "grey_bernoulli": grey_bernoulli,
        "seeds": (summary.get("gain_test") or {}).get("seeds") or record.study.get("finals", {}).get("seeds"),
    }


def _differences(winner: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    names = [name for name in baseline if name not in ("seed", "data_seed") and baseline[name] != winner.get(name)]
    return ", ".join(words(f"{name} {baseline[name]}") for name in names) or "the same"


def _support(content: Content) -> str:
    """The support of the data, known from a saved model; grey levels if there is none."""
    return next((model.vae.domain.support for model in content.models.values()), "unit")


def _features(content: Content) -> int | None:
    """Numbers per data point, known from a saved model."""
    return next((math.prod(model.vae.domain.shape) for model in content.models.values()), None)
