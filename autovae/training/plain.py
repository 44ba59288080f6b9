r"""A step of plain VAEs on a processor without a graph, by `native.whole`.

Plain is what every other belief is compared with: normal posterior and prior, the ELBO with its KL in closed form, a head
that is linear in x (bernoulli, continuous_bernoulli), chains of linear layers with rectifiers whose products are compiled ones.
What the loss makes of log p(x|z) and KL are then constants,

    loss = - mean_B (mean_K log p(x|z) - beta KL)      d loss / d log p(x|z) = -1 / (B K)      d loss / d KL = beta / B

so that no graph has to be made to find them. The kernels are those that the graph would call, in its order: a step is the
same bit for bit.
Not here: every other step (`trainer`), which is by autograd.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autovae import native
from autovae.beliefs.regions import LOG_SCALE_LIMIT
from autovae.model.products import FEWEST
from autovae.model.stacks import LinearStack, is_rectified
from autovae.model.vae import VAEStack
from autovae.native.whole import Part, Room, WholeStep
from autovae.training.adam import BETAS, EPSILON, StackedAdam
from autovae.training.feed import Batch, Feed
from autovae.training.member import Member
from autovae.training.objective import by_closed_form
from autovae.training.precision import compiled_products

__all__ = ["PlainStep", "plain_head", "plain_step"]


class PlainStep:
    """Steps of one stack, with its gradients and moments where `adam` has them."""

    def __init__(self, whole: WholeStep, adam: StackedAdam, beta: Tensor, samples: int, target: str) -> None:
        self._whole, self._adam, self._beta, self._samples, self._target = whole, adam, beta, samples, target

    def serves(self, batch: Batch) -> bool:
        """Whether these points can be had: complete ones, and enough for `native.product`."""
        return batch.mask is None and len(batch) >= FEWEST

    def step(self, batch: Batch, xi: Tensor) -> Tensor:
        """One step of every member; the sums over points of loss, log likelihood and divergence, (3, P)."""
        if not self._whole.knows(len(batch)):
            self._prepare(len(batch))
        self._adam.count()
        x, target = batch.inputs.contiguous(), batch.targets[self._target].contiguous()
        value, kl = self._whole.take(x, target, xi, self._adam.corrections)
        mean = value.squeeze(1) if self._samples == 1 else value.mean(1)
        loss = torch.addcmul(-mean, self._beta, kl)
        return torch.stack([loss, mean, kl]).sum(-1)

    def leave(self) -> None:
        """Give back the memory of a step; the next one takes it again."""
        self._whole.leave()

    def _prepare(self, points: int) -> None:
        of_bound = self._beta.new_full((len(self._beta), points), -1 / points)
        of_value = (of_bound / self._samples).unsqueeze(1).expand(-1, self._samples, -1)
        self._whole.prepare(of_value, -(of_bound * self._beta))


def plain_head(member: Member, feed: Feed, narrow: torch.dtype | None = None) -> str | None:
    """The head that a member's steps are plain with, alone or beside others with that head; else None."""
    spec, vae = member.spec, member.vae
    if narrow is not None or feed.dtype != torch.float32 or not compiled_products(feed.device):
        return None
    plain = spec.matched_normal and by_closed_form(spec) and spec.objective == "density"
    chains = is_rectified(vae.encoder) and is_rectified(vae.decoder)
    return spec.likelihood if plain and chains and spec.likelihood in native.HEADS else None


def plain_step(stack: VAEStack, adam: StackedAdam, feed: Feed, beta: Tensor, room: Room) -> PlainStep | None:
    """The steps of a stack whose members have one `plain_head`, None where their weights are not all learned by `adam`.

    `room` may be that of others that never step at the same time.
    """
    spec, head = stack.specs[0], stack.only_head
    encoder = _part(stack.encoder, 0)
    decoder = None if encoder is None else _part(stack.decoder, 2 * len(encoder.sums))
    if encoder is None or decoder is None or head is None:
        return None
    together = adam.together([*stack.encoder.parameters(), *stack.decoder.parameters()])
    points = min(spec.batch_size, feed.points)
    whole = WholeStep(encoder, decoder, together, head.name, spec.draws, points, LOG_SCALE_LIMIT, BETAS, EPSILON, room)
    return PlainStep(whole, adam, beta, spec.draws, head.trains_on)


def _part(chain: nn.Module, begins: int) -> Part | None:
    """A chain whose weights' gradients are left to Adam; its parameters' places in Adam's step begin there."""
    if not isinstance(chain, LinearStack) or chain.sinks is None or not chain.sinks.defers:
        return None
    if (call := chain.in_one_call()) is None:
        return None
    biases = chain.sinks.biases
    return Part(call, biases, range(begins, begins + 2 * len(biases), 2))
