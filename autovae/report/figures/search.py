"""The course of a search: scores in order, learning curves, the Pareto front of two objectives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autovae.report.page import words
from autovae.report.record import belief_of, pair_of
from autovae.report.theme import COLOURS, SERIES, legend_above, panel, tip

__all__ = ["MOST_TIPS", "ceiling", "history_figure", "learning_figure", "pareto_figure", "trial_dot"]

Rows = Sequence[Mapping[str, Any]]
MOST_CURVES = 400
MOST_TIPS = 1500  # dots with a tooltip; more would make the page heavy


def history_figure(rows: Rows) -> Figure:
    """Score of every trial in the order of suggestion, the best so far, and the failed trials."""
    complete = [row for row in rows if row["state"] == "COMPLETE" and math.isfinite(row["score"])]
    groups = list(dict.fromkeys(words(row.get("likelihood", "")) for row in complete))
    labels = set(groups)
    top = ceiling(complete)
    with panel(2.5) as (figure, axes):
        for row in sorted(complete, key=lambda row: groups.index(words(row.get("likelihood", "")))):
            group = words(row.get("likelihood", ""))
            colour = SERIES[groups.index(group) % len(SERIES)]
            dot = trial_dot(axes, row["number"], row, top, len(complete) <= MOST_TIPS, color=colour, ms=4, alpha=0.8)
            if group in labels:
                dot.set_label(group)
                labels.remove(group)
        if complete:
            best = np.minimum.accumulate([row["score"] for row in complete])
            numbers, low, span = [row["number"] for row in complete], best[-1], top - best[-1]
            axes.step(numbers, best, where="post", color=COLOURS["ink"], lw=1.2, label="best")
            axes.set_ylim(low - 0.06 * span, top + 0.1 * span)
        failed = [row for row in rows if row["state"] == "FAIL"]
        for row in failed:
            label = "failed" if row is failed[0] else None
            cross = axes.plot(row["number"], 0.02, "x", ms=4, color=COLOURS["second"], clip_on=False,
                              transform=axes.get_xaxis_transform(), label=label)[0]  # fmt: skip
            tip(cross, f"trial {row['number']} failed: {str(row['reason'])[:200]}")
        axes.set(xlabel="trial", ylabel="bits per dimension")
        axes.grid(axis="y")
        if complete or failed:
            legend_above(axes)
    return figure


def trial_dot(axes: Axes, x: float, row: Mapping[str, Any], top: float, tips: bool, **look: Any) -> Any:
    """A trial at its score; a triangle at the top if its score lies above."""
    shape = "o" if row["score"] <= top else "^"
    dot = axes.plot(x, min(row["score"], top), shape, mew=0, **look)[0]
    if tips:
        tip(dot, f"trial {row['number']}: {row['score']:.4f}, {belief_of(row)}")
    return dot


def ceiling(rows: Rows) -> float:
    """The end of a score axis, so that a few bad trials do not flatten the good ones."""
    scores = np.array([row["score"] for row in rows if math.isfinite(row["score"])])
    if not len(scores):
        return 1.0
    low, high = float(scores.min()), float(np.quantile(scores, 0.9))
    return max(high + 0.35 * (high - low), low + 1e-6)


def learning_figure(rows: Rows, losses: Mapping[int, Sequence[float]], winner: Mapping[str, Any]) -> Figure:
    """Training loss by epoch: all trials thin, the winner's pair and the matched normal in their colours."""
    kinds = {("normal", "normal"): ("matched normal", COLOURS["second"])}
    if pair := pair_of(winner):
        kinds[pair] = ("winner", COLOURS["first"])
    ends, named = [], set()
    with panel(2.5) as (figure, axes):
        for row in sorted(rows, key=lambda row: pair_of(row) in kinds)[-MOST_CURVES:]:
            values = [math.nan if loss is None or not math.isfinite(loss) else loss for loss in losses[row["number"]]]
            kind, colour = kinds.get(pair_of(row) or ("", ""), ("others", COLOURS["muted"]))
            width, alpha = (0.7, 0.45) if kind == "others" else (1.6, 0.9)
            label = None if kind in named else kind
            line = axes.plot(range(1, len(values) + 1), values, color=colour, lw=width, alpha=alpha, label=label)[0]
            tip(line, f"trial {row['number']}: {belief_of(row)}, last loss {values[-1]:.3f} nats")
            named.add(kind)
            ends += [value for value in values[len(values) // 5 :] if math.isfinite(value)]
        if ends:
            low, high = min(ends), float(np.quantile(ends, 0.95))
            axes.set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low) + 1e-9)
        axes.set(xlabel="epoch", ylabel="training loss, nats")
        axes.grid(axis="y")
        legend_above(axes)
    return figure


def pareto_figure(rows: Rows, name: str, title: str) -> Figure:
    """Score against a second objective, lower is better in both; the line joins the trials that no other beats in both."""
    front: list[tuple[float, float]] = []
    with panel(2.5) as (figure, axes):
        for row in sorted(rows, key=lambda row: (row["score"], row[name])):
            score, other = row["score"], row[name]
            if not math.isfinite(other):
                continue
            best = not front or other < front[-1][1]
            front += [(score, other)] if best else []
            colour, size = (COLOURS["first"], 5) if best else (COLOURS["muted"], 3.5)
            dot = axes.plot(score, other, "o", ms=size, mew=0, alpha=0.8, color=colour)[0]
            tip(dot, f"trial {row['number']}: {score:.4f} bits/dim, {title} {other:.4f}, {belief_of(row)}")
        axes.step(*zip(*front, strict=True), where="post", color=COLOURS["first"], lw=1.2)
        axes.set(xlabel="bits per dimension", ylabel=title)
        axes.grid()
    return figure
