"""Figures of bounds: against K, and against alpha."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autovae.report.theme import COLOURS, new_figure, style, tip

__all__ = ["against_alpha", "against_k"]

Rows = Sequence[Mapping[str, Any]]
COLOUR = {"Winner": COLOURS["first"], "Baseline": COLOURS["second"]}
DASHES = ("-", "--", ":", "-.")


def against_k(rows: Rows, alphas: Sequence[float]) -> Figure:
    """Gap to log p(x) by K, a line a model and alpha."""
    return _lines(rows, "K", "alpha", alphas, "K, samples a point", log=True)


def against_alpha(rows: Rows, counts: Sequence[float]) -> Figure:
    """Gap to log p(x) by alpha, a line a model and K."""
    return _lines(rows, "alpha", "K", counts, "alpha")


def _lines(rows: Rows, across: str, by: str, values: Sequence[float], label: str, log: bool = False) -> Figure:
    with style():
        figure = new_figure(2.7)
        axes: Axes = figure.subplots()
        for model, colour in COLOUR.items():
            for value, dash in zip(values, DASHES, strict=False):
                here = sorted(
                    (row for row in rows if row["model"] == model and row[by] == value), key=lambda r: r[across]
                )
                if not here:
                    continue
                x, y = [row[across] for row in here], [row["gap"] for row in here]
                line = axes.plot(
                    x, y, dash, color=colour, lw=1.3, marker="o", ms=2.5, label=f"{model}, {by} = {value:g}"
                )[0]
                tip(
                    line, f"{model}, {by} = {value:g}: {y[0]:.3g} nats at {across} = {x[0]:g}, {y[-1]:.3g} at {x[-1]:g}"
                )
        axes.axhline(0, color=COLOURS["muted"], lw=0.8, ls=":")
        if log:
            axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.set_ylabel("bound − log p(x), nats")
        axes.legend()
    return figure
