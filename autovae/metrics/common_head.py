r"""Bits per dimension under one common head: how models compare when every likelihood has the same shape.

A score under each model's own head depends on the shape of the head: a Bernoulli trained on grey levels has no scale to
learn and loses partly by construction. Here only the means of the models differ, and all have the same law:

    x_i | z ~ Logistic(m_i(z), s)        m(z) = E[x|z] under the model's own head

with one scale s for all features and points, fitted on validation. The masses of the level's bins go into the same bound
as in `bits`, with the same prior, posterior and noise. s minimises the bits of the first validation points at a few
samples, by golden section in log s; every model has its own s, since a fixed one would favour some of them.

This score compares means only and ignores whatever else a head models (a scale for every pixel, heavy tails). It
complements the score under the model's own head and does not replace it.
Not here: the score that trials are ranked by (`bits`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from autovae.data.datasets import Data, Split
from autovae.metrics.bits import Score, log_mass_bounds, score
from autovae.model.vae import VAE

__all__ = ["common_head_scores", "fit_common_scales"]

POINTS, SAMPLES = 200, 16  # validation points and samples for fitting the scale: a single number needs few
TOLERANCE = 0.01  # of log scale: at its optimum an error of 1 % costs some 1e-4 nats per feature
GOLDEN = (math.sqrt(5) - 1) / 2


def fit_common_scales(
    members: Sequence[VAE],
    data: Data,
    split: Split | None = None,
    samples: int = SAMPLES,
    points: int = POINTS,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The logistic scale of each member that minimises its bits on the first points (of validation), (members,)."""
    split = data.validation if split is None else split
    domain = data.domain
    low = torch.full((len(members),), math.log(domain.bin_width / 8), dtype=torch.float64)
    high = torch.full((len(members),), math.log(domain.high - domain.low), dtype=torch.float64)

    def nats(log_scale: Tensor) -> Tensor:
        bounds = log_mass_bounds(members, data, split, samples, points, device=device, common_scale=log_scale.exp())
        return bounds.double().mean(1)

    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = nats(left), nats(right)
    while float((high - low).max()) > TOLERANCE:
        rises = at_left < at_right  # the optimum is right of `left`
        low, high = torch.where(rises, left, low), torch.where(rises, high, right)
        fresh = torch.where(rises, low + GOLDEN * (high - low), high - GOLDEN * (high - low))
        value = nats(fresh)
        left, right = torch.where(rises, right, fresh), torch.where(rises, fresh, left)
        at_left, at_right = torch.where(rises, at_right, value), torch.where(rises, value, at_left)
    return (0.5 * (low + high)).exp()


def common_head_scores(
    members: Sequence[VAE],
    data: Data,
    split: Split,
    samples: int,
    points: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    scales: Tensor | None = None,
) -> list[Score]:
    """The score of each member on the first points of a split; without `scales`, they are fitted on validation."""
    if scales is None:
        scales = fit_common_scales(members, data, device=device)
    bounds = log_mass_bounds(members, data, split, samples, points, seed, device, common_scale=scales)
    return [score(per_point, data, split, samples) for per_point in bounds]
