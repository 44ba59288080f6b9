r"""How the bound of a trained model changes with K and alpha.

    L_alpha(K) = E log-power-mean of K weights,   w = p(x, z) / q(z|x),   z ~ q(z|x)

from one set of samples per point: N samples are cut into N / K blocks, and the bounds of the blocks are averaged. All K and
alpha share their samples, so differences between curves are precise. K = 1 is the ELBO at every alpha; at alpha = 1 K
changes nothing in expectation; for alpha < 0 it is not a lower bound. Errors are standard errors over points of the
difference to log p(x), estimated from all samples (alpha = 0), since points differ far more than bounds do.

References: Burda, Grosse and Salakhutdinov, 2016 (K); Li and Turner, Renyi divergence variational inference, 2016 (alpha).
Not here: estimates of log p(x) with errors (`log_likelihood`), the bounds as functions (`model.bounds`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autovae.data.datasets import Data, Split
from autovae.metrics.log_likelihood import VAEModel, log_weights
from autovae.model.bounds import iwae, vr
from autovae.model.vae import VAE
from autovae.training.precision import fast_products

__all__ = ["ALPHAS", "COUNTS", "BoundAt", "bound_curves", "bound_in_blocks", "encoder_weights"]

ALPHAS = (-1.0, 0.0, 0.5, 1.0, 2.0)
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
CHUNK = 10_000_000  # numbers of one intermediate tensor


@dataclass(frozen=True)
class BoundAt:
    """The bound of order alpha with K samples, in nats per point, and its distance from log p(x)."""

    alpha: float
    samples: int
    bound: float
    gap: float  # bound - log p(x)
    gap_error: float  # over points

    def to_dict(self) -> dict[str, float]:
        return {
            "alpha": self.alpha,
            "K": self.samples,
            "bound": self.bound,
            "gap": self.gap,
            "gap_error": self.gap_error,
        }


def encoder_weights(
    vae: VAE,
    data: Data,
    split: Split,
    samples: int,
    device: torch.device | str = "cpu",
    density: str = "mass",
    points: int | None = None,
) -> Tensor:
    """log p(x, z_k) - log q(z_k|x) for z_k ~ q(z|x), (K, points), float64 on the CPU."""
    model = VAEModel(vae, data, split, density=density, device=device)
    count = min(points or model.points, model.points)
    together = max(1, CHUNK // (model.widest * samples))
    parts = []
    with fast_products():
        for start in range(0, count, together):
            weights, _ = log_weights(model, slice(start, min(start + together, count)), samples, defensive=0)
            parts.append(weights.double().cpu())
    return torch.cat(parts, 1)


def bound_in_blocks(log_weights: Tensor, alpha: float, samples: int) -> Tensor:
    """L_alpha(K) at each point, (points,), from log weights (N, points): the mean over N // K blocks."""
    blocks = log_weights.shape[0] // samples
    if samples < 1 or blocks < 1:
        raise ValueError(f"got K = {samples} of {log_weights.shape[0]} samples, expected 1 <= K <= the samples")
    return vr(log_weights[: blocks * samples].unflatten(0, (blocks, samples)).transpose(0, 1), alpha).mean(0)


def bound_curves(
    log_weights: Tensor, alphas: Sequence[float] = ALPHAS, counts: Sequence[int] = COUNTS
) -> list[BoundAt]:
    """The bound at every alpha and every K <= N of `counts`, from log weights (N, points) of `encoder_weights`."""
    marginal = iwae(log_weights)
    found = []
    for samples in (count for count in counts if count <= log_weights.shape[0]):
        for alpha in alphas:
            value = bound_in_blocks(log_weights, alpha, samples)
            gap = value - marginal
            error = float(gap.std() / math.sqrt(len(gap))) if len(gap) > 1 else math.nan
            found.append(BoundAt(alpha, samples, float(value.mean()), float(gap.mean()), error))
    return found
