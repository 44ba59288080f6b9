r"""Networks as steps: a value with its pullback, which maps a gradient of the output to one of the input.

    step(x) = (y, pullback),     pullback(g) = (dy/dx)^T g

For a few chains autograd's overhead exceeds the small products themselves, so simple layers have explicit steps:

| layers | step |
|---|---|
| Linear | y = x W^T + b, pullback g W |
| ReLU, Tanh, GELU, .. | elementwise, times the slope |
| consecutive affine layers (convolutions, reshapes) | one matrix of up to `LARGEST_MATRIX` entries, found by probing |
| everything else | autograd of that layer |

Steps use the weights at construction. They modify neither their argument nor earlier results; call a pullback only once.
Only public operations of torch are used.

To add a layer: write its step and add it to STEPS, or add its type to AFFINE.
Not here: the steps of a posterior around its networks (`gradient`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autovae.model.classifiers import Classifier
from autovae.model.halving import DoublingConv, HalvingConv, Image

__all__ = ["AFFINE", "STEPS", "Pullback", "Step", "by_autograd", "compose", "elementwise", "steps_of"]

Pullback = Callable[[Tensor], Tensor]
Step = Callable[[Tensor], tuple[Tensor, Pullback]]
Layer = Callable[[Tensor], Tensor]

LARGEST_MATRIX = 2**18  # entries; larger ones cost more memory traffic than the convolution they replace


def compose(steps: Sequence[Step]) -> Step:
    """The composition of several steps, in order."""

    def step(x: Tensor) -> tuple[Tensor, Pullback]:
        pullbacks = []
        for part in steps:
            x, pullback = part(x)
            pullbacks.append(pullback)

        def all_back(g: Tensor) -> Tensor:
            for pullback in reversed(pullbacks):
                g = pullback(g)
            return g

        return x, all_back

    return step


def by_autograd(f: Layer) -> Step:
    """Any differentiable function as a step."""

    def step(x: Tensor) -> tuple[Tensor, Pullback]:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            y = f(leaf)

        def pullback(g: Tensor) -> Tensor:
            slope = torch.autograd.grad(y, leaf, g, allow_unused=True)[0] if y.requires_grad else None
            return torch.zeros_like(leaf) if slope is None else slope

        return y.detach(), pullback

    return step


def elementwise(f: Layer, slope: Callable[[Tensor, Tensor], Tensor]) -> Step:
    """An elementwise function with its derivative slope(x, f(x)), a new tensor."""

    def step(x: Tensor) -> tuple[Tensor, Pullback]:
        y = f(x)
        return y, lambda g: slope(x, y).mul_(g)

    return step


def _linear(layer: nn.Linear) -> Step:
    weight = layer.weight.detach()
    # Row-wise access to the right factor makes the product an eighth faster.
    transposed = weight.T.contiguous()
    if layer.bias is None:
        return lambda x: (x @ transposed, lambda g: g @ weight)
    bias = layer.bias.detach()
    return lambda x: ((x @ transposed).add_(bias), lambda g: g @ weight)


def _silu_slope(x: Tensor, y: Tensor) -> Tensor:
    s = x.sigmoid()
    return torch.addcmul(s, y, 1 - s)


def _gelu_slope(x: Tensor, y: Tensor) -> Tensor:
    """Phi(x) + x phi(x)."""
    return torch.special.ndtr(x).addcmul_(x, x.square().mul_(-0.5).exp_(), value=(2 * math.pi) ** -0.5)


STEPS: dict[type[nn.Module], Callable[[Any], Step]] = {
    nn.Linear: _linear,
    nn.ReLU: lambda layer: elementwise(torch.relu, lambda x, y: y.sign()),
    nn.Tanh: lambda layer: elementwise(torch.tanh, lambda x, y: (y * y).neg_().add_(1)),
    nn.Sigmoid: lambda layer: elementwise(torch.sigmoid, lambda x, y: torch.addcmul(y, y, y, value=-1)),
    nn.LeakyReLU: lambda layer: elementwise(
        lambda x: functional.leaky_relu(x, layer.negative_slope),
        lambda x, y: torch.where(x > 0, x.new_ones(()), layer.negative_slope),
    ),
    nn.ELU: lambda layer: elementwise(
        lambda x: functional.elu(x, layer.alpha), lambda x, y: (y + layer.alpha).masked_fill_(x > 0, 1)
    ),
    nn.SiLU: lambda layer: elementwise(functional.silu, _silu_slope),
    nn.GELU: lambda layer: (
        elementwise(functional.gelu, _gelu_slope) if layer.approximate == "none" else by_autograd(layer)
    ),
}

AFFINE: set[type] = {
    nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.Flatten, nn.Unflatten, Image, HalvingConv, DoublingConv,
}  # fmt: skip


class _Affine:
    """A function that is known to be affine."""

    def __init__(self, f: Layer) -> None:
        self.f = f

    def __call__(self, x: Tensor) -> Tensor:
        return self.f(x)


def steps_of(module: nn.Module) -> list[Step]:
    """The steps of a network in evaluation mode, in order."""
    steps: list[Step] = []
    for affine, run in groupby(_layers(module), lambda layer: type(layer) in AFFINE or isinstance(layer, _Affine)):
        layers = list(run)
        if affine and not all(isinstance(layer, nn.Linear) for layer in layers):
            steps.append(_matrix(layers))
        else:
            steps += [_step(layer) for layer in layers]
    return steps


def _step(layer: Layer) -> Step:
    known = None if _hooked(layer) else STEPS.get(type(layer))  # type: ignore[arg-type]
    return by_autograd(layer) if known is None else known(layer)


def _layers(module: nn.Module) -> list[Layer]:
    """The layers of nested Sequentials and of classifiers, in order; a module with hooks is one layer of its own."""
    if _hooked(module):
        return [by_itself(module)]
    if type(module) in (nn.Identity, nn.Dropout):  # dropout does nothing in evaluation mode
        return []
    if type(module) is nn.Sequential:
        return [layer for child in module for layer in _layers(child)]
    if isinstance(module, Classifier) and type(module) is Classifier and module.outputs:
        flat = _Affine(lambda x: x.reshape(len(x), -1) - 0.5)
        return [flat, *_layers(module.body), *_layers(module.head)]
    return [module]


def by_itself(module: nn.Module) -> Layer:
    """A module as a plain function, which hides it from the tables of steps."""
    return lambda x: module(x)


def _hooked(layer: object) -> bool:
    """Whether user hooks may change what the module computes."""
    return isinstance(layer, nn.Module) and bool(
        layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
    )


def _matrix(layers: Sequence[Layer]) -> Step:
    """Affine layers as one matrix, found by probing at the first call for each shape; autograd if it would be too large."""
    made: dict[tuple[torch.Size, torch.dtype, torch.device], Step] = {}

    def through(x: Tensor) -> Tensor:
        for layer in layers:
            x = layer(x)
        return x

    def step(x: Tensor) -> tuple[Tensor, Pullback]:
        key = (x.shape[1:], x.dtype, x.device)
        if key not in made:
            made[key] = _probed(through, x)
        return made[key](x)

    return step


def _probed(f: Layer, like: Tensor) -> Step:
    shape, entries = like.shape[1:], like.shape[1:].numel()
    offset = f(like.new_zeros(1, *shape)).detach()
    if entries * offset.numel() > LARGEST_MATRIX:
        return by_autograd(f)
    outputs = offset.shape[1:]
    basis = torch.eye(entries, dtype=like.dtype, device=like.device).reshape(-1, *shape)
    matrix, bias = (f(basis).detach() - offset).flatten(1).contiguous(), offset.flatten()
    transposed = matrix.T

    def step(x: Tensor) -> tuple[Tensor, Pullback]:
        y = torch.addmm(bias, x.reshape(-1, entries), matrix)
        return y.reshape(-1, *outputs), lambda g: (g.reshape(-1, len(bias)) @ transposed).reshape(-1, *shape)

    return step
