r"""Log probabilities of bins under laws of the line: the mass of [lower, upper].

A difference of two distribution functions underflows in the tails and cancels in narrow bins, so each law has a form of
its own, in which no large terms cancel. Below, a = (lower - loc) / scale and b = (upper - loc) / scale are the bin's
edges in standard units, w = b - a its width (computed from the edges themselves), and the bin is mirrored to the right
of 0 (a >= -w/2) where the law is symmetric:

| law             | log P(a < eps < b)                                                                             |
|-----------------|------------------------------------------------------------------------------------------------|
| normal          | log Q(a) + log(1 - Q(b) / Q(a)); narrow: w phi(middle) times the mean of exp over the bin      |
| laplace         | -a+ - log 2 + log((1 - exp(-(w + a-))) + (1 - exp a-)), a = a+ + a- its parts                  |
| logistic        | log sigmoid(b) + log sigmoid(-a) + log(1 - exp(-w))                                            |
| student_t       | log of int sin^(nu - 1) over the angles cot(angle) = eps / sqrt nu, by Gauss-Legendre          |

Infinite edges of end bins are put at +-FAR, where nothing is left of any of these laws in float32.
Where all bins are narrow, `normal_bins` takes a third of the normal's passes over memory: a bin has one argument, its
middle or its only edge, and narrow ones take the first terms of the series below in t = w middle / 2:
log w phi(middle) - w^2 / 24 + (1/6 - w^2 / 180) t^2 - t^4 / 180 + t^6 / 2835.
Gradients: d log P = (p(b) db - p(a) da) / P for normal and student_t, in log space; the others differentiate as they
stand. Reference for the narrow normal bin: the cumulants of eps^2 / 2 under the exponential tilt of the bin.
Not here: the heads that own these masses, see `line`; bins of the unit interval, see `tilted` and `beta_density`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from autovae.beliefs.likelihoods.tilted import TINY, log_uniform_tilt

__all__ = [
    "gauss_legendre",
    "log_bin",
    "logistic_interval",
    "normal_bins",
    "normal_interval",
    "laplace_interval",
    "student_interval",
]

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
    edges, without it by differentiation. `quick`, if any, is tried first and brings its own gradient.
    """
    if quick is not None:
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


SAME = 1e-4  # relative: bins of one grid, whose edges are rounded
SERIES = 0.25  # t^2 of a narrow bin up to which `normal_bins` serves: the first neglected terms are 5e-7


def normal_bins(lower: Tensor, upper: Tensor, loc: Tensor, scale: Tensor) -> Tensor | None:
    """Log masses of bins under normals in few passes; None where bins of two finite edges differ in width or are too wide.

    With u the bin's middle, or its only edge, in standard units and w its width, the slopes are

        within     d/du = u (c w^2 / 2 - 1),  w d/dw = 1 - w^2 / 12 - w^2 y / 90 + 2 c y,  y = (u w / 2)^2, c = d/dy
        at an end  d/du = -phi(u) / Q(u)
    """
    if loc.dtype != torch.float32 or loc.device.type != "cpu" or not loc.numel():
        return None
    lower, upper = lower.to(loc.dtype), upper.to(loc.dtype)
    from_left = torch.isfinite(lower)
    inner = from_left & torch.isfinite(upper)
    place = torch.where(inner, 0.5 * (lower + upper), torch.where(from_left, lower, upper))
    sign = torch.where(from_left, 1.0, -1.0)
    widest = torch.where(inner, upper - lower, 0.0).amax()
    narrowest = torch.where(inner, upper - lower, torch.inf).amin()
    if not bool(widest - narrowest <= SAME * widest):
        return None
    with torch.no_grad():
        u = (place - loc) * (sign / scale)
        width = 0.5 * (widest + narrowest) / scale
        y = torch.mul(u, 0.5 * width).square_()
        if not bool(width.amax() < NARROW) or not bool(y.amax() < SERIES):
            return None
    if torch.is_grad_enabled() and (loc.requires_grad or scale.requires_grad):
        result: Tensor = _NormalBins.apply(loc, scale, sign, inner, u, width, y)
        return result
    return _normal_bins(inner, u, width, y)


def _normal_bins(inner: Tensor, u: Tensor, width: Tensor, y: Tensor) -> Tensor:
    bend = width.square().div_(8)
    value = y.mul(1 / 2835).sub_(1 / 180)
    value = torch.addcmul(1 / 6 - bend * (2 / 45), value, y, out=value)
    value = torch.addcmul(width.log() - bend / 3 - LOG_SQRT_2PI, value, y, out=value).addcmul_(u, u, value=-0.5)
    return torch.where(inner, value, _log_upper_tail(u))


class _NormalBins(torch.autograd.Function):
    """`_normal_bins` and its slopes in loc and scale."""

    @staticmethod
    def forward(ctx, loc, scale, sign, inner, u, width, y):  # type: ignore[no-untyped-def]
        value = _normal_bins(inner, u, width, y)
        half = width.square().mul_(0.5)
        # of the series: c(y) = p'(y), so that d/du = u (half c - 1)
        slope = y.mul(1 / 945).sub_(1 / 90)
        slope = torch.addcmul(1 / 6 - width.square() / 180, slope, y, out=slope)
        of_u = torch.mul(slope, half).sub_(1).mul_(u)
        at_end = torch.mul(u, u).mul_(-0.5).sub_(LOG_SQRT_2PI).sub_(value).exp_().neg_()
        of_u = torch.where(inner, of_u, at_end)
        to_loc = of_u.mul(sign).div_(scale).neg_()
        to_scale = None
        if ctx.needs_input_grad[1]:
            # w d/dw = 1 - w^2/12 - w^2 y/90 + 2 y c(y), nothing at an end
            of_width = slope.mul_(2).sub_(width.square() / 90).mul_(y).add_(1 - width.square() / 12)
            to_scale = torch.where(inner, of_width, 0.0).addcmul_(u, of_u).div_(scale).neg_()
        ctx.save_for_backward(to_loc, to_scale)
        ctx.shapes = loc.shape, scale.shape
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        to_loc, to_scale = ctx.saved_tensors
        of_loc = (grad * to_loc).sum_to_size(ctx.shapes[0])
        of_scale = None if to_scale is None else (grad * to_scale).sum_to_size(ctx.shapes[1])
        return of_loc, of_scale, None, None, None, None, None


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
