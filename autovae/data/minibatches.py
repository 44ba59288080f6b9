"""Minibatches of a split, which lies on the device as one tensor, with the targets of each kind of likelihood.

The encoder sees the middle of a level's bin, (v + 1/2) / L, in training and in scoring. Density-trained likelihoods see a
point drawn within the bin, (v + u) / L. All members of a study share this noise (common random numbers), so they differ
in their beliefs and not in their data. The stream restarts with every epoch at (data seed, epoch) and is read in the order
of the minibatches; it also gives the bits of dynamically binarised data.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from autovae.data import batches
from autovae.data.datasets import Data, Split
from autovae.seeds import stream_seed
from autovae.spec import Domain

__all__ = ["Minibatch", "Minibatches"]

RESIDUAL_POINTS = 10_000  # that tell how far data lie from their mean


@dataclass(frozen=True)
class Minibatch:
    """B points with X features in model units; all tensors (B, X)."""

    inputs: Tensor  # what the encoder sees
    targets: dict[str, Tensor]  # x per kind of training target: "levels", "dequantised"
    lower: Tensor | None = None  # the bin of each value, if edges were requested
    upper: Tensor | None = None
    mask: Tensor | None = None  # True where the value was observed

    def __len__(self) -> int:
        return len(self.inputs)


class Minibatches:
    """The points of one split on a device; models see them as `dtype`."""

    def __init__(
        self,
        data: Data,
        split: Split | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.data = data
        self.device, self.dtype = torch.device(device), dtype
        split = data.train if split is None else split
        self._x = split.x.flatten(1).to(self.device)
        self._mask = None if split.mask is None else split.mask.flatten(1).to(self.device)
        self._grey = split.grey

    @property
    def points(self) -> int:
        return self._x.shape[0]

    @property
    def domain(self) -> Domain:
        return self.data.domain

    @property
    def nbytes(self) -> int:
        """Device memory of the points."""
        return self._x.nbytes + (0 if self._mask is None else self._mask.nbytes)

    @functools.cached_property
    def residual_scale(self) -> float:
        """The root mean square distance of values from their feature's mean, in the units that a model sees."""
        inputs = self.batch(slice(0, RESIDUAL_POINTS)).inputs
        return float((inputs - inputs.mean(0)).square().mean().sqrt())

    def dequantiser(self) -> torch.Generator:
        """A generator on the device for dequantisation noise; `start` seeds it for an epoch."""
        return torch.Generator(self.device)

    @staticmethod
    def start(generator: torch.Generator, data_seed: int, epoch: int) -> None:
        """Seed the stream of dequantisation noise for (data_seed, epoch)."""
        generator.manual_seed(stream_seed(data_seed, "dequantise", epoch))

    def batch(
        self,
        index: Tensor | slice,
        kinds: Iterable[str] = (),
        edges: bool = False,
        generator: torch.Generator | None = None,
    ) -> Minibatch:
        """The points at `index`, with targets of these `kinds` and, with `edges`, the edges of their bins."""
        kinds = tuple(kinds)
        x, mask = self._take(self._x, index), None if self._mask is None else self._take(self._mask, index)
        if self._grey:
            x = self._binarised(x, generator)
        inputs = batches.network_input(x, self.data, mask)
        targets: dict[str, Tensor] = {}
        for kind in kinds:
            values = inputs if kind == "levels" else batches.dequantise(x, self.data, generator)
            targets[kind] = values.to(self.dtype)
        lower, upper = batches.bin_edges(x, self.data) if edges else (None, None)
        return Minibatch(inputs.to(self.dtype), targets, lower, upper, mask)

    def _binarised(self, grey: Tensor, generator: torch.Generator | None) -> Tensor:
        """Dynamically binarised x; without a generator always the same bits."""
        if generator is None:
            generator = self.dequantiser().manual_seed(stream_seed("binarise", "fixed"))
        return batches.binarise(grey.to(torch.float32) / (self._grey - 1), generator)

    @staticmethod
    def _take(values: Tensor, index: Tensor | slice) -> Tensor:
        return values.index_select(0, index) if isinstance(index, Tensor) else values[index]

    def order(self, batch_size: int, data_seed: int, epoch: int) -> list[Tensor]:
        """The minibatches of an epoch as indices on the device; the last may be smaller."""
        return batches.minibatches(self.points, batch_size, data_seed, epoch, self.device)

    def epoch(
        self, batch_size: int, data_seed: int, epoch: int, kinds: Iterable[str] = (), edges: bool = False
    ) -> Iterator[Minibatch]:
        """The minibatches of an epoch, in order."""
        generator = self.dequantiser()
        self.start(generator, data_seed, epoch)
        for index in self.order(batch_size, data_seed, epoch):
            yield self.batch(index, kinds, edges, generator)
