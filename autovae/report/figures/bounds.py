"""Bounds against K, and against alpha."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from autovae.report.theme import COLOURS, panel, tip

__all__ = ["against_alpha", "against_k"]

Rows = Sequence[Mapping[str, Any]]
COLOUR = {"Winner": COLOURS["first"], "Baseline": COLOURS["second"]}
DASHES = ("-", "--", ":", "-.")


def against_k(rows: Rows, alphas: Sequence[float]) -> Figure:
    """Gap to log p(x) by K, one line per model and alpha."""
    return _lines(rows, "K", "alpha", alphas, "K, samples per point", "log")


def against_alpha(rows: Rows, counts: Sequence[float]) -> Figure:
    """Gap to log p(x) by alpha, one line per model and K."""
    return _lines(rows, "alpha", "K", counts, "alpha", "linear")


def _lines(rows: Rows, across: str, by: str, values: Sequence[float], label: str, scale: str) -> Figure:
    with panel(2.7) as (figure, axes):
        for model, value in ((model, value) for model in COLOUR for value in values):
            here = sorted((r for r in rows if r["model"] == model and r[by] == value), key=lambda r: r[across])
            if here:
                x, y = [row[across] for row in here], [row["gap"] for row in here]
                name, look = f"{model}, {by} = {value:g}", DASHES[values.index(value)]
                line = axes.plot(x, y, look, color=COLOUR[model], lw=1.3, marker="o", ms=2.5, label=name)[0]
                tip(line, f"{name}: {y[0]:.3g} nats at {across} = {x[0]:g}, {y[-1]:.3g} at {x[-1]:g}")
        axes.axhline(0, color=COLOURS["muted"], lw=0.8, ls=":")
        axes.set(xscale=scale, xlabel=label, ylabel="bound − log p(x), nats")
        axes.legend()
    return figure
