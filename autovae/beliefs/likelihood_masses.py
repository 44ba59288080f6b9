r"""Log probabilities of bins: what a density on the line or the unit interval gives to [lower, upper].

A difference of two distribution functions underflows in the tails and cancels in narrow bins, so each law has a form of
its own, in which no large terms cancel. Below, a = (lower - loc) / scale and b = (upper - loc) / scale are the bin's
edges in standard units, w = b - a its width (computed from the edges themselves), and the bin is mirrored to the right
of 0 (a >= -w/2) where the law is symmetric:

| law             | log P(a < eps < b)                                                                             |
|-----------------|------------------------------------------------------------------------------------------------|
| tilted uniform  | min(lower eta, (upper - 1) eta) + log((1 - exp(-w abs eta)) / (1 - exp(-abs eta)))             |
| normal          | log Q(a) + log(1 - Q(b) / Q(a)); narrow: w phi(middle) times the mean of exp over the bin      |
| laplace         | -a+ - log 2 + log((1 - exp(-(w + a-))) + (1 - exp a-)), a = a+ + a- its parts                  |
| logistic        | log sigmoid(b) + log sigmoid(-a) + log(1 - exp(-w))                                            |
| student_t       | log of int sin^(nu - 1) over the angles cot(angle) = eps / sqrt nu, by Gauss-Legendre          |

Infinite edges of end bins are put at +-FAR, where nothing is left of any of these laws in float32.
Where no gradient is wanted, `normal_bins` takes a third of the normal's passes over memory: a bin has one argument, its
middle or its only edge, and narrow ones take the first terms of the series below in t = w middle / 2:
log w phi(middle) - w^2 / 24 + (1/6 - w^2 / 180) t^2 - t^4 / 180 + t^6 / 2835.
Gradients: d log P = (p(b) db - p(a) da) / P for normal and student_t, in log space; the others differentiate as they
stand. Reference for the narrow normal bin: the cumulants of eps^2 / 2 under the exponential tilt of the bin.
Not here: the beta density, see `beta`; the heads that own these masses, see `likelihoods`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "gauss_legendre",
    "log_bin",
    "log_tilted_bin",
    "log_uniform_tilt",
    "logistic_interval",
    "normal_bins",
    "normal_interval",
    "laplace_interval",
    "student_interval",
    "sum_of_logs",
    "tilted_bins_sum",
]

TINY = 1e-30  # a normal number of float32 whose reciprocal is finite: stands for 0 in a quotient
FAR = 1e9  # stands for infinity at the edge of an end bin; its square is finite in float32
LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
NARROW = 0.125  # normal bins below this width, in float32: the first neglected term is 1e-7
FAR_TAIL = 9.0  # of the normal in float32, where erfc nears its smallest number and the asymptotic series serves

Interval = Callable[[Tensor, Tensor, Tensor], Tensor]
Density = Callable[[Tensor], Tensor]
Quick = Callable[[Tensor, Tensor, Tensor, Tensor], "Tensor | None"]


def gauss_legendre(nodes: int) -> tuple[list[float], list[float]]:
    """Nodes and weights of quadrature on [0, 1], exact for polynomials of degree 2 nodes - 1."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return ((points + 1) / 2).tolist(), (weights / 2).tolist()


# ------------------------------------------------------------------------------------------- the tilted uniform


def log_uniform_tilt(eta: Tensor) -> tuple[Tensor, Tensor]:
    """log int_0^1 exp(x eta) dx and its derivative, the mean of x.

    The integral is exp(max(eta, 0)) (1 - exp -a) / a with a = |eta|. The mean is 1/2 +- (1 / (1 - exp -a) - 1 / a -
    1/2); near 0 that difference cancels, and is held between the bounds a/12 - a^3/720 and a/12 of its own series.
    """
    a = eta.abs().clamp_min_(TINY)
    rest = a.neg().expm1_().neg_()
    value = torch.div(rest, a).log_().add_(eta.clamp_min(0))
    return value, _tilted_mean(eta, a, rest)


def _tilted_mean(eta: Tensor, a: Tensor, rest: Tensor) -> Tensor:
    """The mean of x under exp(x eta) on [0, 1] from a = |eta| and rest = 1 - exp(-a), both of which it overwrites."""
    high = a / 12
    low = torch.addcmul(high, a * a, a, value=-1 / 720)
    mean = rest.reciprocal_().sub_(a.reciprocal_()).sub_(0.5)
    mean = torch.maximum(torch.minimum(mean, high, out=mean), low, out=mean)
    return mean.copysign_(eta).add_(0.5)


class _TiltedBin(torch.autograd.Function):
    """log of int_lower^upper exp(x eta) dx / int_0^1 exp(x eta) dx; its slope is E[x | bin] - E[x]."""

    @staticmethod
    def forward(ctx, eta, lower, upper):  # type: ignore[no-untyped-def]
        width = upper - lower
        a = eta.abs().clamp_min_(TINY)
        within = (width * a).neg_().expm1_().neg_()
        whole = a.neg().expm1_().neg_()
        value = torch.minimum(lower * eta, (upper - 1) * eta).add_(torch.div(within, whole).log_())
        if ctx.needs_input_grad[0]:
            inside = _tilted_mean(eta, width * a, within).mul_(width).add_(lower)
            ctx.save_for_backward(inside.sub_(_tilted_mean(eta, a, whole)))
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return grad * ctx.saved_tensors[0], None, None


def log_tilted_bin(lower: Tensor, upper: Tensor, eta: Tensor) -> Tensor:
    """Log mass of a bin, cut to the unit interval, under the density proportional to exp(x eta) there."""
    lower, upper = lower.to(eta.dtype).clamp_min(0), upper.to(eta.dtype).clamp_max(1)
    shape = torch.broadcast_shapes(lower.shape, upper.shape, eta.shape)
    result: Tensor = _TiltedBin.apply(eta.expand(shape), lower, upper)
    return result


FACTORS = 8  # as many columns are multiplied as wholes, which is four times as fast as along rows
SHORT = 0.5  # eta times the width of a bin up to which `tilted_bins_sum` serves: the first neglected term is 1e-7


def sum_of_logs(values: Tensor) -> Tensor:
    """The sum over the last axis of the logarithms of positive values, of which FACTORS make no subnormal product."""
    whole = values.shape[-1] // FACTORS * FACTORS
    total = values[..., whole:].prod(-1).log_()
    if whole:
        total += values[..., :whole].unflatten(-1, (FACTORS, -1)).prod(-2).log_().sum(-1)
    return total


def tilted_bins_sum(lower: Tensor, upper: Tensor, eta: Tensor) -> Tensor | None:
    """`log_tilted_bin` summed over the last axis, without gradients, in half the passes: for bins of one width w.

    A bin of middle c has eta c - log Z(eta) + log w + log(sinh(t / 2) / (t / 2)), t = w eta, whose last term is t^2 / 24 -
    t^4 / 2880. None where bins differ in width, or are too wide for that.
    """
    lower, upper = lower.to(eta.dtype).clamp_min(0), upper.to(eta.dtype).clamp_max(1)
    width = upper - lower
    if not eta.numel() or eta.device.type != "cpu" or eta.dtype != torch.float32 or bool(width.amax() != width.amin()):
        return None
    if torch.broadcast_shapes(width.shape, eta.shape) != eta.shape:  # parameters common to several points
        return None
    w, a = float(width.flatten()[0]), eta.abs()
    if not bool(a.amax() * w < SHORT):
        return None
    total = a.sum(-1).mul_(-0.5)
    minus = a.clamp_min_(TINY).neg_()
    spare = minus.expm1()
    total -= sum_of_logs(spare.div_(minus))
    square = torch.square(eta, out=minus)
    total += square.sum(-1).mul_(w**2 / 24)
    total -= torch.linalg.vector_norm(square, dim=-1).square_().mul_(w**4 / 2880)
    total += torch.mul(eta, 0.5 * (lower + upper) - 0.5, out=spare).sum(-1)
    return total.add_(eta.shape[-1] * math.log(w))


# ------------------------------------------------------------------------------------------------ laws on the line


class _LogInterval(torch.autograd.Function):
    """log P(a < eps < b) of a standard law; its slopes are -p(a) / P and p(b) / P, in log space."""

    @staticmethod
    def forward(ctx, a, b, width, interval, log_density):  # type: ignore[no-untyped-def]
        value = interval(a, b, width)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
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


def log_bin(
    lower: Tensor,
    upper: Tensor,
    loc: Tensor,
    scale: Tensor,
    interval: Interval,
    log_density: Density | None = None,
    quick: Quick | None = None,
) -> Tensor:
    """Log mass of [lower, upper] under loc + scale eps.

    `interval(a, b, width)` is the standard law's; with `log_density` its gradient is taken from the densities at the
    edges, without it by differentiation. `quick`, if any, is tried first where there is none to be taken.
    """
    if quick is not None and not torch.is_grad_enabled():
        found = quick(lower, upper, loc, scale)
        if found is not None:
            return found
    lower, upper = lower.to(loc.dtype).clamp_min(-FAR), upper.to(loc.dtype).clamp_max(FAR)
    a, b, width = (lower - loc) / scale, (upper - loc) / scale, (upper - lower) / scale
    if log_density is None:
        return interval(a, b, width)
    result: Tensor = _LogInterval.apply(a, b, width.detach(), interval, log_density)
    return result


def _log_upper_tail(a: Tensor) -> Tensor:
    """log Q(a) of the standard normal; in float32 by erfc, and by its asymptotic series beyond FAR_TAIL."""
    if a.dtype != torch.float32:
        return torch.special.log_ndtr(-a)
    if a.device.type == "cpu" and a.numel() and bool(a.amax() <= FAR_TAIL):  # on a GPU asking would cost more
        return torch.mul(a, math.sqrt(0.5)).erfc_().log_().sub_(math.log(2))
    near = a.clamp_max(FAR_TAIL).mul_(math.sqrt(0.5)).erfc_().mul_(0.5).log_()
    beyond = a.clamp_min(FAR_TAIL)
    return near.add_(_log_mills_tail(beyond)).sub_(_LOG_MILLS_TAIL_START)


def _log_mills_tail(a: Tensor) -> Tensor:
    """-a^2/2 - log a + log(1 - a^-2 + 3 a^-4 - 15 a^-6 ...): log Q(a) up to a constant, for large a."""
    y = a.square().reciprocal_()
    series = y * (-1 + y * (2.5 - y * (37 / 3)))
    return series.sub_(a.log()).sub_(a.square().mul_(0.5))


_LOG_MILLS_TAIL_START = float(_log_mills_tail(torch.tensor(FAR_TAIL, dtype=torch.float64)))


def normal_interval(a: Tensor, b: Tensor, width: Tensor) -> Tensor:
    near, far = torch.maximum(a, -b), torch.maximum(b, -a)
    log_near = _log_upper_tail(near)
    wide = log_near + torch.log(-torch.expm1(_log_upper_tail(far) - log_near))
    if a.dtype != torch.float32:
        return wide
    return torch.where(width < NARROW, _narrow_normal(a, b, width), wide)


def _narrow_normal(a: Tensor, b: Tensor, width: Tensor) -> Tensor:
    """log of w phi(m) (1/2) int_-1^1 exp(-m h s - h^2 s^2 / 2) ds, m the middle and h = w / 2.

    The linear term tilts s, E s = -L(m h); the quadratic one enters by its mean, h^2 / 2 E s^2 = h^2 / 2 (1 - 2 L / t).
    """
    width = width.clamp_max(NARROW)
    middle = (a + b).mul_(0.5)
    t = (middle.abs() * width).mul_(0.5).clamp_(TINY, 1e9)
    log_mean, mean = log_uniform_tilt(2 * t)
    langevin = mean.mul_(2).sub_(1)
    quadratic = (1 - 2 * langevin / t).clamp_(1 / 3, 1)
    return (
        log_mean.sub_(t)
        .sub_(quadratic.mul_(width.square() / 8))
        .sub_(middle.square().mul_(0.5))
        .add_(width.log() - LOG_SQRT_2PI)
    )


SERIES = 0.25  # t^2 of a narrow bin up to which `normal_bins` serves: the first neglected terms are 5e-7


def normal_bins(lower: Tensor, upper: Tensor, loc: Tensor, scale: Tensor) -> Tensor | None:
    """Log masses of bins under normals, without gradients; None where a bin of two finite edges is too wide for it."""
    if loc.dtype != torch.float32 or loc.device.type != "cpu" or not loc.numel():
        return None
    lower, upper = lower.to(loc.dtype), upper.to(loc.dtype)
    reaches_right, inner = torch.isfinite(lower), torch.isfinite(lower) & torch.isfinite(upper)
    place = torch.where(inner, 0.5 * (lower + upper), torch.where(reaches_right, lower, upper))
    u = (place - loc) * (torch.where(reaches_right, 1.0, -1.0) / scale)
    width = torch.where(inner, upper - lower, 0.0) / scale
    y = torch.mul(u, 0.5 * width).square_()
    if not bool(width.amax() < NARROW) or not bool(y.amax() < SERIES):
        return None
    bend = width.square().div_(8)
    value = y.mul(1 / 2835).sub_(1 / 180)
    value = torch.addcmul(1 / 6 - bend * (2 / 45), value, y, out=value)
    value = torch.addcmul(width.log() - bend / 3 - LOG_SQRT_2PI, value, y, out=value).addcmul_(u, u, value=-0.5)
    return torch.where(inner, value, _log_upper_tail(u))


def laplace_interval(a: Tensor, b: Tensor, width: Tensor) -> Tensor:
    near = torch.maximum(a, -b)
    inside = near.clamp_max(0)  # how far the bin reaches across 0
    return -near.clamp_min(0) - math.log(2) + torch.log(-torch.expm1(-(width + inside)) - torch.expm1(inside))


def logistic_interval(a: Tensor, b: Tensor, width: Tensor) -> Tensor:
    return F.logsigmoid(b) + F.logsigmoid(-a) + torch.log(-torch.expm1(-width))


ANGLE_NODES, ANGLE_WEIGHTS = gauss_legendre(10)


def student_interval(nu: float) -> Interval:
    """The interval of Student's t: with cot(angle) = eps / sqrt nu its density is sin^(nu - 1) of the angle."""
    constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(math.pi)
    root = math.sqrt(nu)

    def interval(a: Tensor, b: Tensor, width: Tensor) -> Tensor:
        near, far = torch.maximum(a, -b), torch.maximum(b, -a)
        start = torch.atan2(torch.full_like(far, root), far)
        span = torch.atan2(root * width, nu + near * far)
        total = torch.zeros_like(near)
        for node, weight in zip(ANGLE_NODES, ANGLE_WEIGHTS, strict=True):
            total.add_(torch.add(start, span, alpha=node).sin_().pow_(nu - 1), alpha=weight)
        return total.log_().add_(span.log()).add_(constant)

    return interval
