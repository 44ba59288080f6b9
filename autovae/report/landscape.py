"""Landscapes of KL(q || p) over location and log scale of q: one pair with an encoder's points, or the gallery of all."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from autovae.beliefs.divergences import kl
from autovae.finiteness import TAILS
from autovae.report.theme import new_figure, style, tip

__all__ = ["gallery_figure", "landscape_figure"]

LEVELS = [0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100]  # nats
DOTS = 500  # points of an encoder that are shown


def landscape_figure(
    posterior: str, prior: str, loc: NDArray[Any] | None = None, scale: NDArray[Any] | None = None
) -> Figure:
    """KL(q || p) over location and scale of a pair, with the encoder's points; hatched where it is infinite."""
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
        norm = BoundaryNorm(LEVELS, 256)
        shown = axes.contourf(across, up, shown_value, LEVELS, norm=norm, cmap="viridis_r")
        bar = figure.colorbar(shown, ax=axes, ticks=LEVELS, pad=0.02, format="%g")
        bar.ax.tick_params(labelsize=7, length=2)
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.set_label("nats", fontsize=8)
        if loc is not None and scale is not None and loc.size:
            dots = axes.plot(loc, np.log10(scale), "o", ms=1.8, color="#ffffff", mec="#111111", mew=0.3, alpha=0.9)[0]
            tip(dots, f"{len(loc)} latents of the examples, as the encoder places them")
            axes.set_xlim(-reach, reach)
            axes.set_ylim(low, high)
        axes.set_xlabel("location of q")
        axes.set_ylabel("log₁₀ scale of q")
    return figure


def _some(values: NDArray[Any]) -> NDArray[Any]:
    """At most DOTS values, evenly spaced."""
    return values[:: max(1, len(values) // DOTS)]


def gallery_figure() -> Figure:
    """Posteriors down, priors across; blank where infinite. Location from -4 to 4, scale from 0.01 to 10."""
    across, up = np.linspace(-4, 4, 49), np.linspace(-2, 1, 41)
    loc, scale = torch.from_numpy(across)[None], torch.from_numpy(10**up)[:, None]
    with style():
        figure = new_figure(10.5, 11.5)
        figure.set_layout_engine("none")  # arranging a hundred panels would take minutes
        panels = figure.subplots(len(TAILS), len(TAILS), sharex=True, sharey=True)
        for row, posterior in zip(panels, TAILS, strict=True):
            for axes, prior in zip(row, TAILS, strict=True):
                value = kl(posterior, prior, loc, scale).numpy()
                finite = np.isfinite(value)
                if finite.any():
                    shown = np.ma.masked_invalid(np.where(finite, np.clip(value, 0, 99.9), np.nan))
                    axes.contourf(
                        across, up, np.log10(shown + 1e-3), np.log10(np.array(LEVELS) + 1e-3), cmap="viridis_r"
                    )
                if posterior == next(iter(TAILS)):
                    axes.set_title(prior)
            row[0].set_ylabel(posterior)
        figure.supxlabel("location of q, under each prior")
        figure.supylabel("log₁₀ scale of q, for each posterior")
    return figure
