"""Feed: the training points as one tensor on the device, and minibatches as each kind of likelihood wants them.

The encoder sees the middle of a level's bin, (v + 1/2) / L, in training and in scoring alike. Likelihoods that train on
densities see a point drawn within the bin, (v + u) / L, from a stream shared by all members of a population: common
random numbers, so that members differ by their beliefs and not by their data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from autovae.data import batches
from autovae.data.datasets import Data, Split
from autovae.spec import Domain
from autovae.streams import stream_seed

__all__ = ["Batch", "Feed"]


@dataclass(frozen=True)
class Batch:
    """B points as a model needs them, all (B, X)."""

    inputs: Tensor  # what the encoder sees
    targets: dict[str, Tensor]  # x by what a likelihood trains on: "levels", "dequantised"
    lower: Tensor | None = None  # the bin of each value, where masses are asked for
    upper: Tensor | None = None
    mask: Tensor | None = None  # True where the value was observed


class Feed:
    """The points of one split on a device."""

    def __init__(self, data: Data, split: Split | None = None, device: torch.device | str = "cpu") -> None:
        self.data = data
        self.device = torch.device(device)
        split = data.train if split is None else split
        self._x = split.x.flatten(1).to(self.device)
        self._mask = None if split.mask is None else split.mask.flatten(1).to(self.device)
        self._noise = torch.Generator(self.device)

    @property
    def points(self) -> int:
        return self._x.shape[0]

    @property
    def domain(self) -> Domain:
        return self.data.domain

    def start_epoch(self, data_seed: int, epoch: int) -> None:
        """Put the stream of dequantisation noise where (data_seed, epoch) begins."""
        self._noise.manual_seed(stream_seed(data_seed, "dequantise", epoch))

    def batch(self, index: Tensor | slice, kinds: Iterable[str] = (), edges: bool = False) -> Batch:
        """The points at `index`, with the targets of these kinds and, if asked for, their bins' edges."""
        x = self._x[index]
        mask = None if self._mask is None else self._mask[index]
        inputs = batches.network_input(x, self.data, mask)
        targets: dict[str, Tensor] = {}
        for kind in kinds:
            targets[kind] = inputs if kind == "levels" else batches.dequantise(x, self.data, self._noise)
        lower, upper = batches.bin_edges(x, self.data) if edges else (None, None)
        return Batch(inputs, targets, lower, upper, mask)
