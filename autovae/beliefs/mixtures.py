r"""Mixtures of location-scale products: densities, and the exact map between a mixture and a standard normal.

    p(z) = sum_c w_c prod_i f_i((z_i - m_ci) / s_ci) / s_ci            C components, D latents, families f_i

**Density.** For normal components the quadratic form is three products, |z - m|^2 / s^2 = z^2 . s^-2 - 2 z . m s^-2 +
m^2 . s^-2, summed in float64, where its cancellation costs nothing. Other families are evaluated component by component.

**Map.** The Rosenblatt map sends z to independent standard normals, latent by latent, through the conditional CDFs:

    xi_i = Phi^-1( sum_c w_c(z_<i) F_i((z_i - m_ci) / s_ci) )          w_c(z_<i) ~ w_c prod_{j<i} f_cj(z_j)
    log |det dxi/dz| = log p(z) - log N(xi)

so a mixture has a standard-normal source like any product of families, and its inverse is exact: each latent is the root
of a monotone function, bracketed by the components' quantiles at xi_i. One implicit Newton step at the root carries the
gradient. Both tails are summed separately in log space, in float64, so the map is accurate to |xi| = 37.
Reference: Rosenblatt, Remarks on a multivariate transformation, 1952.

Not here: where components come from, see `learned_priors`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from autovae.beliefs.families import FAMILIES

__all__ = ["from_normal", "log_components", "log_mixture", "log_normal_components", "pick", "to_normal"]

STEPS = 160  # a third of them halve the bracket; Newton usually converges in six
CLOSE = 1e-9  # in xi; the last Newton step, which carries the gradient, squares it
CHUNK = 2_000_000  # numbers of one (N, C, D) tensor at once


def log_normal_components(z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """log density of normal components, (P, N, C), of z (P, N, D) under loc, scale (P, C, D)."""
    fine, m, precision = z.double(), loc.double(), scale.double().square().reciprocal()
    square = fine.square() @ precision.mT - 2 * fine @ (m * precision).mT
    constant = (m.square() * precision).sum(-1) + 2 * scale.double().log().sum(-1) + z.shape[-1] * math.log(2 * math.pi)
    return (-0.5 * (square + constant.unsqueeze(-2))).to(z.dtype)


def log_components(z: Tensor, loc: Tensor, scale: Tensor, log_density: Callable[[Tensor], Tensor]) -> Tensor:
    """The same for components of any families; `log_density` sums the standard laws over latents, (P, M, D) -> (P, M)."""
    members, points, latents = z.shape
    eps = (z.unsqueeze(2) - loc.unsqueeze(1)) / scale.unsqueeze(1)
    value = log_density(eps.reshape(members, -1, latents)).view(members, points, -1)
    return value - scale.log().sum(-1).unsqueeze(1)


def log_mixture(log_density: Tensor, log_weights: Tensor) -> Tensor:
    """log sum_c w_c p_c, (P, N), of component densities (P, N, C) and log weights (P, C)."""
    return torch.logsumexp(log_density + log_weights.unsqueeze(-2), -1)


def pick(values: Tensor, log_weights: Tensor, uniform: Tensor) -> Tensor:
    """The row of values (P, C, D) of the component that each `uniform` (P, N) in [0, 1) selects: (P, N, D)."""
    edges = log_weights.softmax(-1).cumsum(-1)
    index = torch.searchsorted(edges.contiguous(), uniform.contiguous(), right=True).clamp(max=values.shape[1] - 1)
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


# -- the map between a mixture and a standard normal, for one density -----------------------------------------------


def _by_family(method: str, families: Sequence[str], eps: Tensor) -> Tensor:
    """`method` of each latent's family at eps (..., D)."""
    if len(set(families)) == 1:
        return getattr(FAMILIES[families[0]], method)(eps)
    return torch.stack([getattr(FAMILIES[name], method)(eps[..., i]) for i, name in enumerate(families)], -1)


def _score(log_lower: Tensor, log_upper: Tensor) -> Tensor:
    """The standard normal xi with these log probabilities below and above it."""
    smaller = torch.minimum(log_lower, log_upper).clamp(-690.0, -math.log(2))
    xi = torch.special.ndtri(smaller.exp())
    return torch.where(log_lower < log_upper, xi, -xi)


def to_normal(
    z: Tensor, loc: Tensor, scale: Tensor, log_weights: Tensor, families: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """xi (N, D) and log p(z) (N,) of z (N, D) under components loc, scale (C, D), log_weights (C,) normalised."""
    size = max(1, CHUNK // loc.numel())
    parts = [_to_normal(part, loc, scale, log_weights, families) for part in z.split(size)]
    return torch.cat([xi for xi, _ in parts]), torch.cat([log_p for _, log_p in parts])


def _to_normal(
    z: Tensor, loc: Tensor, scale: Tensor, log_weights: Tensor, families: Sequence[str]
) -> tuple[Tensor, Tensor]:
    eps = (z.double().unsqueeze(1) - loc.double()) / scale.double()  # (N, C, D)
    terms = _by_family("log_prob", families, eps) - scale.double().log()
    joint = log_weights.double().view(1, -1, 1) + terms.cumsum(-1)  # log w_c prod_{j<=i} f_cj(z_j)
    log_p = torch.logsumexp(joint, 1)  # log p(z_<=i), (N, D)
    known = (joint - terms) - torch.cat([torch.zeros_like(log_p[:, :1]), log_p[:, :-1]], 1).unsqueeze(1)
    source = _by_family("to_normal", families, eps)
    lower, upper = (torch.logsumexp(known + torch.special.log_ndtr(side), 1) for side in (source, -source))
    return _score(lower, upper).to(z.dtype), log_p[:, -1].to(z.dtype)


def from_normal(xi: Tensor, loc: Tensor, scale: Tensor, log_weights: Tensor, families: Sequence[str]) -> Tensor:
    """z (N, D) of the source xi (N, D): the inverse of `to_normal`, with its gradient in xi."""
    fine, m, s = xi.double(), loc.double(), scale.double()
    known = log_weights.double().expand(len(xi), -1)  # log w_c(z_<i), (N, C)
    found = []
    for i, name in enumerate(families):
        z = _root(fine[:, i], m[:, i], s[:, i], known, name)
        terms = FAMILIES[name].log_prob((z.unsqueeze(1) - m[:, i]) / s[:, i]) - s[:, i].log()
        known = torch.log_softmax(known + terms, 1)
        found.append(z)
    return torch.stack(found, -1).to(xi.dtype)


def _conditional(z: Tensor, loc: Tensor, scale: Tensor, known: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """xi_i of z_i (N,), and log dxi_i/dz_i."""
    eps = (z.unsqueeze(1) - loc) / scale
    source = FAMILIES[name].to_normal(eps)
    lower, upper = (torch.logsumexp(known + torch.special.log_ndtr(side), 1) for side in (source, -source))
    xi = _score(lower, upper)
    log_p = torch.logsumexp(known + FAMILIES[name].log_prob(eps) - scale.log(), 1)
    return xi, log_p + 0.5 * (xi.square() + math.log(2 * math.pi))


def _root(xi: Tensor, loc: Tensor, scale: Tensor, known: Tensor, name: str) -> Tensor:
    """z_i with conditional score xi_i: Newton steps, halvings where they leave the bracket."""
    with torch.no_grad():
        reach = loc + scale * FAMILIES[name].from_normal(xi.detach()).unsqueeze(1)  # (N, C): each component's quantile
        low, high = reach.amin(1), reach.amax(1)
        z = (known.exp() * reach).sum(1)
        for step in range(STEPS):
            value, log_slope = _conditional(z, loc, scale, known, name)
            low, high = torch.where(value < xi, z, low), torch.where(value < xi, high, z)
            newton = z - (value - xi) * (-log_slope).exp()
            inside = (newton > low) & (newton < high) & (step % 3 < 2)
            done = (value - xi).abs() <= CLOSE
            z = torch.where(done, z, torch.where(inside, newton, 0.5 * (low + high)))
            if bool(done.all()):
                break
    value, log_slope = _conditional(z, loc, scale, known, name)
    newton = (xi - value) * (-log_slope).exp().detach()
    return torch.clamp(z + newton, low, high).detach() + (newton - newton.detach())
