"""Data points drawn: pictures as a mosaic of pixels, vectors as lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from autovae.report.theme import COLOURS, WIDTH, new_figure, style

__all__ = ["lines_figure", "mosaic", "sample_grid"]

Array = NDArray[np.float64]


def sample_grid(x: NDArray[Any], columns: int = 8) -> Figure:
    """Points (n, *shape) side by side: pictures of (H, W), (1, H, W), (3, H, W) or (H, W, 3); other shapes as lines."""
    x = np.asarray(x, float)
    if x.ndim < 2 or not len(x):
        raise ValueError(f"got an array of shape {x.shape}, expected (n, *shape) with at least one point")
    columns = max(1, min(columns, len(x)))
    picture = mosaic(x, columns)
    if picture is None:
        return lines_figure([[(values, COLOURS["first"])] for values in x.reshape(len(x), -1)], columns, 1.05 * columns)
    with style():
        width = 6.0
        figure = Figure(figsize=(width, width * picture.shape[0] / picture.shape[1]))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
    return figure


def lines_figure(
    panels: Sequence[Sequence[tuple[NDArray[Any], str | float]]], columns: int = 3, width: float = WIDTH
) -> Figure:
    """Small panels of lines on one scale. A line is its values and a colour, or a shade from 0 (dark) to 1 (bright)."""
    columns = max(1, min(columns, len(panels)))
    rows = math.ceil(len(panels) / columns)
    values = np.concatenate([np.ravel(line) for panel in panels for line, _ in panel])
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    margin = 0.05 * (high - low) or 1.0
    shades = matplotlib.colormaps["viridis"]
    with style():
        figure = new_figure(0.95 * rows, width)
        for place, panel in enumerate(panels):
            axes: Axes = figure.add_subplot(rows, columns, place + 1)
            for line, colour in panel:
                shown = shades(0.1 + 0.8 * colour) if isinstance(colour, float) else colour
                axes.plot(line, lw=1.2, marker="o" if len(line) < 12 else "", ms=2.5, color=shown)
            axes.set_ylim(low - margin, high + margin)
            axes.set_xticks([])
            axes.tick_params(labelsize=6.5, length=2, labelleft=place % columns == 0)
    return figure


def mosaic(x: NDArray[Any], columns: int, gap: int = 1) -> Array | None:
    """Pictures side by side, as (H, W) or (H, W, 3) in [0, 1]; None for other shapes.

    Data outside [0, 1], such as standardised ones, are stretched from the smallest to the largest value.
    """
    x = np.asarray(x, float)
    if x.ndim == 4 and x.shape[1] in (1, 3):
        x = np.moveaxis(x, 1, -1)
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[-1] not in (1, 3) or min(x.shape[1:3]) < 2:
        return None
    x = np.nan_to_num(x, nan=0.0, posinf=1.0, neginf=0.0)
    low, high = float(x.min()), float(x.max())
    if low < -1e-6 or high > 1 + 1e-6:
        x = (x - low) / max(high - low, 1e-12)
    count, height, width, channels = x.shape
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 0.5)
    for place in range(count):
        down, across = divmod(place, columns)
        top, left = down * (height + gap), across * (width + gap)
        sheet[top : top + height, left : left + width] = np.clip(x[place], 0, 1)
    return sheet[..., 0] if channels == 1 else sheet
