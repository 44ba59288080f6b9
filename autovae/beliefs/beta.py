r"""The beta density of mean m and concentration nu, and its bins, in float32.

With a = nu m and b = nu (1 - m),

    log p(x) = (a - 1) log x + (b - 1) log(1 - x) - log B(a, b).

For nu = 1e5 the log gammas of B are of order 1e6 and cancel to a few nats. Taking Stirling's leading terms together
with the data leaves what is small,

    log p(x) = a (log x - log m) + b (log(1 - x) - log(1 - m)) - log x - log(1 - x) - log(2 pi) / 2
               - r(a) - r(b) + r(nu),          r(y) = log Gamma(y) - y log y + y - log(2 pi) / 2.

Masses are Gauss-Legendre sums over each bin. An end bin [0, w] may hold an integrable singularity x^(a - 1), which
quadrature does not see; one integration by parts takes it out,

    int_0^w x^(a-1) (1-x)^(b-1) dx = w^a (1-w)^(b-1) / a + (b - 1) / a int_0^w x^a (1-x)^(b-2) dx,

and the substitution x = w t^3 smooths what is left of the power law; [1 - w, 1] is its mirror image. The slopes of a
log mass are expectations within the bin, E[log x | bin] and E[log(1 - x) | bin], from the same nodes.
Not here: the head that uses this, `likelihoods`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from autovae.beliefs.likelihood_masses import gauss_legendre

__all__ = ["log_beta_density", "log_beta_mass"]

# r(y) of y >= 4 (float32) or 10 (float64): coefficients of y^-1, y^-3, ... of Stirling's series
STIRLING = [1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156]
NODES, WEIGHTS = gauss_legendre(16)
SINGULARITY_POWER = 3
TINY = 1e-30


class _Remainder(torch.autograd.Function):
    """r(y) and its derivative digamma(y) - log y, y > 0: the recurrence lifts y by n, then Stirling's series."""

    @staticmethod
    def forward(ctx, y):  # type: ignore[no-untyped-def]
        single = y.dtype == torch.float32
        lift, terms = (4, STIRLING[:3]) if single else (10, STIRLING)
        high = y + lift
        inverse = high.reciprocal()
        square = inverse.square()
        grown = torch.log1p(lift / y)
        product, harmonic = y.clone(), y.reciprocal()
        for step in range(1, lift):
            product.mul_(y + step)
            harmonic.add_((y + step).reciprocal())
        series, slope = torch.zeros_like(y), torch.zeros_like(y)
        for index in reversed(range(len(terms))):
            series.mul_(square).add_(terms[index])
            slope.mul_(square).add_(-terms[index] * (2 * index + 1))
        value = torch.addcmul(series * inverse, y, grown).add_(high.log(), alpha=lift - 0.5)
        ctx.save_for_backward(grown.sub_(inverse, alpha=0.5).addcmul_(slope, square).sub_(harmonic))
        return value.sub_(product.log_()).sub_(lift)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return grad * ctx.saved_tensors[0]


def _log_constant(log_m: Tensor, log_rest: Tensor, nu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """a, b and -log B(a, b) + a log m + b log(1 - m)."""
    a, b = (nu * log_m.exp()).clamp_min(TINY), (nu * log_rest.exp()).clamp_min(TINY)
    remainder: Tensor = _Remainder.apply(nu) - _Remainder.apply(a) - _Remainder.apply(b)
    return a, b, remainder - 0.5 * math.log(2 * math.pi)


def log_beta_density(x: Tensor, logit: Tensor, nu: Tensor) -> Tensor:
    """log p(x) of mean sigmoid(logit) and concentration nu."""
    log_m, log_rest = F.logsigmoid(logit), F.logsigmoid(-logit)
    log_x, log_1mx = x.log(), torch.log1p(-x)
    a, b, constant = _log_constant(log_m, log_rest, nu)
    return a * (log_x - log_m) + b * (log_1mx - log_rest) + (constant - (log_x + log_1mx))


class _Bins:
    """What the nodes of bins need that does not depend on parameters: shared by all samples and members."""

    def __init__(self, lower: Tensor, upper: Tensor) -> None:
        self.lower, self.upper = lower.clamp_min(0), upper.clamp_max(1)
        self.left, self.right = (lower <= 0).to(lower.dtype), (upper >= 1).to(lower.dtype)
        self.width = self.upper - self.lower

    def node(self, t: float, weight: float) -> tuple[Tensor, Tensor, Tensor]:
        """log x, log(1 - x) and log of the weight over x (1 - x), of the node t in (0, 1) of each bin."""
        k = SINGULARITY_POWER
        w, inner = self.width, 1 - self.left - self.right
        from_left, from_right = w * t**k, w * (1 - t) ** k
        x = inner * (self.lower + w * t) + self.left * from_left + self.right * (1 - from_right)
        rest = inner * (1 - self.lower - w * t) + self.left * (1 - from_left) + self.right * from_right
        log_x, log_rest = x.log(), rest.log()
        stretch = inner + self.left * (k * t ** (k - 1)) + self.right * (k * (1 - t) ** (k - 1))
        log_weight = (w * weight * stretch).log() - log_x - log_rest
        return log_x, log_rest, log_weight + (self.left - self.right) * (log_x - log_rest)

    def edge(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same of the boundary term of end bins, whose weight lacks the factor 1/a or 1/b."""
        at = self.left * self.upper + self.right * self.lower + (1 - self.left - self.right) * 0.5
        log_x, log_rest = at.log(), torch.log1p(-at)
        return log_x, log_rest, -(self.left * log_rest + self.right * log_x)


class _BetaMass(torch.autograd.Function):
    """log of the bin's integral of p with a log m + b log(1 - m) taken out; slopes in a and b at fixed constants."""

    @staticmethod
    def forward(ctx, a, b, log_m, log_rest, lower, upper):  # type: ignore[no-untyped-def]
        bins = _Bins(lower, upper)
        nodes = [bins.node(t, weight) for t, weight in zip(NODES, WEIGHTS, strict=True)]

        origin = (a * log_m).addcmul_(b, log_rest)

        def exponent(node: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            log_x, log_1mx, log_weight = node
            return torch.addcmul(log_weight - origin, a, log_x).addcmul_(b, log_1mx)

        edge = bins.edge()
        boundary = exponent(edge)
        end = bins.left + bins.right
        top = torch.maximum(torch.maximum(exponent(nodes[0]), exponent(nodes[-1])), boundary)
        total, of_x, of_rest = torch.zeros_like(top), torch.zeros_like(top), torch.zeros_like(top)
        origin += top
        for node in nodes:
            share = exponent(node).clamp_(-80, 80).exp_()  # below, products would be denormal and slow
            total.add_(share)
            of_x.addcmul_(share, node[0])
            of_rest.addcmul_(share, node[1])
        factor = 1 - end + bins.left * (b - 1) / a + bins.right * (a - 1) / b
        at_edge = boundary.sub_(top).exp_().mul_(bins.left / a + bins.right / b)
        mass = total * factor + at_edge
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            # d/da of (b - 1) / a is -(b - 1) / a^2, and so on: the factors of the end bins move too
            to_a = of_x * factor + at_edge * edge[0]
            to_a += bins.left * (-(b - 1) / a * total - at_edge) / a + bins.right * total / b
            to_b = of_rest * factor + at_edge * edge[1]
            to_b += bins.right * (-(a - 1) / b * total - at_edge) / b + bins.left * total / a
            ctx.save_for_backward(to_a / mass - log_m, to_b / mass - log_rest)
        return mass.log_().add_(top)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        to_a, to_b = ctx.saved_tensors
        return grad * to_a, grad * to_b, None, None, None, None


def log_beta_mass(lower: Tensor, upper: Tensor, logit: Tensor, nu: Tensor) -> Tensor:
    """Log mass of the bin [lower, upper], cut to the unit interval; narrower than the whole of it."""
    log_m, log_rest = F.logsigmoid(logit), F.logsigmoid(-logit)
    a, b, constant = _log_constant(log_m, log_rest, nu)
    shape = torch.broadcast_shapes(lower.shape, upper.shape, a.shape)
    lower, upper = lower.to(a.dtype), upper.to(a.dtype)
    mass: Tensor = _BetaMass.apply(a.expand(shape), b.expand(shape), log_m, log_rest, lower, upper)
    # the mass was taken at fixed log m and log(1 - m); their own slopes are -a and -b
    return mass + constant - a.detach() * (log_m - log_m.detach()) - b.detach() * (log_rest - log_rest.detach())
