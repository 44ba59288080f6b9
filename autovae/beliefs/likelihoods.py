r"""Likelihoods: what a decoder's outputs say about one observed number.

A head p(x|z) acts elementwise. `params` is the raw output of a decoder, eta below: a logit for heads on the unit
interval, a location for heads on the line; `scale` > 0 (its floor already applied) is given to heads that have one.

| head                 | log p(x)                                              | support of x     | trains on   |
|----------------------|-------------------------------------------------------|------------------|-------------|
| bernoulli            | x eta - log(1 + exp eta)                              | {0, 1}, [0, 1]   | levels      |
| continuous_bernoulli | x eta - log((exp eta - 1) / eta)                      | [0, 1]           | dequantised |
| normal               | -((x - eta) / scale)^2 / 2 - log(scale sqrt(2 pi))    | line             | dequantised |

A density on discrete data is unbounded, so scores never use it: level v of L owns the bin [v/L, (v+1)/L], and
`log_mass(lower, upper, ...)` is the log probability of a bin, computed in log space (finite to -1e4 nats in float32).
The end bins reach to -inf and +inf, so that masses sum to one.

The Bernoulli knows two outcomes only. For two levels, that is for the bins that meet at 1/2, its mass is its own
probability; grey levels are scored as the continuous Bernoulli of the same logits, and lose partly by construction.
References: Loaiza-Ganem and Cunningham, The continuous Bernoulli, 2019; Uria, Murray and Larochelle, RNADE, 2013.
Not here: the bins themselves (`data.batches`), sums over pixels and masks (`model.vae`).

To add one: subclass `Likelihood`, write log_prob, log_mass, mean and sample, add it to LIKELIHOODS and its name to
`autovae.spec.LIKELIHOOD_NAMES`. The tests pick it up from the table.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from autovae.tables import lookup, unknown

__all__ = ["LIKELIHOODS", "Likelihood", "check_support"]

SUPPORTS = ("binary", "unit", "real")
TINY = 1e-30  # a normal number of float32 whose reciprocal is finite: stands for 0 in a quotient

FAR = 1e9  # stands for infinity at the edge of an end bin; its square is finite in float32


class Likelihood(ABC):
    """One head. Instances are constants; x, bins and scale broadcast against params (..., X)."""

    name: str
    formula: str  # of log p(x), for reports
    supports: frozenset[str]  # of the data it can describe: "binary", "unit", "real"
    has_scale: bool = False
    trains_on: str = "dequantised"  # or "levels": the middle of the level's bin, 0 or 1 for binary data

    @abstractmethod
    def log_prob(self, x: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        """Log density (for the Bernoulli: log probability) of x."""

    @abstractmethod
    def log_mass(self, lower: Tensor, upper: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        """Log probability of the bin [lower, upper]; lower may be -inf, upper +inf."""

    @abstractmethod
    def mean(self, params: Tensor, scale: Tensor | None = None) -> Tensor:
        """E x."""

    @abstractmethod
    def sample(self, params: Tensor, scale: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """One draw of x for every number of params."""

    def __repr__(self) -> str:
        return f"<likelihood {self.name}>"


def check_support(likelihood: str, support: str, dequantise: bool = True) -> None:
    """Raise `ValueError` where a likelihood cannot describe data of this support, saying what can.

    `dequantise` tells whether levels are spread over their bins, (v + u) / L, before a density sees them.
    """
    head = lookup(LIKELIHOODS, likelihood, "likelihood")
    if support not in SUPPORTS:
        raise ValueError(unknown(support, SUPPORTS, "support"))
    if support not in head.supports:
        able = [name for name, other in LIKELIHOODS.items() if support in other.supports]
        raise ValueError(
            f"likelihood {likelihood!r} got data of support {support!r}, expected "
            f"{' or '.join(sorted(head.supports))}; choose one of: {', '.join(able)}"
        )


# ---------------------------------------------------------------------------------------------- exponential families


class _LinearInX(torch.autograd.Function):
    """x eta - A(eta) and its slope x - A'(eta), found together: both need the same exponentials."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, eta: Tensor, both: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        normaliser, mean = both(eta)
        return normaliser.neg_().addcmul_(x, eta), torch.sub(x, mean, out=mean)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor, _: Tensor) -> tuple[None, Tensor, None]:  # type: ignore[no-untyped-def]
        return None, grad * ctx.saved_tensors[0], None


def _linear_in_x(x: Tensor, eta: Tensor, both: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    x = x.to(eta.dtype)
    shape = torch.broadcast_shapes(x.shape, eta.shape)
    result: Tensor = _LinearInX.apply(x.expand(shape), eta.expand(shape), both)[0]
    return result


def _softplus_and_sigmoid(eta: Tensor) -> tuple[Tensor, Tensor]:
    """log(1 + exp eta) and its derivative. max(s, 1 - s) >= 1/2, so its logarithm keeps absolute accuracy."""
    s = eta.sigmoid()
    likelier = (s - 0.5).abs_().add_(0.5)
    return eta.clamp_min(0).sub_(likelier.log_()), s


def _uniform_tilt(eta: Tensor) -> tuple[Tensor, Tensor]:
    """log int_0^1 exp(x eta) dx and its derivative, the mean of x.

    The integral is exp(max(eta, 0)) (1 - exp -a) / a with a = |eta|. The mean is 1/2 +- (1 / (1 - exp -a) - 1 / a -
    1/2); near 0 that difference cancels, and is held between the bounds a/12 - a^3/720 and a/12 of its own series.
    """
    a = eta.abs().clamp_min_(TINY)
    rest = a.neg().expm1_().neg_()
    value = torch.div(rest, a).log_().add_(eta.clamp_min(0))
    high = a / 12
    low = torch.addcmul(high, a * a, a, value=-1 / 720)
    mean = rest.reciprocal_().sub_(a.reciprocal_()).sub_(0.5)
    mean = torch.maximum(torch.minimum(mean, high, out=mean), low, out=mean)
    return value, mean.copysign_(eta).add_(0.5)


def _log_fraction(a: Tensor) -> Tensor:
    """log((1 - exp -a) / a) for a >= 0, the log of the mean of exp(-a x) over the unit interval."""
    a = a.clamp_min(TINY)
    return (-torch.expm1(-a) / a).log()


def _log_tilted_bin(lower: Tensor, upper: Tensor, eta: Tensor) -> Tensor:
    """log of int_lower^upper exp(x eta) dx / int_0^1 exp(x eta) dx, the bin cut to the unit interval.

    The exponent left at the bin's higher edge is (upper - 1) eta or lower eta, without large terms that cancel.
    """
    lower, upper = lower.clamp_min(0), upper.clamp_max(1)
    width = upper - lower
    a = eta.abs()
    distance = torch.where(eta > 0, upper - 1, lower)
    return distance * eta + width.log() + _log_fraction(width * a) - _log_fraction(a)


class Bernoulli(Likelihood):
    """A coin of logit eta: black or white; grey x is read as the share of white."""

    name = "bernoulli"
    formula = "x η − log(1 + exp η)"
    supports = frozenset({"binary", "unit"})
    trains_on = "levels"

    def log_prob(self, x: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return _linear_in_x(x, params, _softplus_and_sigmoid)

    def log_mass(self, lower: Tensor, upper: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        black, white = (lower <= 0) & (upper == 0.5), (lower == 0.5) & (upper >= 1)
        two_levels = black | white
        if not two_levels.is_cuda:  # a captured graph cannot ask; there both are computed
            if bool(two_levels.all()):
                return self.log_prob(white, params)
            if not bool(two_levels.any()):
                return _log_tilted_bin(lower, upper, params)
        return torch.where(two_levels, self.log_prob(white, params), _log_tilted_bin(lower, upper, params))

    def mean(self, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return params.sigmoid()

    def sample(self, params: Tensor, scale: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return torch.bernoulli(params.sigmoid(), generator=generator)


class ContinuousBernoulli(Likelihood):
    """The Bernoulli made a density on [0, 1] by its normaliser, an exponential cut to the unit interval."""

    name = "continuous_bernoulli"
    formula = "x η − log((exp η − 1) / η)"
    supports = frozenset({"binary", "unit"})

    def log_prob(self, x: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return _linear_in_x(x, params, _uniform_tilt)

    def log_mass(self, lower: Tensor, upper: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return _log_tilted_bin(lower, upper, params)

    def mean(self, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return _uniform_tilt(params.detach())[1] if not params.requires_grad else _tilted_mean(params)

    def sample(self, params: Tensor, scale: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        u = torch.rand(params.shape, generator=generator, dtype=params.dtype, device=params.device)
        a = params.abs().clamp_min(TINY)
        from_end = torch.log1p(u * torch.expm1(-a)) / -a  # distance from the likelier end
        return torch.where(params > 0, 1 - from_end, from_end).clamp(0, 1)


def _tilted_mean(eta: Tensor) -> Tensor:
    """The mean of the continuous Bernoulli, differentiable: a series where 1 / (1 - exp -eta) - 1 / eta cancels."""
    small = eta.abs() < 0.3
    safe = torch.where(small, 1.0, eta)
    square = torch.where(small, eta, 0.0).square()
    series = 0.5 + eta * (1 / 12 - square / 720 + square.square() / 30240)
    return torch.where(small, series, -1 / torch.expm1(-safe) - 1 / safe)


# ------------------------------------------------------------------------------------------------ laws on the line


class _NormalLogProb(torch.autograd.Function):
    """-d^2 / 2 - log scale - log(2 pi) / 2 with d = (x - loc) / scale; keeps d alone for its slopes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        d = torch.sub(x, loc).div_(scale)
        return torch.mul(d, d).mul_(-0.5).sub_(scale.log() + 0.5 * math.log(2 * math.pi)), d

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(output[1], inputs[2])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor, _: Tensor) -> tuple[None, Tensor, Tensor | None]:  # type: ignore[no-untyped-def]
        d, scale = ctx.saved_tensors
        slope = grad * d
        to_scale = None
        if ctx.needs_input_grad[2]:
            to_scale = torch.addcmul(grad, slope, d, value=-1).sum_to_size(scale.shape).neg() / scale
        return None, slope.div_(scale), to_scale


class Normal(Likelihood):
    """A normal law of location eta and the scale that is given."""

    name = "normal"
    formula = "−((x − η) / s)² / 2 − log s − log(2π) / 2"
    supports = frozenset(SUPPORTS)
    has_scale = True

    def log_prob(self, x: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        given = _given(scale, params)
        shape = torch.broadcast_shapes(x.shape, params.shape, given.shape)
        result: Tensor = _NormalLogProb.apply(x.to(params.dtype), params.expand(shape), given)[0]
        return result

    def log_mass(self, lower: Tensor, upper: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return _log_bin(lower, upper, params, _given(scale, params), _normal_log_density, _normal_log_interval)

    def mean(self, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return params

    def sample(self, params: Tensor, scale: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        noise = torch.randn(params.shape, generator=generator, dtype=params.dtype, device=params.device)
        return params + noise * _given(scale, params)


def _given(scale: Tensor | None, params: Tensor) -> Tensor:
    if scale is None:
        raise ValueError("got no scale for a likelihood that has one, expected a positive tensor that fits params")
    return scale.to(params.dtype)


class _LogInterval(torch.autograd.Function):
    """log P(a < eps < b) of a standard law; its slopes are -p(a) / P and p(b) / P, in log space."""

    @staticmethod
    def forward(ctx, a, b, width, log_density, log_interval):  # type: ignore[no-untyped-def]
        value = log_interval(a, b, width)
        ctx.save_for_backward(a, b, value)
        ctx.log_density = log_density
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        a, b, value = ctx.saved_tensors
        to_a = (ctx.log_density(a) - value).exp().mul_(grad).neg_()
        to_b = (ctx.log_density(b) - value).exp().mul_(grad)
        return to_a, to_b, None, None, None


Density = Callable[[Tensor], Tensor]
Interval = Callable[[Tensor, Tensor, Tensor], Tensor]


def _log_bin(
    lower: Tensor, upper: Tensor, loc: Tensor, scale: Tensor, log_density: Density, log_interval: Interval
) -> Tensor:
    """Log mass of [lower, upper] under loc + scale eps. The width is kept apart: a difference of edges cancels.

    Infinite edges are put so far out that nothing is left beyond them: they are then finite in every slope.
    """
    lower, upper = lower.clamp_min(-FAR), upper.clamp_max(FAR)
    a, b = (lower - loc) / scale, (upper - loc) / scale
    width = ((upper - lower) / scale.detach()).expand(a.shape)
    result: Tensor = _LogInterval.apply(a, b, width, log_density, log_interval)
    return result


def _normal_log_density(eps: Tensor) -> Tensor:
    return -0.5 * eps.square() - 0.5 * math.log(2 * math.pi)


def _normal_log_interval(a: Tensor, b: Tensor, width: Tensor) -> Tensor:
    """From the upper tails Q of the bin mirrored to the right of 0: log Q(a) + log(1 - Q(b) / Q(a))."""
    left = a + b < 0
    a, b = torch.where(left, -b, a), torch.where(left, -a, b)
    near, far = torch.special.log_ndtr(-a), torch.special.log_ndtr(-b)
    return near + torch.log(-torch.expm1(far - near))


LIKELIHOODS: dict[str, Likelihood] = {head.name: head for head in (Bernoulli(), ContinuousBernoulli(), Normal())}
