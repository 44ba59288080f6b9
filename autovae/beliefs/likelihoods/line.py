r"""Heads on the line: location-scale laws of location eta and the given scale.

    log p(x) = log f(d) - log scale,  d = (x - eta) / scale          f the standard law of a family

A law here is f and its slope in one pass; sampling is the family's own.
To add one: subclass `OnTheLine` with its family, law, interval and partial mean, and add its row to
`autovae.registry.LIKELIHOODS`.
Not here: log masses of bins, see `line_masses`.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Generator, Tensor

from autovae.beliefs.families import FAMILIES
from autovae.beliefs.likelihoods.head import Likelihood, given
from autovae.beliefs.likelihoods.line_masses import (
    LOG_SQRT_2PI,
    laplace_interval,
    log_bin,
    logistic_interval,
    normal_bins,
    normal_interval,
    student_interval,
)

__all__ = ["LaplaceHead", "LogisticHead", "MeanSquaredError", "NormalHead", "OnTheLine", "StudentHead"]

STUDENT_NU = 3.0  # degrees of freedom of the student_t head: tails far from the normal's, variance still finite
LawAndSlope = tuple[Tensor, Tensor]


class OnTheLine(Likelihood):
    """A location-scale law. `interval` is the log mass of an interval in standard units, see `line_masses`."""

    family: str
    edges_give_slopes = False  # slopes of masses from the densities at the edges; else by differentiating `interval`

    @abstractmethod
    def law(self, d: Tensor) -> LawAndSlope:
        """log f(d) and its derivative."""

    @abstractmethod
    def interval(self, a: Tensor, b: Tensor, width: Tensor) -> Tensor:
        """log P(a < d < b), width = b - a."""

    def quick(self, lower: Tensor, upper: Tensor, loc: Tensor, scale: Tensor) -> Tensor | None:
        """Log masses without gradients by fewer passes over memory; None if these bins do not allow it."""
        return None

    def width(self, scale: Tensor | None, params: Tensor) -> Tensor:
        """The scale in use."""
        return given(scale, params, self.name)

    def log_prob(self, x: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        width = self.width(scale, params)
        wide = torch.broadcast_tensors(x, params, width)[1]
        result: Tensor = _StandardLogProb.apply(x.to(params.dtype), wide, width, self.law)[0]
        return result

    def log_mass(self, lower: Tensor, upper: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        density = (lambda eps: self.law(eps)[0]) if self.edges_give_slopes else None
        return log_bin(lower, upper, params, self.width(scale, params), self.interval, density, self.quick)

    @abstractmethod
    def partial_mean(self, d: Tensor) -> Tensor:
        """The integral of t f(t) up to d."""

    def mean(self, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return params

    def folded_mean(self, params: Tensor, scale: Tensor | None, low: float, high: float) -> Tensor:
        r"""low F(a) + eta (F(b) - F(a)) + s (M(b) - M(a)) + high (1 - F(b)), a and b the ends in standard units, M(d) the
        integral of t f(t) up to d."""
        width, law = self.width(scale, params), FAMILIES[self.family]
        a, b = (low - params) / width, (high - params) / width
        below, above = law.cdf(a), law.cdf(-b)  # symmetric laws
        inside = params * (1 - below - above) + width * (self.partial_mean(b) - self.partial_mean(a))
        return (low * below + inside + high * above).clamp(low, high)

    def sample(self, params: Tensor, scale: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        noise = FAMILIES[self.family].sample(params.shape, generator, params.dtype, params.device)
        return params + noise * self.width(scale, params)


class _Normal(OnTheLine):
    family = "normal"
    edges_give_slopes = True

    def law(self, d: Tensor) -> LawAndSlope:
        return torch.mul(d, d).mul_(-0.5).sub_(LOG_SQRT_2PI), -d

    def interval(self, a: Tensor, b: Tensor, width: Tensor) -> Tensor:
        return normal_interval(a, b, width)

    def quick(self, lower: Tensor, upper: Tensor, loc: Tensor, scale: Tensor) -> Tensor | None:
        return normal_bins(lower, upper, loc, scale)

    def partial_mean(self, d: Tensor) -> Tensor:
        return -torch.exp(-0.5 * d.square() - LOG_SQRT_2PI)


class NormalHead(_Normal):
    name = "normal"
    formula = "−d²/2 − log s − log(2π)/2, d = (x − η) / s"


class MeanSquaredError(_Normal):
    """A normal of fixed scale 1 / sqrt 2: the squared error as a log density."""

    name = "mse"
    formula = "−(x − η)² − log(π)/2: normal with s = 1/√2"

    def width(self, scale: Tensor | None, params: Tensor) -> Tensor:
        return params.new_full((), math.sqrt(0.5))  # filled on the device: a captured step may copy nothing


class LaplaceHead(OnTheLine):
    name, family = "laplace", "laplace"
    formula = "−|d| − log 2s, d = (x − η) / s"

    def law(self, d: Tensor) -> LawAndSlope:
        return d.abs().neg_().sub_(math.log(2)), d.sign().neg_()

    def interval(self, a: Tensor, b: Tensor, width: Tensor) -> Tensor:
        return laplace_interval(a, b, width)

    def partial_mean(self, d: Tensor) -> Tensor:
        t = d.abs()
        return -0.5 * (1 + t) * torch.exp(-t)


class LogisticHead(OnTheLine):
    name, family = "logistic", "logistic"
    formula = "−d − 2 log(1 + exp −d) − log s, d = (x − η) / s"

    def law(self, d: Tensor) -> LawAndSlope:
        s = d.sigmoid()
        likelier = (s - 0.5).abs_().add_(0.5).log_()
        return likelier.mul_(2).sub_(d.abs()), s.mul_(-2).add_(1)

    def interval(self, a: Tensor, b: Tensor, width: Tensor) -> Tensor:
        return logistic_interval(a, b, width)

    def partial_mean(self, d: Tensor) -> Tensor:
        t = d.abs()  # even in d: the mean is 0
        return -t * torch.sigmoid(-t) - torch.log1p(torch.exp(-t))


class StudentHead(OnTheLine):
    name, family = "student_t", f"student_t{STUDENT_NU:g}"
    formula = f"−2 log(1 + d²/{STUDENT_NU:g}) − log(s π √{STUDENT_NU:g} / 2), d = (x − η) / s"
    edges_give_slopes = True
    constant = math.lgamma((STUDENT_NU + 1) / 2) - math.lgamma(STUDENT_NU / 2) - 0.5 * math.log(STUDENT_NU * math.pi)
    angles = staticmethod(student_interval(STUDENT_NU))

    def law(self, d: Tensor) -> LawAndSlope:
        power = -(STUDENT_NU + 1) / 2
        square = d.square()
        value = square.div(STUDENT_NU).log1p_().mul_(power).add_(self.constant)
        return value, square.add_(STUDENT_NU).reciprocal_().mul_(d).mul_(2 * power)

    def interval(self, a: Tensor, b: Tensor, width: Tensor) -> Tensor:
        return self.angles(a, b, width)

    def partial_mean(self, d: Tensor) -> Tensor:
        nu = STUDENT_NU
        return -math.exp(self.constant) * nu / (nu - 1) * (1 + d.square() / nu) ** (-(nu - 1) / 2)


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
