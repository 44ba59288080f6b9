r"""Pairing: the (posterior, prior) family of every latent of every member, grouped so that each pair is computed once.

Notation: P members, D latents, N points (data points times samples). Networks output 2 D raw numbers per point;
`parametrise` turns them into loc and scale > 0. A conditional pair uses the map of its `Region`, so training cannot leave
the region where KL(q || p) is finite.

Members may have different pairs: all (member, latent) columns of one pair are gathered into one tensor, so the cost is
one evaluation per distinct pair.

Not here: divergences (`regularisers`), regions (`regions`), the networks (`model.vae`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from autovae.beliefs.families import FAMILIES
from autovae.beliefs.regions import region_of
from autovae.beliefs.regularisers import REGULARISERS
from autovae.finiteness import TAILS
from autovae.spec import Pair

__all__ = ["Pairing"]


class _Columns:
    """Columns of a (P, N, D) tensor grouped by key; applies a function once per key, to the columns of that key."""

    def __init__(self, keys: Sequence[object]) -> None:
        self.keys = list(dict.fromkeys(keys))
        order = sorted(range(len(keys)), key=lambda column: self.keys.index(keys[column]))
        self.sizes = [sum(key == other for other in keys) for key in self.keys]
        inverse = sorted(range(len(keys)), key=order.__getitem__)
        self.order, self.inverse = torch.tensor(order), torch.tensor(inverse)

    def to(self, device: torch.device) -> None:
        self.order, self.inverse = self.order.to(device), self.inverse.to(device)

    def apply(self, function: Callable[..., Tensor | tuple[Tensor, ...]], *tensors: Tensor) -> list[Tensor]:
        """function(key, *columns) for each key; every tensor is (P, N, D), and so is every result."""
        if len(self.keys) == 1:
            result = function(self.keys[0], *tensors)
            return list(result) if isinstance(result, tuple) else [result]
        members, points, latents = tensors[0].shape
        flat = [t.transpose(0, 1).reshape(points, members * latents).index_select(1, self.order) for t in tensors]
        parts: list[tuple[Tensor, ...]] = []
        for key, *columns in zip(self.keys, *(t.split(self.sizes, dim=1) for t in flat), strict=True):
            result = function(key, *columns)
            parts.append(result if isinstance(result, tuple) else (result,))
        return [
            torch.cat(pieces, dim=1).index_select(1, self.inverse).view(points, members, latents).transpose(0, 1)
            for pieces in zip(*parts, strict=True)
        ]


class Pairing:
    """The pairs of P members with D latents each. Tensors are (P, N, D)."""

    def __init__(self, pairs: Sequence[Sequence[Pair]]) -> None:
        if len({len(member) for member in pairs}) != 1:
            raise ValueError("members of one pairing must have the same number of latents")
        self.pairs = tuple(tuple(member) for member in pairs)
        flat = [pair for member in self.pairs for pair in member]
        self._by_pair = _Columns(flat)
        self._by_posterior = _Columns([q for q, _ in flat])
        self._by_prior = _Columns([p for _, p in flat])
        self._by_region = _Columns([region_of(q, p) for q, p in flat])

    @property
    def smooth(self) -> bool:
        """Whether no posterior's support moves with its parameters."""
        return all(TAILS[q].whole_line for member in self.pairs for q, _ in member)

    def all_source(self, side: int) -> bool:
        """Whether all posteriors (side 0) or all priors (side 1) are normal, so that the map to xi is the identity."""
        return all(FAMILIES[pair[side]].is_source for member in self.pairs for pair in member)

    def to(self, device: torch.device | str) -> Pairing:
        for columns in (self._by_pair, self._by_posterior, self._by_prior, self._by_region):
            columns.to(torch.device(device))
        return self

    def parametrise(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """loc and scale, each (P, N, D), from raw network outputs (P, N, 2 D)."""
        m, s = raw.chunk(2, dim=-1)
        loc, scale = self._by_region.apply(lambda region, m, s: region.parametrise(m, s), m, s)
        return loc, scale

    def noise(self, xi: Tensor) -> Tensor:
        """Standard noise of each posterior family from standard normal xi (P, N, D)."""
        (eps,) = self._by_posterior.apply(lambda q, xi: FAMILIES[q].from_normal(xi), xi)
        return eps

    def divergence(self, loc: Tensor, scale: Tensor, regulariser: str = "kl", order: float = 0.5) -> Tensor:
        """D(q || p) of each point, summed over latents: (P, N). `order` applies to "renyi"."""
        of = REGULARISERS[regulariser]
        (value,) = self._by_pair.apply(lambda pair, loc, scale: of(order, pair[0], pair[1], loc, scale), loc, scale)
        return value.sum(-1)

    def log_posterior(self, eps: Tensor, scale: Tensor) -> Tensor:
        """log q(z|x) at z = loc + scale eps, summed over latents: (P, N)."""
        (value,) = self._by_posterior.apply(lambda q, eps: FAMILIES[q].log_prob(eps), eps)
        return (value - scale.log()).sum(-1)

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), summed over latents: (P, N)."""
        (value,) = self._by_prior.apply(lambda p, z: FAMILIES[p].log_prob(z), z)
        return value.sum(-1)

    def sample_prior(self, xi: Tensor) -> Tensor:
        """Prior samples z (P, N, D) from standard normal xi."""
        (z,) = self._by_prior.apply(lambda p, xi: FAMILIES[p].from_normal(xi), xi)
        return z

    def to_normal(self, z: Tensor) -> Tensor:
        """The standard normal source of prior samples z (P, N, D): the inverse of `sample_prior`."""
        (xi,) = self._by_prior.apply(lambda p, z: FAMILIES[p].to_normal(z), z)
        return xi
