r"""Ex-post densities: a better prior for a trained VAE, fitted to its encoded data.

    z ~ q(z|x) for every training point x  ->  xi = prior.to_normal(z)  ->  fit a density T to the xi by maximum likelihood
    new prior:   xi' ~ N(0, I) --T--> xi --prior--> z --decoder--> x

Encoded data rarely fill their prior; a density fitted to them closes the gap without changing a weight. It is fitted in the
space of the source, where every prior is standard normal, and becomes one more `Transport` in front of it.

| name    | density                                                                              |
|---------|--------------------------------------------------------------------------------------|
| mixture | diagonal normals by expectation maximisation (scikit-learn)                          |
| flow    | masked autoregressive flow, stopped at the best held-out likelihood (zuko)           |

Reference: Ghosh, Sajjadi, Vergari, Black and Schölkopf, From variational to deterministic autoencoders, 2020.
Not here: priors learned together with the decoder, see `beliefs.learned_priors`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from autovae.beliefs.flows import Flow
from autovae.beliefs.learned_priors import log_normal
from autovae.data.minibatches import Minibatches
from autovae.export.card import to_prior
from autovae.export.prior import PriorModule
from autovae.export.transports import FlowMap, MixtureMap, Transport
from autovae.registry import lookup
from autovae.seeds import stream_seed
from autovae.training.trained import Trained

__all__ = ["DENSITIES", "encoded", "ex_post", "fit_flow", "fit_mixture", "fit_sources", "latent_scores"]

BATCH = 256
HELD_OUT = 0.1


@torch.no_grad()
def encoded(trained: Trained, seed: int = 0, part: str = "train") -> Tensor:
    """One draw z ~ q(z|x) for every point of a split, (N, latent_dim)."""
    feed = Minibatches(trained.data, getattr(trained.data, part))
    stack = trained.model.stacked.eval()
    generator = torch.Generator().manual_seed(stream_seed(seed, "ex post", part))
    parts = []
    for start in range(0, feed.points, 1000):
        inputs = feed.batch(slice(start, min(start + 1000, feed.points))).inputs
        loc, scale = stack.encode(inputs)
        xi = torch.randn(1, 1, *loc.shape[1:], generator=generator, dtype=loc.dtype)
        parts.append(stack.latents(loc, scale, xi)[0][0])
    return torch.cat(parts)


def fit_mixture(points: Tensor, components: int = 10, seed: int = 0) -> MixtureMap:
    """Diagonal normal components fitted to points (N, D) by expectation maximisation."""
    from sklearn.mixture import GaussianMixture

    if not 1 <= components <= len(points):
        raise ValueError(f"got components = {components} for {len(points)} points; expected 1 to {len(points)}")
    state = stream_seed(seed, "mixture") % 2**32
    model = GaussianMixture(components, covariance_type="diag", reg_covar=1e-4, max_iter=500, random_state=state)
    model.fit(points.double().cpu().numpy())
    loc, variance, weights = (torch.as_tensor(v).to(points) for v in (model.means_, model.covariances_, model.weights_))
    return MixtureMap(loc, variance.sqrt(), weights.log(), ["normal"] * points.shape[1])


def fit_flow(points: Tensor, seed: int = 0, steps: int = 1000, learning_rate: float = 2e-3) -> FlowMap:
    """A flow fitted to points (N, D) by maximum likelihood; the step with the best held-out likelihood is kept."""
    if len(points) < 10:
        raise ValueError(f"got {len(points)} points, expected at least 10 to fit a flow and hold some out")
    generator = Generator().manual_seed(stream_seed(seed, "flow"))
    out = max(1, int(HELD_OUT * len(points)))
    held, kept = points[torch.randperm(len(points), generator=generator)].split([out, len(points) - out])
    flow = Flow(points.shape[1], generator=generator).to(points)
    best, best_loss = copy.deepcopy(flow), math.inf
    adam = torch.optim.Adam(flow.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for step in range(steps + 1):
        if step % 100 == 0:
            with torch.no_grad():
                loss = float(_negative_log_likelihood(flow, held))
            if loss < best_loss:
                best, best_loss = copy.deepcopy(flow), loss
        batch = kept[torch.randint(len(kept), (BATCH,), generator=generator)]
        adam.zero_grad()
        _negative_log_likelihood(flow, batch).backward()
        adam.step()
        schedule.step()
    return FlowMap(best)


def _negative_log_likelihood(flow: Flow, points: Tensor) -> Tensor:
    xi, log_det = flow(points.unsqueeze(0))
    return -(log_normal(xi) + log_det).mean()


DENSITIES: dict[str, Callable[..., Transport]] = {"mixture": fit_mixture, "flow": fit_flow}


def ex_post(trained: Trained, density: str = "mixture", seed: int = 0, **settings: Any) -> PriorModule:
    """The prior module of a fit behind a density of its encoded training points; the fit stays as it is.

    `settings` are those of the density's fit: components for "mixture", steps and learning_rate for "flow".
    """
    fit = lookup(DENSITIES, density, "density")
    prior = to_prior(trained)
    with torch.no_grad():
        points = prior.to_normal(encoded(trained, seed))
    return prior.transported(
        fit(points, seed=seed, **settings), ex_post={"density": density, "seed": seed}, source=density
    )


def fit_sources(
    trained: Trained, densities: Sequence[str] = ("mixture", "flow"), seed: int = 0
) -> tuple[dict[str, Transport], dict[str, dict[str, float]]]:
    """Densities by name, and the scores of each of them and of the prior: what `export.card.add_sources` takes."""
    prior = to_prior(trained)
    with torch.no_grad():
        points = prior.to_normal(encoded(trained, seed))
        held_out = encoded(trained, seed, "test")
    sources = {name: lookup(DENSITIES, name, "density")(points, seed=seed) for name in densities}
    moved = {"prior": prior, **{name: prior.transported(transport) for name, transport in sources.items()}}
    return sources, {name: latent_scores(module, held_out) for name, module in moved.items()}


@torch.no_grad()
def latent_scores(prior: PriorModule, z: Tensor) -> dict[str, float]:
    """Mean log density in nats of encoded points (N, latent_dim) that the density was not fitted to, with its error."""
    values = torch.cat([prior.log_prob(part) for part in z.split(1000)]).double()
    error = float(values.std() / math.sqrt(len(values)))
    return {"log density of encoded test points": float(values.mean()), "its standard error": error}
