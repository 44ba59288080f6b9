"""Importances with their intervals, and the score along one axis."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autovae.report.figures.search import MOST_TIPS, ceiling, trial_dot
from autovae.report.importance import Importance
from autovae.report.page import words
from autovae.report.theme import COLOURS, label_rows, panel, tip

__all__ = ["curve_figure", "importance_figure"]

BARS = 12
CROWDED = 34  # letters of tick labels that fit side by side


def importance_figure(found: Importance) -> Figure:
    """Bars of main effects and interactions with their intervals, the largest first."""
    size = len(found.axes)
    main = sorted(((a, a) for a in range(size)), key=lambda bar: -found.values[bar])
    pairs = sorted(((a, b) for a in range(size) for b in range(a)), key=lambda bar: -found.values[bar])
    bars = main[:BARS] + pairs[: max(3, BARS - size)]
    names = [_name(found, *bar) for bar in bars]
    with panel(0.6 + 0.27 * len(bars)) as (figure, axes):
        for place, (bar, name) in enumerate(zip(bars, names, strict=True)):
            value, low, high = found.values[bar], found.low[bar], found.high[bar]
            colour = COLOURS["first" if bar[0] == bar[1] else "fourth"]
            drawn = axes.barh(place, value, 0.62, color=colour, alpha=0.85)[0]
            tip(drawn, f"{name}: {100 * value:.0f} % ({100 * low:.0f} to {100 * high:.0f} %), {found.trials} trials")
            axes.plot([low, high], [place, place], color=COLOURS["ink"], lw=1)
            at = (np.nanmax([value, high]), place)
            axes.annotate(f"{100 * value:.0f} %", at, (5, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_xlim(0, min(1.12, 1.18 * max(0.1, np.nanmax([found.values, found.high]))))
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        label_rows(axes, names, "share of the score's variance")
    return figure


def _name(found: Importance, a: int, b: int) -> str:
    names = dict.fromkeys(words(found.axes[place].name) for place in (b, a))
    return "\n".join(textwrap.wrap(" × ".join(names), 26))


def curve_figure(found: Importance, place: int, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Scores of trials along one axis, and the forest's mean prediction there with its spread over trees."""
    axis = found.axes[place]
    assert found.decomposition is not None  # an axis comes from a decomposition
    at, predictions = found.decomposition.curves[place]
    mean, spread = predictions.mean(0), predictions.std(0)
    top = ceiling(rows)
    if np.median(mean) > top:  # a few bad trials dominate most means: show those
        top = float(mean.max() + 0.1 * np.ptp(mean) + 1e-6)
    values = [point.get(axis.name) for point in found.points]
    with panel(2.4) as (figure, axes):
        if axis.categorical:
            _levels(axes, axis.choices, mean, spread, top)
            spots = {choice: number for number, choice in enumerate(axis.choices)}
            jitter = 0.22 * np.random.default_rng(0).uniform(-1, 1, len(rows))
            across = np.array([spots.get(value, math.nan) for value in values], float) + jitter
        else:
            where = np.exp(at) if axis.log else at
            axes.fill_between(where, mean - spread, mean + spread, color=COLOURS["first"], alpha=0.2, lw=0)
            axes.plot(where, mean, color=COLOURS["first"], lw=2)
            across = np.array([value if isinstance(value, (int, float)) else math.nan for value in values], float)
            axes.set_xscale("log" if axis.log else "linear")
        for spot, row in zip(across, rows, strict=True):
            if math.isfinite(spot):
                trial_dot(axes, spot, row, top, len(rows) <= MOST_TIPS, color=COLOURS["muted"], ms=3, alpha=0.55)
        axes.set_ylabel("bits per dimension")
        axes.grid(axis="y")
    return figure


def _levels(axes: Axes, choices: Sequence[Any], mean: np.ndarray, spread: np.ndarray, top: float) -> None:
    """The mean prediction of every choice as a bar; a triangle if it lies above."""
    for number, level in enumerate(mean):
        ends, look = ([number - 0.36, number + 0.36], "-") if level <= top else ([number], "^")
        bar = axes.plot(ends, [min(level, top)] * len(ends), look, color=COLOURS["first"], lw=2.5)[0]
        tip(bar, f"{choices[number]}: mean {level:.4f}, spread between trees {spread[number]:.4f}")
    names = [words(choice) for choice in choices]
    slanted: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), names, **slanted if sum(map(len, names)) > CROWDED else {})
    axes.tick_params(axis="x", length=0, labelcolor=COLOURS["ink"], labelsize=7.5)
