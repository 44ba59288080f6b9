"""The gallery of divergences: KL(q || p) over location and log scale of q, every posterior under every prior.

One pair large, with where an encoder puts points: `latent_figures.landscape_figure`.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from autovae.beliefs.divergences import kl
from autovae.finiteness import TAILS
from autovae.report.theme import new_figure, style

__all__ = ["gallery_figure"]

LEVELS = [0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100]


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
