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
At alpha = 1 stl and dreg are one estimator; stl keeps its name because it is right under power tails there, too.
References: Roeder, Wu and Duvenaud, Sticking the landing, 2017; Tucker, Lawson, Gu and Maddison, Doubly
reparameterized gradient estimators, 2019; Li and Turner, Renyi divergence variational inference, 2016.
Not here: the values of bounds (`bounds`), the weights of each bound's samples (`training.bound`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from autovae.finiteness import TAILS
from autovae.registry import lookup

__all__ = ["ESTIMATORS", "check_estimator", "default_estimator", "follow", "scale_path"]

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


def scale_path(z: Tensor, factor: Tensor) -> None:
    """Multiply every gradient that flows back through z by `factor`, which broadcasts against z."""
    fixed = factor.detach()
    if z.requires_grad:
        z.register_hook(lambda grad: grad * fixed)


def follow(value: Tensor, log_weights: Tensor, model: Tensor, path: Tensor, z: Tensor) -> Tensor:
    """`value` (*batch) with the gradient sum model d log w, and `path` in place of `model` for all that goes through z.

    `log_weights`, `model` and `path` are (M, K, *batch) and summed over groups and samples; z is (M, K, *batch, D), the
    tensor that log w was computed from.
    """
    weight = model.clamp_min(TINY)
    scale_path(z, (path / weight).unsqueeze(-1))
    followed = (weight * log_weights).sum((0, 1))
    return followed + (value - followed).detach()
