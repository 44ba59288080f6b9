r"""Bits per dimension at L levels: a score that is comparable between VAEs of different beliefs.

Densities of different likelihoods, and bounds of different alpha or K, are not comparable. So every likelihood gives the
probability mass of the level's bin, P(v|z) = prod_i mass_i, and the masses go into the importance-weighted bound
(alpha = 0) with fixed K and noise that all members share:

    log P(v) >= L_K(v) = log (1/K) sum_k P(v|z_k) p(z_k) / q(z_k|x)        z_k ~ q(z|x)
    bits per dimension = - mean_v L_K(v) / (X ln 2)                          X observed features a point

L_K is a lower bound for decoder and encoder together, so the score is an upper bound of the true bits. Its error over
points is the standard error of the mean; the change from K to 10 K shows its bias.
Reference: Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016.
Not here: tight estimates of log p(x) (`log_likelihood`), the score of all means under one head (`common_head`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autovae.beliefs.likelihoods import LIKELIHOODS
from autovae.data.datasets import Data, Split
from autovae.data.minibatches import Minibatches
from autovae.model.bounds import iwae
from autovae.model.vae import VAE, VAEStack
from autovae.seeds import stream_seed
from autovae.training.precision import fast_products

__all__ = ["Score", "log_mass_bounds", "score"]

# Numbers per intermediate tensor. On a CPU larger ones leave the cache and only cost memory; a GPU needs more work at once.
CHUNK = {"cpu": 4_000_000, "cuda": 100_000_000}


@dataclass(frozen=True)
class Score:
    """An estimate with its error: bits per dimension, the standard error over points, and how it was computed."""

    bits: float
    standard_error: float
    nats: float
    samples: int
    points: int
    levels: int
    per_point: Tensor  # L_K in nats, (points,)

    def __str__(self) -> str:
        return f"{self.bits:.4f} +- {self.standard_error:.4f} bits/dim (K = {self.samples}, {self.points} points)"


@torch.no_grad()
def log_mass_bounds(
    members: Sequence[VAE],
    data: Data,
    split: Split,
    samples: int,
    points: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    common_scale: Tensor | None = None,
) -> Tensor:
    """L_K of the first `points` points, in nats, (members, points); members of one shape are computed as one stack.

    With `common_scale` (members,), masses come from a logistic of that scale at the mean of the member's head.
    """
    feed = Minibatches(data, split, device)
    count = min(points or feed.points, feed.points)
    result = torch.empty(len(members), count)
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, vae in enumerate(members):
        key = (*((name, tuple(p.shape)) for name, p in vae.named_parameters()), vae.spec.activation, vae.spec.network)
        groups.setdefault(key, []).append(place)
    with fast_products():
        for places in groups.values():
            dim = members[places[0]].spec.latent_dim
            widest = max(data.domain.features, *members[places[0]].spec.hidden, 1)
            size = max(1, CHUNK[feed.device.type] // (samples * widest))  # members x points at once
            at_once = max(1, min(len(places), size))
            step = max(1, size // at_once)
            for first in range(0, len(places), at_once):
                part = places[first : first + at_once]
                stack = VAEStack([members[place] for place in part], feed.device).eval()
                scales = None if common_scale is None else common_scale[part].to(feed.device, feed.dtype)
                for start in range(0, count, step):
                    stop = min(start + step, count)
                    noise = _noise(samples, stop - start, dim, seed, start, feed.device)
                    result[part, start:stop] = _bounds(stack, feed, slice(start, stop), noise, scales).cpu()
    return result


def _noise(samples: int, points: int, dim: int, seed: int, first: int, device: torch.device) -> Tensor:
    """xi (K, points, D) of points first, first + 1, ...: one stream per point, independent of the chunks."""
    xi = torch.empty(points, samples, dim)
    generator = torch.Generator()
    for offset in range(points):
        generator.manual_seed(stream_seed(seed, "score", first + offset))
        xi[offset].normal_(generator=generator)
    return xi.transpose(0, 1).to(device)


def _bounds(stack: VAEStack, feed: Minibatches, index: slice, noise: Tensor, scales: Tensor | None) -> Tensor:
    batch = feed.batch(index, edges=True)
    assert batch.lower is not None  # requested by edges=True
    assert batch.upper is not None
    loc, scale = stack.encode(batch.inputs)
    xi = noise.unsqueeze(0).expand(stack.size, *noise.shape)
    z, eps = stack.latents(loc, scale, xi)
    outputs = stack.decode(z, noise.shape[0])
    if scales is None:
        weights = stack.log_mass(outputs, batch.lower, batch.upper, batch.mask)
    else:
        masses = LIKELIHOODS["logistic"].log_mass(
            batch.lower, batch.upper, stack.mean(outputs, fold=False), scales.view(-1, 1, 1, 1)
        )
        weights = (masses if batch.mask is None else masses * batch.mask).sum(-1)
    weights = weights + stack.log_latent_ratio(z, eps, loc, scale, noise.shape[0])
    return iwae(weights.transpose(0, 1))


def score(per_point: Tensor, data: Data, split: Split, samples: int) -> Score:
    """The score of one member from its bounds at the first points of a split."""
    count = len(per_point)
    observed = (
        data.domain.features if split.mask is None else float(split.mask[:count].flatten(1).sum(1).float().mean())
    )
    unit = observed * math.log(2)
    bits = -per_point.double() / unit
    error = float(bits.std(unbiased=True) / math.sqrt(count)) if count > 1 else math.nan
    return Score(
        float(bits.mean()), error, float(per_point.double().mean()), samples, count, data.domain.levels, per_point
    )
