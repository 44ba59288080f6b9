r"""The latents of a saved VAE: the information each carries, which are active, where the encoder places them.

    KL_i      = mean_x KL(q(z_i|x) || p(z_i))                             nats that latent i carries
    active_i  = Var_x[xi_i(x)] > 0.01,   xi = Phi^-1(F_i(centre of q))     the unit responds to the data

Activity is measured in the standard normal source of the prior, so it means the same for all families; for a normal prior
it is the definition of Burda, Grosse and Salakhutdinov (2016). Also: traversals of a latent and interpolations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autovae.beliefs.divergences import kl
from autovae.export.card import load_prior, load_vae
from autovae.export.prior import PriorModule
from autovae.model.vae import VAE

__all__ = ["Latents", "Model", "interpolate", "load_model", "look", "traverse"]

Array = NDArray[np.float64]
THRESHOLD = 0.01


@dataclass(frozen=True)
class Model:
    """A saved winner or baseline: the whole VAE and its prior module."""

    vae: VAE
    prior: PriorModule

    @property
    def card(self) -> dict[str, object]:
        return self.prior.card


@dataclass(frozen=True)
class Latents:
    """The encodings of examples; arrays are (latents,) or (examples, latents)."""

    pairs: tuple[tuple[str, str], ...]
    information: Array  # nats, (D,)
    variance: Array  # of the centre, in the source, (D,)
    loc: Array  # (n, D)
    scale: Array  # (n, D)
    reconstructions: Array  # (n, *shape), data units

    @property
    def active(self) -> NDArray[np.bool_]:
        return np.asarray(self.variance > THRESHOLD)

    @property
    def order(self) -> NDArray[np.intp]:
        """Latents by information, the most informative first."""
        return np.argsort(-np.nan_to_num(self.information, nan=-1.0, posinf=np.inf), kind="stable")


def load_model(folder: str | Path) -> Model:
    """The model of a folder. Raises `CardError` if it is incomplete."""
    return Model(load_vae(folder)[0], load_prior(folder))


@torch.no_grad()
def look(model: Model, inputs: NDArray[np.float32]) -> Latents:
    """Encode the examples (n, *shape) and decode their centres."""
    stack, prior = model.vae.stacked.eval(), model.prior
    loc, scale = stack.encode(torch.from_numpy(inputs).flatten(1))
    centre = stack.centre(loc, scale)[0]
    loc, scale = loc[0], scale[0]
    pairs = model.vae.spec.pairs
    nats = torch.stack([kl(q, p, loc[:, i].double(), scale[:, i].double()).mean() for i, (q, p) in enumerate(pairs)])
    source = prior.to_normal(centre.clamp(-1e6, 1e6))
    return Latents(
        tuple(pairs),
        nats.numpy(),
        source.double().var(0).numpy() if len(source) > 1 else np.full(len(pairs), math.nan),
        loc.double().numpy(),
        scale.double().numpy(),
        prior.decode(centre).double().numpy(),
    )


@torch.no_grad()
def interpolate(prior: PriorModule, rows: int = 5, steps: int = 8, seed: int = 1) -> Array:
    """E[x|z] between pairs of prior draws, along great circles of the source: (rows, steps, *shape)."""
    ends = prior.sample_normal(2 * rows, generator=torch.Generator().manual_seed(seed))
    start, stop = ends[:rows, None], ends[rows:, None]
    angle = torch.acos(torch.nn.functional.cosine_similarity(start, stop, dim=-1).clamp(-0.9999, 0.9999))[..., None]
    share = torch.linspace(0, 1, steps, dtype=ends.dtype)[None, :, None]
    between = (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * stop) / torch.sin(angle)
    return _decoded(prior, between)


@torch.no_grad()
def traverse(prior: PriorModule, latents: NDArray[np.intp], steps: int = 8, reach: float = 2.3) -> Array:
    """E[x|z] while one latent moves from the 1st to the 99th percentile of its prior, the others at their median."""
    places = torch.linspace(-reach, reach, steps, dtype=prior.dtype)
    xi = torch.zeros(len(latents), steps, prior.latent_dim, dtype=prior.dtype)
    for row, latent in enumerate(latents):
        xi[row, :, int(latent)] = places
    return _decoded(prior, xi)


def by_effect(prior: PriorModule) -> NDArray[np.intp]:
    """Latents by how much their traversal changes x, the largest first: an order that needs no data."""
    x = traverse(prior, np.arange(prior.latent_dim))
    return np.argsort(-x.var(1).reshape(prior.latent_dim, -1).sum(1), kind="stable")


def _decoded(prior: PriorModule, xi: Tensor) -> Array:
    return prior.decode(prior.from_normal(xi)).double().numpy()
