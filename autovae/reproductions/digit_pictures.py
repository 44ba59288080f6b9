"""Pictures of digits in rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from autovae.report.theme import COLOURS, style

__all__ = ["digit_rows"]


def digit_rows(
    blocks: Sequence[tuple[str, Tensor]], *, columns: int = 1, first_apart: bool = False, pixel: float = 0.0115
) -> Figure:
    """Blocks (title, images (rows, n, H, W)) one below the other, `columns` blocks side by side.

    `first_apart` leaves a gap after the first image of a row, which is a mean.
    """
    panels = [(title, _tiled(images, first_apart)) for title, images in blocks]
    lines = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    title, margin = 0.2, 0.05  # inches
    heights = [max(p.shape[0] for _, p in line) * pixel + title + margin for line in lines]
    width = max(sum(p.shape[1] * pixel + 2 * margin for _, p in line) for line in lines)
    height = sum(heights)
    with style():
        figure = Figure(figsize=(width, height))
        top = height
        for line, tall in zip(lines, heights, strict=True):
            left = margin
            for text, picture in line:
                rows, across = (size * pixel for size in picture.shape)
                axes = figure.add_axes((left / width, (top - title - rows) / height, across / width, rows / height))
                axes.imshow(picture, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
                axes.set_axis_off()
                figure.text(
                    left / width, (top - title + 0.05) / height, text, fontsize=7.5, color=COLOURS["ink"], va="bottom"
                )
                left += across + 2 * margin
            top -= tall
    return figure


def _tiled(images: Tensor, first_apart: bool) -> np.ndarray:
    rows, n, high, wide = images.shape
    picture = images.clamp(0, 1).permute(0, 2, 1, 3).reshape(rows * high, n * wide).cpu().numpy()
    if not first_apart:
        return picture
    gap = np.zeros((rows * high, wide // 3))
    return np.concatenate([picture[:, :wide], gap, picture[:, wide:]], 1)
