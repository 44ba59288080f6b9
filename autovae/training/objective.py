r"""The training bound of every member of a population, for one minibatch.

| alpha    | bound  | what is followed                                                                       |
|----------|--------|----------------------------------------------------------------------------------------|
| 1        | "vr"   | (1/K) sum_k log p(x given z_k) - beta D(q, p), D in closed form (or quadrature): the KL, |
|          |        | or another regulariser (then an objective and no bound);                                |
|          |        | with a learned prior or posterior D is the mean of log q(z_k) - log p(z_k)              |
| not 1    | "vr"   | the variational Renyi bound of order alpha on log w = log p(x given z) p(z) / q(z)      |
| 0        | "miwae", "ciwae", "piwae" | M groups of K samples, on the same log weights                       |

The gradient estimator is the right one for the members' families (`model.gradients`); members that need different
ones are different populations. The encoder's weight on the path is applied to z itself, so one backward pass serves
encoder and decoder. Not here: the bounds as functions of weights, see `model.bounds`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from autovae.model.gradients import default_estimator, grouped_surrogate, path_factor, scale_path, surrogate
from autovae.model.vae import VAEStack
from autovae.spec import VAESpec
from autovae.training.feed import Batch

__all__ = ["Terms", "bound", "by_closed_form", "estimator_of"]


@dataclass(frozen=True)
class Terms:
    """All (P, B): `surrogate` has the gradient to follow, `value` the bound; the rest are detached, for the history."""

    surrogate: Tensor
    value: Tensor
    log_likelihood: Tensor
    divergence: Tensor


def estimator_of(spec: VAESpec) -> str:
    """The gradient estimator that this spec is trained with: its own choice, or the right one for its families."""
    return spec.estimator or default_estimator([q for q, _ in spec.pairs], spec.alpha, spec.closed_form)


def by_closed_form(spec: VAESpec) -> bool:
    """Whether the bound is a likelihood and a divergence in closed form, and every gradient goes through z."""
    return spec.closed_form and spec.bound == "vr" and estimator_of(spec) == "pathwise"


def bound(stack: VAEStack, batch: Batch, xi: Tensor, alpha: Tensor, beta: Tensor) -> Terms:
    """The bound of each member at each point, from standard normal noise xi (P, M K, B, D); alpha and beta (P, 1)."""
    spec = stack.specs[0]
    if by_closed_form(spec):
        z, divergence = stack.sampled(batch.inputs, xi)
        log_likelihood = _log_likelihood(stack, batch, z, xi.shape[1])
        mean = _mean(log_likelihood)
        value = torch.addcmul(mean, beta, divergence, value=-1)
        return Terms(value, value.detach(), mean.detach(), divergence.detach())
    loc, scale = stack.encode(batch.inputs)
    z, eps = stack.latents(loc, scale, xi)
    # the decoder's z comes through `path`, samples first, and so does every gradient on its way back
    path = z.reshape(xi.shape).transpose(0, 1).unflatten(0, (spec.groups, spec.samples))  # (M, K, P, B, D)
    z = path.flatten(0, 1).transpose(0, 1).reshape(z.shape)
    log_likelihood = _log_likelihood(stack, batch, z, xi.shape[1])
    log_prior, log_q, log_q_stopped = _log_densities(stack, z, eps, loc, scale, xi.shape)
    with torch.no_grad():
        divergence = (log_q - log_prior).mean(0)
    terms = (beta * log_prior, beta * log_q, None if log_q_stopped is None else beta * log_q_stopped)
    followed = _followed(spec, log_likelihood.transpose(0, 1), *terms, path, alpha)
    return Terms(followed, followed.detach(), _mean(log_likelihood).detach(), divergence)


def _log_likelihood(stack: VAEStack, batch: Batch, z: Tensor, samples: int) -> Tensor:
    """log p(x|z), (P, K, B), or that of x's bin where the batch has bins."""
    outputs = stack.decode(z, samples)
    if batch.lower is not None and batch.upper is not None:
        return stack.log_mass(outputs, batch.lower, batch.upper, batch.mask)
    return stack.log_likelihood(outputs, batch.targets, batch.mask)


def _mean(log_likelihood: Tensor) -> Tensor:
    """Over samples."""
    return log_likelihood.squeeze(1) if log_likelihood.shape[1] == 1 else log_likelihood.mean(1)


def _log_densities(
    stack: VAEStack, z: Tensor, eps: Tensor, loc: Tensor, scale: Tensor, shape: torch.Size
) -> tuple[Tensor, Tensor, Tensor | None]:
    """log p(z), log q(z), and where the estimator follows it log q(z) with its parameters stopped; each (M K, P, B)."""
    members, samples, points, _ = shape

    def samples_first(t: Tensor) -> Tensor:
        return t.reshape(members, samples, points).transpose(0, 1)

    loc, scale = stack.repeat(loc, samples), stack.repeat(scale, samples)
    log_prior, log_q = samples_first(stack.log_prior(z)), samples_first(stack.log_posterior(eps, loc, scale))
    if estimator_of(stack.specs[0]) == "pathwise" and stack.specs[0].bound == "vr":
        return log_prior, log_q, None
    return log_prior, log_q, samples_first(stack.log_posterior_at(z, loc, scale, stopped=True))


def _followed(
    spec: VAESpec,
    log_likelihood: Tensor,
    log_prior: Tensor,
    log_q: Tensor,
    log_q_stopped: Tensor | None,
    path: Tensor,
    alpha: Tensor,
) -> Tensor:
    """The surrogate (P, B) from terms (M K, P, B)."""
    estimator = estimator_of(spec)
    order = alpha if spec.bound == "vr" else alpha * 0
    if spec.bound == "vr":
        if estimator == "dreg":
            assert log_q_stopped is not None  # only the pathwise estimator does without it
            log_weights = log_likelihood + log_prior - log_q_stopped
            scale_path(path, path_factor(log_weights, order).unsqueeze(-1).view(*path.shape[:-1], 1))
        return surrogate(log_likelihood, log_prior, log_q, log_q_stopped, None, order, estimator)
    assert log_q_stopped is not None  # grouped bounds follow it
    log_weights = log_likelihood + log_prior - log_q_stopped
    return grouped_surrogate(spec.bound, log_weights.view(path.shape[:-1]), path, spec.mix)
