r"""Encoders and decoders by name, as plain torch modules.

An encoder maps a point (X numbers) to 2 D numbers, a decoder D latents to O = X or 2 X numbers. NETWORKS lists the
named ones; the user's own modules serve as well.

To add a network: write `encoder(spec, shape)` and `decoder(spec, outputs)` that return modules, and add it to NETWORKS.
Not here: how several of them are trained as one, see `stacks`; what the numbers mean, see `vae`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from autovae.spec import VAESpec
from autovae.tables import lookup

__all__ = ["ACTIVATIONS", "NETWORKS", "Network", "init_linear"]

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
