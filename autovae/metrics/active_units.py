r"""Active units: latents whose posterior depends on the data point.

    a_i = Var_x[centre of q(z_i|x)]         active where a_i > 0.01

for the posterior's location (its mean, if it has one) over the points of a split. An inactive unit carries no
information: its posterior is the same for every point, usually the prior.
Reference: Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016, section 5.2 (there for the mean of a
normal). Not here: the information of a unit in nats, see the latents' part of the report.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autovae.data.datasets import Data, Split
from autovae.data.minibatches import Minibatches
from autovae.model.vae import VAE

__all__ = ["ACTIVE", "active_units", "posterior_spread"]

ACTIVE = 0.01
CHUNK = 4_000_000  # numbers of one intermediate tensor


@torch.no_grad()
def posterior_spread(
    vae: VAE, data: Data, split: Split, points: int | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """a_i of every latent, (D,), float64, over the first points of a split."""
    feed = Minibatches(data, split, device, next(vae.parameters()).dtype)
    count = min(points or feed.points, feed.points)
    if count < 2:
        raise ValueError(f"got {count} points, expected at least 2 to measure a spread")
    stack = vae.stacked.to_device(feed.device).eval()
    step = max(1, CHUNK // max(data.domain.features, *vae.spec.hidden))
    centres = []
    for start in range(0, count, step):
        loc, scale = stack.encode(feed.batch(slice(start, min(start + step, count))).inputs)
        centres.append(stack.centre(loc, scale)[0])
    return torch.cat(centres).double().var(0).cpu()


def active_units(
    vae: VAE, data: Data, split: Split, points: int | None = None, device: torch.device | str = "cpu"
) -> int:
    """The number of latents that depend on the data point."""
    return int((posterior_spread(vae, data, split, points, device) > ACTIVE).sum())
