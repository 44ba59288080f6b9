"""Samples of a saved prior as a picture or as numbers."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from autovae.export.card import load_prior
from autovae.files import write_bytes

__all__ = ["PICTURES", "check_picture", "draw", "write_samples"]

PICTURES = (".png", ".svg", ".pdf")


def check_picture(to: Path) -> None:
    """Raise `ValueError` unless `to` is the name of a picture."""
    if to.suffix not in PICTURES:
        raise ValueError(f"cannot draw {to.name!r}: expected a name ending in {', '.join(PICTURES)}")


@torch.no_grad()
def draw(folder: str | Path, number: int, seed: int = 0, source: str = "prior") -> np.ndarray:
    """E[x|z] of `number` latents z ~ p(z), in data units, (number, *shape)."""
    prior = load_prior(folder, source)
    generator = torch.Generator().manual_seed(seed)
    return prior.decode(prior.sample(number, generator=generator)).numpy()


def write_samples(x: np.ndarray, to: str | Path) -> Path:
    """Write a grid of pictures (lines for vectors) if `to` has the suffix of a picture, else numbers as .npz or .csv."""
    path = Path(to)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in PICTURES:
        from autovae.report.pictures import sample_grid
        from autovae.report.theme import save_figure

        save_figure(sample_grid(x), path)
        return path
    content = io.BytesIO()
    if path.suffix == ".npz":
        np.savez(content, x=x)
    elif path.suffix == ".csv":
        np.savetxt(content, x.reshape(len(x), -1), delimiter=",", fmt="%.7g")
    else:
        raise ValueError(f"cannot write {path.name!r}: expected a name ending in {', '.join(PICTURES)}, .npz or .csv")
    return write_bytes(path, content.getvalue())
