r"""A trainer: some members of one shape and one age as a stack, with their optimizer and their noise.

One step, for a minibatch x (B, X) common to all members and noise xi (P, K, B, D), each member's own:

    loss_m = - mean_B bound_m(x, xi_m)          gradients of sum_m loss_m are the members' own gradients
    Adam on the stacks, a learning rate per member

What a member gets does not depend on its companions: its noise comes from (its seed, epoch), and the products of one
member never mix with another's. `advance` is the whole step on tensors of the device, with no question to the host, so
that it can be captured as one graph; losses are summed on the device and read once an epoch.
Not here: which members are stacked (`population`), what is followed (`bound`), what differs by device (`backend`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from autovae.data.minibatches import Minibatch, Minibatches
from autovae.model.vae import VAEStack
from autovae.seeds import stream_seed
from autovae.training.backend import Backend, step_work
from autovae.training.bound import bound_of
from autovae.training.train_state import TrainState

__all__ = ["Row", "Trainer"]

Row = dict[str, float]

# Numbers of noise that a member draws at once, or an epoch's if that is less. It depends on the member's own spec and the
# data only: what a generator gives depends on how much it is asked for, and companions must not change that.
NOISE_AT_ONCE = 1 << 18


class Trainer:
    """A stack of members under training."""

    def __init__(self, members: Sequence[TrainState], points: Minibatches, backend: Backend) -> None:
        self.members, self.points = list(members), points
        self.stack = VAEStack([member.vae for member in self.members], points.device).to(points.dtype)
        self.stack.train()
        self.specs = self.stack.specs
        self.bound = bound_of(self.specs[0])
        self.kinds, self.edges = self.stack.target_kinds, self.stack.needs_bins
        self.epoch, self.work = self.members[0].epoch, len(self.members) * step_work(self.members[0])
        self._beta = self._column([spec.beta for spec in self.specs])
        self._alpha = self._column([spec.alpha for spec in self.specs])
        self._names = [name for name, p in self.stack.named_parameters() if p.requires_grad]
        self.adam = backend.prepare(self.stack, [spec.learning_rate for spec in self.specs], self.members[0].steps)
        self._take_moments()
        self._generators = [torch.Generator(points.device) for _ in self.specs]
        spec = self.specs[0]
        shape = (spec.draws, min(spec.batch_size, points.points), spec.latent_dim)
        self._ahead = max(1, min(NOISE_AT_ONCE // math.prod(shape), -(-points.points // shape[1])))
        self._noise = torch.empty(len(self.specs), self._ahead, *shape, dtype=points.dtype, device=points.device)
        self._drawn = self._ahead  # steps of this block that are used up
        self._totals = torch.zeros(3, len(self.specs), dtype=points.dtype, device=points.device)
        self._rows: list[list[Row]] = []

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=self.points.dtype, device=self.points.device).unsqueeze(1)

    def _take_moments(self) -> None:
        """The moments that the members bring, from an earlier population or a checkpoint."""
        if not self.members[0].steps:
            return
        for name, mean, square in zip(self._names, self.adam.means, self.adam.squares, strict=True):
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

    def train_epoch(self, stop: threading.Event) -> None:
        """Every minibatch of the present epoch, or those until `stop` is set."""
        self.start_epoch()
        spec = self.specs[0]
        for batch in self.points.epoch(spec.batch_size, spec.data_seed, self.epoch, self.kinds, self.edges):
            if stop.is_set():
                return
            self.step(batch)

    def noise(self) -> Tensor:
        """xi (P, K, B, D) of the next step, B of a full minibatch: each member's own stream."""
        if self._drawn == self._ahead:
            for own, generator in zip(self._noise, self._generators, strict=True):
                own.normal_(generator=generator)
            self._drawn = 0
        self._drawn += 1
        return self._noise[:, self._drawn - 1]

    def step(self, batch: Minibatch) -> None:
        """One step of every member."""
        self.advance(batch, self.noise()[:, :, : len(batch)])

    def advance(self, batch: Minibatch, xi: Tensor) -> None:
        """One step with noise xi (P, K, B, D), on the device alone."""
        terms = self.bound.terms(self.stack, batch, xi, self._alpha, self._beta)
        followed = terms.surrogate  # the loss is minus its mean over points, summed over members: a constant slope
        followed.backward(torch.full_like(followed, -1 / followed.shape[-1]))
        self.adam.step()
        with torch.no_grad():
            self._totals += torch.stack([-terms.value, terms.log_likelihood, terms.divergence]).sum(-1)

    def finish_epoch(self) -> list[Row]:
        """The mean loss, log likelihood and divergence of every member over the epoch."""
        self.epoch += 1
        loss, log_likelihood, divergence = (self._totals / self.points.points).tolist()
        rows = zip(loss, log_likelihood, divergence, strict=True)
        latest: list[Row] = [{"epoch": self.epoch, "loss": a, "log_likelihood": b, "divergence": c} for a, b, c in rows]
        self._rows.append(latest)
        return latest

    def collect(self, moments: bool = True) -> None:
        """Give every member its weights, age, history and, if asked, moments as they are now; training may go on."""
        self.stack.unstack()
        steps = self.adam.steps
        for name, mean, square in zip(
            self._names if moments else (), self.adam.means, self.adam.squares, strict=moments
        ):
            for key, values in ((f"{name}/mean", mean.cpu()), (f"{name}/square", square.cpu())):
                for position, member in enumerate(self.members):
                    member.moments[key] = values[position : position + 1].clone()
        for position, member in enumerate(self.members):
            member.epoch, member.steps = self.epoch, steps
            if not moments:
                member.moments.clear()
            member.history.extend(rows[position] for rows in self._rows)
        self._rows.clear()
