"""The course of a search: scores in order, learning curves, the Pareto front of two objectives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from autovae.report.record import belief_of, pair_of
from autovae.report.theme import COLOURS, SERIES, new_figure, style, tip

__all__ = ["history_figure", "learning_figure", "pareto_figure"]

MOST_TIPS = 1500  # dots with a tooltip; more would make the page heavy


def history_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Score of every trial in the order they were asked, the best so far, and the failed ones."""
    complete = [row for row in rows if row["state"] == "COMPLETE" and math.isfinite(row["score"])]
    failed = [row for row in rows if row["state"] == "FAIL"]
    scores = np.array([row["score"] for row in complete])
    with style():
        figure = new_figure(2.5)
        axes: Axes = figure.subplots()
        top = ceiling(scores)
        groups = list(dict.fromkeys(str(row.get("likelihood", "")) for row in complete))
        for place, group in enumerate(groups):
            for number, row in enumerate(row for row in complete if str(row.get("likelihood", "")) == group):
                inside, label = row["score"] <= top, group.replace("_", " ") if number == 0 else None
                dot = axes.plot(row["number"], min(row["score"], top), "o" if inside else "^", ms=4, mew=0, alpha=0.8,
                                color=SERIES[place % len(SERIES)], label=label)[0]  # fmt: skip
                if len(complete) <= MOST_TIPS:
                    tip(dot, f"trial {row['number']}: {row['score']:.4f}, {belief_of(row)}")
        if complete:
            numbers = [row["number"] for row in complete]
            axes.step(numbers, np.minimum.accumulate(scores), where="post", color=COLOURS["ink"], lw=1.2, label="best")
            span = top - float(scores.min())
            axes.set_ylim(float(scores.min()) - 0.06 * span, top + 0.1 * span)
        for number, row in enumerate(failed):
            cross = axes.plot(row["number"], 0.02, "x", ms=4, color=COLOURS["second"], clip_on=False,
                              transform=axes.get_xaxis_transform(), label="failed" if number == 0 else None)[0]  # fmt: skip
            tip(cross, f"trial {row['number']} failed: {str(row['reason'])[:200]}")
        axes.set_xlabel("trial")
        axes.set_ylabel("bits per dimension")
        axes.grid(axis="y")
        if complete or failed:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, handletextpad=0.3)
    return figure


def ceiling(scores: NDArray[np.float64]) -> float:
    """Where a score axis ends, so that a few bad trials do not flatten the good ones."""
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return 1.0
    high = float(np.quantile(scores, 0.9))
    return max(high + 0.35 * (high - float(scores.min())), float(scores.min()) + 1e-6)


def learning_figure(
    rows: Sequence[Mapping[str, Any]], losses: Mapping[int, Sequence[float]], winner: Mapping[str, Any]
) -> Figure:
    """Training loss by epoch: all trials thin, the winner's pair and the matched normal in their colours."""
    with style():
        figure = new_figure(2.5)
        axes: Axes = figure.subplots()
        wanted = (winner.get("posterior"), winner.get("prior"))
        ends, named = [], set()
        for row in sorted(rows, key=lambda row: pair_of(row) in (wanted, ("normal", "normal")))[-400:]:
            values = [
                value if value is not None and math.isfinite(value) else math.nan for value in losses[row["number"]]
            ]
            pair = pair_of(row)
            kind = "winner" if pair == wanted else "matched normal" if pair == ("normal", "normal") else "others"
            colour, width, alpha = {
                "winner": (COLOURS["first"], 1.6, 0.9),
                "matched normal": (COLOURS["second"], 1.6, 0.9),
                "others": (COLOURS["muted"], 0.7, 0.45),
            }[kind]
            label = None if kind in named else kind
            line = axes.plot(range(1, len(values) + 1), values, color=colour, lw=width, alpha=alpha, label=label)[0]
            tip(line, f"trial {row['number']}: {belief_of(row)}, last loss {values[-1]:.3f} nats")
            named.add(kind)
            ends += values[max(0, len(values) // 5) :]
        finite = np.array([value for value in ends if math.isfinite(value)])
        if len(finite):
            low, high = float(finite.min()), float(np.quantile(finite, 0.95))
            axes.set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low) + 1e-9)
        axes.set_xlabel("epoch")
        axes.set_ylabel("training loss, nats")
        axes.grid(axis="y")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
    return figure


def pareto_figure(rows: Sequence[Mapping[str, Any]], name: str, words: str) -> Figure:
    """Score against a second measure, lower is better in both; the line joins trials that no other beats in both."""
    points = sorted(
        ((row["score"], row[name], row) for row in rows if math.isfinite(row[name])), key=lambda point: point[:2]
    )
    with style():
        figure = new_figure(2.5)
        axes: Axes = figure.subplots()
        front: list[tuple[float, float]] = []
        for score, other, row in points:
            best = not front or other < front[-1][1]
            if best:
                front.append((score, other))
            colour = COLOURS["first" if best else "muted"]
            dot = axes.plot(score, other, "o", ms=5 if best else 3.5, mew=0, alpha=0.8, color=colour)[0]
            tip(dot, f"trial {row['number']}: {score:.4f} bits/dim, {words} {other:.4f}, {belief_of(row)}")
        axes.step(*zip(*front, strict=True), where="post", color=COLOURS["first"], lw=1.2)
        axes.set_xlabel("bits per dimension")
        axes.set_ylabel(words)
        axes.grid()
    return figure
