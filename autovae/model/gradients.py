r"""Gradient estimators of a bound: whose dependence on the parameters is followed, and with which weight.

With z = g(phi, eps) and log w(z, phi, theta) = log p_theta(x, z) - log q_phi(z), the gradient of the bound of order
alpha, v_k = w_k^(1 - alpha) / sum_j w_j^(1 - alpha), may be written in several ways of equal mean:

| estimator | model parameters theta | encoder parameters phi                                                         |
|-----------|------------------------|--------------------------------------------------------------------------------|
| pathwise  | sum v_k d log w_k      | sum v_k (d log w_k through z, minus d log q of its own parameters)             |
| stl       | sum v_k d log w_k      | sum v_k d log w_k through z alone, at alpha = 1                                |
| dreg      | sum v_k d log w_k      | sum (alpha v_k + (1 - alpha) v_k^2) d log w_k through z alone                  |

The last two leave out the score d log q_phi(z) at fixed z: its mean is zero (stl), or its weighted mean is a path
derivative of the weights after partial integration (dreg). Both are exact at the posterior with no noise at all, and
dreg keeps a signal where pathwise drowns as K grows. Partial integration needs a density that does not end at a moving
edge: uniform and exponential posteriors take the full pathwise gradient, at every alpha. Under power tails (cauchy,
student_t) the boundary terms vanish for alpha < 1. At alpha = +-inf the weights jump, and only pathwise is right.

The encoder's weight on the path is applied by a hook on z, so one backward pass serves both kinds of parameters.
References: Roeder, Wu and Duvenaud, Sticking the landing, 2017; Tucker, Lawson, Gu and Maddison, Doubly
reparameterized gradient estimators, 2019; Li and Turner, Renyi divergence variational inference, 2016.
Not here: the values of bounds, see `bounds`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from autovae.finiteness import TAILS
from autovae.model.bounds import ciwae, miwae, piwae, vr
from autovae.registry import lookup

__all__ = [
    "ESTIMATORS",
    "check_estimator",
    "default_estimator",
    "follow",
    "grouped_surrogate",
    "path_factor",
    "scale_path",
    "surrogate",
]

ESTIMATORS: dict[str, str] = {
    "pathwise": "full reparameterised gradient: right for every family and alpha",
    "stl": "sticking the landing: smooth families at alpha = 1",
    "dreg": "doubly reparameterised: smooth families at finite alpha (power tails: alpha < 1)",
}
TINY = 1e-30  # the smallest weight by which a path is divided; what it multiplies is smaller still


def why_wrong(estimator: str, families: Iterable[str], alpha: float) -> str:
    """The reason why an estimator is wrong for posteriors of these families at this alpha; empty where it is right."""
    lookup(ESTIMATORS, estimator, "gradient estimator")
    if estimator == "pathwise":
        return ""
    names = list(dict.fromkeys(families))
    moving = [name for name in names if not lookup(TAILS, name, "family").whole_line]
    if moving:
        return f"the support of {' and '.join(moving)} moves with its parameters, so their score has not mean zero"
    if estimator == "stl":
        return "" if alpha == 1 else f"it leaves out a score that has mean zero only at alpha = 1, not {alpha:g}"
    if math.isinf(alpha):
        return f"weights of order alpha = {alpha:g} jump, so partial integration does not hold"
    heavy = [name for name in names if math.isfinite(TAILS[name].power)]
    if heavy and alpha >= 1:
        return f"under the power tails of {' and '.join(heavy)} its boundary terms vanish only for alpha < 1"
    return ""


def check_estimator(estimator: str, families: Iterable[str], alpha: float) -> None:
    """Raise `ValueError` with the reason and the right choice where an estimator has the wrong mean."""
    names = list(families)
    reason = why_wrong(estimator, names, alpha)
    if reason:
        right = default_estimator(names, alpha)
        raise ValueError(f"estimator {estimator!r} is wrong here: {reason}; choose {right!r} (or leave it out)")


def default_estimator(families: Iterable[str], alpha: float, closed_form: bool = True) -> str:
    """ "dreg" or, at alpha = 1, "stl" where they are right; "pathwise" elsewhere and for a divergence in closed form.

    A divergence by samples (a learned prior or posterior) needs "stl": without it the score's noise holds the latents
    back near the prior long after a closed form has let them go.
    """
    if alpha == 1 and closed_form:
        return "pathwise"
    wanted = "stl" if alpha == 1 else "dreg"
    return "pathwise" if why_wrong(wanted, families, alpha) else wanted


def path_factor(log_weights: Tensor, alpha: float | Tensor) -> Tensor:
    """alpha + (1 - alpha) v, (K, *batch): what the path through z_k is multiplied with beyond v_k."""
    v = torch.softmax((1 - alpha) * log_weights.detach(), 0)
    return alpha + (1 - alpha) * v


def scale_path(z: Tensor, factor: Tensor) -> None:
    """Multiply every gradient that flows back through z by `factor`, which broadcasts against z."""
    fixed = factor.detach()
    if z.requires_grad:
        z.register_hook(lambda grad: grad * fixed)


def follow(value: Tensor, log_weights: Tensor, model: Tensor, path: Tensor, z: Tensor | None = None) -> Tensor:
    """`value` with the gradient sum_k model_k d log w_k, and path_k in place of model_k for all that goes through z.

    `log_weights`, `model` and `path` are (K, *batch), z is (K, *batch, D). Where z is None the paths keep model_k (the
    caller applies `scale_path` to a z of its own layout).
    """
    weight = model.detach().clamp_min(TINY)
    if z is not None:
        scale_path(z, (path.detach() / weight).unsqueeze(-1))
    followed = (weight * log_weights).sum(0)
    return followed + (value - followed).detach()


def surrogate(
    log_likelihood: Tensor,
    log_prior: Tensor,
    log_q: Tensor | None,
    log_q_stopped: Tensor | None,
    z: Tensor | None,
    alpha: float | Tensor,
    estimator: str,
) -> Tensor:
    """The bound of order alpha, (*batch), whose gradient is that of the estimator.

    log_likelihood, log_prior, log_q   (K, *batch)
    log_q_stopped   log q(z) with its parameters detached: a function of z alone (for "stl" and "dreg")
    z               (K, *batch, D), the tensor that everything above was computed from; None where the caller has
                    applied `scale_path(z, path_factor(...))` itself
    alpha           a number, or a tensor that broadcasts against (*batch)
    """
    lookup(ESTIMATORS, estimator, "gradient estimator")
    used = log_q if estimator == "pathwise" else log_q_stopped
    if used is None:
        wanted = "log_q" if estimator == "pathwise" else "log_q_stopped"
        raise ValueError(f"estimator {estimator!r} got no {wanted}, expected log q(z) of shape (k, *batch)")
    log_weights = log_likelihood + log_prior - used
    if estimator == "pathwise":
        return vr(log_weights, alpha)
    if estimator == "stl":
        if not isinstance(alpha, Tensor) and alpha != 1:
            check_estimator("stl", (), alpha)
        return log_weights.mean(0)
    fixed = log_weights.detach()
    v = torch.softmax((1 - alpha) * fixed, 0)
    return follow(vr(fixed, alpha), log_weights, v, (alpha + (1 - alpha) * v) * v, z)


def grouped_surrogate(bound: str, log_weights: Tensor, z: Tensor, beta: float = 0.5) -> Tensor:
    """miwae, ciwae (with its beta) or piwae from (M, K, *batch), z (M, K, *batch, D), by the dreg estimator.

    The log weights carry log q with stopped parameters. For piwae the value is the decoder's objective; the encoder
    follows the other one.
    """
    fixed = log_weights.detach()
    groups, samples = fixed.shape[:2]
    v = torch.softmax(fixed, 1)
    if bound == "miwae":
        value, model, path = miwae(fixed), v / groups, v.square() / groups
    elif bound == "ciwae":
        value = ciwae(fixed, beta)
        model, path = ((beta / samples + (1 - beta) * part) / groups for part in (v, v.square()))
    elif bound == "piwae":
        value = piwae(fixed)[1]
        model, path = torch.softmax(fixed.flatten(0, 1), 0).view_as(fixed), v.square() / groups
    else:
        raise ValueError(f"unknown grouped bound {bound!r}: known: miwae, ciwae, piwae")
    flat = [part.flatten(0, 1) for part in (log_weights, model, path)]
    weight = flat[1].clamp_min(TINY)
    scale_path(z, (flat[2] / weight).view_as(fixed).unsqueeze(-1))
    return follow(value, flat[0], flat[1], flat[2])
