"""Estimates that reproductions tabulate, for a fitted VAE at test points: log p(x) with its errors, and the ELBO.

log p(x) is `metrics.log_likelihood` (defensive importance sampling) with the head's own density, on the scale on which
papers that use the same head report it; once more with a tenth of the samples, to see whether the number of samples
matters. The ELBO and the bounds of `vr_alpha` use samples from the encoder only.
"""

from __future__ import annotations

from typing import Any

import torch

from autovae.data.datasets import Data, Split
from autovae.metrics.curves import encoder_weights
from autovae.metrics.log_likelihood import VAEModel, log_likelihood
from autovae.model.vae import VAE
from autovae.seeds import stream_seed

__all__ = ["evaluate", "random_points"]

ELBO_SAMPLES = 50


def random_points(split: Split, count: int) -> Split:
    """Points drawn at random, always the same: the first thousand of MNIST's test set are easier than the rest."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(stream_seed("test points")))
    return split.take(order[:count])


def evaluate(vae: VAE, data: Data, split: Split, samples: int, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Per point, in nats: `log_likelihood`, `tenth` (with a tenth of the samples), `elbo`; and `untrusted`, the share
    of points whose importance weights are too heavy-tailed for a reliable error."""
    model = VAEModel(vae, data, split, density="density", device=device)
    found = log_likelihood(model, samples)
    return {
        "log_likelihood": found.per_point.tolist(),
        "tenth": log_likelihood(model, max(1, samples // 10)).per_point.tolist(),
        "elbo": encoder_weights(vae, data, split, min(samples, ELBO_SAMPLES), device, density="density")
        .mean(0)
        .tolist(),
        "untrusted": found.untrusted,
        "monte_carlo_error": found.monte_carlo_error,
    }
