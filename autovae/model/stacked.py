r"""Stacks: the networks of P members of one shape as one module whose tensors have the member axis first.

    LinearStack    linear layers and activations: (P, N, in) x (P, in, out) + (P, 1, out) -> (P, N, out)
    ModuleStack    any module, by `torch.func.vmap` over stacked parameters and buffers

A stack takes (N, in), shared by the members, or (P, N, in), and gives (P, N, out). It copies the members' weights when
it is made and gives them back in `unstack`.
Not here: how a device multiplies (`operations`), which architectures there are (`networks`), what their numbers mean
(`vae`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from autovae.model.networks import ACTIVATIONS
from autovae.model.operations import Operations, TorchOperations

__all__ = ["LinearStack", "ModuleStack", "is_linear", "stack"]

Runs = list[tuple[int, nn.Module]]  # so many neighbouring members share an activation


def _runs(modules: Sequence[nn.Module]) -> Runs:
    """Neighbours whose activations have one type and the same settings."""
    groups = groupby(modules, key=lambda module: (type(module), module.extra_repr()))
    return [(len(same), same[0]) for same in (list(group) for _, group in groups)]


class LinearStack(nn.Module):
    """P sequences of linear layers as batched products.

    Activations may differ between members at one depth (a saturating first layer): neighbours with one activation form
    one slice of the stack.
    """

    def __init__(self, members: Sequence[nn.Sequential], device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.size = len(members)
        self.operations: Operations = TorchOperations()
        for depth, layers in enumerate(zip(*map(_linears, members), strict=True)):
            weight = torch.stack([layer.weight.detach() for layer in layers]).to(device).mT.contiguous()
            bias = torch.stack([layer.bias.detach()[None] for layer in layers]).to(device)
            self.register_parameter(f"weight_{depth}", nn.Parameter(weight, layers[0].weight.requires_grad))
            self.register_parameter(f"bias_{depth}", nn.Parameter(bias, layers[0].bias.requires_grad))
        between = [[layer for layer in member if not isinstance(layer, nn.Linear)] for member in members]
        self._activations = [_runs(modules) for modules in zip(*between, strict=True)]

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Weight (P, in, out) and bias (P, 1, out) of every layer."""
        parameters = list(self._parameters.values())
        return list(zip(parameters[::2], parameters[1::2], strict=True))  # type: ignore[arg-type]

    def rectifies(self, depth: int) -> bool:
        """Whether the layer at this depth is followed by max(a, 0) in every member."""
        return depth < len(self._activations) and all(type(f) is nn.ReLU for _, f in self._activations[depth])

    def activate(self, depth: int, a: Tensor) -> Tensor:
        """The activations after the layer at this depth, of a (P, N, F), or (N, F) where P = 1."""
        runs = self._activations[depth]
        if len(runs) == 1:
            result: Tensor = runs[0][1](a)
            return result
        parts = a.split([size for size, _ in runs])
        return torch.cat([function(part) for (_, function), part in zip(runs, parts, strict=True)])

    def forward(self, x: Tensor) -> Tensor:
        return self.operations.mlp(x, self)

    def unstack(self, members: Sequence[nn.Sequential]) -> None:
        """Copy the weights back into the members' own modules."""
        values = [p.detach().mT for p in self.parameters()]
        if values[0].is_cuda:  # transposed there and fetched at once: every copy from a GPU waits for it
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
    """Whether a module is a chain of linear layers with elementwise activations between: what LinearStack holds."""
    if not isinstance(module, nn.Sequential) or len(module) % 2 == 0:
        return False
    elementwise = tuple(ACTIVATIONS.values())
    return all(
        (type(layer) is nn.Linear and layer.bias is not None) if depth % 2 == 0 else type(layer) in elementwise
        for depth, layer in enumerate(module)
    )


def stack(members: Sequence[nn.Module], device: torch.device | str = "cpu") -> LinearStack | ModuleStack:
    """The fastest stack that can hold these modules, on a device."""
    if all(is_linear(member) for member in members):
        return LinearStack(members, device)  # type: ignore[arg-type]
    return ModuleStack(members).to(device)
