r"""The tilted uniform, density proportional to exp(x eta) on [0, 1]: its normaliser, mean and bins.

    log P(lower < x < upper) = min(lower eta, (upper - 1) eta) + log((1 - exp(-w abs eta)) / (1 - exp(-abs eta))),
    w = upper - lower

No large terms cancel at any eta. The slope is E[x | bin] - E[x].
Not here: the heads that own these masses, see `coins`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["log_tilted_bin", "log_uniform_tilt", "sum_of_logs", "tilted_bins_sum"]

TINY = 1e-30  # a normal number of float32 with a finite reciprocal: stands for 0 in a quotient


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
