"""A VAE whose log p(x) is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from autovae.data.datasets import load
from autovae.model.vae import build
from autovae.spec import VAESpec

DIM, FEATURES, SIGMA = 3, 8, 0.6


def linear_vae(shift: float = 0.0, stretch: float = 1.0, dtype: torch.dtype = torch.float64, **belief: str) -> tuple:
    """A linear VAE of scale SIGMA with orthogonal columns, its real-valued data, and the exact log p(x) of the test
    points; its encoder is the exact posterior, shifted and stretched (in posterior deviations)."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(FEATURES, DIM)))
    w = torch.tensor(basis * np.array([1.5, 1.0, 0.5]))
    x = rng.normal(size=(400, DIM)) @ w.numpy().T + SIGMA * rng.normal(size=(400, FEATURES))
    data = load(x.astype(np.float32))
    spec = VAESpec(likelihood="normal", scale=0.5, latent_dim=DIM, hidden=(4,), **belief)
    precision = 1 + w.square().sum(0) / SIGMA**2
    vae = build(spec, data.domain, nn.Linear(FEATURES, 2 * DIM), nn.Linear(DIM, FEATURES)).to(dtype)
    encoder, decoder = vae.encoder.module, vae.decoder.module
    with torch.no_grad():
        encoder.weight.zero_()
        encoder.weight[:DIM] = (w / SIGMA**2 / precision).T
        encoder.bias[:DIM] = shift * precision.rsqrt()
        encoder.bias[DIM:] = math.log(stretch) - 0.5 * precision.log()
        decoder.weight.copy_(w)
        decoder.bias.zero_()
        vae.raw_scale.fill_(math.log(SIGMA - data.domain.scale_floor) / 10)
    covariance = w @ w.T + SIGMA**2 * torch.eye(FEATURES, dtype=torch.float64)
    law = torch.distributions.MultivariateNormal(torch.zeros(FEATURES, dtype=torch.float64), covariance)
    return vae, data, law.log_prob(data.test.x.double())


@pytest.fixture(name="linear_vae")
def _linear_vae() -> Callable[..., tuple]:
    return linear_vae
