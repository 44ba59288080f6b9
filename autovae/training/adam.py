r"""Adam over stacked tensors, with a learning rate for every member.

    m <- b1 m + (1 - b1) g      v <- b2 v + (1 - b2) g^2      p <- p - rate_m  (m / c1) / (sqrt(v / c2) + eps)

One fused pass over all tensors where the members share a rate. Where they do not, the fused pass writes the step of
rate 1 into a scratch tensor, and one more pass adds it times each member's rate: half as much memory traffic again,
whatever the number of rates. A kernel of ours, where there is one (see `fused`), does without that pass, and writes the
weights in the narrower type of the next products as well. The count of steps lives on the device, so that the whole step
can be captured.

Where a gradient has become zero for good (a unit that is never active again), m shrinks by b1 a step until it is
subnormal, and stays there: b1 times the smallest number rounds to that number. A processor takes many times as long
over subnormal numbers, and after a thousand steps a fifth of an MNIST-size network's moments are such. Moments too small
to move a weight are therefore set to zero from time to time, before they get there; where it can, our kernel
takes subnormal numbers for zero at every step instead.
Reference: Kingma and Ba, Adam: a method for stochastic optimization, 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from autovae.fused import kernels_for
from autovae.model.sinks import Factors
from autovae.native.chains import Steps

__all__ = ["StackedAdam"]

# Steps in one call, and where the factors of which of its gradients come from.
_Together = tuple[Steps, list[tuple[int, Callable[[], Factors | None]]]]

BETAS = (0.9, 0.999)
EPSILON = 1e-8
NEGLIGIBLE = 1e-30  # moments below: they move a weight by less than rate 1e-22
SWEEP = 128  # steps between two looks; a moment shrinks by .9 ** 128 = 1e-6 at most in between, and stays normal


class StackedAdam:
    """Adam on tensors whose first axis is the member; reads their `.grad`.

    A gradient that is there at the start is taken to be overwritten by every backward pass; the others are cleared
    after the step, since backward passes add to them. `narrow` has a copy of some parameters in another type, which is
    kept equal to them. `deferred` gives, for a parameter, its gradient's factors (h, g) at every step, or None where the
    gradient h^T g was brought itself; only to be used where `takes_factors`.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        rates: Sequence[float],
        steps: int = 0,
        narrow: Sequence[Tensor | None] | None = None,
        deferred: Mapping[Tensor, Callable[[], Factors | None]] | None = None,
    ) -> None:
        self.parameters = list(parameters)
        self._stay = [p.grad is not None for p in self.parameters]
        self.means = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.squares = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        device = self.parameters[0].device
        self._steps = torch.tensor(float(steps), device=device)
        self._narrow = list(narrow) if narrow else [None] * len(self.parameters)
        self._shared = rates[0] if len(set(rates)) == 1 else None
        self._rates = torch.tensor(list(rates), device=device, dtype=self.parameters[0].dtype)
        self._scratch: list[Tensor] = []
        plain = all(p.is_contiguous() and p.dtype == torch.float32 for p in self.parameters)
        self._kernels = kernels_for(self.parameters[0]) if plain else None
        self.takes_factors = self._kernels is not None and device.type == "cpu" and not narrow
        self._deferred = deferred or {}
        self._steps_of: dict[tuple[int, ...], _Together] = {}  # parameters that take a step together, by their places
        self._sweeps = device.type == "cpu" and not (self._kernels is not None and self._kernels.flushes())
        if self._kernels is not None:
            self._betas = torch.tensor(BETAS, dtype=torch.float64, device=device)
            self._powers = self._betas**steps
            self._corrections = torch.empty(2, device=device)
        elif self._shared is None:
            self._scratch = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]

    @property
    def steps(self) -> int:
        """How many steps were taken; waits for the device."""
        return int(self._steps)

    @property
    def corrections(self) -> tuple[float, float]:
        """1 - beta^t for both betas, t the number of this step; waits for the device."""
        first, second = self._corrections.tolist()
        return first, second

    def together(self, parameters: Iterable[Tensor]) -> Steps:
        """Steps of these in one call, for whoever takes them by himself after `count`; they have gradients that stay."""
        places = {id(p): place for place, p in enumerate(self.parameters)}
        return self._described(tuple(places[id(p)] for p in parameters))[0]

    def step(self) -> None:
        """One step along the gradients at hand; a tensor without one stays."""
        self.count()
        self.move(range(len(self.parameters)))
        self.clear()

    @torch.no_grad()
    def count(self) -> None:
        """Begin a step: its number tells how far the moments are from their limits."""
        self._steps += 1
        if self._kernels is not None:
            self._powers *= self._betas
            torch.sub(1, self._powers, out=self._corrections)

    @torch.no_grad()
    def move(self, which: Iterable[int]) -> None:
        """The present step of some tensors, by their places; a tensor without a gradient stays."""
        places = [place for place in which if self.parameters[place].grad is not None]
        if not places:
            return
        if self._kernels is not None:
            self._by_kernel(places)
            return
        if self._shared is not None:
            self._fused([self.parameters[i] for i in places], places, self._shared)
        else:
            moved = [self._scratch[i] for i in places]
            torch._foreach_zero_(moved)
            self._fused(moved, places, 1.0)
            for i in places:
                p = self.parameters[i]
                p.addcmul_(self._scratch[i], self._rates.view(-1, *(1,) * (p.dim() - 1)))
        for i in places:
            if (copy := self._narrow[i]) is not None:
                copy.copy_(self.parameters[i])

    def clear(self) -> None:
        """End a step: gradients that backward passes add to begin anew."""
        for p, stays in zip(self.parameters, self._stay, strict=True):
            if not stays:
                p.grad = None
        if self._sweeps and self.steps % SWEEP == 0:
            self._sweep()

    @torch.no_grad()
    def _sweep(self) -> None:
        """Set moments that are too small to matter to zero."""
        for moment in (*self.means, *self.squares):
            moment.masked_fill_(moment.abs() < NEGLIGIBLE, 0)

    def _by_kernel(self, places: list[int]) -> None:
        assert self._kernels is not None  # whoever calls this has looked
        if self.takes_factors and (stay := tuple(i for i in places if self._stay[i])):
            if stay not in self._steps_of:
                self._steps_of[stay] = self._described(stay)
            steps, sources = self._steps_of[stay]
            factors = {at: pair for at, source in sources if (pair := source()) is not None}
            steps.take(factors, self.corrections, BETAS, EPSILON)
            places = [i for i in places if not self._stay[i]]
        rule = (self._rates, self._corrections, BETAS, EPSILON)
        for i in places:
            p, moments = self.parameters[i], (self.means[i], self.squares[i])
            if (g := p.grad) is not None:
                self._kernels.adam_(p.detach(), g.contiguous(), *moments, self._narrow[i], *rule)

    def _described(self, places: tuple[int, ...]) -> _Together:
        """Parameters whose gradients stay in their tensors, or come as factors."""
        parameters = [self.parameters[i] for i in places]
        gradients = [g for p in parameters if (g := p.grad) is not None]
        means, squares = ([moments[i] for i in places] for moments in (self.means, self.squares))
        steps = Steps([p.detach() for p in parameters], gradients, means, squares, self._rates)
        return steps, [(at, self._deferred[p]) for at, p in enumerate(parameters) if p in self._deferred]

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
