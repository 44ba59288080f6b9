r"""A trainer: some members of one shape and one age as a stack, with their optimizer and their noise.

One step, for a minibatch x (B, X) common to all members and noise xi (P, K, B, D), each member's own:

    loss_m = - mean_B bound_m(x, xi_m)          gradients of sum_m loss_m are the members' own gradients
    Adam on the stacks, a learning rate per member

What a member gets does not depend on its companions: its noise comes from (its seed, epoch), and the products of one
member never mix with another's. `advance` is the whole step on tensors of the device, with no question to the host, so
that it can be captured as one graph; losses are summed on the device and read once an epoch.
Members leave whole (`collect`): nothing of theirs stays behind in the stack.
Not here: which members are stacked (`population`); the bound itself (`objective`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from autovae.model.sinks import Factors
from autovae.model.vae import VAEStack
from autovae.native.whole import Room
from autovae.streams import stream_seed
from autovae.training.adam import StackedAdam
from autovae.training.feed import Batch, Feed
from autovae.training.member import Member
from autovae.training.objective import bound
from autovae.training.plain import plain_head, plain_step
from autovae.training.precision import compiled_products

__all__ = ["Row", "Trainer"]

Row = dict[str, float]

# Numbers of noise that a member draws at once, or an epoch's if that is less. It depends on the member's own spec and the
# data only: what a generator gives depends on how much it is asked for, and companions must not change that.
NOISE_AT_ONCE = 1 << 18


class Trainer:
    """A stack of members under training on `feed`; products are taken in `narrow` where that is given.

    `room` is memory for a step, which trainers that take turns may share.
    """

    def __init__(
        self, members: Sequence[Member], feed: Feed, narrow: torch.dtype | None = None, room: Room | None = None
    ) -> None:
        self.members = list(members)
        self.feed = feed
        self.stack = VAEStack([member.vae for member in self.members], feed.device).to(feed.dtype)
        self.stack.train()
        self._chains = self.stack.prepare(narrow, compiled_products(feed.device))
        self.specs = self.stack.specs
        self.kinds = self.stack.target_kinds
        self.edges = self.specs[0].objective == "mass"
        self.epoch = self.members[0].epoch
        self._beta = self._column([spec.beta for spec in self.specs])
        self._alpha = self._column([spec.alpha for spec in self.specs])
        self._named = [(name, p) for name, p in self.stack.named_parameters() if p.requires_grad]
        rates = [spec.learning_rate for spec in self.specs]
        copies = {p: copy for chain in self._chains for p, copy in zip(chain.parameters(), chain.copies, strict=False)}
        parameters = [p for _, p in self._named]
        narrowed = [copies.get(p) for p in parameters] if copies else None
        self._sinks = [chain.sinks for chain in self._chains if chain.sinks is not None]
        deferred: dict[Tensor, Callable[[], Factors | None]] = {
            weight: chain.sinks.source(depth)
            for chain in self._chains
            if chain.sinks is not None
            for depth, weight in enumerate(list(chain.parameters())[::2])
        }
        self.adam = StackedAdam(parameters, rates, self.members[0].steps, narrowed, deferred)
        for sinks in self._sinks:
            sinks.defers = self.adam.takes_factors
        self._take_moments()
        heads = {plain_head(member, feed, narrow) for member in self.members}
        plain = len(heads) == 1 and None not in heads
        self._plain = plain_step(self.stack, self.adam, feed, self._beta, room or Room()) if plain else None
        self._generators = [torch.Generator(feed.device) for _ in self.specs]
        spec = self.specs[0]
        shape = (spec.draws, min(spec.batch_size, feed.points), spec.latent_dim)
        self._ahead = max(1, min(NOISE_AT_ONCE // math.prod(shape), -(-feed.points // shape[1])))
        self._noise = torch.empty(len(self.specs), self._ahead, *shape, dtype=feed.dtype, device=feed.device)
        self._drawn = self._ahead  # steps of this block that are used up
        self._totals = torch.zeros(3, len(self.specs), dtype=feed.dtype, device=feed.device)
        self._rows: list[list[Row]] = []

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=self.feed.dtype, device=self.feed.device).unsqueeze(1)

    def _take_moments(self) -> None:
        """The moments that the members bring, from an earlier company or a checkpoint."""
        if not self.members[0].steps:
            return
        for (name, _), mean, square in zip(self._named, self.adam.means, self.adam.squares, strict=True):
            for position, member in enumerate(self.members):
                if f"{name}/mean" in member.moments:
                    mean[position].copy_(member.moments[f"{name}/mean"][0])
                    square[position].copy_(member.moments[f"{name}/square"][0])

    def start_epoch(self) -> None:
        """Put every member's noise where this epoch begins."""
        for generator, spec in zip(self._generators, self.specs, strict=True):
            generator.manual_seed(stream_seed(spec.seed, "noise", self.epoch))
        self._drawn = self._ahead
        self._totals.zero_()

    def noise(self) -> Tensor:
        """xi (P, K, B, D) of the next step, B of a full minibatch: each member's own stream."""
        if self._drawn == self._ahead:
            for own, generator in zip(self._noise, self._generators, strict=True):
                own.normal_(generator=generator)
            self._drawn = 0
        self._drawn += 1
        return self._noise[:, self._drawn - 1]

    def step(self, batch: Batch) -> None:
        """One step of every member."""
        self.advance(batch, self.noise()[:, :, : len(batch)])

    def advance(self, batch: Batch, xi: Tensor) -> None:
        """One step with noise xi (P, K, B, D), on the device alone."""
        if self._plain is not None and self._plain.serves(batch):
            self.add(self._plain.step(batch, xi))
            return
        totals = self.differentiate(batch, xi, self.stack)
        self.adam.step()
        for sinks in self._sinks:
            sinks.written = False
        self.add(totals)

    def differentiate(self, batch: Batch, xi: Tensor, stack: VAEStack, share: float = 1.0) -> Tensor:
        """Gradients of the mean loss into those of `stack`, times the `share` that these points are of a minibatch.

        Returns the sums over points of loss, log likelihood and divergence, (3, P).
        """
        terms = bound(stack, batch, xi, self._alpha, self._beta)
        followed = terms.surrogate  # the loss is minus its mean over points, summed over members: a constant slope
        followed.backward(torch.full_like(followed, -share / followed.shape[-1]))
        with torch.no_grad():
            return torch.stack([-terms.value, terms.log_likelihood, terms.divergence]).sum(-1)

    def add(self, totals: Tensor) -> None:
        """Count a step's sums towards the epoch's."""
        self._totals += totals

    def finish_epoch(self) -> list[Row]:
        """The mean loss, log likelihood and divergence of every member over the epoch."""
        self.epoch += 1
        loss, log_likelihood, divergence = (self._totals / self.feed.points).tolist()
        rows = zip(loss, log_likelihood, divergence, strict=True)
        latest: list[Row] = [{"epoch": self.epoch, "loss": a, "log_likelihood": b, "divergence": c} for a, b, c in rows]
        self._rows.append(latest)
        return latest

    def rest(self) -> None:
        """Give back the memory of a step; the next one takes it again."""
        if self._plain is not None:
            self._plain.leave()

    def collect(self, moments: bool = True) -> list[Member]:
        """Give every member its weights, age, history and, if asked, moments as they are now; training may go on."""
        self.stack.unstack()
        steps, named = self.adam.steps, self._named if moments else []
        for (name, _), mean, square in zip(named, self.adam.means, self.adam.squares, strict=moments):
            for key, values in ((f"{name}/mean", mean.cpu()), (f"{name}/square", square.cpu())):
                for position, member in enumerate(self.members):
                    member.moments[key] = values[position : position + 1].clone()
        for position, member in enumerate(self.members):
            member.epoch, member.steps = self.epoch, steps
            if not moments:
                member.moments.clear()
            member.history.extend(rows[position] for rows in self._rows)
        self._rows.clear()
        return list(self.members)
