r"""Bounds on log p(x): functions of log weights, nothing else.

Notation: log w_k = log p(x|z_k) + log p(z_k) - log q(z_k|x) with z_k ~ q(z|x), k = 1..K. `log_weights` is (K, *batch),
or (M, K, *batch) where the K samples come in M groups; every function returns (*batch).

| name    | value                                                           | reference                        |
|---------|-----------------------------------------------------------------|----------------------------------|
| elbo    | E log p(x given z) - beta D(q, p), D = KL unless another is given | Kingma and Welling 2014; Higgins 2017 |
| iwae    | log (1/K) sum_k w_k                                             | Burda, Grosse, Salakhutdinov 2016 |
| vr      | 1 / (1 - alpha) log (1/K) sum_k w_k^(1 - alpha)                 | Li and Turner 2016               |
| vr_max  | max_k log w_k, the limit alpha -> -inf of vr                    | Li and Turner 2016               |
| miwae   | (1/M) sum_m log (1/K) sum_k w_mk                                | Rainforth et al. 2018            |
| ciwae   | beta (1/K) sum_k log w_k + (1 - beta) iwae                      | Rainforth et al. 2018            |
| piwae   | miwae to train the encoder, iwae of all M K to train the decoder | Rainforth et al. 2018            |

For fixed weights vr does not increase with alpha: alpha = -inf is the largest log weight, 0 the iwae, 1 the mean log
weight (the ELBO), inf the smallest. In expectation it is a lower bound of log p(x) for alpha >= 0. For alpha < 0 it is
none: with enough samples it lies above log p(x), and vr_max grows without limit where the weights do.

Generalised variational inference replaces the KL by another divergence: pass that to `elbo` (Knoblauch et al. 2019);
the value is then an objective and not a bound.

Not here: what training follows (`training.bound`), divergences (`beliefs.divergences`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["ciwae", "elbo", "iwae", "miwae", "multi_sample_elbo", "piwae", "vr", "vr_max"]


def elbo(log_likelihood: Tensor, divergence: Tensor, beta: float | Tensor = 1.0) -> Tensor:
    """log p(x|z) - beta D(q || p); a lower bound of log p(x) in expectation for D = KL and beta >= 1."""
    return log_likelihood - beta * divergence


def multi_sample_elbo(log_likelihood: Tensor, divergence: Tensor, beta: float | Tensor = 1.0) -> Tensor:
    """The ELBO with the mean of K samples' log likelihoods (K, *batch): the same bound with less noise."""
    _check(log_likelihood, 1)
    return elbo(log_likelihood.mean(0), divergence, beta)


def iwae(log_weights: Tensor) -> Tensor:
    """log of the mean weight. Grows with K in expectation, to log p(x)."""
    _check(log_weights, 1)
    return torch.logsumexp(log_weights, 0) - math.log(log_weights.shape[0])


def vr(log_weights: Tensor, alpha: float | Tensor) -> Tensor:
    """Variational Renyi bound of order alpha in [-inf, inf]: a number, or a tensor that broadcasts against (*batch).

    With s = 1 - alpha and the log weights counted from the largest of s log w, it is log mean exp(s d) / s; where that
    logarithm is small, as near alpha = 1, it is taken as log1p(mean(expm1(s d))), which is accurate to the limit.

    Raises `ValueError` for alpha = NaN and for no samples.
    """
    _check(log_weights, 1)
    if isinstance(alpha, Tensor):
        if alpha.device.type == "cpu" and bool(alpha.isnan().any()):
            raise ValueError("got alpha = nan, expected numbers in [-inf, inf]")
        order = (1 - alpha.to(log_weights.dtype)).expand(log_weights.shape[1:])
        infinite, zero = order.isinf(), order == 0
        result = _power_mean(log_weights, torch.where(infinite | zero, 1.0, order))
        result = torch.where(zero, log_weights.mean(0), result)
        ends = torch.where(order > 0, log_weights.amax(0), log_weights.amin(0))
        return torch.where(infinite, ends, result)
    if math.isnan(alpha):
        raise ValueError("got alpha = nan, expected a number in [-inf, inf]")
    if math.isinf(alpha):
        return log_weights.amin(0) if alpha > 0 else log_weights.amax(0)
    if alpha == 1:
        return log_weights.mean(0)
    if alpha == 0:
        return iwae(log_weights)
    return _power_mean(log_weights, log_weights.new_full((), 1 - alpha))


def _power_mean(log_weights: Tensor, order: Tensor) -> Tensor:
    """log of the power mean of the weights: log(mean w^order) / order, order finite and not 0."""
    fixed = log_weights.detach()
    origin = torch.where(order > 0, fixed.amax(0), fixed.amin(0))
    origin = torch.where(origin.isfinite(), origin, 0.0)
    power = order * (log_weights - origin)  # <= 0
    small = torch.expm1(power).mean(0)
    near = small.detach() > -0.5
    log_mean = torch.where(
        near,
        torch.log1p(torch.where(near, small, 0.0)),
        torch.logsumexp(power, 0) - math.log(log_weights.shape[0]),
    )
    return origin + log_mean / order


def vr_max(log_weights: Tensor) -> Tensor:
    """The largest log weight: vr at alpha = -inf. Not a lower bound."""
    return vr(log_weights, -math.inf)


def miwae(log_weights: Tensor) -> Tensor:
    """The mean over M groups of the importance-weighted bound of K samples, from (M, K, *batch)."""
    _check(log_weights, 2)
    return (torch.logsumexp(log_weights, 1) - math.log(log_weights.shape[1])).mean(0)


def ciwae(log_weights: Tensor, beta: float = 0.5) -> Tensor:
    """beta ELBO + (1 - beta) IWAE of the same K samples, mean over M groups, from (M, K, *batch)."""
    if not 0 <= beta <= 1:
        raise ValueError(f"got beta = {beta}, expected a number in [0, 1]: the share of the ELBO")
    _check(log_weights, 2)
    return beta * log_weights.mean((0, 1)) + (1 - beta) * miwae(log_weights)


def piwae(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """What trains the encoder, miwae, and what trains the decoder, iwae of all M K samples; from (M, K, *batch).

    A pair, because the partial objective is two; `training.bound` follows each for its own parameters.
    """
    _check(log_weights, 2)
    return miwae(log_weights), iwae(log_weights.flatten(0, 1))


def _check(log_weights: Tensor, sample_axes: int) -> None:
    wanted = "(k, *batch)" if sample_axes == 1 else "(m, k, *batch)"
    if log_weights.dim() < sample_axes:
        raise ValueError(f"got log weights of shape {tuple(log_weights.shape)}, expected {wanted}")
    if 0 in log_weights.shape[:sample_axes]:
        raise ValueError(f"got log weights of shape {tuple(log_weights.shape)}: expected {wanted} with k >= 1 samples")
