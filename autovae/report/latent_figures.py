"""Figures of latents: what each carries, where the encoder puts them on the divergence, how many are of which family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from autovae.beliefs.divergences import kl
from autovae.report.latents import Latents
from autovae.report.theme import COLOURS, SERIES, new_figure, style, tip

__all__ = ["information_figure", "landscape_figure", "shares_figure"]

MOST = 64  # latents a bar chart shows
DOTS = 500  # of a landscape


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


def landscape_figure(
    posterior: str, prior: str, loc: NDArray[Any] | None = None, scale: NDArray[Any] | None = None
) -> Figure:
    """KL(q || p) over location and scale of a pair, with where the encoder puts points; hatched where it is infinite."""
    low, high, reach = -3.0, 1.0, 4.0  # log10 scale, location
    if loc is not None and scale is not None and loc.size:
        loc, scale = _some(loc.ravel()), _some(scale.ravel())
        reach = float(np.clip(1.15 * np.quantile(np.abs(loc), 0.99), 2.0, 20.0))
        exponents = np.log10(np.quantile(scale, [0.01, 0.99]))
        low, high = float(np.clip(exponents[0] - 0.4, -4, -0.5)), float(np.clip(exponents[1] + 0.4, 0.3, 2))
    across, up = np.linspace(-reach, reach, 121), np.linspace(low, high, 101)
    value = kl(posterior, prior, torch.from_numpy(across)[None], torch.from_numpy(10**up)[:, None]).numpy()
    finite = np.isfinite(value)
    with style():
        figure = new_figure(2.75)
        axes: Axes = figure.subplots()
        axes.set_facecolor("none")
        if not finite.all():
            axes.contourf(across, up, np.where(finite, np.nan, 1.0), levels=[0.5, 1.5], colors="none", hatches=["////"])
        shown_value = np.ma.masked_invalid(np.where(finite, np.clip(value, 0, 99.9), np.nan))
        levels = np.array([0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100])
        norm = BoundaryNorm(levels, 256)
        shown = axes.contourf(across, up, shown_value, levels, norm=norm, cmap="viridis_r")
        bar = figure.colorbar(shown, ax=axes, ticks=levels, pad=0.02, format="%g")
        bar.ax.tick_params(labelsize=7, length=2)
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.set_label("nats", fontsize=8)
        if loc is not None and scale is not None and loc.size:
            dots = axes.plot(loc, np.log10(scale), "o", ms=1.8, color="#ffffff", mec="#111111", mew=0.3, alpha=0.9)[0]
            tip(dots, f"where the encoder puts {len(loc)} latents of the examples")
            axes.set_xlim(-reach, reach)
            axes.set_ylim(low, high)
        axes.set_xlabel("location of q")
        axes.set_ylabel("log₁₀ scale of q")
    return figure


def _some(values: NDArray[Any]) -> NDArray[Any]:
    """At most DOTS of many values, evenly."""
    return values[:: max(1, len(values) // DOTS)]


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
