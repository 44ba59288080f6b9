"""Sinks: gradients of a stack's weights in tensors that stay, as the optimizer's moments do.

The first backward pass of a step overwrites them, later ones add to them (pseudo-inputs go through the encoder, too).
Where they are deferred, a weight's gradient h^T g stays two factors, which whoever takes the step takes out and multiplies
as it goes; a second pass back multiplies them itself.
Not here: when a stack has sinks (`stacks`), steps along factors (`native.chains`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from autovae.model.products import by_native, product

__all__ = ["Factors", "Sinks"]

Factors = tuple[Tensor, Tensor]  # h (..., N, in), which a layer got, and g (..., N, out), the slope of what it gave


@dataclass
class Sinks:
    """The gradients of every layer's weight and bias; `compiled` products are `native.product`'s."""

    weights: list[Tensor]
    biases: list[Tensor]
    compiled: bool
    written: bool = False  # whether they hold gradients of this step
    defers: bool = False
    factors: dict[int, Factors] = field(default_factory=dict)  # by depth

    @staticmethod
    def of(parameters: Sequence[Tensor], alone: bool, compiled: bool) -> Sinks:
        """Zeros, as the parameters' own gradients; without the member axis where there is one member."""
        for p in parameters:
            p.grad = torch.zeros_like(p)
        places = [g.squeeze(0) if alone else g for p in parameters if (g := p.grad) is not None]
        return Sinks(places[::2], places[1::2], compiled)

    def twin(self) -> Sinks:
        """As many, of their own."""
        weights, biases = ([torch.zeros_like(sink) for sink in sinks] for sinks in (self.weights, self.biases))
        return Sinks(weights, biases, self.compiled)

    def all(self) -> list[Tensor]:
        """In the order of a stack's parameters."""
        return [sink for pair in zip(self.weights, self.biases, strict=True) for sink in pair]

    def source(self, depth: int) -> Callable[[], Factors | None]:
        """Takes out the factors of a weight's gradient, where it was deferred."""
        return lambda: self.factors.pop(depth, None)

    def put(self, depth: int, h: Tensor, g: Tensor, sums: Tensor | None) -> None:
        """A layer's gradients, h^T g and `sums`, those of g over points where they were found on the way."""
        weight, bias = self.weights[depth], self.biases[depth]
        if self.written:
            if (factors := self.factors.pop(depth, None)) is not None:
                product(factors[0].mT, factors[1], self.compiled, out=weight)
            weight += product(h.mT, g, self.compiled)
            bias += torch.sum(g, -2, keepdim=True, dtype=bias.dtype) if sums is None else sums
            return
        if self.defers and by_native(self.compiled, h.mT, g):
            self.factors[depth] = h, g
        else:
            product(h.mT, g, self.compiled, out=weight)
        if sums is None:
            torch.sum(g, -2, keepdim=True, dtype=bias.dtype, out=bias)
        elif sums is not bias:
            bias.copy_(sums)
