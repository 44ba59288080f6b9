"""Score a saved VAE on data, in the units the VAE was trained in: log p(x) with its errors, bits under its own and a common
head, annealed bounds, active units.

Real data are standardised with the mean and scale of the model's training data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from autovae.data.datasets import PARTS, Data, Split, load
from autovae.export.card import CardError, load_standardised
from autovae.metrics.active_units import active_units
from autovae.metrics.bdmc import Enclosure, enclose
from autovae.metrics.bits import Score, log_mass_bounds, score
from autovae.metrics.common_head import common_head_scores, fit_common_scales
from autovae.metrics.log_likelihood import VAEModel, log_likelihood
from autovae.metrics.psis import LogLikelihood
from autovae.model.vae import VAE
from autovae.spec import Domain

__all__ = ["Heads", "Scored", "in_units_of", "open_scored", "score_folder"]

HEAD_SAMPLES = 100  # of the two bounds that are set side by side


@dataclass(frozen=True)
class Heads:
    """Bits of one VAE under its own head and under the common one, with the same samples and noise."""

    own: Score
    common: Score
    scale: float  # of the common head, in units of the model

    def __str__(self) -> str:
        return f"own head {self.own}; one logistic head at its means {self.common}"

    def to_dict(self) -> dict[str, float]:
        """The numbers of the summary, as plain values."""
        return {
            "own_head_bits": self.own.bits,
            "common_head_bits": self.common.bits,
            "common_head_error": self.common.standard_error,
            "common_head_scale": self.scale,
            "head_samples": self.own.samples,
        }


@dataclass(frozen=True)
class Scored:
    """A saved VAE, and a part of some data in its units."""

    vae: VAE
    data: Data
    part: str

    @property
    def split(self) -> Split:
        found: Split = getattr(self.data, self.part)
        return found

    def log_likelihood(self, samples: int = 5000, points: int | None = None, seed: int = 0) -> LogLikelihood:
        """log p(x) of the first points, by importance sampling."""
        return log_likelihood(VAEModel(self.vae, self.data, self.split, seed=seed), samples, points=points, seed=seed)

    def bits(self, result: LogLikelihood) -> float:
        """Bits per (observed) dimension of an estimate, at the model's levels."""
        mask = self.split.flat_mask
        features = self.vae.domain.features
        return result.bits(features if mask is None else float(mask[: result.points].sum(1).float().mean()))

    def heads(self, samples: int = HEAD_SAMPLES, points: int | None = None, seed: int = 0) -> Heads | None:
        """Bits under both heads; None for two levels, where a head is its probabilities and has no shape."""
        if self.data.levels == 2:
            return None
        scales = fit_common_scales([self.vae], self.data)
        (common,) = common_head_scores([self.vae], self.data, self.split, samples, points, seed, scales=scales)
        own = log_mass_bounds([self.vae], self.data, self.split, samples, points, seed)[0]
        return Heads(score(own, self.data, self.split, samples), common, float(scales[0]))

    def enclose(self, points: int = 50, seed: int = 0, **settings: Any) -> Enclosure:
        """Annealed bounds of the first points and of simulated ones; settings are those of `metrics.bdmc`."""
        return enclose(self.vae, self.data, self.split, points, seed=seed, **settings)

    def active_units(self, points: int | None = None) -> int:
        return active_units(self.vae, self.data, self.split, points)


def open_scored(folder: str | Path, source: Any, data_dir: str | Path | None = None, part: str = "test") -> Scored:
    """A saved VAE and a part of `source`. Raises `CardError` where their shape, support or number of levels differ."""
    if part not in PARTS:
        raise ValueError(f"got split {part!r}, expected one of {', '.join(PARTS)}")
    vae, offset, unit = load_standardised(folder)
    return Scored(vae, in_units_of(vae.domain, load(source, data_dir=data_dir), offset, unit), part)


def score_folder(
    folder: str | Path,
    source: Any,
    data_dir: str | Path | None = None,
    part: str = "test",
    samples: int = 5000,
    points: int | None = None,
    seed: int = 0,
) -> tuple[LogLikelihood, float]:
    """log p(x) of the first `points` points of a part of `source`, and bits per dimension at the model's levels."""
    scored = open_scored(folder, source, data_dir, part)
    result = scored.log_likelihood(samples, points, seed)
    return result, scored.bits(result)


def in_units_of(domain: Domain, data: Data, offset: Tensor, unit: Tensor) -> Data:
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
