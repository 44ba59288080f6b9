"""Importances with their intervals, and the score along one axis."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autovae.report.figures.search import MOST_TIPS, ceiling
from autovae.report.importance import Importance
from autovae.report.page import words
from autovae.report.record import belief_of
from autovae.report.theme import COLOURS, new_figure, style, tip

__all__ = ["curve_figure", "importance_figure"]


def importance_figure(result: Importance, limit: int = 12) -> Figure:
    """Bars of main effects and interactions with their intervals, the largest first."""
    values = result.values
    size = len(result.axes)
    bars = [(a, b) for a in range(size) for b in range(a + 1)]
    main = sorted((bar for bar in bars if bar[0] == bar[1]), key=lambda bar: -values[bar])
    both = sorted((bar for bar in bars if bar[0] != bar[1]), key=lambda bar: -values[bar])
    chosen = main[:limit] + both[: max(3, limit - len(main))]
    with style():
        figure = new_figure(0.6 + 0.27 * len(chosen))
        axes: Axes = figure.subplots()
        for place, (a, b) in enumerate(chosen):
            value, low, high = values[a, b], result.low[a, b], result.high[a, b]
            colour = COLOURS["first"] if a == b else COLOURS["fourth"]
            bar = axes.barh(place, value, 0.62, color=colour, alpha=0.85)[0]
            about = f"{_axis_words(result, a, b)}: {100 * value:.0f} % ({100 * low:.0f} to {100 * high:.0f} %)"
            tip(bar, f"{about}, {result.trials} trials")
            if math.isfinite(low) and math.isfinite(high):
                axes.plot([low, high], [place, place], color=COLOURS["ink"], lw=1)
            end = max(value, high if math.isfinite(high) else 0)
            axes.annotate(
                f"{100 * value:.0f} %", (end, place), (5, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_yticks(range(len(chosen)), [_axis_words(result, a, b) for a, b in chosen])
        axes.set_ylim(len(chosen) - 0.4, -0.6)
        axes.set_xlim(0, min(1.12, 1.18 * max(0.1, np.nanmax([*values.ravel(), *result.high.ravel()]))))
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel("share of the score's variance", loc="left")
    return figure


def _axis_words(result: Importance, a: int, b: int) -> str:
    name = result.axes[a].name.replace("_", " ")
    words = name if a == b else f"{result.axes[b].name.replace('_', ' ')} × {name}"
    return "\n".join(textwrap.wrap(words, 26))


def curve_figure(result: Importance, place: int, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Scores of trials along one axis, and the forest's mean prediction there with its spread over trees."""
    axis = result.axes[place]
    assert result.decomposition is not None  # an axis comes from a decomposition
    at, predictions = result.decomposition.curves[place]
    mean, spread = predictions.mean(0), predictions.std(0)
    top = ceiling(np.array([row["score"] for row in rows]))
    if np.median(mean) > top:  # a few bad trials count for most means: then those are what there is to see
        top = float(mean.max() + 0.1 * np.ptp(mean) + 1e-6)
    with style():
        figure = new_figure(2.4)
        axes: Axes = figure.subplots()
        values = [point.get(axis.name) for point in result.points]
        if axis.categorical:
            spots = {choice: number for number, choice in enumerate(axis.choices)}
            generator = np.random.default_rng(0)
            shift = 0.22 * generator.uniform(-1, 1, len(rows))
            across = np.array([spots.get(value, math.nan) for value in values], float) + shift
            for number, level in enumerate(mean):
                ends, look = ([-0.36, 0.36], "-") if level <= top else ([0.0], "^")
                bar = axes.plot(
                    [number + end for end in ends], [min(level, top)] * len(ends), look, color=COLOURS["first"], lw=2.5
                )[0]
                tip(bar, f"{axis.choices[number]}: mean {level:.4f}, spread between trees {spread[number]:.4f}")
            axes.set_xticks(range(len(at)), [words(choice) for choice in axis.choices])
            if sum(len(words(choice)) for choice in axis.choices) > 34:
                for label in axes.get_xticklabels():
                    label.set(rotation=35, ha="right", rotation_mode="anchor")
            axes.tick_params(axis="x", length=0, labelcolor=COLOURS["ink"], labelsize=7.5)
        else:
            where = np.exp(at) if axis.log else at
            axes.fill_between(where, mean - spread, mean + spread, color=COLOURS["first"], alpha=0.2, lw=0)
            axes.plot(where, mean, color=COLOURS["first"], lw=2)
            across = np.array([value if isinstance(value, (int, float)) else math.nan for value in values], float)
            if axis.log:
                axes.set_xscale("log")
        for spot, row in zip(across, rows, strict=True):
            if math.isfinite(spot):
                inside = row["score"] <= top
                dot = axes.plot(spot, min(row["score"], top), "o" if inside else "^", ms=3, mew=0, alpha=0.55,
                                color=COLOURS["muted"])[0]  # fmt: skip
                if len(rows) <= MOST_TIPS:
                    tip(dot, f"trial {row['number']}: {row['score']:.4f}, {belief_of(row)}")
        axes.set_ylabel("bits per dimension")
        axes.grid(axis="y")
    return figure
