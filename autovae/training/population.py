r"""A population: members of one shape and one age, trained together by as few programs as the device likes.

On CUDA all members are one stack, whose step is captured as one graph. On CPUs a stack is only as wide as it takes to
hide the cost of starting operations (`stack_sizes`), because a working set that outgrows the caches costs more than it
saves; and stacks run side by side on *lanes*, one thread each with products of its own, so that no thread waits for
another within an epoch. A population smaller than the number of threads shares them out: a single fit uses them all,
each on a part of the minibatch (`split`) or, where products are compiled, of every product.

What a member gets does not depend on its companions: the minibatch order comes from (data seed, epoch), its noise from
(its own seed, epoch).
Not here: the step (`trainer`), when to stop and what to keep (`loop`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice

import torch

from autovae.model.networks import is_convolutional
from autovae.model.stacks import is_linear
from autovae.model.vae import outputs_per_point
from autovae.native.whole import Room
from autovae.spec import VAESpec
from autovae.training.captured import CapturedStep
from autovae.training.feed import Batch, Feed
from autovae.training.member import Member
from autovae.training.objective import estimator_of
from autovae.training.plain import plain_head
from autovae.training.split import SplitStep, can_split
from autovae.training.trainer import Row, Trainer

__all__ = ["Population", "order_key", "shape_key", "stack_sizes"]

# Starting the operations of a step costs a thread about a millisecond by a graph, a tenth of that where the step is plain,
# whatever they work on: a step with this many multiplications and additions takes some 100 ms, or 1. Measured at 100 points
# of 784 numbers on two threads. By the graph, two hidden layers of 400: stacks of 4 take a fifth less time a member than
# single ones. Plain, the same layers: single ones take 7 % less than stacks of 4, since a member that takes several steps in
# a row stays in a cache; one layer of 32: stacks of 4 take an eighth less. At 1,000 points it makes no difference.
WORTHWHILE_WORK, WORTHWHILE_PLAIN_WORK = 1e10, 1e8
# Prepared minibatches are shared by the stacks of a lane, one after the other; this many numbers stay in a cache.
BATCHES_AT_ONCE = 500_000


def shape_key(member: Member) -> Hashable:
    """Members with equal keys can be stacked: same tensors, same minibatches, same form of the bound, same age."""
    spec, vae = member.spec, member.vae
    shapes = tuple((name, tuple(value.shape)) for name, value in vae.named_parameters())
    structure = tuple("linear" if is_linear(part) else repr(part) for part in (vae.encoder, vae.decoder))
    form = (spec.bound, spec.mix, spec.closed_form, spec.objective, estimator_of(spec))
    regulariser = (spec.regulariser, spec.regulariser_order)
    counts = (outputs_per_point(spec, vae.domain), spec.latent_dim, spec.samples, spec.groups)
    learned = (spec.rival, spec.components, spec.posterior_flow)
    return (
        shapes,
        structure,
        form,
        regulariser,
        counts,
        learned,
        (spec.batch_size, spec.data_seed),
        vae.domain,
        (member.epoch, member.steps),
    )


def order_key(spec: VAESpec) -> tuple[str, ...]:
    """Members are sorted by this, so that one likelihood, pairing and learning rate is one slice of the stack."""
    return (spec.likelihood, str(spec.scale), str(spec.saturate), spec.pair_text, f"{spec.learning_rate:.9e}")


def step_work(member: Member) -> float:
    """Floating point operations of one training step, about: three products for every weight of a matrix.

    Infinite for convolutions: on a CPU they are faster one member at a time than grouped (`bench conv`).
    """
    if is_convolutional(member.vae):
        return math.inf
    weights = sum(p.numel() for p in member.vae.parameters() if p.dim() > 1)
    return 6.0 * weights * member.spec.batch_size * (1 + member.spec.draws) / 2


def stack_sizes(work: float, members: int, threads: int, worthwhile: float = WORTHWHILE_WORK) -> list[int]:
    """How many members each stack of a CPU has: enough for a worthwhile step, without leaving a thread idle."""
    wanted = max(1, round(worthwhile / work))  # 1 where the work is infinite
    rounds = -(-members // (threads * wanted))
    stacks = min(members, threads * rounds)
    return [members // stacks + (place < members % stacks) for place in range(stacks)]


@dataclass(frozen=True)
class Phase:
    """Stacks that train at the same time: one list a lane, and the threads that each lane's products may use."""

    threads: int
    lanes: tuple[tuple[int, ...], ...]


def phases(stacks: int, threads: int) -> list[Phase]:
    """Full rounds of one thread a lane, then what is left over with all threads shared out, where that gives each two."""
    left = stacks % threads
    shared = threads // left if left else 0
    whole = stacks - left if shared > 1 else stacks
    plan = []
    if whole:
        lanes = min(threads, whole)
        plan.append(Phase(1, tuple(tuple(range(lane, whole, lanes)) for lane in range(lanes))))
    if whole < stacks:
        plan.append(Phase(shared, tuple((stack,) for stack in range(whole, stacks))))
    return plan


def _rooms(stacks: int, threads: int) -> list[Room]:
    """Memory for each stack's steps: one room for those that take turns on a lane, and for lanes of different phases."""
    lanes: dict[int, Room] = {}
    found = {
        stack: lanes.setdefault(number, Room())
        for phase in phases(stacks, threads)
        for number, lane in enumerate(phase.lanes)
        for stack in lane
    }
    return [found[stack] for stack in range(stacks)]


class Population:
    """Members of one `shape_key` as stacks with their optimizers; `train_epoch` advances all of them by one epoch.

    `stack_size` members to a stack and `threads` (torch's number) may be given; narrow is the type of products.
    """

    def __init__(
        self,
        members: Sequence[Member],
        feed: Feed,
        narrow: torch.dtype | None = None,
        stack_size: int | None = None,
        threads: int | None = None,
    ) -> None:
        if len({shape_key(member) for member in members}) != 1:
            raise ValueError("members of one population must have the same shape, minibatches and age")
        if members[0].vae.domain != feed.domain:
            raise ValueError(
                f"got members for points of {members[0].vae.domain}, the data have {feed.domain}; a population trains on "
                "one data set"
            )
        heads = {id(member): plain_head(member, feed, narrow) or "" for member in members}
        self.members = sorted(members, key=lambda member: (heads[id(member)], *order_key(member.spec)))
        self.feed = feed
        self.epoch = self.members[0].epoch
        self._on_cuda = feed.device.type == "cuda"
        self._threads = threads or torch.get_num_threads()
        sizes = self._sizes(stack_size, [heads[id(member)] for member in self.members])
        queue = iter(self.members)
        rooms = _rooms(len(sizes), self._threads)
        self.trainers = [
            Trainer(list(islice(queue, size)), feed, narrow, room) for size, room in zip(sizes, rooms, strict=True)
        ]
        self._split: dict[int, SplitStep] = {}
        self._captured = [CapturedStep(trainer) for trainer in self.trainers] if self._on_cuda else []
        self._stop = threading.Event()

    def _sizes(self, stack_size: int | None, heads: Sequence[str]) -> list[int]:
        """How many members each stack has; members whose steps are plain stand by the head, and are not mixed with others."""
        count = len(self.members)
        if stack_size is not None:
            return [min(stack_size, count - start) for start in range(0, count, stack_size)]
        if self._on_cuda:
            return [count]
        found: list[int] = []
        for head, those in groupby(heads):
            worthwhile = WORTHWHILE_PLAIN_WORK if head else WORTHWHILE_WORK
            found += stack_sizes(step_work(self.members[0]), len(list(those)), self._threads, worthwhile)
        return found

    def train_epoch(self) -> list[Row]:
        """One pass over the training points; the mean loss, log likelihood and divergence of every member."""
        if self._on_cuda:
            for captured in self._captured:
                captured.train_epoch()
        else:
            before = torch.get_num_threads()
            try:
                for phase in phases(len(self.trainers), self._threads):
                    chosen = [[self.trainers[stack] for stack in lane] for lane in phase.lanes]
                    split = phase.threads > 1 and all(can_split(t, phase.threads) for lane in chosen for t in lane)
                    if split:
                        for trainer in (t for lane in chosen for t in lane if id(t) not in self._split):
                            self._split[id(trainer)] = SplitStep(trainer, phase.threads)
                    torch.set_num_threads(1 if split else phase.threads)
                    self._run(chosen)
            finally:
                torch.set_num_threads(before)
        self.epoch += 1
        return [row for trainer in self.trainers for row in trainer.finish_epoch()]

    def _run(self, lanes: Sequence[Sequence[Trainer]]) -> None:
        """Every lane on a thread of its own; an error or an interrupt ends them all."""
        if len(lanes) == 1:
            self._train_lane(lanes[0])
            return
        self._stop.clear()
        with ThreadPoolExecutor(len(lanes), "autovae-lane") as pool:
            futures = [pool.submit(self._train_lane, lane) for lane in lanes]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self._stop.set()
                raise

    def _train_lane(self, trainers: Sequence[Trainer]) -> None:
        spec = self.members[0].spec
        for trainer in trainers:
            trainer.start_epoch()
        kinds = tuple(dict.fromkeys(kind for trainer in trainers for kind in trainer.kinds))
        batches = self.feed.epoch(spec.batch_size, spec.data_seed, self.epoch, kinds, spec.objective == "mass")
        ahead = max(1, BATCHES_AT_ONCE // (spec.batch_size * self.feed.domain.features)) if len(trainers) > 1 else 1
        for block in _blocks(batches, ahead):
            for trainer in trainers:
                step = self._split.get(id(trainer), trainer).step
                for batch in block:
                    step(batch)
            if self._stop.is_set():
                return

    def collect(self, moments: bool = True) -> list[Member]:
        """Give every member its weights, age, history and moments as they are now; the population may go on.

        Without `moments` a member can be used but not trained further.
        """
        for trainer in self.trainers:
            trainer.rest()
        for trainer in self.trainers:
            trainer.collect(moments)
        return list(self.members)


def _blocks(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    while block := list(islice(batches, size)):
        yield block
