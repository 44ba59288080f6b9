"""Latents: the information of each, and how many hold which pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autovae.report.latents import Latents
from autovae.report.theme import COLOURS, SERIES, new_figure, style, tip

__all__ = ["information_figure", "shares_figure"]

MOST = 64  # latents a bar chart shows


def information_figure(models: Mapping[str, Latents]) -> Figure:
    """Nats that each latent carries, sorted; latents that do not move with the data are hollow. A panel a model."""
    with style():
        figure = new_figure(0.5 + 1.15 * len(models))
        panels = np.atleast_1d(figure.subplots(len(models), 1, sharex=True, sharey=True))
        for axes, (name, latents), colour in zip(panels, models.items(), SERIES, strict=False):
            values = np.where(np.isfinite(latents.information), latents.information, np.nan)
            for place, latent in enumerate(latents.order[:MOST]):
                active, (q, p) = bool(latents.active[latent]), latents.pairs[latent]
                bar = axes.bar(place + 1, values[latent], 0.75, lw=1, edgecolor=colour)[0]
                bar.set_facecolor(colour if active else "none")
                state = "active" if active else "not in use"
                tip(bar, f"{name}, latent {latent + 1} ({q}|{p}): {values[latent]:.3f} nats, {state}")
            total = f"{np.nansum(values):.1f} nats, {int(latents.active.sum())} of {len(values)} latents active"
            axes.set_title(f"{name}: {total}", fontsize=8)
            axes.grid(axis="y")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        panels[-1].set_xlabel("latents, the most informative first")
        figure.supylabel("KL(q‖p), nats", fontsize=8.5, color=COLOURS["muted"])
    return figure


def shares_figure(models: Mapping[str, Sequence[tuple[str, str]]]) -> Figure:
    """How many latents believe which pair: one stacked bar a model."""
    kinds = list(dict.fromkeys(pair for pairs in models.values() for pair in pairs))
    with style():
        figure = new_figure(0.75 + 0.35 * len(models))
        axes: Axes = figure.subplots()
        for row, (name, pairs) in enumerate(models.items()):
            start, counts = 0, Counter(pairs)
            for kind in kinds:
                if not counts[kind]:
                    continue
                colour = SERIES[kinds.index(kind) % len(SERIES)]
                label = "|".join(kind)
                bar = axes.barh(row, counts[kind], 0.6, start, color=colour, label=label)[0]
                tip(bar, f"{name}: {counts[kind]} latents {label}")
                axes.text(start + counts[kind] / 2, row, str(counts[kind]), ha="center", va="center", color="#ffffff")
                start += counts[kind]
        axes.set_yticks(range(len(models)), list(models))
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        axes.legend(handles.values(), handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("latents")
    return figure
