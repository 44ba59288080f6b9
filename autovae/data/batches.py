r"""From stored values to the inputs of a training step: network inputs, targets, bins, and the order of minibatches.

With L levels, a stored level v owns the bin [v/L, (v+1)/L] of the unit interval:

- the network sees the middle, (v + 1/2)/L (binary: v; real: x);
- a density trains on the dequantised value (v + u)/L, u uniform on [0, 1) (Uria, Murray and Larochelle, RNADE, 2013);
  heads with a mass on levels take the levels themselves; real data are unchanged;
- a score takes the mass of the bin; the end bins reach to -inf and +inf so that masses sum to one; real data have
  `levels` equal bins over the training range low..high, in model units.

All functions take and return tensors on the device of their input; randomness comes from a generator. The order of
minibatches depends only on (data seed, epoch), so all members of a study see the same data.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autovae.data.datasets import Data
from autovae.data.errors import DataError
from autovae.seeds import stream_seed

__all__ = ["bin_edges", "bin_index", "binarise", "dequantise", "epoch_order", "grey", "minibatches", "network_input"]

NEUTRAL = {"binary": 0.5, "unit": 0.5, "real": 0.0}  # stands in for an unobserved entry


def network_input(x: Tensor, data: Data, mask: Tensor | None = None) -> Tensor:
    """float32 input of the encoder. Unobserved entries (mask False) are 1/2, or 0 (the mean) for real data."""
    if data.support == "unit":
        values = x.to(torch.float32, copy=True).add_(0.5).div_(data.levels)
    else:
        values = x.to(torch.float32)
    return values if mask is None else torch.where(mask, values, NEUTRAL[data.support])


def dequantise(x: Tensor, data: Data, generator: torch.Generator | None = None) -> Tensor:
    """float32 training target of a density: (v + u)/L inside the bin of each level; real data unchanged."""
    values = x.to(torch.float32)
    if data.support == "real":
        return values
    noise = torch.rand(x.shape, generator=generator, device=x.device)
    margin = data.levels * 2.0**-23  # keeps float32 sums inside the open bin: never 0 or 1, where log densities end
    return (values + noise.clamp(margin, 1 - margin)) / data.levels


def _edges(data: Data, device: torch.device) -> Tensor:
    """The levels + 1 bin edges in model units, the outer ones infinite."""
    inner = torch.arange(1, data.levels, dtype=torch.float64, device=device) / data.levels
    inner = (data.low + inner * (data.high - data.low)).to(torch.float32)
    return torch.nn.functional.pad(torch.nn.functional.pad(inner, (1, 0), value=-torch.inf), (0, 1), value=torch.inf)


def bin_index(x: Tensor, data: Data) -> Tensor:
    """The bin 0..levels-1 with lower <= x < upper; real values outside the training range fall into the end bins."""
    if data.support != "real":
        return x.to(torch.int64)
    return torch.bucketize(x.to(torch.float32), _edges(data, x.device)[1:-1].contiguous(), right=True)


def bin_edges(x: Tensor, data: Data) -> tuple[Tensor, Tensor]:
    """Lower and upper edges (float32, model units) of the bins that hold x; -inf and +inf at the ends."""
    index = bin_index(x, data)
    edges = _edges(data, x.device)
    return edges[index], edges[index + 1]


def grey(x: Tensor, data: Data) -> Tensor:
    """Levels as intensities v/(L-1) in [0, 1], black 0 and white 1: probabilities for `binarise`."""
    if data.support == "real":
        raise DataError("grey levels need binary or unit support, got real-valued data")
    return x.to(torch.float32) / (data.levels - 1)


def binarise(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A Bernoulli draw (uint8 0 or 1) of intensities in [0, 1], fresh each epoch for dynamic binarisation."""
    return (torch.rand(x.shape, generator=generator, device=x.device) < x).to(torch.uint8)


def epoch_order(num_points: int, data_seed: int, epoch: int) -> Tensor:
    """A permutation of 0..num_points-1 (int64), drawn on the CPU so that all devices see the same order."""
    generator = torch.Generator().manual_seed(stream_seed("order", int(data_seed), int(epoch)))
    return torch.randperm(num_points, generator=generator)


def minibatches(
    num_points: int, batch_size: int, data_seed: int, epoch: int, device: torch.device | str = "cpu"
) -> list[Tensor]:
    """Index tensors of one epoch: full batches, then a smaller one if batch_size does not divide num_points.

    No point is dropped. All but the last share one shape, as CUDA graphs require; they are views of one tensor.
    """
    if num_points < 1 or batch_size < 1:
        raise ValueError(f"got {num_points} points in batches of {batch_size}, expected at least 1 of each")
    order = epoch_order(num_points, data_seed, epoch)
    if torch.device(device).type == "cuda":  # pinned, so the host does not wait for the copy
        order = order.pin_memory()
    return list(order.to(device, non_blocking=True).split(batch_size))
