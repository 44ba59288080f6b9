"""Latents: the information of each, and how many hold which pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autovae.report.latents import Latents
from autovae.report.theme import COLOURS, SERIES, legend_above, new_figure, panel, style, tip

__all__ = ["information_figure", "shares_figure"]

MOST = 64  # bars


def information_figure(models: Mapping[str, Latents]) -> Figure:
    """Nats per latent, sorted, one panel per model; inactive latents are hollow."""
    with style():
        figure = new_figure(0.5 + 1.15 * len(models))
        panels = np.atleast_1d(figure.subplots(len(models), 1, sharex=True, sharey=True))
        for axes, (name, latents), colour in zip(panels, models.items(), SERIES, strict=False):
            values = np.where(np.isfinite(latents.information), latents.information, np.nan)
            for place, latent in enumerate(latents.order[:MOST], 1):
                active, pair = bool(latents.active[latent]), "|".join(latents.pairs[latent])
                bar = axes.bar(place, values[latent], 0.75, lw=1, edgecolor=colour)[0]
                bar.set_facecolor(colour if active else "none")
                state = "active" if active else "inactive"
                tip(bar, f"{name}, latent {latent + 1} ({pair}): {values[latent]:.3f} nats, {state}")
            total = f"{np.nansum(values):.1f} nats, {int(latents.active.sum())} of {len(values)} latents active"
            axes.set_title(f"{name}: {total}", fontsize=8)
            axes.grid(axis="y")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        panels[-1].set_xlabel("latents, most informative first")
        figure.supylabel("KL(q‖p), nats", fontsize=8.5, color=COLOURS["muted"])
    return figure


def shares_figure(models: Mapping[str, Sequence[tuple[str, str]]]) -> Figure:
    """How many latents hold which pair: one stacked bar per model."""
    kinds = dict.fromkeys(pair for pairs in models.values() for pair in pairs)
    colours = {kind: SERIES[place % len(SERIES)] for place, kind in enumerate(kinds)}
    with panel(0.75 + 0.35 * len(models)) as (figure, axes):
        for row, (name, pairs) in enumerate(models.items()):
            start, counts = 0, Counter(pairs)
            for kind in (kind for kind in kinds if counts[kind]):
                label, count = "|".join(kind), counts[kind]
                bar = axes.barh(row, count, 0.6, start, color=colours[kind], label=label)[0]
                tip(bar, f"{name}: {count} latents {label}")
                axes.text(start + count / 2, row, str(count), ha="center", va="center", color="#ffffff")
                start += count
        axes.set_yticks(range(len(models)), list(models))
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        legend_above(axes, 2, handles=list(handles.values()), labels=list(handles))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("latents")
    return figure
