r"""Adam over stacked tensors, with a learning rate for every member.

    m <- b1 m + (1 - b1) g      v <- b2 v + (1 - b2) g^2      p <- p - rate_m  (m / c1) / (sqrt(v / c2) + eps)

One fused pass over all tensors where the members share a rate. Where they do not, the fused pass writes the step of
rate 1 into a scratch tensor, and one more pass adds it times each member's rate: half as much memory traffic again,
whatever the number of rates. The count of steps lives on the device, so that the whole step can be captured.

Where a gradient has become zero for good (a unit that is never active again), m shrinks by b1 a step until it is
subnormal, and stays there: b1 times the smallest number rounds to that number. A processor takes many times as long
over subnormal numbers, and after a thousand steps a fifth of an MNIST-size network's moments are such. Moments too small
to move a weight are therefore set to zero from time to time, before they get there.
Reference: Kingma and Ba, Adam: a method for stochastic optimization, 2015.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["StackedAdam"]

BETAS = (0.9, 0.999)
EPSILON = 1e-8
NEGLIGIBLE = 1e-30  # moments below: they move a weight by less than rate 1e-22
SWEEP = 128  # steps between two looks; a moment shrinks by .9 ** 128 = 1e-6 at most in between, and stays normal


class StackedAdam:
    """Adam on tensors whose first axis is the member; reads their `.grad`.

    A gradient that is there at the start is taken to be overwritten by every backward pass; the others are cleared
    after the step, since backward passes add to them.
    """

    def __init__(self, parameters: Sequence[Tensor], rates: Sequence[float], steps: int = 0) -> None:
        self.parameters = list(parameters)
        self._cleared = [p for p in self.parameters if p.grad is None]
        self.means = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.squares = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        device = self.parameters[0].device
        self._steps = torch.tensor(float(steps), device=device)
        self._shared = rates[0] if len(set(rates)) == 1 else None
        self._scratch: list[Tensor] = []
        if self._shared is None:
            self._scratch = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
            flat = torch.tensor(list(rates), device=device, dtype=self.parameters[0].dtype)
            self._rates = [flat.view(-1, *(1,) * (p.dim() - 1)) for p in self.parameters]

    @property
    def steps(self) -> int:
        """How many steps were taken; waits for the device."""
        return int(self._steps)

    def step(self) -> None:
        """One step along the gradients at hand; a tensor without one stays."""
        self.count()
        self.move(range(len(self.parameters)))
        self.clear()

    @torch.no_grad()
    def count(self) -> None:
        """Begin a step: its number tells how far the moments are from their limits."""
        self._steps += 1

    @torch.no_grad()
    def move(self, which: Iterable[int]) -> None:
        """The present step of some tensors, by their places; a tensor without a gradient stays."""
        places = [place for place in which if self.parameters[place].grad is not None]
        if self._shared is not None:
            self._fused([self.parameters[i] for i in places], places, self._shared)
        else:
            moved = [self._scratch[i] for i in places]
            torch._foreach_zero_(moved)
            self._fused(moved, places, 1.0)
            for i in places:
                self.parameters[i].addcmul_(self._scratch[i], self._rates[i])

    def clear(self) -> None:
        """End a step: gradients that backward passes add to begin anew."""
        for p in self._cleared:
            p.grad = None
        if self._steps.device.type == "cpu" and self.steps % SWEEP == 0:
            self._sweep()

    @torch.no_grad()
    def _sweep(self) -> None:
        """Set moments that are too small to matter to zero."""
        for moment in (*self.means, *self.squares):
            moment.masked_fill_(moment.abs() < NEGLIGIBLE, 0)

    def _fused(self, moved: list[Tensor], places: list[int], rate: float) -> None:
        torch._fused_adam_(
            moved,
            [g for i in places if (g := self.parameters[i].grad) is not None],
            [self.means[i] for i in places],
            [self.squares[i] for i in places],
            [],
            [self._steps] * len(places),
            lr=rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )
