r"""Tight estimates of log p(x) by importance sampling, for a trained VAE or any latent model.

    log p(x) ~ log (1/K) sum_k p(x|z_k) p(z_k) / m(z_k),     z_k ~ m = (1 - delta) q(z|x) + delta p(z), stratified

The defensive part p(z) matters: the encoder's q may be too narrow, and uniform or exponential posteriors cover only part
of the prior's support, so that q by itself never reaches log p(x), whatever K. With p(z) no weight exceeds p(x|z) / delta.

p(x|z) is the mass of the level's bin (`density="mass"`: comparable between likelihoods; for binary data the exact
Bernoulli probability) or the head's density on its training targets (`density="density"`: comparable with papers that use
the same head and scale of x). References: Burda et al. 2016 (K = 5000); Hesterberg, Weighted average importance
sampling and defensive mixture distributions, 1995.
Not here: statistics of the weights (`psis`), scores of a search (`bits`), annealed estimates (`ais`).
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from autovae.data.datasets import Data, Split
from autovae.data.minibatches import Minibatches
from autovae.metrics.psis import PER_POINT, LogLikelihood, from_log_weights
from autovae.model.chains import Chain
from autovae.model.vae import VAE
from autovae.seeds import stream_seed
from autovae.training.precision import fast_products

__all__ = ["Model", "VAEModel", "log_likelihood", "log_weights"]

# Numbers per intermediate tensor: a few of them fit the cache, and their memory is reused.
CHUNK = 1_000_000
COMMON = 20  # prior samples evaluated at once on a chunk of points
BLOCK = 100  # points per block of weights in memory


class Model(Protocol):
    """A latent model with a proposal for each point.

    z is (K, B, D): K samples for each of the B points of `index`; or (K, 1, D): samples common to all points."""

    latent_dim: int
    points: int
    widest: int  # numbers a sample has in the largest intermediate tensor
    device: torch.device
    dtype: torch.dtype

    def from_prior(self, xi: Tensor, uniform: Tensor) -> Tensor:
        """z ~ p(z), (K, B, D), from standard normal xi (K, B, D) and uniforms (K, B), which mixtures need."""

    def from_proposal(self, index: slice, xi: Tensor) -> tuple[Tensor, Tensor]:
        """z ~ q(z|x) from standard normal xi (K, B, D), and log q(z|x), (K, B)."""

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), (K, B)."""

    def log_proposal(self, index: slice, z: Tensor) -> Tensor:
        """log q(z|x) of any z, (K, B)."""

    def decode(self, z: Tensor) -> Tensor:
        """The parameters of p(x|z), for `log_likelihood`."""

    def log_likelihood(self, index: slice, outputs: Tensor) -> Tensor:
        """log p(x|z) of decoded z, (K, B)."""


class VAEModel:
    """A trained VAE with its encoder as the proposal, on the points of a split (by default the test split)."""

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
        self.dtype = next(vae.parameters()).dtype
        self.stack = vae.stacked.to_device(torch.device(device)).eval()
        feed = Minibatches(data, data.test if split is None else split, device, self.dtype)
        self.points, self.latent_dim, self.device = feed.points, vae.spec.latent_dim, feed.device
        self.widest = max(data.domain.features, *vae.spec.hidden, vae.spec.latent_dim)
        self._chain = Chain.of(vae.decoder) if self.device.type == "cpu" else None
        generator = feed.dequantiser()
        generator.manual_seed(stream_seed(seed, "dequantise", "score"))
        binary = vae.spec.likelihood == "bernoulli" and data.levels == 2  # its probability is its mass, and cheaper
        masses = density == "mass" and not binary
        kinds = () if masses else self.stack.density_kinds
        self._batch = feed.batch(slice(None), kinds, edges=masses, generator=generator)
        with torch.no_grad():
            parts = [self.stack.encode(inputs) for inputs in self._batch.inputs.split(max(1, 4 * CHUNK // self.widest))]
        self._loc = torch.cat([loc for loc, _ in parts], 1)  # (1, N, D)
        self._scale = torch.cat([scale for _, scale in parts], 1)

    def from_prior(self, xi: Tensor, uniform: Tensor) -> Tensor:
        return self.stack.sample_prior(xi.flatten(0, 1)[None], uniform.flatten()[None]).view_as(xi)

    def from_proposal(self, index: slice, xi: Tensor) -> tuple[Tensor, Tensor]:
        loc, scale, samples = self._loc[:, index], self._scale[:, index], xi.shape[0]
        z, eps = self.stack.latents(loc, scale, xi[None])
        eps = eps.view(z.shape)
        log_q = self.stack.log_posterior(eps, self.stack.repeat(loc, samples), self.stack.repeat(scale, samples))
        return z.view(xi.shape), log_q.view(xi.shape[:-1])

    def log_prior(self, z: Tensor) -> Tensor:
        return self.stack.log_prior(z.flatten(0, 1)[None]).view(z.shape[:-1])

    def log_proposal(self, index: slice, z: Tensor) -> Tensor:
        loc, scale, samples = self._loc[:, index], self._scale[:, index], z.shape[0]
        wide = z.expand(samples, loc.shape[1], self.latent_dim)
        loc, scale = self.stack.repeat(loc, samples), self.stack.repeat(scale, samples)
        return self.stack.log_posterior_at(wide.flatten(0, 1)[None], loc, scale).view(wide.shape[:-1])

    def decode(self, z: Tensor) -> Tensor:
        flat = z.flatten(0, 1)
        if self._chain is not None:
            return self._chain(flat).view(1, *z.shape[:-1], -1)
        return self.stack.decode(flat[None], z.shape[0])

    def log_likelihood(self, index: slice, outputs: Tensor) -> Tensor:
        batch = self._batch
        mask = None if batch.mask is None else batch.mask[index]
        if batch.lower is not None and batch.upper is not None:
            return self.stack.log_mass(outputs, batch.lower[index], batch.upper[index], mask)[0]
        targets = {kind: x[index] for kind, x in batch.targets.items()}
        return self.stack.log_likelihood(outputs, targets, mask)[0]


class _Defence:
    """Samples from the prior, common to all points and decoded once."""

    def __init__(self, model: Model, samples: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(stream_seed(seed, "importance", "prior"))
        xi = torch.randn(samples, 1, model.latent_dim, generator=generator)
        uniform = torch.rand(samples, 1, generator=generator)
        z = model.from_prior(xi.to(model.device, model.dtype), uniform.to(model.device, model.dtype))
        self.model, self._z, self._log_p = model, z, model.log_prior(z)
        self._parts = [model.decode(part) for part in z.split(COMMON)]

    def log_weights(self, index: slice, log_shares: list[float]) -> Tensor:
        """log p(x, z) - log m(z) of these samples for the points of `index`, (samples, B)."""
        places = range(self.model.points)[index]
        columns = []
        for start in range(places.start, places.stop, step := max(1, CHUNK // (self.model.widest * COMMON))):
            some = slice(start, min(start + step, places.stop))
            log_q = self.model.log_proposal(some, self._z)
            log_m = torch.logaddexp(log_q + log_shares[0], self._log_p + log_shares[1])
            log_x = torch.cat([self.model.log_likelihood(some, outputs) for outputs in self._parts])
            columns.append(log_x + self._log_p - log_m)
        return torch.cat(columns, 1)


def _strata(samples: int, defensive: float) -> list[int]:
    """The numbers of samples from q(z|x) and from p(z)."""
    if samples < 1:
        raise ValueError(f"got {samples} samples, expected k >= 1")
    if not 0 <= defensive < 1:
        raise ValueError(f"got defensive = {defensive}, expected a share of samples from the prior in [0, 1)")
    from_prior = min(math.ceil(defensive * samples), samples - 1)
    return [samples - from_prior, from_prior]


def _log_shares(strata: list[int]) -> list[float]:
    return [math.log(size / sum(strata)) if size else -math.inf for size in strata]


@torch.no_grad()
def _proposed_log_weights(model: Model, index: slice, strata: list[int], seed: int) -> Tensor:
    """log p(x, z) - log m(z) of samples of q(z|x), (strata[0], B); every point has its own stream of noise."""
    places, log_shares = range(model.points)[index], _log_shares(strata)
    xi = torch.empty(len(places), strata[0], model.latent_dim)
    generator = torch.Generator()
    for row, point in zip(xi, places, strict=True):
        generator.manual_seed(stream_seed(seed, "importance", point))
        row.normal_(generator=generator)
    noise = xi.transpose(0, 1).to(model.device, model.dtype)
    z, log_q = model.from_proposal(index, noise)
    log_p = model.log_prior(z)
    log_m = torch.logaddexp(log_q + log_shares[0], log_p + log_shares[1]) if strata[1] else log_q
    step = max(1, CHUNK // (model.widest * len(places)))
    log_x = torch.cat([model.log_likelihood(index, model.decode(part)) for part in z.split(step)])
    return log_x + log_p - log_m


@torch.no_grad()
def log_weights(
    model: Model, index: slice, samples: int, defensive: float = 0.1, seed: int = 0
) -> tuple[Tensor, list[int]]:
    """log w (K, B) of the points of `index` and the sizes of the strata: samples of q first, then of p."""
    strata = _strata(samples, defensive)
    parts = [_proposed_log_weights(model, index, strata, seed)]
    if strata[1]:
        parts.append(_Defence(model, strata[1], seed).log_weights(index, _log_shares(strata)))
    return torch.cat(parts), strata


@torch.no_grad()
def log_likelihood(
    model: Model, samples: int = 5000, defensive: float = 0.1, points: int | None = None, seed: int = 0
) -> LogLikelihood:
    """log p(x) of the first `points` points (all by default) with its errors."""
    strata = _strata(samples, defensive)
    count = model.points if points is None else min(points, model.points)
    together = max(1, CHUNK // (model.widest * samples))
    block = max(together, BLOCK // together * together)
    results, common, own = [], torch.zeros(strata[1], dtype=torch.float64), 0.0
    with fast_products():
        defence = _Defence(model, strata[1], seed) if strata[1] else None
        for first in range(0, count, block):
            last = min(first + block, count)
            starts = range(first, last, together)
            indices = [slice(start, min(start + together, last)) for start in starts]
            weights = torch.cat([_proposed_log_weights(model, index, strata, seed) for index in indices], 1)
            if defence is not None:
                weights = torch.cat([weights, defence.log_weights(slice(first, last), _log_shares(strata))])
            result = from_log_weights(weights, strata)
            results.append(result)
            if strata[1] > 1:  # the error of shared prior samples does not average out over points
                relative = (weights[strata[0] :].double() - result.per_point).exp().nan_to_num(0.0).cpu()
                common += relative.sum(1)
                own += float(relative.var(0).sum())
    shared = strata[1] * (float(common.var()) - own) / (samples * count) ** 2 if strata[1] > 1 else 0.0
    joined = {name: torch.cat([getattr(part, name) for part in results]) for name in PER_POINT}
    return LogLikelihood(samples=samples, shared_variance=shared, **joined)
