r"""Adam over stacked tensors, with a learning rate for every member.

    m <- b1 m + (1 - b1) g      v <- b2 v + (1 - b2) g^2      p <- p - rate_m  (m / c1) / (sqrt(v / c2) + eps)

It is torch's fused Adam. Where the members' rates differ it takes the step of rate 1 on a zeroed scratch tensor, which is
then added times each member's rate.

Where a gradient has become zero for good (a unit that is never active again), m shrinks by b1 a step until it is
subnormal, and stays there: b1 times the smallest number rounds to that number. A processor takes many times as long
over subnormal numbers, and after a thousand steps a fifth of an MNIST-size network's moments are such. Moments too small
to move a weight are therefore set to zero from time to time, before they get there.
Reference: Kingma and Ba, Adam: a method for stochastic optimization, 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["BETAS", "EPSILON", "Adam", "StackedAdam"]

BETAS = (0.9, 0.999)
EPSILON = 1e-8
NEGLIGIBLE = 1e-30  # moments below: they move a weight by less than rate 1e-22
SWEEP = 128  # steps between two looks; a moment shrinks by .9 ** 128 = 1e-6 at most in between, and stays normal


class Adam(Protocol):
    """The optimizer of a stack: reads and clears the parameters' gradients; its moments belong to the members."""

    means: list[Tensor]
    squares: list[Tensor]

    @property
    def steps(self) -> int:
        """How many steps were taken; waits for the device."""

    def step(self) -> None:
        """One step along the gradients at hand; a tensor without one stays."""


class StackedAdam:
    """Adam on tensors whose first axis is the member."""

    def __init__(self, parameters: Sequence[Tensor], rates: Sequence[float], steps: int = 0) -> None:
        self.parameters = list(parameters)
        device = self.parameters[0].device
        one_rate = len(set(rates)) == 1
        self._moved = self.parameters if one_rate else [torch.zeros_like(p) for p in self.parameters]
        self._rates = None if one_rate else torch.tensor(list(rates), device=device, dtype=self.parameters[0].dtype)
        self._adam = torch.optim.Adam(
            self._moved, rates[0] if one_rate else 1.0, BETAS, EPSILON, fused=True, capturable=device.type == "cuda"
        )
        self.means = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.squares = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self._steps = torch.tensor(float(steps), device=device)
        for moved, mean, square in zip(self._moved, self.means, self.squares, strict=True):
            self._adam.state[moved] = {"step": self._steps.clone(), "exp_avg": mean, "exp_avg_sq": square}

    @property
    def steps(self) -> int:
        return int(self._steps)

    @torch.no_grad()
    def step(self) -> None:
        if self._rates is not None:
            for moved, p in zip(self._moved, self.parameters, strict=True):
                moved.zero_().grad, p.grad = p.grad, None
        self._adam.step()
        self._adam.zero_grad()
        if self._rates is not None:
            for moved, p in zip(self._moved, self.parameters, strict=True):
                p.addcmul_(moved, self._rates.view(-1, *(1,) * (p.dim() - 1)))
        self._steps += 1
        if self._steps.device.type == "cpu" and self.steps % SWEEP == 0:
            for moment in (*self.means, *self.squares):
                moment.masked_fill_(moment.abs() < NEGLIGIBLE, 0)
