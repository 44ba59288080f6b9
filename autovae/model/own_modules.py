"""A user's own encoders and decoders: one for every spec, wrapped so that they map flat points to flat outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from autovae.spec import VAESpec

__all__ = ["OwnModule", "OwnPair", "adapt", "own_modules"]

OwnPair = tuple[nn.Module | None, nn.Module | None]
OwnModule = nn.Module | Sequence[nn.Module] | Callable[[VAESpec], nn.Module] | None


def own_modules(specs: Sequence[VAESpec], encoder: OwnModule, decoder: OwnModule) -> list[OwnPair]:
    """The user's encoder and decoder for every spec, None where a named network is wanted."""
    pairs = zip(_per_spec(specs, encoder, "encoder"), _per_spec(specs, decoder, "decoder"), strict=True)
    return list(pairs)


def _per_spec(specs: Sequence[VAESpec], own: OwnModule, what: str) -> list[nn.Module | None]:
    if own is None:
        return [None] * len(specs)
    if isinstance(own, nn.Module):
        if len(specs) > 1:
            raise ValueError(
                f"got one {what} for {len(specs)} specs, each needs its own: give a list of {len(specs)} modules, or a "
                "function from a spec to a module"
            )
        return [own]
    made = [own(spec) for spec in specs] if callable(own) else list(own)
    if len(made) != len(specs):
        raise ValueError(f"got {len(made)} {what}s for {len(specs)} specs, expected one each")
    return list(made)


class Shaped(nn.Module):
    """A user's module between flat tensors: points are given their shape before it, outputs are flattened after it."""

    def __init__(self, module: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.module, self.shape = module, shape

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.reshape(-1, *self.shape)).flatten(1)


def adapt(module: nn.Module, shape: tuple[int, ...], outputs: Sequence[int], what: str) -> nn.Module:
    """Wrap a user's module so that it maps flat (N, prod(shape)) to flat (N, one of `outputs`), or say what is wrong.

    It is tried with points of their own shape, with a channel axis before a two-dimensional shape, and flat.
    """
    tries = dict.fromkeys([shape, (1, *shape) if len(shape) == 2 else shape, (math.prod(shape),)])
    found: list[str] = []
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    was_training = module.training
    module.eval()
    for attempt in tries:
        wrapped = Shaped(module, attempt)
        try:
            with torch.no_grad():
                size = wrapped(torch.zeros(2, math.prod(shape), device=device)).shape
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            found.append(f"input {(2, *attempt)}: {str(error).splitlines()[0]}")
            continue
        if size[0] == 2 and size[1] in outputs:
            module.train(was_training)
            return wrapped
        found.append(f"input {(2, *attempt)}: output {tuple(size)}")
    expected = " or ".join(str(n) for n in dict.fromkeys(outputs))
    raise ValueError(f"the {what} must give {expected} numbers a point; tried " + "; ".join(found))
