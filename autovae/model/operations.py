r"""The operations of a step that a device may do in its own way, and their reference in torch.

    mlp          x -> f_L(... f_1(x W_1 + b_1) ... W_L + b_L), for the P members of a stack side by side
    linear_in_x  sum_j x_j eta_j - A(eta_j): heads whose log density is linear in x

Everything else is plain torch. Scoring and reasoning always use the reference; a trainer may give a stack those of its
device (`training.backend`). Not here: which weights a stack has (`stacked`), what the numbers mean (`vae`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from autovae.beliefs.likelihoods import Likelihood
    from autovae.model.stacked import LinearStack

__all__ = ["Operations", "TorchOperations"]


class Operations(Protocol):
    """What a stack asks of its device. Results may come in a narrower type than the weights'; callers widen them."""

    def mlp(self, x: Tensor, stack: LinearStack) -> Tensor:
        """(N, in), shared by the members, or (P, N, in) -> (P, N, out)."""

    def linear_in_x(self, head: Likelihood, x: Tensor, eta: Tensor) -> Tensor:
        """log p(x) summed over features, (..., B), of x (B, X) and natural parameters eta (..., B, X)."""


class TorchOperations:
    """The reference: autograd over torch's own products, factors rounded to `narrow` where that is given."""

    def __init__(self, narrow: torch.dtype | None = None) -> None:
        self.narrow = narrow

    def mlp(self, x: Tensor, stack: LinearStack) -> Tensor:
        one, layers = stack.size == 1, stack.layers()
        h = x if self.narrow is None else x.to(self.narrow)
        if one:
            h = h if h.dim() == 2 else h.squeeze(0)
        elif h.dim() == 2:
            h = h.expand(stack.size, -1, -1)
        for depth, (weight, bias) in enumerate(layers):
            if self.narrow is not None:
                weight, bias = weight.to(self.narrow), bias.to(self.narrow)
            # One product is faster than a batch of one.
            h = torch.addmm(bias[0], h, weight[0]) if one else torch.baddbmm(bias, h, weight)
            if depth < len(layers) - 1:
                h = stack.activate(depth, h)
        return (h.unsqueeze(0) if one else h).to(x.dtype)

    def linear_in_x(self, head: Likelihood, x: Tensor, eta: Tensor) -> Tensor:
        return head.log_prob_sum(x, eta)
