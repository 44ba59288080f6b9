r"""A population: members of one shape and one age, trained together as stacks.

What a member gets does not depend on its companions: the minibatch order comes from (data seed, epoch), its noise from
(its own seed, epoch).
Not here: the step (`trainer`), how many members a stack has and what trains at once (`backend`), when to stop and what
to keep (`loop`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import islice

import torch

from autovae.data.minibatches import Minibatches
from autovae.model.stacked import is_linear
from autovae.model.vae import outputs_per_point
from autovae.spec import VAESpec
from autovae.training.backend import Backend, CPUBackend
from autovae.training.bound import bound_of
from autovae.training.cuda import CUDABackend
from autovae.training.train_state import TrainState
from autovae.training.trainer import Row, Trainer

__all__ = ["Population", "order_key", "shape_key"]


def shape_key(member: TrainState) -> Hashable:
    """Members with equal keys can be stacked: same tensors, same minibatches, same bound, same age."""
    spec, vae = member.spec, member.vae
    shapes = tuple((name, tuple(value.shape)) for name, value in vae.named_parameters())
    structure = tuple("linear" if is_linear(part) else repr(part) for part in (vae.encoder, vae.decoder))
    counts = (outputs_per_point(spec, vae.domain), spec.latent_dim, spec.samples, spec.groups)
    learned = (spec.learned_prior, spec.components, spec.posterior_flow)
    minibatches = (spec.batch_size, spec.data_seed, vae.domain)
    return shapes, structure, bound_of(spec), counts, learned, minibatches, (member.epoch, member.steps)


def order_key(spec: VAESpec) -> tuple[str, ...]:
    """Members are sorted by this, so that one likelihood, pairing and learning rate is one slice of the stack."""
    return (spec.likelihood, str(spec.scale), str(spec.saturate), spec.pair_text, f"{spec.learning_rate:.9e}")


class Population:
    """Members of one `shape_key`; `train_epoch` advances all of them by one epoch.

    `stack_size` members to a stack and `threads` (torch's number) may be given; narrow is the type of products.
    """

    def __init__(
        self,
        members: Sequence[TrainState],
        points: Minibatches,
        narrow: torch.dtype | None = None,
        stack_size: int | None = None,
        threads: int | None = None,
    ) -> None:
        if len({shape_key(member) for member in members}) != 1:
            raise ValueError("members of one population must have the same shape, minibatches and age")
        if members[0].vae.domain != points.domain:
            raise ValueError(
                f"got members for points of {members[0].vae.domain}, the data have {points.domain}; a population trains "
                "on one data set"
            )
        self.members = sorted(members, key=lambda member: order_key(member.spec))
        self.points, self.epoch = points, self.members[0].epoch
        self._backend: Backend = (
            CUDABackend(narrow) if points.device.type == "cuda" else CPUBackend(narrow, stack_size, threads)
        )
        queue = iter(self.members)
        self.trainers = [
            Trainer(list(islice(queue, size)), points, self._backend)
            for size in self._backend.stack_sizes(self.members)
        ]

    def train_epoch(self) -> list[Row]:
        """One pass over the training points; the mean loss, log likelihood and divergence of every member."""
        self._backend.train_epoch(self.trainers)
        self.epoch += 1
        return [row for trainer in self.trainers for row in trainer.finish_epoch()]

    def collect(self, moments: bool = True) -> list[TrainState]:
        """Give every member its weights, age, history and moments as they are now; the population may go on.

        Without `moments` a member can be used but not trained further.
        """
        for trainer in self.trainers:
            trainer.collect(moments)
        return list(self.members)
