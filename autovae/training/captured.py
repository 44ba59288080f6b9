"""A training step on CUDA as one captured graph: gather, noise in, forward, backward, Adam, sums, replayed per minibatch.

A step of a small network is some hundred kernels of a few microseconds; started one by one the chip waits for the
host. Captured once, they start as one. The graph reads the minibatch's indices and the members' noise from fixed
tensors; within an epoch the host only fills these, in order on the stream, and asks nothing back.

The first minibatches are trained one by one on the capturing stream, as capture wants it, and count like any other.
So does the last of an epoch where it is smaller. Without CUDA nothing here runs; the step itself is `Trainer.advance`.
"""

from __future__ import annotations

import functools

import torch

from autovae.training.trainer import Trainer

__all__ = ["CapturedStep"]

WARM_UP = 3  # eager steps before a capture: libraries choose their kernels and set aside their memory


@functools.cache
def _capturing_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream a device for all captures: libraries keep a workspace of tens of megabytes for every stream."""
    return torch.cuda.Stream(device)


class CapturedStep:
    """The step of one trainer as a graph on its device."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._stream = _capturing_stream(trainer.feed.device)
        self._dequantiser = trainer.feed.dequantiser()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm = 0

    def train_epoch(self) -> None:
        """All minibatches of the trainer's present epoch."""
        trainer, feed = self.trainer, self.trainer.feed
        spec = trainer.specs[0]
        order = feed.order(spec.batch_size, spec.data_seed, trainer.epoch)
        full = len(order[0])
        feed.start(self._dequantiser, spec.data_seed, trainer.epoch)
        self._stream.wait_stream(torch.cuda.current_stream(feed.device))
        with torch.cuda.stream(self._stream):
            trainer.start_epoch()
            for index in order:
                if len(index) == full and self._warm >= WARM_UP:
                    self._replay(index)
                else:
                    self._eager(index)
        torch.cuda.current_stream(feed.device).wait_stream(self._stream)

    def _eager(self, index: torch.Tensor) -> None:
        trainer = self.trainer
        trainer.step(trainer.feed.batch(index, trainer.kinds, trainer.edges, self._dequantiser))
        self._warm += 1

    def _replay(self, index: torch.Tensor) -> None:
        xi = self.trainer.noise()
        if self._graph is None:
            self._index, self._xi = index.clone(), xi.clone()
            self._graph = self._capture()
        else:
            self._index.copy_(index)
            self._xi.copy_(xi)
        self._graph.replay()

    def _capture(self) -> torch.cuda.CUDAGraph:
        trainer = self.trainer
        graph = torch.cuda.CUDAGraph()
        if "dequantised" in trainer.kinds:
            graph.register_generator_state(self._dequantiser)
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            batch = trainer.feed.batch(self._index, trainer.kinds, trainer.edges, self._dequantiser)
            trainer.advance(batch, self._xi)
        return graph
