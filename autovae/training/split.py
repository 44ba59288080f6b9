r"""A step of one stack by several threads, each on a part of the minibatch.

A small step is some hundred operations of ten to a hundred microseconds. When threads share every one of them they wait
for each other a hundred times, and for a neighbour's work on a busy machine; here they meet twice a step:

    thread i    gradients of its points' share of the loss, in tensors of its own
    meet        thread i adds up the gradients of its tensors, part by part in order, and takes Adam's step on them
    meet

Where products are compiled ones threads share each product without meeting in it, which is faster: by the matrix unit 200
points on two threads take two thirds of the time, 1,000 as long. There nothing is split.

The sum over parts is that of the whole minibatch up to rounding, and the same on every run with as many threads.
Not here: which stacks are split (`population`); a step undivided (`trainer`).
"""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor, wait

import torch
from torch import Tensor, nn

from autovae.model.stacks import LinearStack
from autovae.model.vae import VAEStack
from autovae.training.feed import Batch
from autovae.training.trainer import Trainer

__all__ = ["SplitStep", "can_split"]

# Points of a part. With fewer the products of a thread are mostly the reading of weights, and the threads' turns with the
# interpreter cost more than their waiting for each other: 100 points on two threads take a sixth longer in two parts.
FEWEST = 100


def can_split(trainer: Trainer, threads: int) -> bool:
    """Whether a trainer's step may be shared out: linear stacks with gradients of their own, and points enough."""
    stack, spec = trainer.stack, trainer.specs[0]
    chains = [
        part for part in (stack.encoder, stack.decoder) if isinstance(part, LinearStack) and part.sinks is not None
    ]
    learned_beliefs = stack.rival is not None or stack.flow_posterior is not None
    if any(chain.compiled for chain in chains):
        return False
    return len(chains) == 2 and not learned_beliefs and min(spec.batch_size, trainer.feed.points) >= FEWEST * threads


def _twin(stack: VAEStack) -> VAEStack:
    """The same members with the same weights in memory, and gradients of its own."""
    twin = copy.copy(stack)
    twin._modules, twin._parameters = dict(stack._modules), dict(stack._parameters)
    for name in ("encoder", "decoder"):
        chain = getattr(stack, name)
        twin._modules[name] = chain.twin()
    twin._parameters["raw_scale"] = nn.Parameter(stack.raw_scale.detach(), stack.raw_scale.requires_grad)
    return twin


def _gradients(stack: VAEStack, whole: VAEStack) -> list[Tensor | None]:
    """The gradients that a twin found, in the order of the parameters of `whole` that are learned."""
    found: dict[int, Tensor | None] = {id(whole.raw_scale): stack.raw_scale.grad}
    for name in ("encoder", "decoder"):
        own, other = getattr(whole, name), getattr(stack, name)
        for parameter, sink in zip(own.parameters(), other.sinks.all(), strict=True):
            found[id(parameter)] = sink.view_as(parameter)
    return [found[id(parameter)] for parameter in whole.parameters() if parameter.requires_grad]


class SplitStep:
    """Takes the steps of one trainer on `threads` threads, the calling one among them."""

    def __init__(self, trainer: Trainer, threads: int) -> None:
        self.trainer, self.threads = trainer, threads
        self._stacks = [trainer.stack, *(_twin(trainer.stack) for _ in range(threads - 1))]
        self._pool = ThreadPoolExecutor(threads - 1, "autovae-part")
        self._shares: list[list[int]] = [[] for _ in range(threads)]  # places of parameters, about as many numbers each
        sizes = [parameter.numel() for parameter in trainer.adam.parameters]
        for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
            min(self._shares, key=lambda share: sum(sizes[p] for p in share)).append(place)

    def step(self, batch: Batch) -> None:
        """One step of every member."""
        trainer, xi = self.trainer, self.trainer.noise()
        bounds = [len(batch) * part // self.threads for part in range(self.threads + 1)]
        totals: list[Tensor] = [torch.empty(0)] * self.threads

        def differentiate(part: int) -> None:
            here = slice(bounds[part], bounds[part + 1])
            totals[part] = trainer.differentiate(
                batch.part(here), xi[:, :, here], self._stacks[part], (here.stop - here.start) / len(batch)
            )

        self._all(differentiate)
        twins = [_gradients(stack, trainer.stack) for stack in self._stacks[1:]]
        trainer.adam.count()

        def add_and_move(part: int) -> None:
            with torch.no_grad():
                for place in self._shares[part]:
                    parameter = trainer.adam.parameters[place]
                    for gradients in twins:
                        gradient = gradients[place]
                        if gradient is not None and parameter.grad is not None:
                            parameter.grad += gradient
            trainer.adam.move(self._shares[part])

        self._all(add_and_move)
        trainer.adam.clear()
        for stack in self._stacks:
            stack.raw_scale.grad = None
            for chain in (stack.encoder, stack.decoder):
                chain.sinks.written = False  # type: ignore[union-attr]
        trainer.add(torch.stack(totals).sum(0))

    def _all(self, work) -> None:  # type: ignore[no-untyped-def]
        """`work` of every part at once, that of the first on this thread; an error of any is raised when all are done."""
        others = [self._pool.submit(work, part) for part in range(1, self.threads)]
        try:
            work(0)
        finally:
            wait(others)
        for other in others:
            other.result()
