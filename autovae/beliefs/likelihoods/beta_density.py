r"""The beta density of mean m and concentration nu, and its bins, in float32.

With a = nu m and b = nu (1 - m),

    log p(x) = (a - 1) log x + (b - 1) log(1 - x) - log B(a, b).

For nu = 1e5 the log gammas of B are of order 1e6 and cancel to a few nats. Taking Stirling's leading terms together
with the data leaves what is small,

    log p(x) = a (log x - log m) + b (log(1 - x) - log(1 - m)) - log x - log(1 - x) - log(2 pi) / 2
               - r(a) - r(b) + r(nu),          r(y) = log Gamma(y) - y log y + y - log(2 pi) / 2.

In float32 about 4e-8 nu nats are lost to rounding: 3e-3 at the scale floor of 256 levels, nothing at common scales.

Masses are Gauss-Legendre sums over each bin. An end bin [0, w] may hold an integrable singularity x^(a - 1), which
quadrature does not see; one integration by parts takes it out,

    int_0^w x^(a-1) (1-x)^(b-1) dx = w^a (1-w)^(b-1) / a + (b - 1) / a int_0^w x^a (1-x)^(b-2) dx,

and the substitution x = w t^3 smooths what is left of the power law; [1 - w, 1] is its mirror image. Where a density is
sharper than a bin, the sum runs over the part of the bin that holds the mass. The slopes of a log mass are expectations
within the bin, E[log x | bin] and E[log(1 - x) | bin], from the same nodes.
Not here: the head that uses this, see `beta`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from autovae.beliefs.likelihoods.line_masses import gauss_legendre

__all__ = ["log_beta_density", "log_beta_mass"]

# r(y) of y >= 4 (float32) or 10 (float64): coefficients of y^-1, y^-3, ... of Stirling's series
STIRLING = [1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156]
# Nodes for the bluntest, for blunt and for sharp bins; the errors of log masses are below 1e-7, 1e-5 and 1e-5.
FEWEST, FEW, MANY = (list(zip(*gauss_legendre(count), strict=True)) for count in (10, 16, 24))
BLUNTEST = 0.05  # nu times the bin's width
SINGULARITY_POWER = 3
BLUNT = 8.0  # nu times the bin's width, up to which the nodes resolve any density; they must then not follow it
TAIL = 18.0  # nats by which the density has fallen where a window ends
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
    """Nodes of bins, each with x and 1 - x to full accuracy: lower and upper edge are pairs (x, 1 - x)."""

    def __init__(self, lower: tuple[Tensor, Tensor], upper: tuple[Tensor, Tensor]) -> None:
        self.lower, self.upper = lower, upper
        kind = lower[0].dtype
        self.left, self.right = (lower[0] <= 0).to(kind), (upper[1] <= 0).to(kind)
        self.inner = 1 - self.left - self.right
        self.width = torch.where(upper[0] < 0.5, upper[0] - lower[0], lower[1] - upper[1])

    def node(self, t: float, weight: float) -> tuple[Tensor, Tensor, Tensor]:
        """log x, log(1 - x) and the log of weight / (x (1 - x)), of the node t in (0, 1) of each bin."""
        k, w = SINGULARITY_POWER, self.width
        from_left, from_right = w * t**k, w * (1 - t) ** k
        x = self.inner * (self.lower[0] + w * t) + self.left * from_left + self.right * (1 - from_right)
        rest = self.inner * (self.upper[1] + w * (1 - t)) + self.left * (1 - from_left) + self.right * from_right
        stretch = self.inner + self.left * (k * t ** (k - 1)) + self.right * (k * (1 - t) ** (k - 1))
        log_x, log_rest = x.log(), rest.log()
        # an end bin's integrand, after integration by parts, has x / (1 - x) or its inverse more
        log_weight = (w * weight * stretch).log() - log_x - log_rest + (self.left - self.right) * (log_x - log_rest)
        return log_x, log_rest, log_weight

    def edge(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same of the boundary term of end bins, whose weight lacks the factor 1/a or 1/b."""
        x = self.left * self.upper[0] + self.right * self.lower[0] + self.inner * 0.5
        rest = self.left * self.upper[1] + self.right * self.lower[1] + self.inner * 0.5
        log_x, log_rest = x.log(), rest.log()
        none = (self.left + self.right).log()  # 0, or -inf for bins within
        return log_x, log_rest, none - (self.left * log_rest + self.right * log_x)


class _Levels(_Bins):
    """Bins that are levels of one grid: nodes are found once a level and looked up."""

    def __init__(self, grid: _Bins, index: Tensor) -> None:
        self.grid, self.index = grid, index
        self.left, self.right, self.inner = map(self._looked_up, (grid.left, grid.right, grid.inner))

    def _looked_up(self, table: Tensor) -> Tensor:
        return table.index_select(0, self.index.flatten()).view(self.index.shape)

    def node(self, t: float, weight: float) -> tuple[Tensor, Tensor, Tensor]:
        log_x, log_rest, log_weight = map(self._looked_up, self.grid.node(t, weight))
        return log_x, log_rest, log_weight

    def edge(self) -> tuple[Tensor, Tensor, Tensor]:
        log_x, log_rest, log_weight = map(self._looked_up, self.grid.edge())
        return log_x, log_rest, log_weight


def _levels(lower: Tensor, upper: Tensor) -> _Bins:
    """The bins, by their level where they are many bins of one grid."""
    low, high = lower.clamp_min(0), upper.clamp_max(1)
    count = round(1 / float((high - low).amin().clamp_min(1e-6)))
    if low.numel() > 4 * count:
        edges = torch.arange(count + 1, dtype=torch.float64, device=lower.device).div(count).to(lower.dtype)
        index = torch.add(low, high).mul_(0.5 * count).int().clamp_(0, count - 1)
        found = edges.index_select(0, index.flatten()).view(index.shape)
        if bool(torch.equal(found, low)):
            return _Levels(_Bins(*_edges(edges[:-1], edges[1:])), index)
    return _Bins(*_edges(lower, upper))


def _edges(lower: Tensor, upper: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Edges as pairs (x, 1 - x)."""
    lower, upper = lower.clamp_min(0), upper.clamp_max(1)
    return (lower, 1 - lower), (upper, 1 - upper)


def _windows(
    a: Tensor, b: Tensor, mean: Tensor, rest: Tensor, lower: Tensor, upper: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The part of each bin that holds all but exp(-TAIL) of its mass, where a density is sharper than the bin.

    Around the mean the reach is that of a gamma law's Chernoff bound, sqrt(2 TAIL) deviations and TAIL / nu on the skew
    side; in a bin beside it, the decay at the nearer edge (log concave, or the rate taken is one that it keeps).
    """
    (low, low_rest), (high, high_rest) = _edges(lower, upper)
    nu = a + b
    deviations = (2 * TAIL * mean * rest / nu).sqrt()
    above, below = deviations + TAIL * rest / nu, deviations + TAIL * mean / nu
    falling = (b - 1) / low_rest - (a - 1).clamp_min(0) / low.clamp_min(TINY)
    rising = (a - 1) / high - (b - 1).clamp_min(0) / high_rest.clamp_min(TINY)
    right_of, left_of = TAIL / falling.clamp_min(TAIL), TAIL / rising.clamp_min(TAIL)  # at most the unit interval
    to_right = torch.maximum(mean + above, torch.where(low > mean, low + right_of, low))
    to_right_rest = torch.minimum(rest - above, torch.where(low > mean, low_rest - right_of, low_rest))
    to_left = torch.minimum(mean - below, torch.where(high < mean, high - left_of, high))
    to_left_rest = torch.maximum(rest + below, torch.where(high < mean, high_rest + left_of, high_rest))
    return (
        (torch.maximum(low, to_left), torch.minimum(low_rest, to_left_rest)),
        (torch.minimum(high, to_right), torch.maximum(high_rest, to_right_rest)),
    )


class _BetaMass(torch.autograd.Function):
    """log of the bin's integral of p with a log m + b log(1 - m) taken out; slopes in a and b at fixed log m."""

    @staticmethod
    def forward(ctx, a, b, log_m, log_rest, lower, upper):  # type: ignore[no-untyped-def]
        concentration = a + b
        sharp = math.inf if a.is_cuda else float((concentration * (upper.clamp_max(1) - lower.clamp_min(0))).max())
        if sharp > BLUNT:
            bins, rule = _Bins(*_windows(a, b, log_m.exp(), log_rest.exp(), lower, upper)), MANY
        else:
            bins, rule = _levels(lower, upper), FEW if sharp > BLUNTEST else FEWEST
        nodes = [bins.node(t, weight) for t, weight in rule]
        origin = (a * log_m).addcmul_(b, log_rest)

        def exponent(node: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            log_x, log_1mx, log_weight = node
            return torch.addcmul(log_weight - origin, a, log_x).addcmul_(b, log_1mx)

        edge = bins.edge()
        boundary = exponent(edge)
        top = torch.maximum(torch.maximum(exponent(nodes[0]), exponent(nodes[-1])), boundary)
        slopes = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        total = torch.zeros_like(top)
        of_x, of_rest = (torch.zeros_like(top), torch.zeros_like(top)) if slopes else (total, total)
        origin += top
        for node in nodes:
            share = exponent(node).clamp_(-80, 80).exp_()  # below, products would be denormal and slow
            total.add_(share)
            if slopes:
                of_x.addcmul_(share, node[0])
                of_rest.addcmul_(share, node[1])
        left, right = bins.left / a, bins.right / b
        factor = bins.inner + left * (b - 1) + right * (a - 1)
        at_edge = boundary.sub_(top).exp_()
        mass = total * factor + at_edge * (left + right)
        if slopes:
            # times a and b, because 1 / a^2 would overflow; the factors (b - 1) / a, 1 / a ... of end bins move too
            whole = at_edge * (left + right)
            to_a = a * (of_x * factor + whole * edge[0] + right * total) - left * ((b - 1) * total + at_edge)
            to_b = b * (of_rest * factor + whole * edge[1] + left * total) - right * ((a - 1) * total + at_edge)
            ctx.save_for_backward(to_a / mass / a - log_m, to_b / mass / b - log_rest)
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
