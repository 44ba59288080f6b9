r"""Likelihoods: what a decoder's outputs say about one observed number.

A head p(x|z) acts elementwise. `params` is the raw output of a decoder, eta below: a logit for heads on the unit
interval, a location for heads on the line; `scale` > 0 (its floor already applied) is given to heads that have one.

| head                 | log p(x)                                              | support of x     | trains on   |
|----------------------|-------------------------------------------------------|------------------|-------------|
| bernoulli            | x eta - log(1 + exp eta)                              | {0, 1}, [0, 1]   | levels      |
| continuous_bernoulli | x eta - log((exp eta - 1) / eta)                      | [0, 1]           | dequantised |
| beta                 | log Beta(x; nu m, nu (1 - m)), m = sigmoid eta        | (0, 1)           | dequantised |
| normal               | -d^2 / 2 - log(scale sqrt(2 pi)), d = (x - eta)/scale | line             | dequantised |
| laplace              | -abs d - log(2 scale)                                 | line             | dequantised |
| logistic             | -d - 2 log(1 + exp -d) - log scale                    | line             | dequantised |
| student_t            | -2 log(1 + d^2 / 3) - log(scale sqrt 3 pi / 2)        | line             | dequantised |
| mse                  | -(x - eta)^2 - log(pi) / 2: normal, scale 1 / sqrt 2  | line             | levels      |

A density on discrete data is unbounded, so scores never use it: level v of L owns the bin [v/L, (v+1)/L], and
`log_mass(lower, upper, ...)` is the log probability of a bin, computed in log space (finite to -1e4 nats in float32).
The end bins reach to -inf and +inf, so that masses sum to one.

The Bernoulli knows two outcomes only. For two levels, that is for the bins that meet at 1/2, its mass is its own
probability; grey levels are scored as the continuous Bernoulli of the same logits, and lose partly by construction.
References: Loaiza-Ganem and Cunningham, The continuous Bernoulli, 2019; Uria, Murray and Larochelle, RNADE, 2013.
Value and slope are found together by autograd functions of first order: gradients of gradients and torch.func are not
served. Not here: how masses are computed (`likelihood_masses`, `beta`), the bins themselves (`data.batches`), sums over pixels
and observation masks (`model.vae`).

To add one: subclass `Likelihood`, write log_prob, log_mass, mean and sample, add it to LIKELIHOODS and its name to
`autovae.spec.LIKELIHOOD_NAMES`. The tests pick it up from the table.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from autovae.beliefs.beta import log_beta_density, log_beta_mass
from autovae.beliefs.families import FAMILIES
from autovae.beliefs.likelihood_masses import (
    LOG_SQRT_2PI,
    TINY,
    Interval,
    Quick,
    laplace_interval,
    log_bin,
    log_tilted_bin,
    log_uniform_tilt,
    logistic_interval,
    normal_bins,
    normal_interval,
    student_interval,
    sum_of_logs,
    tilted_bins_sum,
)
from autovae.tables import lookup, unknown

__all__ = ["LIKELIHOODS", "Likelihood", "check_support"]

SUPPORTS = ("binary", "unit", "real")
STUDENT_NU = 3.0  # degrees of freedom of the student_t head: tails far from the normal's, variance still finite


class Likelihood(ABC):
    """One head. Instances are constants; x, bins and scale broadcast against params (..., X)."""

    name: str
    formula: str  # of log p(x), for reports
    supports: frozenset[str]  # of the data it can describe: "binary", "unit", "real"
    has_scale: bool = False
    linear_in_x: bool = False  # whether log p(x) = x eta - A(eta): a device may have its own way to the sum
    trains_on: str = "dequantised"  # or "levels": the middle of the level's bin, 0 or 1 for binary data

    @abstractmethod
    def log_prob(self, x: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        """Log density (for the Bernoulli: log probability) of x."""

    @abstractmethod
    def log_mass(self, lower: Tensor, upper: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        """Log probability of the bin [lower, upper]; lower may be -inf, upper +inf."""

    def log_prob_sum(self, x: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        """`log_prob` summed over the last axis; a head may find the sum with less work than its terms."""
        return self.log_prob(x, params, scale).sum(-1)

    def log_mass_sum(self, lower: Tensor, upper: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        """`log_mass` summed over the last axis."""
        return self.log_mass(lower, upper, params, scale).sum(-1)

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
    if head.name == "beta" and (support == "binary" or not dequantise):
        raise ValueError(
            f"likelihood 'beta' got {'binary data' if support == 'binary' else 'data that are not dequantised'}, where "
            "its density at 0 and 1 is 0 or infinite; expected grey levels (support unit) with dequantisation: set "
            "dequantise = true, or choose one of: bernoulli, continuous_bernoulli, normal"
        )
    if support not in head.supports:
        able = [name for name, other in LIKELIHOODS.items() if support in other.supports]
        raise ValueError(
            f"likelihood {likelihood!r} got data of support {support!r}, expected "
            f"{' or '.join(sorted(head.supports))}; choose one of: {', '.join(able)}"
        )


# ------------------------------------------------------------------------------------------ heads linear in x


class _LinearInX(torch.autograd.Function):
    """x eta - A(eta) and its slope x - A'(eta), found together: both need the same exponentials."""

    @staticmethod
    def forward(x: Tensor, eta: Tensor, both: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        normaliser, mean = both(eta)
        return normaliser.neg_().addcmul_(x, eta), torch.sub(x, mean, out=mean)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # else zeros are made for the slope

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor | None, _: Tensor | None) -> tuple[None, Tensor | None, None]:  # type: ignore[no-untyped-def]
        return None, None if grad is None else grad * ctx.saved_tensors[0], None


def _linear_in_x(x: Tensor, eta: Tensor, both: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    x, eta = torch.broadcast_tensors(x.to(eta.dtype), eta)
    result: Tensor = _LinearInX.apply(x, eta, both)[0]
    return result


def _softplus_and_sigmoid(eta: Tensor) -> tuple[Tensor, Tensor]:
    """log(1 + exp eta) and its derivative. max(s, 1 - s) >= 1/2, so its logarithm keeps absolute accuracy."""
    s = eta.sigmoid()
    likelier = (s - 0.5).abs_().add_(0.5)
    return eta.clamp_min(0).sub_(likelier.log_()), s


class _CoinSum(torch.autograd.Function):
    """sum x eta - log(1 + exp eta) over the last axis: one logarithm for many factors, all within [1/2, 1]."""

    @staticmethod
    def value(x: Tensor, eta: Tensor, size: Tensor, likelier: Tensor) -> Tensor:
        """sum (x - 1/2) eta - |eta| / 2 + log sigmoid |eta|, from size = sum |eta| and the sigmoid, `likelier`."""
        centred = x - 0.5
        if centred.dim() == 1 or centred.shape[:-1].numel() == 1:  # one point
            linear = eta @ centred.reshape(-1)
        elif centred.dim() == 2 and eta.dim() > 1 and eta.shape[-2] == 1:  # samples common to all points
            linear = eta.squeeze(-2) @ centred.T
        else:
            linear = (centred * eta).sum(-1)
        return linear + _CoinSum.even(size, likelier)

    @staticmethod
    def even(size: Tensor, likelier: Tensor) -> Tensor:
        """sum -|eta| / 2 + log sigmoid |eta|."""
        return sum_of_logs(likelier).sub_(size, alpha=0.5)

    @staticmethod
    def forward(x: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
        s = eta.sigmoid()
        spare = 1 - s
        value = _CoinSum.even(torch.linalg.vector_norm(eta, 1, dim=-1), torch.maximum(s, spare, out=spare))
        centred = torch.sub(x.expand_as(eta), 0.5, out=spare)
        value += centred.mul_(eta).sum(-1)
        return value, torch.sub(x, s, out=s)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # else zeros are made for the slope

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor | None, _: Tensor | None) -> tuple[None, Tensor | None]:  # type: ignore[no-untyped-def]
        if grad is None:
            return None, None
        (slope,) = ctx.saved_tensors  # nobody else's: overwritten, which a second pass through the graph would notice
        return None, slope.mul_(grad.unsqueeze(-1))


class LinearInX(Likelihood):
    """Heads x eta - A(eta): log densities linear in x."""

    linear_in_x = True


class Bernoulli(LinearInX):
    """A coin of logit eta: black or white; grey x is read as the share of white."""

    name = "bernoulli"
    formula = "x η − log(1 + exp η)"
    supports = frozenset({"binary", "unit"})
    trains_on = "levels"

    def log_prob(self, x: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return _linear_in_x(x, params, _softplus_and_sigmoid)

    def log_prob_sum(self, x: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        x = x.to(params.dtype)
        if not (params.requires_grad and torch.is_grad_enabled()):
            spare = params.abs()
            return _CoinSum.value(x, params, spare.sum(-1), spare.sigmoid_())
        result: Tensor = _CoinSum.apply(x, torch.broadcast_tensors(x, params)[1])[0]
        return result

    def log_mass(self, lower: Tensor, upper: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        black, white = _halves(lower, upper)
        two_levels = black | white
        if not two_levels.is_cuda:  # a captured graph cannot ask; there both are computed
            if bool(two_levels.all()):
                return self.log_prob(white, params)
            if not bool(two_levels.any()):
                return log_tilted_bin(lower, upper, params)
        return torch.where(two_levels, self.log_prob(white, params), log_tilted_bin(lower, upper, params))

    def log_mass_sum(self, lower: Tensor, upper: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        black, white = _halves(lower, upper)
        if not black.is_cuda and bool((black | white).all()):
            return self.log_prob_sum(white, params)
        if not black.is_cuda and not bool((black | white).any()):
            return _tilted_sum(lower, upper, params)
        return self.log_mass(lower, upper, params).sum(-1)

    def mean(self, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return params.sigmoid()

    def sample(self, params: Tensor, scale: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return torch.bernoulli(params.sigmoid(), generator=generator)


def _tilted_sum(lower: Tensor, upper: Tensor, params: Tensor) -> Tensor:
    if not torch.is_grad_enabled() and (quick := tilted_bins_sum(lower, upper, params)) is not None:
        return quick
    return log_tilted_bin(lower, upper, params).sum(-1)


def _halves(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Which bins are the lower, and which the upper half of the unit interval: the two levels of a coin."""
    return (lower <= 0) & (upper == 0.5), (lower == 0.5) & (upper >= 1)


class ContinuousBernoulli(LinearInX):
    """The Bernoulli made a density on [0, 1] by its normaliser, an exponential cut to the unit interval."""

    name = "continuous_bernoulli"
    formula = "x η − log((exp η − 1) / η)"
    supports = frozenset({"binary", "unit"})

    def log_prob(self, x: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return _linear_in_x(x, params, log_uniform_tilt)

    def log_mass(self, lower: Tensor, upper: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return log_tilted_bin(lower, upper, params)

    def log_mass_sum(self, lower: Tensor, upper: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return _tilted_sum(lower, upper, params)

    def mean(self, params: Tensor, scale: Tensor | None = None) -> Tensor:
        if not (params.requires_grad and torch.is_grad_enabled()):
            return log_uniform_tilt(params)[1]
        small = params.abs() < 0.3
        safe, square = torch.where(small, 1.0, params), torch.where(small, params, 0.0).square()
        series = 0.5 + params * (1 / 12 - square / 720 + square.square() / 30240)
        # The distance from the nearer end: past 88, exp overflows and its slope would be inf / inf.
        a = safe.abs()
        from_end = 1 / a - 1 / torch.expm1(a.clamp(max=60.0))
        return torch.where(small, series, torch.where(params > 0, 1 - from_end, from_end))

    def sample(self, params: Tensor, scale: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        u = torch.rand(params.shape, generator=generator, dtype=params.dtype, device=params.device)
        a = params.abs().clamp_min(TINY)
        from_end = torch.log1p(u * torch.expm1(-a)) / -a  # distance from the likelier end
        return torch.where(params > 0, 1 - from_end, from_end).clamp(0, 1)


# ------------------------------------------------------------------------------------------ laws of the line


class _StandardLogProb(torch.autograd.Function):
    """log p(d) - log scale with d = (x - loc) / scale, from a law that gives log p and its slope together."""

    @staticmethod
    def forward(x, loc, scale, law):  # type: ignore[no-untyped-def]
        d = torch.sub(x, loc).div_(scale)
        value, slope = law(d)
        return value.sub_(scale.log()), d, slope

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        _, d, slope = output
        ctx.save_for_backward(d, slope, inputs[2])
        ctx.mark_non_differentiable(d, slope)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad, _d, _slope):  # type: ignore[no-untyped-def]
        d, slope, scale = ctx.saved_tensors
        to_d = grad * slope
        to_scale = None
        if ctx.needs_input_grad[2]:
            to_scale = torch.addcmul(grad, to_d, d).sum_to_size(scale.shape).neg() / scale
        return None, to_d.neg_().div_(scale), to_scale, None


def _normal(d: Tensor) -> tuple[Tensor, Tensor]:
    return torch.mul(d, d).mul_(-0.5).sub_(LOG_SQRT_2PI), -d


def _laplace(d: Tensor) -> tuple[Tensor, Tensor]:
    return d.abs().neg_().sub_(math.log(2)), d.sign().neg_()


def _logistic(d: Tensor) -> tuple[Tensor, Tensor]:
    s = d.sigmoid()
    likelier = (s - 0.5).abs_().add_(0.5).log_()
    return likelier.mul_(2).sub_(d.abs()), s.mul_(-2).add_(1)


_STUDENT_CONSTANT = (
    math.lgamma((STUDENT_NU + 1) / 2) - math.lgamma(STUDENT_NU / 2) - 0.5 * math.log(STUDENT_NU * math.pi)
)


def _student(d: Tensor) -> tuple[Tensor, Tensor]:
    power = -(STUDENT_NU + 1) / 2
    square = d.square()
    value = square.div(STUDENT_NU).log1p_().mul_(power).add_(_STUDENT_CONSTANT)
    return value, square.add_(STUDENT_NU).reciprocal_().mul_(d).mul_(2 * power)


class OnTheLine(Likelihood):
    """A location-scale law of location eta and the scale that is given; sampling is its family's."""

    supports = frozenset(SUPPORTS)
    has_scale = True

    def __init__(
        self,
        name: str,
        family: str,
        formula: str,
        law: Callable[[Tensor], tuple[Tensor, Tensor]],
        interval: Interval,
        fixed_scale: float | None = None,
        edges_give_slopes: bool = False,
        quick: Quick | None = None,
    ) -> None:
        self.name, self.formula, self.family = name, formula, FAMILIES[family]
        self.law, self.interval, self.fixed_scale = law, interval, fixed_scale
        self.edges_give_slopes, self.quick = edges_give_slopes, quick
        if fixed_scale is not None:
            self.has_scale, self.trains_on = False, "levels"

    def _scale(self, scale: Tensor | None, params: Tensor) -> Tensor:
        if self.fixed_scale is not None:
            return params.new_full((), self.fixed_scale)  # filled on the device: a captured step may copy nothing
        return _given(scale, params, self.name)

    def log_prob(self, x: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        given = self._scale(scale, params)
        wide = torch.broadcast_tensors(x, params, given)[1]
        result: Tensor = _StandardLogProb.apply(x.to(params.dtype), wide, given, self.law)[0]
        return result

    def log_mass(self, lower: Tensor, upper: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        density = (lambda eps: self.law(eps)[0]) if self.edges_give_slopes else None
        return log_bin(lower, upper, params, self._scale(scale, params), self.interval, density, self.quick)

    def mean(self, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return params

    def sample(self, params: Tensor, scale: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        noise = self.family.sample(params.shape, generator, params.dtype, params.device)
        return params + noise * self._scale(scale, params)


def _given(scale: Tensor | None, params: Tensor, name: str) -> Tensor:
    if scale is None:
        raise ValueError(f"likelihood {name!r} got no scale, expected a positive tensor that broadcasts against params")
    return scale.to(params.dtype)


# ------------------------------------------------------------------------------------------ the unit interval


class Beta(Likelihood):
    """A beta law of mean sigmoid(eta) and concentration nu = 1 / (4 scale^2): scale is about its sd at mean 1/2."""

    name = "beta"
    formula = "log Beta(x; ν m, ν (1 − m)), m = sigmoid η, ν = 1 / 4s²"
    supports = frozenset({"unit"})
    has_scale = True

    def _concentration(self, scale: Tensor | None, params: Tensor) -> Tensor:
        return 0.25 / _given(scale, params, self.name).square()

    def log_prob(self, x: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return log_beta_density(x.to(params.dtype), params, self._concentration(scale, params))

    def log_mass(self, lower: Tensor, upper: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return log_beta_mass(lower, upper, params, self._concentration(scale, params))

    def mean(self, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return params.sigmoid()

    def sample(self, params: Tensor, scale: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        nu = self._concentration(scale, params)
        a, b = (nu * params.sigmoid()).expand_as(params), (nu * (-params).sigmoid()).expand_as(params)
        log_x, log_y = _log_gamma_draw(a, generator), _log_gamma_draw(b, generator)
        return (log_x - log_y).sigmoid()


def _log_gamma_draw(shape: Tensor, generator: Generator | None) -> Tensor:
    """log of a Gamma(shape, 1) draw: of shape + 1, times u^(1 / shape), which underflows where its log does not."""
    u = torch.rand(shape.shape, generator=generator, dtype=shape.dtype, device=shape.device)
    return torch._standard_gamma(shape + 1, generator=generator).log() + u.clamp_min(TINY).log() / shape.clamp_min(TINY)


def _on_the_line() -> list[Likelihood]:
    student = f"−2 log(1 + d²/{STUDENT_NU:g}) − log(s π √{STUDENT_NU:g} / 2), d = (x − η) / s"
    return [
        OnTheLine("normal", "normal", "−d²/2 − log s − log(2π)/2, d = (x − η) / s", _normal, normal_interval,
                  edges_give_slopes=True, quick=normal_bins),
        OnTheLine("laplace", "laplace", "−|d| − log 2s, d = (x − η) / s", _laplace, laplace_interval),
        OnTheLine("logistic", "logistic", "−d − 2 log(1 + exp −d) − log s, d = (x − η) / s", _logistic, logistic_interval),
        OnTheLine("student_t", "student_t3", student, _student, student_interval(STUDENT_NU), edges_give_slopes=True),
        OnTheLine("mse", "normal", "−(x − η)² − log(π)/2: normal with s = 1/√2", _normal, normal_interval,
                  fixed_scale=math.sqrt(0.5), edges_give_slopes=True, quick=normal_bins),
    ]  # fmt: skip


LIKELIHOODS: dict[str, Likelihood] = {
    head.name: head for head in (Bernoulli(), ContinuousBernoulli(), Beta(), *_on_the_line())
}
