r"""Stacks: the networks of P members of one shape as one module whose tensors have the member axis first.

    LinearStack    linear layers and activations: (P, N, in) x (P, in, out) + (P, 1, out) -> (P, N, out)
    ModuleStack    any module, by `torch.func.vmap` over stacked parameters and buffers

A stack takes (N, in), shared by the members, or (P, N, in), and gives (P, N, out). It copies the members' weights when
it is made and gives them back in `unstack`.

The whole chain of a LinearStack is one node of the gradient's graph. With h_0 = x, a_l = h_(l-1) W_l + b_l and
h_l = f(a_l), its backward pass from g = d loss / d a_L is

    dW_l = h_(l-1)^T g        db_l = sum_N g        g <- (g W_l^T) f'(a_(l-1))

with every activation applied in place: no tensor is kept, or passed over, that the products do not need. Stacks may
take their products in a narrower type (bfloat16) with float32 master weights, see `prepare`. Where products are compiled and
all activations are rectifiers, forward and backward are one call of `native.chains` each; else layer by layer.
Not here: which architectures there are (`networks`), what their numbers mean (`vae`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from autovae.fused import kernels_for
from autovae.model.products import FEWEST, affine, product, rectified
from autovae.model.sinks import Sinks
from autovae.native.chains import Chain

__all__ = ["LinearStack", "ModuleStack", "is_linear", "prepare", "stack"]

aten = torch.ops.aten
ALIGNED = 8  # bfloat16 numbers that CUDA's products read at once


@dataclass(frozen=True)
class Activation:
    """An elementwise function and the product of a gradient with its slope, both written into an existing tensor."""

    apply: Callable[[Tensor, Tensor], object]  # (a, out)
    pull: Callable[[Tensor, Tensor], object]  # (gradient, kept): in place; kept is f(a), or a where that is needed
    keeps_input: bool = False
    settings: tuple[object, ...] = field(default=(), compare=True)
    rectifies: bool = False  # max(a, 0), for which there are fused kernels


def _relu(module: nn.Module) -> Activation:
    return Activation(
        lambda a, out: torch.clamp(a, min=0, out=out),
        lambda g, h: aten.threshold_backward.grad_input(g, h, 0, grad_input=g),
        rectifies=True,
    )


def _tanh(module: nn.Module) -> Activation:
    return Activation(
        lambda a, out: torch.tanh(a, out=out), lambda g, h: aten.tanh_backward.grad_input(g, h, grad_input=g)
    )


def _gelu(module: nn.Module) -> Activation:
    form = str(module.approximate)
    return Activation(
        lambda a, out: aten.gelu.out(a, approximate=form, out=out),
        lambda g, a: aten.gelu_backward.grad_input(g, a, approximate=form, grad_input=g),
        keeps_input=True,
        settings=(form,),
    )


def _silu(module: nn.Module) -> Activation:
    return Activation(
        lambda a, out: aten.silu.out(a, out=out),
        lambda g, a: aten.silu_backward.grad_input(g, a, grad_input=g),
        keeps_input=True,
    )


def _elu(module: nn.Module) -> Activation:
    alpha = float(module.alpha)  # type: ignore[arg-type]
    return Activation(
        lambda a, out: aten.elu.out(a, alpha, out=out),
        lambda g, h: aten.elu_backward.grad_input(g, alpha, 1, 1, True, h, grad_input=g),
        settings=(alpha,),
    )


def _leaky_relu(module: nn.Module) -> Activation:
    slope = float(module.negative_slope)  # type: ignore[arg-type]
    return Activation(
        lambda a, out: aten.leaky_relu.out(a, slope, out=out),
        lambda g, h: aten.leaky_relu_backward.grad_input(g, h, slope, True, grad_input=g),
        settings=(slope,),
    )


IN_PLACE: dict[type[nn.Module], Callable[[nn.Module], Activation]] = {
    nn.ReLU: _relu,
    nn.Tanh: _tanh,
    nn.GELU: _gelu,
    nn.SiLU: _silu,
    nn.ELU: _elu,
    nn.LeakyReLU: _leaky_relu,
}

Runs = list[tuple[int, int, Activation]]  # members start:stop share an activation


def _runs(layers: Sequence[nn.Module]) -> Runs:
    runs: Runs = []
    kinds: list[tuple[type[nn.Module], tuple[object, ...]]] = []
    for member, layer in enumerate(layers):
        activation = IN_PLACE[type(layer)](layer)
        kind = (type(layer), activation.settings)
        if kinds and kinds[-1] == kind:
            runs[-1] = (runs[-1][0], member + 1, runs[-1][2])
        else:
            runs.append((member, member + 1, activation))
            kinds.append(kind)
    return runs


def _activate(runs: Runs, a: Tensor, one: bool) -> tuple[Tensor, Tensor]:
    """f(a), and what the backward pass needs: both are `a` itself, overwritten, where no run needs its input."""
    result = torch.empty_like(a) if any(run[2].keeps_input for run in runs) else a
    for start, stop, activation in runs:
        whole = one or stop - start == len(a)
        activation.apply(a if whole else a[start:stop], result if whole else result[start:stop])
    return result, a


def _pull(runs: Runs, gradient: Tensor, result: Tensor, a: Tensor, one: bool) -> None:
    for start, stop, activation in runs:
        whole = one or stop - start == len(a)
        kept = a if activation.keeps_input else result
        activation.pull(gradient if whole else gradient[start:stop], kept if whole else kept[start:stop])


def _rectifies(runs: Runs) -> bool:
    return len(runs) == 1 and runs[0][2].rectifies


class _Chain(torch.autograd.Function):
    """The chain of a LinearStack, forward and backward, as the module's docstring has it.

    Tensors are (P, N, .), or (N, .) where there is one member: one product is faster than a batch of one.
    """

    @staticmethod
    def forward(ctx, x, stack, *parameters):  # type: ignore[no-untyped-def]
        ctx.stack, ctx.shared, ctx.wide = stack, x.dim() == 2, x.dtype
        one = stack.size == 1
        h = x if stack.narrow is None else x.to(stack.narrow)
        if stack.spare:
            h = nn.functional.pad(h, (0, stack.spare))
        if one and not ctx.shared:
            h = h.squeeze(0)
        ctx.kernels = kernels_for(h)
        ctx.whole = stack.whole(h, ctx.kernels)
        if ctx.whole is not None:
            below = [h.contiguous()]
            below += ctx.whole.forward(below[0])
            h = below.pop()
        else:
            below, h = _forward(ctx, h)
        ctx.save_for_backward(*below)
        h = h.unsqueeze(0) if one else h
        return h if stack.narrow is None or stack.narrow_outputs else h.to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        stack, below = ctx.stack, ctx.saved_tensors
        one, needs, sinks = stack.size == 1, ctx.needs_input_grad, stack.sinks
        g = gradient.squeeze(0) if one else gradient
        g = (g if stack.narrow is None else g.to(stack.narrow)).contiguous()
        slopes: list[Tensor | None] = [None] * (len(needs) - 2)
        to_x = None
        for depth, h, here, sums in (_backward if ctx.whole is None else _whole_backward)(ctx, below, g):
            if depth < 0:
                to_x = here
            elif sinks is not None:
                sinks.put(depth, h, here, sums)
            else:
                if needs[2 + 2 * depth]:
                    slopes[2 * depth] = product(h.mT, here, stack.compiled).to(ctx.wide)
                if needs[3 + 2 * depth]:
                    slopes[2 * depth + 1] = torch.sum(here, -2, keepdim=True, dtype=ctx.wide) if sums is None else sums
        if sinks is not None:
            sinks.written = True
        elif one:
            slopes = [slope if slope is None else slope.unsqueeze(0) for slope in slopes]
        if to_x is not None:
            to_x = to_x[..., : to_x.shape[-1] - stack.spare].to(ctx.wide)
            if ctx.shared and not one:
                to_x = to_x.sum(0)
            elif one and not ctx.shared:
                to_x = to_x.unsqueeze(0)
        return to_x, None, *slopes


Found = Iterator[tuple[int, Tensor, Tensor, Tensor | None]]


def _forward(ctx: Any, h: Tensor) -> tuple[list[Tensor], Tensor]:
    """Layer by layer: what the backward pass needs, h and a by turns, and what comes out."""
    stack, one = ctx.stack, ctx.stack.size == 1
    if ctx.shared and not one:
        h = h.expand(stack.size, -1, -1)
    kept = [h]
    for depth, (weight, bias) in enumerate(stack.layers()):
        runs = stack.activations[depth] if depth < len(stack.activations) else []
        fused = ctx.kernels is not None and _rectifies(runs)
        h = affine(h, weight, bias, fused, ctx.kernels, stack.compiled)
        if runs:
            h, a = (h, h) if fused else _activate(runs, h, one)
            kept += [h, a]
    return kept, h


def _backward(ctx: Any, kept: Sequence[Tensor], g: Tensor) -> Found:
    """From the last layer to the first: its place, what went into it, the gradient of its sums, and its sum over points
    where that was found on the way. Then, with place -1, the gradient of x where it is needed."""
    stack, sums, layers = ctx.stack, None, ctx.stack.layers()
    for depth in reversed(range(len(layers))):
        below = kept[2 * depth - 1] if depth else kept[0][..., : kept[0].shape[-1] - stack.spare]
        here, sums_here, weight = g, sums, layers[depth][0]
        sums = None
        if depth:
            runs = stack.activations[depth - 1]
            if ctx.kernels is not None and _rectifies(runs):
                g, sums = rectified(here, weight, below, ctx.kernels, stack.compiled)
            else:
                g = product(here, weight.mT, stack.compiled)
                _pull(runs, g, kept[2 * depth - 1], kept[2 * depth], stack.size == 1)
        elif ctx.needs_input_grad[0]:
            g = product(here, weight.mT, stack.compiled)
        yield depth, below, here, sums_here
    if ctx.needs_input_grad[0]:
        yield -1, kept[0], g, None


def _whole_backward(ctx: Any, below: Sequence[Tensor], g: Tensor) -> Found:
    """The same by one call. What can go straight to the sinks, if nothing is there yet, or be deferred, does."""
    stack, sinks = ctx.stack, ctx.stack.sinks
    direct = sinks is not None and not sinks.written
    sums = sinks.biases if direct else [torch.empty_like(bias) for _, bias in stack.layers()]
    slopes, to_x = ctx.whole.backward(below[1:], g, sums, ctx.needs_input_grad[0])
    first = below[0] if below[0].dim() == g.dim() else below[0].expand(stack.size, -1, -1)
    inputs = [first, *below[1:]]
    if direct and sinks.defers:
        sinks.factors.update(enumerate(zip(inputs, slopes, strict=True)))
    else:
        for depth in reversed(range(len(sums))):
            yield depth, inputs[depth], slopes[depth], sums[depth]
    if to_x is not None:
        yield -1, below[0], to_x, None


class LinearStack(nn.Module):
    """P sequences of linear layers as batched products.

    Activations may differ between members at one depth (a saturating first layer): neighbours with one activation form
    one slice of the stack. `own_gradients` gives every parameter a gradient tensor of its own, see `sinks`.
    """

    def __init__(self, members: Sequence[nn.Sequential], device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.size = len(members)
        for depth, layers in enumerate(zip(*map(_linears, members), strict=True)):
            weight = torch.stack([layer.weight.detach() for layer in layers]).to(device).mT.contiguous()
            bias = torch.stack([layer.bias.detach()[None] for layer in layers]).to(device)
            self.register_parameter(f"weight_{depth}", nn.Parameter(weight, layers[0].weight.requires_grad))
            self.register_parameter(f"bias_{depth}", nn.Parameter(bias, layers[0].bias.requires_grad))
        between = [[layer for layer in member if not isinstance(layer, nn.Linear)] for member in members]
        self.activations = [_runs(layers) for layers in zip(*between, strict=True)]
        self.narrow: torch.dtype | None = None
        self.compiled = False  # whether products are `native.product`'s
        self.narrow_outputs = False  # whether what comes out stays in that type
        self.copies: list[Tensor] = []  # of the parameters, in the narrow type: kept equal to them by the optimizer
        self.spare = 0  # rows of zeros below the first weight's copy
        self._held: list[Tensor] = []  # the copies with these
        self.sinks: Sinks | None = None
        self._views: list[tuple[Tensor, Tensor]] = []
        self._whole: Chain | None = None
        self._plain = all(map(is_rectified, members))

    def whole(self, h: Tensor, kernels: ModuleType | None) -> Chain | None:
        """The chain as one call for what goes in, (N, in) or (P, N, in), where there are points enough for it."""
        return None if kernels is None or h.shape[-2] < FEWEST else self.in_one_call()

    def in_one_call(self) -> Chain | None:
        """The chain as one call, where products are compiled ones and every activation a rectifier."""
        if self._whole is None and self.compiled and self._plain:
            self._whole = Chain(self.layers())
        return self._whole

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """(weight, bias) of every layer, without the member axis where there is one member, in the products' type."""
        if not self._views:
            held = self._held or list(self.parameters())
            values = [p.detach().squeeze(0) if self.size == 1 else p.detach() for p in held]
            self._views = list(zip(values[::2], values[1::2], strict=True))
        if self.narrow is None or self.copies:
            return self._views
        return [(w.to(self.narrow), b.to(self.narrow)) for w, b in self._views]

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        self._views, self.copies, self._held = [], [], []  # the module moves to another device or type
        self._whole, self.sinks, self.spare = None, None, 0
        return super()._apply(fn, recurse)

    def own_gradients(self) -> None:
        """From now on backward passes write into fixed `.grad` tensors; set `sinks.written = False` after every step.

        Only where all parameters are learned, and products can be had in the weights' type: float32, or bfloat16 on CUDA.
        """
        self.sinks = None
        parameters = list(self.parameters())
        if all(p.requires_grad for p in parameters) and (self.narrow is None or parameters[0].is_cuda):
            self.sinks = Sinks.of(parameters, self.size == 1, self.compiled)

    def own_copies(self) -> None:
        """From now on products take copies of the weights in the narrow type, for whoever changes weights to keep up.

        Only where the optimizer has a kernel that does so on its way. The first weight gets rows of zeros, and its
        input columns, up to a number that products are fast with: 20 latents take twice the time of 24.
        """
        parameters = list(self.parameters())
        if self.narrow is None or kernels_for(parameters[0]) is None:
            return
        self.spare = -parameters[0].shape[1] % ALIGNED
        values = [p.detach().to(self.narrow) for p in parameters]
        self._views, self._held = [], [nn.functional.pad(values[0], (0, 0, 0, self.spare)), *values[1:]]
        self.copies = [held[:, : p.shape[1]] for held, p in zip(self._held, parameters, strict=True)]

    def twin(self) -> LinearStack:
        """The same parameters, and gradients of its own: for another thread."""
        other = copy.copy(self)
        other.sinks = None if self.sinks is None else self.sinks.twin()
        return other

    def forward(self, x: Tensor) -> Tensor:
        parameters = list(self._parameters.values())
        # Gradients that go to the sinks need but one way back through the graph.
        result: Tensor = _Chain.apply(x, self, *(parameters if self.sinks is None else parameters[:1]))
        return result

    def unstack(self, members: Sequence[nn.Sequential]) -> None:
        """Copy the weights back into the members' own modules."""
        values = [p.detach().mT for p in self.parameters()]
        if values[0].is_cuda:  # turned there, and fetched at once: a copy from a GPU waits for it
            values = [p.contiguous().cpu() for p in values]
        with torch.no_grad():
            for index, member in enumerate(members):
                for layer, weight, bias in zip(_linears(member), values[::2], values[1::2], strict=True):
                    layer.weight.copy_(weight[index])
                    layer.bias.copy_(bias[index, :, 0])


class ModuleStack(nn.Module):
    """P modules of any kind, by `torch.func.vmap` over stacked parameters and buffers; without it when P = 1.

    The members' modules are read for their structure and left as they are until `unstack`.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self._base = [members[0]]  # in a list: its own parameters are not part of this stack
        self._size = len(members)
        parameters, buffers = stack_module_state(list(members))  # type: ignore[arg-type]
        learned = {name: p.requires_grad for name, p in members[0].named_parameters()}
        self._names, self._buffer_names = list(parameters), list(buffers)
        self.stacked = nn.ParameterList(
            nn.Parameter(value.detach().clone(), requires_grad=learned[name]) for name, value in parameters.items()
        )
        for place, value in enumerate(buffers.values()):
            self.register_buffer(f"buffer_{place}", value.detach().clone())

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        buffers = {name: self.get_buffer(f"buffer_{place}") for place, name in enumerate(self._buffer_names)}
        return dict(zip(self._names, self.stacked, strict=True)), buffers

    def forward(self, x: Tensor) -> Tensor:
        state = self._state()
        base = self._base[0].train(self.training)
        if self._size == 1:
            alone = tuple({name: t.squeeze(0) for name, t in part.items()} for part in state)
            return functional_call(base, alone, (x if x.dim() == 2 else x.squeeze(0),))[None]

        def call(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(base, (parameters, buffers), (x,))

        in_dims = (0, 0, None if x.dim() == 2 else 0)
        result: Tensor = torch.func.vmap(call, in_dims, randomness="different")(*state, x)
        return result

    def unstack(self, members: Sequence[nn.Module]) -> None:
        """Copy the weights and buffers back into the members' own modules."""
        parameters, buffers = self._state()
        with torch.no_grad():
            for index, member in enumerate(members):
                own = dict(member.named_parameters()) | dict(member.named_buffers())
                for name, value in (parameters | buffers).items():
                    own[name].copy_(value[index])


def _linears(member: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in member if isinstance(layer, nn.Linear)]


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a chain of linear layers with activations between, which LinearStack can hold."""
    if not isinstance(module, nn.Sequential) or len(module) % 2 == 0:
        return False
    return all(
        (type(layer) is nn.Linear and layer.bias is not None) if depth % 2 == 0 else type(layer) in IN_PLACE
        for depth, layer in enumerate(module)
    )


def is_rectified(module: nn.Module) -> bool:
    """Whether it is such a chain with rectifiers alone, and layers wide enough for compiled products."""
    return is_linear(module) and all(
        min(layer.weight.shape) >= FEWEST if isinstance(layer, nn.Linear) else IN_PLACE[type(layer)](layer).rectifies
        for layer in module  # type: ignore[attr-defined]
    )


def stack(members: Sequence[nn.Module], device: torch.device | str = "cpu") -> LinearStack | ModuleStack:
    """The fastest stack that can hold these modules, on a device."""
    if all(is_linear(member) for member in members):
        return LinearStack(members, device)  # type: ignore[arg-type]
    return ModuleStack(members).to(device)


def prepare(module: nn.Module, narrow: torch.dtype | None = None, compiled: bool = False) -> list[LinearStack]:
    """The linear stacks in `module`, made ready for training: products in type `narrow` or `compiled`, gradients
    of their own."""
    found = [part for part in module.modules() if isinstance(part, LinearStack)]
    for part in found:
        part.narrow, part.compiled = narrow, compiled
        part.own_gradients()
        part.own_copies()
    return found
