r"""Heads on the unit interval whose log density is linear in x: log p(x) = x eta - A(eta), eta a logit.

| head                 | A(eta)                   | A'(eta) = E x            |
|----------------------|--------------------------|--------------------------|
| bernoulli            | log(1 + exp eta)         | sigmoid eta              |
| continuous_bernoulli | log((exp eta - 1) / eta) | 1 / (1 - exp -eta) - 1 / eta |

The slope in eta, x - A'(eta), needs the same exponentials as the value, so both are found in one pass over memory.
`CoinSum` is the Bernoulli's sum over features: one logarithm for many factors.
Reference: Loaiza-Ganem and Cunningham, The continuous Bernoulli, 2019.
Not here: the bins of the tilted uniform, see `tilted`; kernels of a backend for the same sums, see `training`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from autovae.beliefs.likelihoods.head import Likelihood
from autovae.beliefs.likelihoods.tilted import TINY, log_tilted_bin, log_uniform_tilt, sum_of_logs, tilted_bins_sum

__all__ = ["Bernoulli", "CoinSum", "ContinuousBernoulli"]


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


class CoinSum(torch.autograd.Function):
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
        return linear + CoinSum.even(size, likelier)

    @staticmethod
    def even(size: Tensor, likelier: Tensor) -> Tensor:
        """sum -|eta| / 2 + log sigmoid |eta|."""
        return sum_of_logs(likelier).sub_(size, alpha=0.5)

    @staticmethod
    def forward(x: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
        s = eta.sigmoid()
        spare = 1 - s
        value = CoinSum.even(torch.linalg.vector_norm(eta, 1, dim=-1), torch.maximum(s, spare, out=spare))
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


class Bernoulli(Likelihood):
    """A coin of logit eta: black or white; grey x is read as the share of white."""

    name = "bernoulli"
    formula = "x η − log(1 + exp η)"
    linear_in_x = True

    def log_prob(self, x: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        return _linear_in_x(x, params, _softplus_and_sigmoid)

    def log_prob_sum(self, x: Tensor, params: Tensor, scale: Tensor | None = None) -> Tensor:
        x = x.to(params.dtype)
        if not (params.requires_grad and torch.is_grad_enabled()):
            spare = params.abs()
            return CoinSum.value(x, params, spare.sum(-1), spare.sigmoid_())
        result: Tensor = CoinSum.apply(x, torch.broadcast_tensors(x, params)[1])[0]
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


class ContinuousBernoulli(Likelihood):
    """The Bernoulli made a density on [0, 1] by its normaliser, an exponential cut to the unit interval."""

    name = "continuous_bernoulli"
    formula = "x η − log((exp η − 1) / η)"
    linear_in_x = True

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
