r"""Encoders and decoders by name, as plain torch modules and as stacks of P members.

An encoder maps a point (X numbers) to 2 D numbers, a decoder D latents to O = X or 2 X numbers. NETWORKS lists the
named ones; the user's own modules serve as well. A *stack* holds the weights of P members of one shape with the member
first and runs them as batched products:

    (P, N, in) x (P, in, out) + (P, 1, out) -> (P, N, out)

To add a network: write `encoder(spec, shape)` and `decoder(spec, outputs)` that return modules, and add it to NETWORKS.
A sequence of linear layers and activations is stacked by products, anything else by `torch.func.vmap`.
Not here: what the numbers mean, see `vae`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from autovae.spec import VAESpec
from autovae.tables import lookup

__all__ = ["ACTIVATIONS", "NETWORKS", "LinearStack", "ModuleStack", "Network", "init_linear", "stack"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
}


@dataclass(frozen=True)
class Network:
    """A named pair of architectures."""

    encoder: Callable[[VAESpec, tuple[int, ...]], nn.Module]
    decoder: Callable[[VAESpec, int], nn.Module]
    note: str


def mlp(widths: Sequence[int], activation: str, first: str | None = None) -> nn.Sequential:
    """Linear layers with activations between; `first` names another activation after the first layer."""
    layers: list[nn.Module] = []
    for depth, (fan_in, fan_out) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(fan_in, fan_out))
        if depth < len(widths) - 2:
            name = first if depth == 0 and first else activation
            layers.append(lookup(ACTIVATIONS, name, "activation")())
    return nn.Sequential(*layers)


def _mlp_encoder(spec: VAESpec, shape: tuple[int, ...]) -> nn.Module:
    return mlp([math.prod(shape), *spec.hidden, 2 * spec.latent_dim], spec.activation)


def _mlp_decoder(spec: VAESpec, outputs: int) -> nn.Module:
    first = "tanh" if spec.saturate else None
    return mlp([spec.latent_dim, *reversed(spec.hidden), outputs], spec.activation, first)


NETWORKS: dict[str, Network] = {
    "mlp": Network(
        _mlp_encoder, _mlp_decoder, "fully connected; hidden = widths of the encoder, mirrored in the decoder"
    ),
}


def init_linear(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every weight and bias from U(-1/sqrt(in), 1/sqrt(in)), torch's default, with the member's own generator."""
    for layer in module.modules():
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        if not isinstance(weight, nn.Parameter) or weight.dim() < 2:
            continue
        bound = 1 / math.sqrt(weight[0].numel())
        with torch.no_grad():
            for parameter in (weight, bias):
                if parameter is not None:
                    draw = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
                    parameter.copy_((2 * draw - 1) * bound)


class LinearStack(nn.Module):
    """P sequences of linear layers as batched products.

    Input (N, in), shared by the members, or (P, N, in); output (P, N, out). Activations may differ between members at
    one depth (a saturating first layer): members of one activation form one slice of the stack.
    """

    def __init__(self, members: Sequence[nn.Sequential]) -> None:
        super().__init__()
        depths = [[layer for layer in member if isinstance(layer, nn.Linear)] for member in members]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]).contiguous())
            for layers in zip(*depths, strict=True)
        )
        self.biases = nn.ParameterList(
            nn.Parameter(torch.stack([layer.bias.detach()[None] for layer in layers]))
            for layers in zip(*depths, strict=True)
        )
        acts = [[layer for layer in member if not isinstance(layer, nn.Linear)] for member in members]
        self._activations = [self._slices(layers) for layers in zip(*acts, strict=True)]

    @staticmethod
    def _slices(layers: Sequence[nn.Module]) -> list[tuple[int, int, nn.Module]]:
        """Runs of members with the same activation: (start, stop, module)."""
        runs: list[tuple[int, int, nn.Module]] = []
        for member, layer in enumerate(layers):
            if runs and type(runs[-1][2]) is type(layer):
                runs[-1] = (runs[-1][0], member + 1, layer)
            else:
                runs.append((member, member + 1, layer))
        return runs

    def forward(self, x: Tensor) -> Tensor:
        members = self.weights[0].shape[0]
        for depth, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if members == 1:  # one product is faster than a batch of one
                x = torch.addmm(bias[0], x.reshape(-1, x.shape[-1]), weight[0])[None]
            else:
                x = torch.baddbmm(bias, x.expand(members, -1, -1), weight)
            if depth < len(self._activations):
                x = self._activate(depth, x)
        return x

    def _activate(self, depth: int, x: Tensor) -> Tensor:
        runs = self._activations[depth]
        if len(runs) == 1:
            return runs[0][2](x)
        return torch.cat([layer(x[start:stop]) for start, stop, layer in runs])

    def unstack(self, members: Sequence[nn.Sequential]) -> None:
        """Copy the weights back into the members' own modules."""
        with torch.no_grad():
            for index, member in enumerate(members):
                linears = [layer for layer in member if isinstance(layer, nn.Linear)]
                for layer, weight, bias in zip(linears, self.weights, self.biases, strict=True):
                    layer.weight.copy_(weight[index].T)
                    layer.bias.copy_(bias[index, 0])


class ModuleStack(nn.Module):
    """P modules of any kind: called directly when P = 1, by `torch.func.vmap` over stacked parameters otherwise."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self._single = members[0] if len(members) == 1 else None
        self._base = [members[0]]  # in a list: its own parameters are not part of this stack
        if self._single is None:
            parameters, buffers = stack_module_state(list(members))  # type: ignore[arg-type]
            self._names = list(parameters)
            self.stacked = nn.ParameterList(nn.Parameter(value.detach().clone()) for value in parameters.values())
            self._buffers_stacked = buffers

    def forward(self, x: Tensor) -> Tensor:
        if self._single is not None:
            return self._single(x.reshape(-1, *x.shape[-1:]))[None]
        parameters = dict(zip(self._names, self.stacked, strict=True))
        shared = x.dim() == 2

        def call(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(self._base[0], (parameters, buffers), (x,))

        in_dims = (0, 0, None if shared else 0)
        return torch.func.vmap(call, in_dims, randomness="different")(parameters, self._buffers_stacked, x)

    def unstack(self, members: Sequence[nn.Module]) -> None:
        """Copy the weights back into the members' own modules."""
        if self._single is not None:
            return
        with torch.no_grad():
            for index, member in enumerate(members):
                own = dict(member.named_parameters())
                for name, value in zip(self._names, self.stacked, strict=True):
                    own[name].copy_(value[index])


def _is_linear_sequence(module: nn.Module) -> bool:
    if not isinstance(module, nn.Sequential):
        return False
    layers = list(module)
    kinds = tuple(type(activation()) for activation in ACTIVATIONS.values())
    return (
        all(
            (isinstance(layer, nn.Linear) and layer.bias is not None) if depth % 2 == 0 else isinstance(layer, kinds)
            for depth, layer in enumerate(layers)
        )
        and len(layers) % 2 == 1
    )


def stack(members: Sequence[nn.Module]) -> LinearStack | ModuleStack:
    """The fastest stack that can hold these modules."""
    if all(_is_linear_sequence(member) for member in members):
        return LinearStack(members)  # type: ignore[arg-type]
    return ModuleStack(members)
