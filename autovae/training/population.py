r"""A population: P VAEs of one shape and one age, trained by one program on stacked weights.

One step, for minibatch x (B, X) common to all members and noise xi (P, K, B, D), each member's own:

    loss_m = - mean_B bound_m(x, xi_m)          gradients of sum_m loss_m are the members' own gradients
    Adam on the stacks, a learning rate per member

What a member gets does not depend on its companions: the minibatch order comes from (data seed, epoch), the noise from
(the member's seed, epoch), and the products of one member never mix with another's.
Members leave whole (`collect`): nothing of theirs stays behind in the stack.
Not here: when to stop, what to keep (`loop`); the bound itself (`objective`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from autovae.data.batches import minibatches
from autovae.model.vae import VAEStack, outputs_per_point
from autovae.spec import VAESpec
from autovae.streams import stream_seed
from autovae.training.feed import Feed
from autovae.training.member import Member
from autovae.training.objective import bound, estimator_of

__all__ = ["Population", "order_key", "shape_key"]


def shape_key(member: Member) -> Hashable:
    """Members with equal keys can be stacked: same tensors, same minibatches, same form of the bound, same age."""
    spec, vae = member.spec, member.vae
    shapes = tuple((name, tuple(value.shape)) for name, value in vae.named_parameters())
    structure = (type(vae.encoder).__name__, type(vae.decoder).__name__, spec.network, spec.activation)
    outputs = outputs_per_point(spec, vae.domain)
    return (
        shapes, structure, outputs, spec.latent_dim, spec.samples, spec.groups, spec.bound, spec.mix, spec.batch_size, spec.data_seed, spec.closed_form,
        spec.objective, estimator_of(spec), vae.domain, member.epoch,
    )  # fmt: skip


def order_key(spec: VAESpec) -> tuple[str, ...]:
    """Members are sorted by this, so that one likelihood, pairing and learning rate is one slice of the stack."""
    return (spec.likelihood, str(spec.scale), str(spec.saturate), f"{spec.learning_rate:.9e}", spec.pair_text)


class Population:
    """Members of one `shape_key` as a stack with its optimizer; `train_epoch` advances all of them by one epoch."""

    def __init__(self, members: Sequence[Member], feed: Feed) -> None:
        if len({shape_key(member) for member in members}) != 1:
            raise ValueError("members of one population must have the same shape, minibatches and age")
        self.members = sorted(members, key=lambda member: order_key(member.spec))
        self.feed = feed
        device = feed.device
        self.stack = VAEStack([member.vae for member in self.members]).to_device(device)
        self.specs = self.stack.specs
        self.epoch = self.members[0].epoch
        self.beta = torch.tensor([[spec.beta] for spec in self.specs], device=device)
        self.alpha = torch.tensor([[spec.alpha] for spec in self.specs], device=device)
        self._kinds = self.stack.target_kinds
        self._generators = [torch.Generator(device) for _ in self.specs]
        self._parameters = [(name, p) for name, p in self.stack.named_parameters() if p.requires_grad]
        self._optimizer, self._views = self._make_optimizer()
        self._rows: list[list[dict[str, float]]] = []

    def _runs(self) -> list[tuple[int, int, float]]:
        """Slices of members with one learning rate: (start, stop, rate)."""
        runs: list[tuple[int, int, float]] = []
        for index, spec in enumerate(self.specs):
            if runs and runs[-1][2] == spec.learning_rate:
                runs[-1] = (runs[-1][0], index + 1, spec.learning_rate)
            else:
                runs.append((index, index + 1, spec.learning_rate))
        return runs

    def _make_optimizer(self) -> tuple[torch.optim.Adam, list[tuple[Tensor, Tensor, int, int]]]:
        """Fused Adam over the stacks, with the moments that the members bring.

        A learning rate is one parameter group; where there are several, a group holds views of its members' slices.
        """
        runs = self._runs()
        groups, views = [], []
        for start, stop, rate in runs:
            params = []
            for _, parameter in self._parameters:
                view = parameter if len(runs) == 1 else parameter.detach()[start:stop]
                params.append(view)
                views.append((view, parameter, start, stop))
            groups.append({"params": params, "lr": rate})
        optimizer = torch.optim.Adam(groups, fused=True)
        steps = self.members[0].steps
        if steps:
            names = {id(parameter): name for name, parameter in self._parameters}
            for view, parameter, start, stop in views:
                name = names[id(parameter)]
                optimizer.state[view] = {
                    "step": torch.tensor(float(steps), device=parameter.device),
                    "exp_avg": self._gather(f"{name}/mean", start, stop, view),
                    "exp_avg_sq": self._gather(f"{name}/square", start, stop, view),
                }
        return optimizer, views

    def _gather(self, name: str, start: int, stop: int, like: Tensor) -> Tensor:
        parts = [member.moments[name] for member in self.members[start:stop]]
        return torch.cat(parts).to(like.device, copy=True).view_as(like)

    def _steps_done(self) -> int:
        first = next(iter(self._optimizer.state.values()), None)
        return int(first["step"]) if first else self.members[0].steps

    def train_epoch(self) -> list[dict[str, float]]:
        """One pass over the training points; the mean loss, log likelihood and divergence of every member."""
        self.stack.train()
        spec, feed = self.specs[0], self.feed
        for generator, member in zip(self._generators, self.specs, strict=True):
            generator.manual_seed(stream_seed(member.seed, "noise", self.epoch))
        feed.start_epoch(spec.data_seed, self.epoch)
        totals = torch.zeros(3, len(self.specs), device=feed.device)
        for index in minibatches(feed.points, spec.batch_size, spec.data_seed, self.epoch, feed.device):
            totals += self._step(index) * len(index)
        self.epoch += 1
        loss, log_likelihood, divergence = (totals / feed.points).tolist()
        rows = zip(loss, log_likelihood, divergence, strict=True)
        latest = [{"epoch": self.epoch, "loss": a, "log_likelihood": b, "divergence": c} for a, b, c in rows]
        self._rows.append(latest)
        return latest

    def noise(self, points: int) -> Tensor:
        """xi (P, K, points, D): each member's own stream."""
        spec = self.specs[0]
        xi = torch.empty(len(self.specs), spec.draws, points, spec.latent_dim, device=self.feed.device)
        for row, generator in zip(xi, self._generators, strict=True):
            row.normal_(generator=generator)
        return xi

    def _step(self, index: Tensor) -> Tensor:
        batch = self.feed.batch(index, self._kinds, edges=self.specs[0].objective == "mass")
        terms = bound(self.stack, batch, self.noise(len(index)), self.alpha, self.beta)
        self._optimizer.zero_grad(set_to_none=True)
        for _, parameter in self._parameters:
            parameter.grad = None
        (-terms.surrogate.mean(-1).sum()).backward()
        for view, parameter, start, stop in self._views:
            if view is not parameter and parameter.grad is not None:
                view.grad = parameter.grad[start:stop]
        self._optimizer.step()
        with torch.no_grad():
            return torch.stack([-terms.value.mean(-1), terms.log_likelihood.mean(-1), terms.divergence.mean(-1)])

    def collect(self) -> list[Member]:
        """Give every member its weights, moments, age and history as they are now; the population may go on."""
        self.stack.unstack()
        steps = self._steps_done()
        names = {id(parameter): name for name, parameter in self._parameters}
        for view, parameter, start, stop in self._views:
            state = self._optimizer.state.get(view, {})
            for key, moment in (("exp_avg", "mean"), ("exp_avg_sq", "square")):
                if key not in state:
                    continue
                name, values = f"{names[id(parameter)]}/{moment}", state[key].detach().cpu()
                pieces = values.split(1) if len(self.members) > 1 else [values]
                for member, piece in zip(self.members[start:stop], pieces, strict=True):
                    member.moments[name] = piece.clone()
        for position, member in enumerate(self.members):
            member.epoch, member.steps = self.epoch, steps
            member.history.extend(rows[position] for rows in self._rows)
        self._rows.clear()
        return list(self.members)
