r"""Learned priors: learned densities of the latent vector that take the place of the product prior.

A product of families is one belief; a prior learned with the decoder is worth about 3 nats on binarised MNIST in the
literature. Every large study trains learned priors as baselines.

| name      | p(z)                                                              | family of                               |
|-----------|-------------------------------------------------------------------|-----------------------------------------|
| mixture   | sum_c w_c prod_i f_i((z_i - m_ci) / s_ci) / s_ci, all learned     | components: the spec's `prior`          |
| vampprior | (1 / C) sum_c q(z given u_c), pseudo-inputs u_c learned           | components: the spec's `posterior`      |
| flow      | f(z) N(T(v)) / N(v) abs det dT/dv, v = Phi^-1(F(z)), T a MAF        | base: the spec's `prior` (z = v: normal) |

Their divergence has no closed form: training follows log p(z) - log q(z|x) at the sampled z, with the same noise and the
same estimators as every bound. A learned prior starts near the fixed one: the flow is the identity, the mixture spreads its
components over it; the VampPrior starts at training points (`start`).

Members of a population hold their parameters side by side, (P, ...), and are evaluated together. A learned prior needs from its
VAE the families (`Pairing`) and, for the VampPrior, the encoder: pseudo-inputs are free points of the encoder's input
space, and its gradient through them is one of the model, not of the sample's path.

To add one: subclass `LearnedPrior` and add its row to `autovae.registry.LEARNED_PRIORS`. The tests pick it up from the table.
References: Tomczak and Welling, VAE with a VampPrior, 2018; Papamakarios, Pavlakou and Murray, Masked autoregressive
flow for density estimation, 2017; Chen and others, Variational lossy autoencoder, 2017 (autoregressive priors).
Not here: densities fitted to the encoded data after training, see `export.ex_post`.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn

from autovae import registry
from autovae.beliefs.flows import Flow
from autovae.beliefs.mixtures import log_components, log_mixture, log_normal_components, pick
from autovae.beliefs.pairing import Pairing
from autovae.registry import Resolved

__all__ = ["LEARNED_PRIORS", "Components", "FlowPrior", "LearnedPrior", "Mixture", "VampPrior", "join", "part"]

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]
Module = TypeVar("Module", bound=nn.Module)

# Adam moves a parameter by about its learning rate a step; components have to travel further than weights.
SPEED = 10.0
SPREAD = 0.5  # standard deviation of a new mixture's component locations, in units of the base law
START_NOISE = 0.01  # keeps pseudo-inputs that start at the same point apart


class LearnedPrior(nn.Module, ABC):
    """P priors; tensors are (P, N, D). `encode` maps inputs (P, N, X) to loc and scale of q, each (P, N, D)."""

    @classmethod
    @abstractmethod
    def new(cls, latent_dim: int, features: int, components: int, generator: Generator) -> LearnedPrior:
        """One untrained prior (P = 1), drawn from `generator`."""

    @abstractmethod
    def log_prob(self, z: Tensor, pairing: Pairing, encode: Encode) -> Tensor:
        """log p(z), (P, N)."""

    @abstractmethod
    def sample(self, xi: Tensor, uniform: Tensor, pairing: Pairing, encode: Encode) -> Tensor:
        """z (P, N, D) from standard normals xi (P, N, D) and uniforms (P, N)."""

    def start(self, inputs: Tensor, generator: Generator) -> None:
        """Begin at random training points, `inputs` (N, X) as the encoder sees them; most priors ignore the data."""


class Components(LearnedPrior):
    """A mixture whose components are location-scale products."""

    side: int  # which of (posterior, prior) the components' families are

    @abstractmethod
    def components(self, encode: Encode) -> tuple[Tensor, Tensor, Tensor]:
        """loc and scale (P, C, D), log weights (P, C) that sum to one."""

    @abstractmethod
    def law(self, eps: Tensor, pairing: Pairing) -> Tensor:
        """Standard log density of the components' families, summed over latents."""

    @abstractmethod
    def noise(self, xi: Tensor, pairing: Pairing) -> Tensor:
        """Standard draws of the components' families from standard normals."""

    def families(self, pairing: Pairing, member: int = 0) -> tuple[str, ...]:
        """The components' family of every latent."""
        return tuple(pair[self.side] for pair in pairing.pairs[member])

    def log_prob(self, z: Tensor, pairing: Pairing, encode: Encode) -> Tensor:
        loc, scale, log_weights = self.components(encode)
        if pairing.all_source(self.side):
            return log_mixture(log_normal_components(z, loc, scale), log_weights)
        return log_mixture(log_components(z, loc, scale, lambda eps: self.law(eps, pairing)), log_weights)

    def sample(self, xi: Tensor, uniform: Tensor, pairing: Pairing, encode: Encode) -> Tensor:
        loc, scale, log_weights = self.components(encode)
        both = pick(torch.cat([loc, scale], -1), log_weights, uniform)
        return both[..., : loc.shape[-1]] + both[..., loc.shape[-1] :] * self.noise(xi, pairing)


class Mixture(Components):
    """Components with learned location, scale and weight, of the prior's families."""

    side = 1

    def __init__(self, loc: Tensor, scale: Tensor, log_weights: Tensor) -> None:
        super().__init__()
        self.raw_loc = nn.Parameter(loc / SPEED)
        self.raw_scale = nn.Parameter(scale.log() / SPEED)
        self.raw_weight = nn.Parameter(log_weights / SPEED)

    @classmethod
    def new(cls, latent_dim: int, features: int, components: int, generator: Generator) -> Mixture:
        loc = SPREAD * torch.randn(1, components, latent_dim, generator=generator)
        scale = torch.full_like(loc, math.sqrt(1 - SPREAD**2))
        return cls(loc, scale, torch.zeros(1, components))

    def components(self, encode: Encode) -> tuple[Tensor, Tensor, Tensor]:
        log_weights = torch.log_softmax(SPEED * self.raw_weight, -1)
        return SPEED * self.raw_loc, (SPEED * self.raw_scale).exp(), log_weights

    def law(self, eps: Tensor, pairing: Pairing) -> Tensor:
        return pairing.log_prior(eps)

    def noise(self, xi: Tensor, pairing: Pairing) -> Tensor:
        return pairing.sample_prior(xi)


class VampPrior(Components):
    """Variational mixture of posteriors: the mean of q(z given u) over learned pseudo-inputs u (P, C, X)."""

    side = 0

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self.inputs = nn.Parameter(inputs)

    @classmethod
    def new(cls, latent_dim: int, features: int, components: int, generator: Generator) -> VampPrior:
        return cls(torch.rand(1, components, features, generator=generator))

    @torch.no_grad()
    def start(self, inputs: Tensor, generator: Generator) -> None:
        order = torch.arange(self.inputs.shape[1]) % len(inputs)
        noise = START_NOISE * torch.randn(self.inputs.shape, generator=generator)
        self.inputs.copy_(inputs.cpu()[order] + noise)

    def components(self, encode: Encode) -> tuple[Tensor, Tensor, Tensor]:
        loc, scale = encode(self.inputs)
        return loc, scale, loc.new_full(loc.shape[:2], -math.log(loc.shape[1]))

    def law(self, eps: Tensor, pairing: Pairing) -> Tensor:
        return pairing.log_posterior(eps, eps.new_ones(()))

    def noise(self, xi: Tensor, pairing: Pairing) -> Tensor:
        return pairing.noise(xi)


class FlowPrior(LearnedPrior):
    """A masked autoregressive flow over the source of the prior's families."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    @classmethod
    def new(cls, latent_dim: int, features: int, components: int, generator: Generator) -> FlowPrior:
        return cls(Flow(latent_dim, generator=generator))

    def log_prob(self, z: Tensor, pairing: Pairing, encode: Encode) -> Tensor:
        if pairing.all_source(1):
            xi, log_det = self.flow(z)
            return log_normal(xi) + log_det
        v = pairing.to_normal(z)
        xi, log_det = self.flow(v)
        return pairing.log_prior(z) + log_det + 0.5 * (v.square() - xi.square()).sum(-1)

    def sample(self, xi: Tensor, uniform: Tensor, pairing: Pairing, encode: Encode) -> Tensor:
        return pairing.sample_prior(self.flow.inverse(xi)[0])


def log_normal(xi: Tensor) -> Tensor:
    """log N(xi; 0, I), summed over the last axis."""
    return -0.5 * (xi.square().sum(-1) + xi.shape[-1] * math.log(2 * math.pi))


LEARNED_PRIORS: Mapping[str, type[LearnedPrior]] = Resolved(registry.LEARNED_PRIORS)


def join(members: Sequence[Module]) -> Module:
    """Modules of one shape as one: a copy of the first whose parameters are those of all, side by side."""
    whole = copy.deepcopy(members[0])
    parts = [dict(member.named_parameters()) for member in members]
    for name, parameter in whole.named_parameters():
        parameter.data = torch.cat([part[name].detach() for part in parts])
    return whole


@torch.no_grad()
def part(whole: nn.Module, members: Sequence[nn.Module]) -> None:
    """Copy the parameters of `join(members)` back into the members."""
    for index, member in enumerate(members):
        own = dict(member.named_parameters())
        for name, value in whole.named_parameters():
            own[name].copy_(value[index : index + 1])
