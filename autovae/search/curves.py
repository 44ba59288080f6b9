"""Curves of the finals: how the bound of winner and baseline moves with K and with alpha, as rows of curves.csv.

Computed with the finals, so the report does not need the data; `metrics.curves` defines them.
"""

from __future__ import annotations

from typing import Any

from autovae.data.datasets import Data
from autovae.metrics.curves import bound_curves, encoder_weights
from autovae.search.verdict import Verdict

__all__ = ["curve_rows"]

POINTS, SAMPLES = 64, 500


def curve_rows(verdict: Verdict, data: Data) -> list[dict[str, Any]]:
    """One row per model, K and alpha, on the first validation points."""
    finals = {"Winner": verdict.winner}
    if verdict.winner.spec.belief != verdict.baseline.spec.belief:
        finals["Baseline"] = verdict.baseline
    rows = []
    for title, final in finals.items():
        model = final.fits[final.best].model
        weights = encoder_weights(model, data, data.validation, SAMPLES, points=POINTS)
        rows += [
            {"model": title, "points": weights.shape[1], **{k: round(v, 5) for k, v in at.to_dict().items()}}
            for at in bound_curves(weights)
        ]
    return rows
