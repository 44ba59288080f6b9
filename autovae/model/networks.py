r"""Encoders and decoders by name, as plain torch modules.

An encoder maps a point (X numbers) to 2 D numbers, a decoder D latents to O = X or 2 X numbers. NETWORKS lists the
named ones; the user's own modules serve as well.

To add a network: write `encoder(spec, shape)` and `decoder(spec, shape, outputs)` that return modules on flat points,
and add the `Network` of both to `autovae.registry.NETWORKS`. The contract tests pick it up from the table.
Not here: how several of them are trained as one, see `stacked`; what the numbers mean, see `vae`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from autovae import registry
from autovae.registry import Resolved, lookup
from autovae.spec import VAESpec

__all__ = ["ACTIVATIONS", "NETWORKS", "Network", "init_linear", "is_convolutional"]

ACTIVATIONS: Mapping[str, type[nn.Module]] = Resolved(registry.ACTIVATIONS)
NETWORKS: Mapping[str, Network] = Resolved(registry.NETWORKS)


@dataclass(frozen=True)
class Network:
    """A named pair of architectures."""

    encoder: Callable[[VAESpec, tuple[int, ...]], nn.Module]
    decoder: Callable[[VAESpec, tuple[int, ...], int], nn.Module]
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


def _mlp_decoder(spec: VAESpec, shape: tuple[int, ...], outputs: int) -> nn.Module:
    first = "tanh" if spec.saturate else None
    return mlp([spec.latent_dim, *reversed(spec.hidden), outputs], spec.activation, first)


KERNEL, STRIDE, PADDING = 4, 2, 1  # every layer halves an image, every layer of the decoder doubles it


def _grid(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, height, width) of a point that is an image."""
    if len(shape) == 2:
        return 1, *shape
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    raise ValueError(
        f"network = 'conv' needs images, (height, width) or (channels, height, width), got points of shape {shape}; use "
        "network = 'mlp'"
    )


def _sizes(spec: VAESpec, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """(height, width) before the first layer and after each of them."""
    sizes = [_grid(shape)[1:]]
    for _ in spec.hidden:
        height, width = ((side + 2 * PADDING - KERNEL) // STRIDE + 1 for side in sizes[-1])
        if min(height, width) < 1:
            raise ValueError(
                f"{len(spec.hidden)} convolutions halve images of shape {shape} to nothing; give hidden fewer entries"
            )
        sizes.append((height, width))
    return sizes


def _conv_encoder(spec: VAESpec, shape: tuple[int, ...]) -> nn.Module:
    grid, (height, width) = _grid(shape), _sizes(spec, shape)[-1]
    layers: list[nn.Module] = [nn.Unflatten(1, grid)]
    for before, after in pairwise([grid[0], *spec.hidden]):
        layers += [
            nn.Conv2d(before, after, KERNEL, STRIDE, PADDING),
            lookup(ACTIVATIONS, spec.activation, "activation")(),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(spec.hidden[-1] * height * width, 2 * spec.latent_dim))


def _conv_decoder(spec: VAESpec, shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Channels of the output are those of the image, once or twice: first all parameters, then all scales."""
    sizes, channels = _sizes(spec, shape), list(reversed(spec.hidden))
    last = outputs * _grid(shape)[0] // math.prod(shape)
    first = (channels[0], *sizes[-1])
    layers: list[nn.Module] = [
        nn.Linear(spec.latent_dim, math.prod(first)),
        lookup(ACTIVATIONS, "tanh" if spec.saturate else spec.activation, "activation")(),
        nn.Unflatten(1, first),
    ]
    for place, (before, after) in enumerate(pairwise([*channels, last])):
        small, large = sizes[-1 - place], sizes[-2 - place]
        missing = [want - ((have - 1) * STRIDE - 2 * PADDING + KERNEL) for want, have in zip(large, small, strict=True)]
        layers.append(
            nn.ConvTranspose2d(before, after, KERNEL, STRIDE, PADDING, output_padding=(missing[0], missing[1]))
        )
        if place < len(channels) - 1:
            layers.append(lookup(ACTIVATIONS, spec.activation, "activation")())
    return nn.Sequential(*layers, nn.Flatten())


MLP = Network(_mlp_encoder, _mlp_decoder, "fully connected; hidden = widths of the encoder, mirrored in the decoder")
CONV = Network(
    _conv_encoder,
    _conv_decoder,
    "4 x 4 convolutions of stride 2 on images; hidden = channels of the encoder, mirrored in the decoder: [32, 64]",
)


def is_convolutional(module: nn.Module) -> bool:
    """Whether a module holds convolutions."""
    return any(isinstance(layer, nn.modules.conv._ConvNd) for layer in module.modules())


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
                    parameter.copy_(draw.mul_(2).sub_(1).mul_(bound))
