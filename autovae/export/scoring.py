"""Score a saved VAE on data: log p(x) of every point with its errors, in the units the VAE was trained in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from autovae.data.datasets import PARTS, Data, load
from autovae.export.card import CardError, load_standardised
from autovae.metrics.importance import LogLikelihood
from autovae.metrics.log_likelihood import VAEModel, log_likelihood
from autovae.spec import Domain

__all__ = ["score_folder"]


def score_folder(
    folder: str | Path,
    source: Any,
    data_dir: str | Path | None = None,
    part: str = "test",
    samples: int = 5000,
    points: int | None = None,
    seed: int = 0,
) -> tuple[LogLikelihood, float]:
    """log p(x) of the first `points` points of a part of `source`, and bits per dimension at the model's levels.

    Real data are standardised as the model's own were, not by their own mean and scale. Raises `CardError` where the
    data have another shape, support or number of levels than the model.
    """
    if part not in PARTS:
        raise ValueError(f"got split {part!r}, expected one of {', '.join(PARTS)}")
    vae, offset, unit = load_standardised(folder)
    data = _in_units_of(vae.domain, load(source, data_dir=data_dir), offset, unit)
    result = log_likelihood(VAEModel(vae, data, getattr(data, part), seed=seed), samples, points=points, seed=seed)
    mask = getattr(data, part).flat_mask
    observed = vae.domain.features if mask is None else float(mask[: result.points].sum(1).float().mean())
    return result, result.bits(observed)


def _in_units_of(domain: Domain, data: Data, offset: Tensor, unit: Tensor) -> Data:
    """The data as a model of this domain sees them."""
    own = data.domain
    if (own.shape, own.support) != (domain.shape, domain.support):
        raise CardError(
            f"{data.name} has points of shape {own.shape} and support {own.support}, the model expects {domain.shape} and "
            f"{domain.support}; give data like those it was trained on"
        )
    if own.support != "real":
        if own.levels != domain.levels:
            raise CardError(
                f"{data.name} has {own.levels} levels, the model {domain.levels}; bits at other levels are not comparable"
            )
        return data
    moved = {
        name: replace(split, x=((data.original_units(split.x) - offset) / unit).float())
        for name, split in ((name, getattr(data, name)) for name in PARTS)
    }
    return replace(data, **moved, mean=offset, scale=unit, low=domain.low, high=domain.high)
