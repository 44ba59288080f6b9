"""The beta head on the open unit interval: mean sigmoid(eta), concentration from the scale.

Not here: its density and bin masses in float32, see `beta_density`.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from autovae.beliefs.likelihoods.beta_density import log_beta_density, log_beta_mass
from autovae.beliefs.likelihoods.head import Likelihood, given

__all__ = ["Beta"]

TINY = 1e-30  # a normal number of float32 with a finite reciprocal: stands for 0 in a quotient


class Beta(Likelihood):
    """A beta law of mean sigmoid(eta) and concentration nu = 1 / (4 scale^2): scale is about its sd at mean 1/2."""

    name = "beta"
    formula = "log Beta(x; ν m, ν (1 − m)), m = sigmoid η, ν = 1 / 4s²"

    def _concentration(self, scale: Tensor | None, params: Tensor) -> Tensor:
        return 0.25 / given(scale, params, self.name).square()

    def log_prob(self, x: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return log_beta_density(x.to(params.dtype), params, self._concentration(scale, params))

    def log_mass(self, lower: Tensor, upper: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return log_beta_mass(lower, upper, params, self._concentration(scale, params))

    def mean(self, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return params.sigmoid()

    def sample(self, params: Tensor, scale: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        nu = self._concentration(scale, params)
        a, b = (nu * params.sigmoid()).expand_as(params), (nu * (-params).sigmoid()).expand_as(params)
        log_x, log_y = _log_gamma_draw(a, generator), _log_gamma_draw(b, generator)
        return (log_x - log_y).sigmoid()


def _log_gamma_draw(shape: Tensor, generator: Generator | None) -> Tensor:
    """log of a Gamma(shape, 1) draw: of shape + 1, times u^(1 / shape), which underflows where its log does not."""
    u = torch.rand(shape.shape, generator=generator, dtype=shape.dtype, device=shape.device)
    return torch._standard_gamma(shape + 1, generator=generator).log() + u.clamp_min(TINY).log() / shape.clamp_min(TINY)
