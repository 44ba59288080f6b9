r"""Gradients of the evidence, xi -> grad log p(evidence | x(xi)): the inner loop of inference.

    xi --families--> z --decoder--> params --mean, units--> x          steps with pullbacks, see `pullbacks`
    x  --> log p(evidence | x) and its gradient                        closed form for measurements and labels, else autograd

Families contribute the slope of their elementwise map, likelihoods the slope of their mean (`MEAN_SLOPES`). Networks in
constraints are split into the same steps.

`likelihood_gradient(posterior)` returns gradient(xi, need_value) -> (value or None, gradient) for xi (batch, dim), with the
present weights. The tests compare it with autograd through the whole posterior, to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from autovae.beliefs.likelihoods import LIKELIHOODS
from autovae.export.prior import PriorModule
from autovae.reasoning.constraints import Categorical, Feature, Gaussian, Scene
from autovae.reasoning.posterior import LatentPosterior
from autovae.reasoning.pullbacks import Pullback, Step, by_autograd, compose, elementwise, steps_of

__all__ = ["MEAN_SLOPES", "Gradient", "likelihood_gradient"]

Gradient = Callable[[Tensor, bool], tuple[Tensor | None, Tensor]]
Evidence = Callable[[Tensor, bool], tuple[Tensor | None, Tensor]]
"""(x (batch, ..), need_value) -> (log likelihood (batch,) or None, its gradient in x)."""


def likelihood_gradient(posterior: LatentPosterior) -> Gradient:
    """The gradient of this posterior's log likelihood, exact, for xi (batch, dim)."""
    prior = posterior.prior
    if not posterior.constraints or not posterior.generates_tensors:
        return lambda xi, need_value: posterior.likelihood_and_gradient(xi)
    generate = compose([*_latent_steps(prior), *steps_of(prior.decoder), *_data_steps(prior)])
    evidence = _measured(posterior) or _labelled(posterior) or _by_autograd(posterior)

    def gradient(xi: Tensor, need_value: bool) -> tuple[Tensor | None, Tensor]:
        with torch.no_grad():
            x, pullback = generate(xi)
            value, slope = evidence(x, need_value)
            return value, pullback(slope)

    return gradient


# -- from xi to x -----------------------------------------------------------------------------------------------------


def _latent_steps(prior: PriorModule) -> list[Step]:
    """xi (batch, dim) -> z, one row per object."""
    steps: list[Step] = []
    if prior.transport is not None:
        steps.append(by_autograd(prior.from_normal))
    elif set(prior.families) != {"normal"}:
        steps.append(_families(prior))
    return [*steps, _reshape(-1, len(prior.object_families))] if prior.objects > 1 else steps


def _families(prior: PriorModule) -> Step:
    """z and dz/dxi = phi(xi) / f(z): both laws give a small interval the same probability."""

    def step(xi: Tensor) -> tuple[Tensor, Pullback]:
        z = prior.from_normal(xi)
        log_slope = -0.5 * xi.square() - 0.5 * math.log(2 * math.pi) - prior.log_densities(z)
        return z, lambda g: g * log_slope.exp()

    return step


def _reshape(*shape: int) -> Step:
    return lambda x: (x.reshape(shape), lambda g: g.reshape(x.shape))


def _tilt_variance(eta: Tensor, mean: Tensor) -> Tensor:
    """Variance of the exponential law truncated to [0, 1], the slope of its mean m: m (1 - m) + (1 - 2 m) / eta."""
    square = eta.square()
    series = 1 / 12 - square * (1 / 240 - square / 6048)  # exact to 1e-11 below .1, where the formula loses digits
    return torch.where(square < 0.01, series, torch.addcmul(mean, mean, mean, value=-1).addcdiv_(1 - 2 * mean, eta))


MEAN_SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bernoulli": lambda eta, mean: torch.addcmul(mean, mean, mean, value=-1),
    "continuous_bernoulli": _tilt_variance,
}
"""Derivative of the mean from (parameter, mean) for likelihoods of one parameter; others use autograd."""


def _data_steps(prior: PriorModule) -> list[Step]:
    """The decoder's output -> x (batch, *shape) or (batch, objects, *shape), in data units."""
    slope = None if prior.likelihood is None else MEAN_SLOPES.get(prior.likelihood)
    steps: list[Step] = []
    if slope is not None and prior.likelihood is not None:
        steps.append(elementwise(LIKELIHOODS[prior.likelihood].mean, slope))
    elif prior.fold is not None and _mean_is_identity(prior):
        steps.append(_folded(prior, *prior.fold))
    elif not _mean_is_identity(prior):
        return [by_autograd(lambda params: prior.data_of(params, (len(params) // prior.objects,)))]
    if prior.shape is not None or prior.objects > 1:
        objects = (prior.objects,) if prior.objects > 1 else ()
        steps.append(_shaped(prior, objects))
    if prior.likelihood is not None and not bool((prior.offset == 0).all() and (prior.unit == 1).all()):
        steps.append(lambda x: (x * prior.unit + prior.offset, lambda g: g * prior.unit))
    return steps


def _folded(prior: PriorModule, low: float, high: float) -> Step:
    """A location head's mean with folded ends: its slope is the probability of the range."""
    head, scale = LIKELIHOODS[prior.likelihood or ""], prior.scale

    def slope(eta: Tensor, _: Tensor) -> Tensor:
        return head.log_mass(eta.new_tensor(low), eta.new_tensor(high), eta, scale).exp()

    return elementwise(lambda eta: head.folded_mean(eta, scale, low, high), slope)


def _shaped(prior: PriorModule, objects: tuple[int, ...]) -> Step:
    def step(x: Tensor) -> tuple[Tensor, Pullback]:
        event = x.shape[1:] if prior.shape is None else prior.shape
        return x.reshape(-1, *objects, *event), lambda g: g.reshape(x.shape)

    return step


def _mean_is_identity(prior: PriorModule) -> bool:
    """Whether x is the decoder's output up to units and folded ends; tests the likelihood on a grid."""
    if prior.likelihood is None:
        return True
    if prior.scale_per_pixel:
        return False
    grid = torch.linspace(-20, 20, 81, dtype=prior.dtype, device=prior.device)
    scale = None if prior.scale is None else prior.scale.flatten()[0]
    return torch.equal(LIKELIHOODS[prior.likelihood].mean(grid, scale), grid)


# -- from x to the evidence -------------------------------------------------------------------------------------------


def _by_autograd(posterior: LatentPosterior) -> Evidence:
    """Any evidence: networks by their steps, the constraints on their outputs by autograd."""
    networks: dict[int, Step] = {}
    objects = posterior.prior.objects

    def evidence(x: Tensor, need_value: bool) -> tuple[Tensor | None, Tensor]:
        passed: list[tuple[int | None, Tensor, Pullback]] = []

        def evaluate(f: Feature, view: Tensor, index: int | None) -> Tensor:
            if not isinstance(f, nn.Module):
                return f(view)
            if id(f) not in networks:
                networks[id(f)] = compose(steps_of(f))
            with torch.no_grad():
                output, pullback = networks[id(f)](view.detach())
            passed.append((index, output.detach().requires_grad_(), pullback))
            return passed[-1][1]

        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            value = posterior.log_likelihood_of(Scene(leaf, objects, evaluate), len(x))
            leaves = [leaf, *(output for _, output, _ in passed)]
            known: Any = value.requires_grad and torch.autograd.grad(value.sum(), leaves, allow_unused=True)
        direct, *slopes = known or [None] * len(leaves)
        total = torch.zeros_like(x) if direct is None else direct
        for (index, _, pullback), slope in zip(passed, slopes, strict=True):
            if slope is not None:
                part = total if index is None or objects == 1 else total[:, index]
                part += pullback(slope)
        return value.detach(), total

    return evidence


def _measured(posterior: LatentPosterior) -> Evidence | None:
    """Measurements of x itself: slope = precision * (y - x). None for other evidence."""
    pieces = []
    for constraint in posterior.constraints:
        known = constraint.precision() if isinstance(constraint, Gaussian) else None
        if known is None:
            return None
        pieces.append((posterior.power * constraint.power, known))
    like = posterior.prior.offset
    weights = torch.stack([power * precision.to(like) for power, (_, precision, _) in pieces])
    targets = torch.stack([y.to(like) for _, (y, _, _) in pieces])
    # Several measurements of one pixel equal one with the summed precision, and a constant.
    weight = weights.sum(0)
    target = torch.where(weight > 0, (weights * targets).sum(0) / weight.clamp(min=torch.finfo(like.dtype).tiny), 0.0)
    spread = 0.5 * (weights * (targets - target).square()).sum()
    constant = float(sum(power * log_norm for power, (_, _, log_norm) in pieces) - spread)

    def evidence(x: Tensor, need_value: bool) -> tuple[Tensor | None, Tensor]:
        residual = target - x.reshape(len(x), -1)
        slope = residual * weight
        value = (slope * residual).sum(-1).mul_(-0.5).add_(constant) if need_value else None
        return value, slope.reshape(x.shape)

    return evidence


def _labelled(posterior: LatentPosterior) -> Evidence | None:
    """Labels of x by networks: w . log p, with slope w - |w| p at the logits, w the powers by class. None for other evidence."""
    labels = [c for c in posterior.constraints if isinstance(c, Categorical) and isinstance(c.net, nn.Module)]
    if len(labels) < len(posterior.constraints) or posterior.prior.objects > 1:
        return None
    steps: dict[Feature, Step] = {}
    weights: dict[Feature, Tensor] = {}
    for label in labels:
        logits = posterior.example(label.net)
        if logits.ndim < 2 or logits.shape[1] == 1:  # the logit of two classes
            return None
        assert isinstance(label.net, nn.Module)  # as selected above
        steps.setdefault(label.net, compose(steps_of(label.net)))
        weights.setdefault(label.net, torch.zeros_like(logits[0]))[label.y] += posterior.power * label.power
    totals = {net: float(weight.sum()) for net, weight in weights.items()}

    def evidence(x: Tensor, need_value: bool) -> tuple[Tensor | None, Tensor]:
        values, slopes = [], []
        for net, weight in weights.items():
            logits, pullback = steps[net](x)
            log_p = logits.log_softmax(-1)
            slopes.append(pullback(torch.add(weight, log_p.exp(), alpha=-totals[net])))
            if need_value:
                values.append(log_p @ weight)
        slope = slopes[0] if len(slopes) == 1 else torch.stack(slopes).sum(0)
        return torch.stack(values).sum(0) if need_value else None, slope

    return evidence
