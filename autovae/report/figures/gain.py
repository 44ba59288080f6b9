"""Gains over a baseline: seeds as dots, means with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from autovae.report.finals import Gain
from autovae.report.theme import COLOURS, label_rows, panel, tip

__all__ = ["gain_figure"]


def gain_figure(gains: Mapping[str, Gain]) -> Figure:
    """One row per gain."""
    with panel(0.75 + 0.5 * len(gains)) as (figure, axes):
        for place, (name, gain) in enumerate(gains.items()):
            y, above = np.full(len(gain.differences), place + 0.22), place - 0.04
            dots = axes.plot(gain.differences, y, "o", ms=3.2, mew=0, color=COLOURS["muted"], alpha=0.6)[0]
            tip(dots, f"{name}: one dot per seed, {len(y)} seeds")
            if all(map(math.isfinite, gain[1:4])):
                ends = [gain.low, gain.high]
                bar = axes.plot(ends, [above] * 2, color=COLOURS["first"], lw=2.5, solid_capstyle="round")[0]
                tip(bar, f"{name}: {gain.mean:.4f}, interval {gain.low:.4f} to {gain.high:.4f}")
                axes.plot(gain.mean, above, "o", ms=6.5, mew=0, color=COLOURS["first"])
        axes.axvline(0, color=COLOURS["second"], lw=1.2)
        label_rows(axes, list(gains), "bits per dimension saved")
    return figure
