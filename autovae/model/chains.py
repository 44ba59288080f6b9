r"""A chain of linear layers without gradients, whose idle units are left out of the products.

A unit of a rectified layer that is 0 for every sample of a batch multiplies a row of the next weight by 0. When the
batch is many samples of one point's posterior, a trained network leaves a good part of its units idle, and dropping
them changes no result: h W = h[:, alive] W[alive, :] exactly, up to the order of sums.
Not here: stacks of several members and their gradients, see `stacked`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autovae.model.stacked import is_linear

__all__ = ["Chain"]

# Worth gathering the alive units for: above it the copies cost more than the products saved.
ALIVE_SHARE = 0.9


class Chain:
    """Linear layers and activations, (N, in) -> (N, out), on the CPU; build it by `Chain.of`."""

    def __init__(self, module: nn.Sequential) -> None:
        self._layers: list[tuple[Tensor, Tensor, nn.Module | None]] = []
        parts = list(module)
        for place, layer in enumerate(parts):
            if isinstance(layer, nn.Linear):
                after = parts[place + 1] if place + 1 < len(parts) else None
                self._layers.append((layer.weight.detach().T.contiguous(), layer.bias.detach(), after))

    @classmethod
    def of(cls, module: nn.Module) -> Chain | None:
        """The chain of a module's present weights; None where it is no chain of linear layers on the CPU."""
        if not isinstance(module, nn.Sequential) or not is_linear(module):
            return None
        return cls(module) if next(module.parameters()).device.type == "cpu" else None

    @property
    def bias(self) -> float:
        """The largest of the last layer's biases, in size."""
        return float(self._layers[-1][1].abs().max())

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        h, weight, bias = self.before_last(x)
        return torch.addmm(bias, h, weight)

    @torch.no_grad()
    def before_last(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the last layer multiplies, and its weight (in, out) and bias; idle units are left out of both."""
        rectified = False
        for weight, bias, activation in self._layers[:-1]:
            x = torch.addmm(bias, *(_alive(x, weight) if rectified else (x, weight)))
            rectified = isinstance(activation, nn.ReLU)
            x = x.relu_() if rectified else x if activation is None else activation(x)
        weight, bias, _ = self._layers[-1]
        return *(_alive(x, weight) if rectified else (x, weight)), bias


def _alive(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rectified x and the weight it meets without the units that are 0 in every row, where these are many."""
    share = x.mT.mv(x.new_ones(len(x)))  # its sum: positive where any is, and one product, not a search
    alive = (~(share <= 0)).nonzero().squeeze(1)  # nan is alive, and stays seen
    if len(alive) >= ALIVE_SHARE * x.shape[1]:
        return x, weight
    return x.index_select(1, alive), weight.index_select(0, alive)
