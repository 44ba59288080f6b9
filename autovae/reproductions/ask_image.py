"""A question about an image, from the command line: denoise it, or paint in what is hidden; the picture and the numbers.

The image is one point of a data set (`digits:3`, `mine.npz:0`: the test split of a named set, the rows of a file) or a
picture of the prior's size. What is hidden is a side, or the zeros of a mask of the same shape.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autovae.data.batches import network_input
from autovae.data.datasets import DATASETS, load
from autovae.export.card import load_prior
from autovae.export.prior import PriorModule
from autovae.reasoning.question import ask
from autovae.report.samples import PICTURES
from autovae.report.theme import save_figure
from autovae.tables import lookup

__all__ = ["SIDES", "ask_image", "hidden", "read_image"]

SIDES = {
    "left": (slice(None), slice(None, 0.5)),
    "right": (slice(None), slice(0.5, None)),
    "top": (slice(None, 0.5), slice(None)),
    "bottom": (slice(0.5, None), slice(None)),
}
SHOWN = 14  # draws in the picture


def read_image(text: str, prior: PriorModule, data_dir: str | Path | None = None) -> Tensor:
    """The image that `text` names, in the prior's data units and shape."""
    shape = tuple(prior.shape or ())
    source, colon, place = text.rpartition(":")
    if colon and place.isdigit():
        data = load(source, data_dir=data_dir)
        if data.shape != shape:
            raise ValueError(
                f"{source} has points of shape {data.shape}, the prior draws {shape}; give data like its own"
            )
        split = data.test if source in DATASETS else data.train
        if int(place) >= len(split):
            raise ValueError(f"{text}: got number {place}, expected 0 to {len(split) - 1}")
        point = split.take(slice(int(place), int(place) + 1))
        return data.original_units(network_input(point.x, data))[0]
    from PIL import Image, UnidentifiedImageError

    try:
        pixels = np.asarray(Image.open(text).convert("L" if len(shape) == 2 else "RGB"), dtype=np.float32)
    except (OSError, UnidentifiedImageError):
        raise ValueError(f"cannot read {text!r}: expected a picture, or NAME:NUMBER such as digits:3") from None
    x = torch.from_numpy((pixels + 0.5) / 256)
    x = x if x.dim() == 2 else x.permute(2, 0, 1)
    if tuple(x.shape) != shape:
        raise ValueError(f"{text} is {tuple(x.shape)}, the prior draws {shape}; resize the picture to that")
    return x


def hidden(what: str, shape: tuple[int, ...]) -> Tensor:
    """The mask (1 = observed) that hides a side of images of this shape."""
    rows, columns = lookup(SIDES, what, "side to hide")
    mask = torch.ones(shape)

    def part(cut: slice, size: int) -> slice:
        start, stop = (None if edge is None else round(edge * size) for edge in (cut.start, cut.stop))
        return slice(start, stop)

    if len(shape) < 2:
        raise ValueError(f"got points of shape {shape}, expected images to hide the {what} of")
    mask[..., part(rows, shape[-2]), part(columns, shape[-1])] = 0
    return mask


def ask_image(
    folder: str | Path,
    image: str,
    hide: str | None,
    noise: float,
    method: str,
    draws: int | None,
    seed: int,
    to: str | Path,
    data_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Ask, draw the picture (the image, what was seen of it, the mean answer, some answers), return the diagnostics."""
    path = Path(to)
    if path.suffix not in PICTURES:
        raise ValueError(f"cannot draw {path.name!r}: expected a name ending in {', '.join(PICTURES)}")
    if not noise > 0:
        raise ValueError(f"got noise = {noise}, expected a standard deviation > 0 in the units of the image")
    prior = load_prior(folder)
    truth = read_image(image, prior, data_dir)
    mask = None if hide is None else hidden(hide, tuple(truth.shape))
    measured = truth + noise * torch.randn(truth.shape, generator=torch.Generator().manual_seed(seed))
    answer = ask(prior, image=measured, mask=mask, noise=noise, method=method, draws=draws, seed=seed)
    with torch.no_grad():
        x = answer.decode().flatten(0, 1)
    shown = x[torch.linspace(0, len(x) - 1, min(SHOWN, len(x))).long()]
    seen = measured if mask is None else measured * mask
    pictures = torch.cat([torch.stack([truth, seen]), x.mean(0, keepdim=True), shown[: SHOWN - 1]])
    from autovae.report.figures import sample_grid

    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(sample_grid(pictures.clamp(0, 1).numpy() if truth.min() >= 0 else pictures.numpy()), path)
    error = float((x.mean(0) - truth).square().mean().sqrt())
    return {**answer.summary(), "rmse_of_mean": error, "to": str(path)}
