"""Gains over a baseline: seeds as dots, means with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autovae.report.finals import Gain
from autovae.report.theme import COLOURS, new_figure, style, tip

__all__ = ["gain_figure"]


def gain_figure(gains: Mapping[str, Gain]) -> Figure:
    """One row per gain: seeds as dots, the mean with its interval as a bar."""
    with style():
        figure = new_figure(0.75 + 0.5 * len(gains))
        axes: Axes = figure.subplots()
        for place, (name, gain) in enumerate(gains.items()):
            seeds, y = len(gain.differences), place - 0.04
            dots = axes.plot(
                gain.differences, np.full(seeds, place + 0.22), "o", ms=3.2, mew=0, color=COLOURS["muted"], alpha=0.6
            )[0]
            tip(dots, f"{name}: one dot per seed, {seeds} seeds")
            if all(map(math.isfinite, (gain.mean, gain.low, gain.high))):
                ends = [gain.low, gain.high]
                bar = axes.plot(ends, [y, y], color=COLOURS["first"], lw=2.5, solid_capstyle="round")[0]
                tip(bar, f"{name}: {gain.mean:.4f}, interval {gain.low:.4f} to {gain.high:.4f}")
                axes.plot(gain.mean, y, "o", ms=6.5, mew=0, color=COLOURS["first"])
        axes.axvline(0, color=COLOURS["second"], lw=1.2)
        axes.set_yticks(range(len(gains)), list(gains))
        axes.set_ylim(len(gains) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel("bits per dimension saved", loc="left")
    return figure
