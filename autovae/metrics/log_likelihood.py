r"""Tight estimates of log p(x) by importance sampling, for a trained VAE or any latent model.

    log p(x) ~ log (1/K) sum_k p(x|z_k) p(z_k) / m(z_k),     z_k ~ m = (1 - delta) q(z|x) + delta p(z), stratified

The defensive part p(z) matters: an encoder's q may be too narrow, and under uniform or exponential posteriors it covers
only part of the prior's support, so that without it no number of samples reaches log p(x). With it no weight exceeds
p(x|z) / delta.

p(x|z) is the mass of the level's bin (`density="mass"`: comparable between likelihoods; for binary data the exact
Bernoulli probability) or the head's density where it trains (`density="density"`: comparable with papers that use the
same head, on the same scale of x). References: Burda et al. 2016 (K = 5000); Hesterberg, Weighted average importance
sampling and defensive mixture distributions, 1995.
Not here: the statistics of weights (`importance`), scores of a search (`bits`), annealed estimates (`annealed`).
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from autovae.data.datasets import Data, Split
from autovae.metrics.importance import PER_POINT, LogLikelihood, from_log_weights
from autovae.model.vae import VAE
from autovae.streams import stream_seed
from autovae.training.feed import Feed
from autovae.training.precision import fast_products

__all__ = ["Model", "VAEModel", "log_likelihood", "log_weights"]

# Numbers of one intermediate tensor: they and a few like them stay in cache, and memory is not mapped anew each time.
CHUNK = 400_000


class Model(Protocol):
    """A latent model with a proposal for each of its points. z is (K, B, D) for the B points of `index`."""

    latent_dim: int
    points: int
    widest: int  # numbers per sample of the largest intermediate tensor
    device: torch.device
    dtype: torch.dtype

    def from_prior(self, xi: Tensor) -> Tensor:
        """z ~ p(z) from standard normal xi (K, B, D)."""

    def from_proposal(self, index: slice, xi: Tensor) -> Tensor:
        """z ~ q(z|x) from standard normal xi (K, B, D)."""

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), (K, B)."""

    def log_proposal(self, index: slice, z: Tensor) -> Tensor:
        """log q(z|x), (K, B)."""

    def log_likelihood(self, index: slice, z: Tensor) -> Tensor:
        """log p(x|z), (K, B)."""


class VAEModel:
    """A trained VAE with its encoder as the proposal, on the points of a split."""

    def __init__(
        self,
        vae: VAE,
        data: Data,
        split: Split | None = None,
        density: str = "mass",
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        if density not in ("mass", "density"):
            raise ValueError(f"got density = {density!r}, expected 'mass' (of the level's bin) or 'density'")
        self.dtype = dtype = next(vae.parameters()).dtype
        self.stack = vae.stacked.to_device(torch.device(device)).eval()
        feed = Feed(data, data.test if split is None else split, device, dtype)
        self.points, self.latent_dim, self.device = feed.points, vae.spec.latent_dim, feed.device
        self.widest = max(data.domain.features, *vae.spec.hidden, vae.spec.latent_dim)
        generator = feed.dequantiser()
        generator.manual_seed(stream_seed(seed, "dequantise", "score"))
        kinds = () if density == "mass" else self.stack.target_kinds
        self._batch = feed.batch(slice(None), kinds, edges=density == "mass", generator=generator)
        step = max(1, 4 * CHUNK // self.widest)
        with torch.no_grad():
            parts = [self.stack.encode(inputs) for inputs in self._batch.inputs.split(step)]
        self._loc = torch.cat([loc for loc, _ in parts], 1)  # (1, N, D)
        self._scale = torch.cat([scale for _, scale in parts], 1)

    def from_prior(self, xi: Tensor) -> Tensor:
        return self.stack.pairing.sample_prior(xi.flatten(0, 1).unsqueeze(0)).view_as(xi)

    def from_proposal(self, index: slice, xi: Tensor) -> Tensor:
        eps = self.stack.pairing.noise(xi.flatten(0, 1).unsqueeze(0)).view_as(xi)
        return self._loc[0, index] + self._scale[0, index] * eps

    def log_prior(self, z: Tensor) -> Tensor:
        return self.stack.pairing.log_prior(z.flatten(0, 1).unsqueeze(0)).view(z.shape[:-1])

    def log_proposal(self, index: slice, z: Tensor) -> Tensor:
        scale = self._scale[0, index].expand_as(z)
        eps = (z - self._loc[0, index]) / scale
        flat = [t.flatten(0, 1).unsqueeze(0) for t in (eps, scale)]
        return self.stack.pairing.log_posterior(*flat).view(z.shape[:-1])

    def log_likelihood(self, index: slice, z: Tensor) -> Tensor:
        batch, samples = self._batch, z.shape[0]
        outputs = self.stack.decode(z.flatten(0, 1).unsqueeze(0), samples)
        mask = None if batch.mask is None else batch.mask[index]
        if batch.lower is not None and batch.upper is not None:
            return self.stack.log_mass(outputs, batch.lower[index], batch.upper[index], mask)[0]
        targets = {kind: x[index] for kind, x in batch.targets.items()}
        return self.stack.log_likelihood(outputs, targets, mask)[0]


@torch.no_grad()
def log_weights(
    model: Model, index: slice, samples: int, defensive: float = 0.1, seed: int = 0
) -> tuple[Tensor, list[int]]:
    """log w (K, B) of the points of `index` and the sizes of the strata: samples of q first, then of p.

    Every point has its own stream of noise, so that its numbers do not depend on which points are asked for.
    """
    if samples < 1:
        raise ValueError(f"got {samples} samples, expected k >= 1")
    if not 0 <= defensive < 1:
        raise ValueError(f"got defensive = {defensive}, expected a share of samples from the prior in [0, 1)")
    from_prior = min(math.ceil(defensive * samples), samples - 1)
    strata = [samples - from_prior, from_prior]
    xi = _noise(model, index, samples, seed)
    rows = max(1, CHUNK // (model.widest * xi.shape[1]))
    parts = []
    for stratum, noise in enumerate(xi.split(strata)):
        for part in noise.split(rows) if len(noise) else ():
            z = model.from_prior(part) if stratum else model.from_proposal(index, part)
            log_p, log_q = model.log_prior(z), model.log_proposal(index, z)
            shares = [math.log(size / samples) if size else -math.inf for size in strata]
            log_m = torch.logaddexp(log_q + shares[0], log_p + shares[1]) if from_prior else log_q
            parts.append(model.log_likelihood(index, z) + log_p - log_m)
    return torch.cat(parts), strata


def _noise(model: Model, index: slice, samples: int, seed: int) -> Tensor:
    """Standard normal xi (K, B, D)."""
    places = range(model.points)[index]
    xi = torch.empty(len(places), samples, model.latent_dim)
    generator = torch.Generator()
    for row, point in zip(xi, places, strict=True):
        generator.manual_seed(stream_seed(seed, "importance", point))
        row.normal_(generator=generator)
    return xi.transpose(0, 1).to(model.device, model.dtype)


def log_likelihood(
    model: Model, samples: int = 5000, defensive: float = 0.1, points: int | None = None, seed: int = 0
) -> LogLikelihood:
    """log p(x) of the first `points` points (all by default) with its errors."""
    count = model.points if points is None else min(points, model.points)
    together = max(1, CHUNK // (model.widest * samples))
    parts = []
    with fast_products():
        for start in range(0, count, together):
            weights, strata = log_weights(model, slice(start, min(start + together, count)), samples, defensive, seed)
            parts.append(from_log_weights(weights, strata))
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in PER_POINT}
    return LogLikelihood(samples=samples, **joined)
