r"""The flow posterior: a normal posterior transformed by a flow that is conditioned on the data point.

    z0 = loc + scale eps,  eps ~ N(0, I)          z = T(z0; c(x))          c(x) = (loc, log scale)
    log q(z|x) = log N(z0; loc, scale) - log |det dT/dz0|

A location-scale posterior has independent latents; T makes them dependent, differently at each x. Its context is the
encoder's output, so any encoder with 2 D outputs works. T is a coupling flow (alternating halves, `passes` = 2) and not
fully autoregressive: the stopped gradients and the defensive proposal need log q at points that were not drawn from it,
which takes a coupling flow two passes instead of D.

Without the context the posterior would be no richer: an unconditional T is the same model as the plain posterior under
the pulled-back prior p(T(z0)) |det dT/dz0|, a flow prior (Chen and others, 2017); see `learned_priors`.

T grows linearly and the base is normal, so every divergence that is finite for a normal posterior stays finite.
References: Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, Improved variational inference with inverse
autoregressive flow, 2016; Dinh, Sohl-Dickstein and Bengio, Density estimation using real NVP, 2017.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from autovae.beliefs.flows import Flow

__all__ = ["FlowPosterior"]


class FlowPosterior(nn.Module):
    """T of P members; all tensors (P, N, D), log determinants (P, N)."""

    def __init__(self, latent_dim: int, generator: Generator | None = None) -> None:
        super().__init__()
        self.flow = Flow(latent_dim, context=2 * latent_dim, passes=2, generator=generator)

    def forward(self, z0: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """z and log |det dz/dz0|."""
        return self.flow(z0, torch.cat([loc, scale.log()], -1))

    def inverse(self, z: Tensor, loc: Tensor, scale: Tensor, stopped: bool = False) -> tuple[Tensor, Tensor]:
        """z0 and log |det dz0/dz|; `stopped` treats the flow's parameters as constants."""
        return self.flow.inverse(z, torch.cat([loc, scale.log()], -1), stopped)
