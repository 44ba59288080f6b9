r"""The training bound of every member of a population, for one minibatch.

At alpha = 1 the divergence is in closed form (or quadrature) and the bound is the K-sample ELBO with weight beta,

    (1/K) sum_k log p(x|z_k) - beta KL(q(z|x) || p(z)),

otherwise the variational Renyi bound of order alpha on log weights, with the gradient estimator that is right for the
members' families (`model.gradients`). Not here: the bounds as functions of weights, see `model.bounds`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from autovae.model.vae import VAEStack
from autovae.training.feed import Batch

__all__ = ["Terms", "bound"]


@dataclass(frozen=True)
class Terms:
    """All (P, B): `surrogate` has the gradient to follow, `value` the bound; the rest are detached, for the history."""

    surrogate: Tensor
    value: Tensor
    log_likelihood: Tensor
    divergence: Tensor


def bound(stack: VAEStack, batch: Batch, xi: Tensor, alpha: Tensor, beta: Tensor) -> Terms:
    """The bound of each member at each point, from standard normal noise xi (P, K, B, D)."""
    loc, scale = stack.encode(batch.inputs)
    z, _ = stack.latents(loc, scale, xi)
    outputs = stack.decode(z, xi.shape[1])
    if batch.lower is not None and batch.upper is not None:
        log_likelihood = stack.log_mass(outputs, batch.lower, batch.upper, batch.mask)
    else:
        log_likelihood = stack.log_likelihood(outputs, batch.targets, batch.mask)
    mean = log_likelihood.mean(1)
    divergence = stack.pairing.kl(loc, scale)
    value = mean - beta * divergence
    return Terms(value, value.detach(), mean.detach(), divergence.detach())
