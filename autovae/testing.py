r"""Contracts that every row of a table must obey, as functions for your own tests.

    check_family("my_family")           its maps, law and divergences agree with each other
    check_likelihood("my_head")         masses sum to one; sample, mean and density agree with them
    check_bound("my_bound")             at the exact posterior it is log p(x); its gradient has the right mean
    check_constraint(constraint, prior) a density of xi: shape, dtype, gradient, power, one by one as in a batch
    check_network("my_network")         shapes, gradients, several members as one

Each raises `AssertionError` that names the broken law. The package's tests run them over its tables, so every row is
tested. All take about a second, in float64.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from autovae.beliefs.divergences import kl
from autovae.beliefs.families import FAMILIES
from autovae.beliefs.likelihoods import LIKELIHOODS
from autovae.beliefs.regions import region_of
from autovae.finiteness import finite_priors, finiteness
from autovae.model.estimators import default_estimator
from autovae.model.networks import NETWORKS
from autovae.model.stacked import stack
from autovae.registry import lookup
from autovae.spec import VAESpec
from autovae.training.bound import BOUNDS

if TYPE_CHECKING:
    from autovae.export.prior import PriorModule
    from autovae.reasoning.constraints import Constraint

__all__ = ["check_bound", "check_constraint", "check_family", "check_likelihood", "check_network"]

DOUBLE = torch.float64
XI = torch.linspace(-9, 9, 6001, dtype=DOUBLE)
WEIGHT = torch.exp(-0.5 * XI.square()) * (XI[1] - XI[0]) / math.sqrt(2 * math.pi)  # of the trapezoid rule under N(0, 1)


def _law(holds: bool | Tensor, law: str) -> None:
    if not bool(torch.as_tensor(holds).all()):
        raise AssertionError(law)


def _close(a: Tensor | float, b: Tensor | float, law: str, tolerance: float = 1e-6) -> None:
    """Relative to max(1, |b|)."""
    a, b = torch.as_tensor(a, dtype=DOUBLE).detach(), torch.as_tensor(b, dtype=DOUBLE).detach()
    error = ((a - b).abs() / b.abs().clamp_min(1)).max()
    _law(error <= tolerance, f"{law}: off by {float(error):.3g}, limit {tolerance:g}")


def check_family(name: str) -> None:
    """The map from a normal, the density, the distribution function, the moments and the divergences of one law."""
    law = lookup(FAMILIES, name, "family")
    xi = XI[(XI.abs() < 8) & (XI.abs() > 1e-9)].clone().requires_grad_()
    eps = law.from_normal(xi)
    (slope,) = torch.autograd.grad(eps.sum(), xi)
    eps, xi = eps.detach(), xi.detach()
    _law(slope > 0, f"{name}: from_normal increases")
    pushed = -0.5 * xi.square() - 0.5 * math.log(2 * math.pi) - slope.log()
    _close(law.log_prob(eps).exp(), pushed.exp(), f"{name}: log_prob is the density of from_normal(xi)")
    _close(law.cdf(eps), torch.special.ndtr(xi), f"{name}: cdf(from_normal(xi)) is the normal's")
    middle = xi[xi.abs() < 5]  # further out a bounded law leaves no digits of 1 - |eps|
    _close(law.to_normal(law.from_normal(middle)), middle, f"{name}: to_normal inverts from_normal")
    u = torch.special.ndtr(middle)
    _close(law.icdf(u), law.from_normal(middle), f"{name}: icdf inverts cdf", 1e-5)
    wide = law.from_normal(XI)
    _close((WEIGHT * -law.log_prob(wide)).sum(), law.entropy, f"{name}: entropy is E[-log p]", 1e-4)
    if law.tails.power > 4:  # lighter tails: the rule reaches them
        mean = (WEIGHT * wide).sum()
        _close(mean, law.mean, f"{name}: mean", 1e-4)
        _close((WEIGHT * (wide - mean).square()).sum(), law.variance, f"{name}: variance", 1e-3)
    draws = law.sample((20_000,), torch.Generator().manual_seed(0), DOUBLE)
    ranks = law.cdf(draws).sort().values
    expected = (torch.arange(len(ranks), dtype=DOUBLE) + 0.5) / len(ranks)
    _law((ranks - expected).abs().max() < 2 / math.sqrt(len(ranks)), f"{name}: sample follows cdf (Kolmogorov)")
    _check_divergences(name)


def _check_divergences(name: str) -> None:
    """KL(q || p) against its integral, at one point inside the region of every finite pair."""
    raw = torch.tensor(0.6, dtype=DOUBLE), torch.tensor(math.log(0.4), dtype=DOUBLE)
    zero, one = torch.zeros((), dtype=DOUBLE), torch.ones((), dtype=DOUBLE)
    _close(kl(name, name, zero, one), 0.0, f"KL({name} || {name}) is 0 at loc 0, scale 1", 1e-9)
    posteriors = [(q, name) for q in FAMILIES if finiteness(q, name) != "infinite"]
    for q, p in [*((name, p) for p in finite_priors(name)), *posteriors]:
        loc, scale = region_of(q, p).parametrise(*raw)
        eps = FAMILIES[q].from_normal(XI)
        z = loc + scale * eps
        ratio = FAMILIES[q].log_prob(eps) - scale.log() - FAMILIES[p].log_prob(z)
        value = kl(q, p, loc, scale)
        _law(value >= 0, f"KL({q} || {p}) >= 0")
        heavy = FAMILIES[q].tails.power < 6
        _close(value, (WEIGHT * ratio).sum(), f"KL({q} || {p}) is E[log q - log p]", 2e-2 if heavy else 1e-4)


def check_likelihood(name: str, levels: int = 17) -> None:
    """Masses of levels, density, sum, mean and draws of one head, for several parameters at once."""
    head = lookup(LIKELIHOODS, name, "likelihood")
    count = 2 if head.supports == frozenset({"binary"}) else levels
    edges = torch.arange(count + 1, dtype=DOUBLE) / count
    lower, upper = edges[:-1].clone(), edges[1:].clone()
    lower[0], upper[-1] = -math.inf, math.inf
    params = torch.tensor([-2.0, -0.3, 0.4, 1.5], dtype=DOUBLE).unsqueeze(-1).requires_grad_()
    scale = torch.tensor(0.15, dtype=DOUBLE) if head.has_scale else None
    log_mass = head.log_mass(lower, upper, params.expand(-1, count), scale)
    _close(log_mass.exp().sum(-1).detach(), torch.ones(4), f"{name}: masses sum to one", 1e-9)
    points = (torch.arange(count, dtype=DOUBLE) + 0.5) / count
    found = head.log_prob_sum(points, params.expand(-1, count), scale)
    _close(
        found, head.log_prob(points, params.expand(-1, count), scale).sum(-1), f"{name}: log_prob_sum is the sum", 1e-9
    )
    masses = head.log_mass_sum(lower, upper, params.expand(-1, count), scale)
    _close(masses.detach(), log_mass.sum(-1).detach(), f"{name}: log_mass_sum is the sum", 1e-9)
    for what, function in (
        ("log_prob", lambda p: head.log_prob(points, p.expand(-1, count), scale)),
        ("log_mass", lambda p: head.log_mass(lower, upper, p.expand(-1, count), scale)),
    ):
        (slope,) = torch.autograd.grad(function(params).sum(), params)
        with torch.no_grad():
            ends = [function(params + step).sum(-1, keepdim=True) for step in (1e-5, -1e-5)]
        _close(slope, (ends[0] - ends[1]) / 2e-5, f"{name}: the slope of {what} is its difference", 1e-5)
    draws = head.sample(params.detach().expand(-1, 40_000), scale, torch.Generator().manual_seed(0))
    _close(draws.mean(-1), head.mean(params.detach(), scale)[:, 0], f"{name}: mean is that of draws", 0.02)
    if head.trains_on == "levels" and head.linear_in_x:
        return  # draws are outcomes, not levels
    place = torch.bucketize(draws, edges[1:-1], right=True)
    shares = torch.stack([(place == level).double().mean(-1) for level in range(count)], -1)
    _close(shares, log_mass.detach().exp(), f"{name}: draws fall into bins as their masses say", 0.015)


def check_bound(name: str) -> None:
    """One bound of `BOUNDS`: at the exact posterior it is log p(x) with no noise in the encoder's gradient, and its
    gradient is that of the expected bound."""
    kind = lookup(BOUNDS, name, "bound")
    order = 0.0
    spec = VAESpec(alpha=order, samples=2, groups=1 if name == "vr" else 2, bound=name)
    bound = kind.of(spec, spec.estimator or default_estimator(["normal"], order))
    flat = torch.full((spec.groups, spec.samples, 3), -1.7, dtype=DOUBLE)
    _close(bound.value(flat, order), flat[0, 0], f"{name}: of equal weights it is that weight", 1e-12)
    model, path = bound.weights(torch.randn(spec.groups, spec.samples, 5, dtype=DOUBLE), order)
    _close(model.sum((0, 1)), torch.ones(5), f"{name}: weights of the model's gradient sum to one", 1e-12)
    _law(path >= 0, f"{name}: weights of the path are not negative")

    grid = torch.linspace(-6, 6, 25, dtype=DOUBLE)
    one = torch.exp(-0.5 * grid.square()) * (grid[1] - grid[0]) / math.sqrt(2 * math.pi)
    axes = spec.groups * spec.samples
    eps = torch.stack(torch.meshgrid(*[grid] * axes, indexing="ij")).view(spec.groups, spec.samples, -1)
    weight = torch.stack(torch.meshgrid(*[one] * axes, indexing="ij")).flatten(1).prod(0)
    point = torch.tensor([0.4, -0.3, 0.8], dtype=DOUBLE)  # loc and log scale of q; slope of the decoder

    def log_weights(z: Tensor, parameters: Tensor, log_q: Tensor) -> Tensor:
        return -2.0 * (1.3 - parameters[2] * torch.tanh(z)).square() - 0.5 * z.square() - log_q

    def log_q(z: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
        return -0.5 * ((z - loc) / log_scale.exp()).square() - log_scale

    def expected(parameters: Tensor, of_encoder: bool) -> Tensor:
        z = parameters[0] + parameters[1].exp() * eps
        weights = log_weights(z, parameters, log_q(z, parameters[0], parameters[1]))
        value = bound.encoder_value(weights, order) if of_encoder else bound.value(weights, order)
        return (weight * value).sum()

    parameters = point.clone().requires_grad_()
    (by_encoder,) = torch.autograd.grad(expected(parameters, True), parameters)
    (by_model,) = torch.autograd.grad(expected(parameters, False), parameters)
    z = (parameters[0] + parameters[1].exp() * eps).unsqueeze(-1)
    inner = z.squeeze(-1)
    stopped = log_q(inner, parameters[0].detach(), parameters[1].detach())
    followed = bound.surrogate(log_weights(inner, parameters, stopped), z, order)
    (found,) = torch.autograd.grad((weight * followed).sum(), parameters)
    _close(found[:2], by_encoder[:2], f"{name}: the encoder's gradient is that of what it follows", 5e-3)
    _close(found[2:], by_model[2:], f"{name}: the model's gradient is that of the bound", 5e-3)


def check_constraint(constraint: Constraint, prior: PriorModule) -> None:
    """One piece of evidence on a float64 prior: a log density of xi that reasoning may differentiate and batch."""
    from autovae.reasoning.posterior import LatentPosterior

    kind = type(constraint).__name__
    posterior = LatentPosterior(prior, [constraint])
    xi = 0.5 * torch.randn(5, posterior.latent_dim, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    xi.requires_grad_()
    value = posterior.log_prob(xi)
    _law(value.shape == (5,), f"{kind}: got a log density of shape {tuple(value.shape)} for five points, expected (5,)")
    _law(value.dtype == DOUBLE, f"{kind}: the log density keeps the dtype of xi")
    _law(value.isfinite(), f"{kind}: the log density is finite")
    single = torch.cat([posterior.log_prob(row[None]) for row in xi])
    _close(single.detach(), value.detach(), f"{kind}: one by one as in a batch", 1e-9)
    (slope,) = torch.autograd.grad(value.sum(), xi)
    direction = torch.randn(xi.shape, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    with torch.no_grad():
        ends = [posterior.log_prob(xi + step * direction) for step in (1e-6, -1e-6)]
    _close((slope * direction).sum(-1), (ends[0] - ends[1]) / 2e-6, f"{kind}: the gradient is the difference", 1e-4)


def check_network(name: str, shape: tuple[int, ...] = (8, 8)) -> None:
    """One row of NETWORKS, on points of this shape."""
    network = lookup(NETWORKS, name, "network")
    spec = VAESpec(network=name, latent_dim=3, hidden=(6, 4))
    features = math.prod(shape)
    torch.manual_seed(0)
    for what, module, inputs, outputs in (
        ("encoder", network.encoder(spec, shape), features, 2 * spec.latent_dim),
        ("decoder", network.decoder(spec, shape, 2 * features), spec.latent_dim, 2 * features),
    ):
        module = module.double().eval()
        x = torch.randn(5, inputs, dtype=DOUBLE)
        y = module(x)
        _law(y.shape == (5, outputs), f"{name}: {what} maps (5, {inputs}) to {tuple(y.shape)}, expected (5, {outputs})")
        _close(module(x[:1]).detach(), y[:1].detach(), f"{name}: {what} treats points one by one", 1e-9)
        y.square().sum().backward()
        idle = [part for part, p in module.named_parameters() if p.grad is None or not bool(p.grad.any())]
        _law(not idle, f"{name}: no gradient reaches {', '.join(idle)} of the {what}")
        twin = copy.deepcopy(module)
        both = stack([module, twin])(x)
        _close(both[1].detach(), y.detach(), f"{name}: two {what}s as one are each itself", 1e-9)
