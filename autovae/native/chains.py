"""Chains of linear layers and Adam on many tensors, in one call each.

A step of 100 points has some thirty products and tensors to move; handing them to C one by one takes half as long as the work.
What stays where it is (weights, gradients, moments) is described to C once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from autovae import native

__all__ = ["Chain", "Steps", "places_of"]


class _Layer(ctypes.Structure):
    _fields_ = [
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("inputs", ctypes.c_long),
        ("outputs", ctypes.c_long),
    ]


class _Task(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("values", "gradient", "means", "squares")),
        *((name, ctypes.c_long) for name in ("members", "m", "n")),
        *((name, ctypes.c_void_p) for name in ("a", "b")),
        *((name, ctypes.c_long) for name in ("k", "a_next", "a_apart", "a_turned", "b_next", "b_apart", "b_turned")),
    ]


class Chain:
    """h_l = max(h_(l-1) W_l + b_l, 0), without the rectifier in the last layer, with `native.product`'s products.

    Weights (in, out) or (P, in, out), biases (1, out) or (P, 1, out): to be where they are for as long as this is used.
    """

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        if not native.multiplies():
            raise RuntimeError(
                "this processor has no vectors wide enough, or there is no compiled library: ask multiplies() first"
            )
        self._layers = list(layers)  # kept, so that their memory is
        self.members = len(layers[0][0]) if layers[0][0].dim() == 3 else 1
        self._outer = layers[0][0].shape[:-2]
        self.widths = [layers[0][0].shape[-2], *(weight.shape[-1] for weight, _ in layers)]
        sizes = list(zip(self.widths[:-1], self.widths[1:], strict=True))
        self.described = (_Layer * len(layers))(
            *(
                _Layer(
                    native.address(weight, self.members * inputs * outputs),
                    native.address(bias, self.members * outputs),
                    inputs,
                    outputs,
                )
                for (weight, bias), (inputs, outputs) in zip(layers, sizes, strict=True)
            )
        )
        self._sums: Sequence[Tensor] = ()
        self._sums_at = places_of(())

    def forward(self, x: Tensor) -> list[Tensor]:
        """What every layer gives for x (N, in), which members share, or (P, N, in)."""
        points, shared, widths = x.shape[-2], x.dim() == 2, self.widths
        outputs = [x.new_empty(*self._outer, points, width) for width in widths[1:]]
        failed = native.compiled().chain_forward(
            self.members, points, len(self._layers), self.described,
            native.address(x, (1 if shared else self.members) * points * widths[0]),
            0 if shared else points * widths[0], places_of(outputs), torch.get_num_threads(),
        )  # fmt: skip
        native.had_room(failed)
        return outputs

    def backward(
        self, outputs: Sequence[Tensor], gradient: Tensor, sums: Sequence[Tensor], to_x: bool
    ) -> tuple[list[Tensor], Tensor | None]:
        """The gradients of every layer's sums h_(l-1) W_l + b_l, and x's if asked for, from that of the last.

        outputs are those of `forward` but the last; `sums`, like the biases, become the gradients' sums over points.
        """
        points, widths = gradient.shape[-2], self.widths
        slopes = [gradient.new_empty(*self._outer, points, width) for width in widths[1:-1]]
        of_x = gradient.new_empty(*self._outer, points, widths[0]) if to_x else None
        failed = native.compiled().chain_backward(
            self.members, points, len(self._layers), self.described, places_of(outputs),
            native.address(gradient, self.members * points * widths[-1]), places_of(slopes), self._places_of(sums),
            None if of_x is None else of_x.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        native.had_room(failed)
        return [*slopes, gradient], of_x

    def _places_of(self, sums: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
        """Where these sums go; found once where they are the same as the last time."""
        if sums is not self._sums:
            for sum_, width in zip(sums, self.widths[1:], strict=True):
                native.address(sum_, self.members * width)
            self._sums, self._sums_at = sums, places_of(sums)
        return self._sums_at


def places_of(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(t.data_ptr() for t in tensors))


class Steps:
    """Steps of Adam on tensors (P, ...) whose gradients and moments stay where they are."""

    def __init__(
        self,
        values: Sequence[Tensor],
        gradients: Sequence[Tensor],
        means: Sequence[Tensor],
        squares: Sequence[Tensor],
        rates: Tensor,
    ) -> None:
        self._values, self.rates = list(values), rates
        self._kept = [*gradients, *means, *squares]
        self._shapes = [tuple(v.shape) if v.dim() == 3 else (0, 0, 0) for v in values]
        members = len(rates)
        self._tasks = (_Task * len(values))()
        for task, places in zip(self._tasks, zip(values, gradients, means, squares, strict=True), strict=True):
            size = places[0].numel()
            task.values, task.gradient, task.means, task.squares = (native.address(t, size) for t in places)
            task.members, task.m, task.n = members, 1, size // members

    def take(
        self,
        factors: Mapping[int, tuple[Tensor, Tensor]],
        corrections: tuple[float, float],
        betas: tuple[float, float],
        epsilon: float,
    ) -> None:
        """One step, `native.adam_`'s; the gradients at these places are h^T g, and what is in their tensors is lost.

        factors (h, g): (P, N, m) and (P, N, n) of values (P, m, n), rows side by side; an only member's without that axis.
        corrections: 1 - beta^t for both betas, t the number of this step.
        """
        tasks, (first, second) = self.along(factors), corrections
        failed = native.compiled().adam_steps(
            len(tasks), tasks, self.rates.data_ptr(), 1 / first, *betas, second**0.5, epsilon, torch.get_num_threads()
        )
        native.had_room(failed)
        self.moved()

    def along(self, factors: Mapping[int, tuple[Tensor, Tensor]]) -> ctypes.Array[_Task]:
        """The tensors as C sees them, with these factors for as long as those are where they are."""
        if factors and not native.multiplies():
            raise RuntimeError("factors are multiplied by compiled products, which are not to be had here")
        tasks = type(self._tasks).from_buffer_copy(self._tasks)
        for place, (h, g) in factors.items():
            (members, m, n), (*outer, points, _) = self._shapes[place], h.shape
            alone = members == 1 and not outer
            if h.shape[-1] != m or g.shape != (*outer, points, n) or (outer != [members] and not alone) or not points:
                raise ValueError(
                    f"got factors of {tuple(h.shape)} and {tuple(g.shape)} for values of {self._shapes[place]}"
                )
            task = tasks[place]
            task.m, task.n, task.k = m, n, points
            task.a, task.a_next, task.a_apart, turned = native.layout(h)
            task.a_turned = not turned
            task.b, task.b_next, task.b_apart, task.b_turned = native.layout(g)
        return tasks

    def moved(self) -> None:
        """Say that the values are new: a graph that saved them is stale."""
        torch.autograd.graph.increment_version(self._values)
