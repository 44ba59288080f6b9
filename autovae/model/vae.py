r"""A VAE as plain modules, and a stack of P of them as one program.

Notation: P members, B data points of X numbers, K samples a point, D latents, O = X or 2 X decoder outputs.

    encoder   x (B, X)           -> loc, scale (P, B, D)        q(z|x), see `beliefs.pairing`
    latent    z = loc + scale eps (P, K B, D)
    decoder   z                  -> outputs (P, K, B, O)         parameters of p(x|z), see `beliefs.likelihoods`
    weights   log w = log p(x|z) + log p(z) - log q(z|x)  (K, P, B)

With a learned prior (`beliefs.learned_priors`) or a flow posterior (`beliefs.posteriors`), `log_prior`, `log_posterior`
and `latents` answer for it; nothing else knows of them.

Everything is computed on stacks; a single VAE is a stack of one, so that a member's numbers cannot differ from a single
fit's by more than rounding. Not here: bounds on these weights (`bounds`), training (`training.population`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autovae.beliefs.learned_priors import LEARNED_PRIORS, LearnedPrior, join, part
from autovae.beliefs.likelihoods import LIKELIHOODS, Likelihood, check_support
from autovae.beliefs.pairing import Pairing
from autovae.beliefs.posteriors import FlowPosterior
from autovae.data.minibatches import Minibatch
from autovae.model.estimators import check_estimator
from autovae.model.networks import NETWORKS, init_linear
from autovae.model.operations import Operations, TorchOperations
from autovae.model.own_modules import adapt
from autovae.model.stacked import LinearStack, stack
from autovae.registry import lookup
from autovae.seeds import stream_seed
from autovae.spec import Domain, VAESpec

__all__ = ["VAE", "VAEStack", "build"]

# Adam moves a parameter by about its learning rate a step; the log scale of a likelihood has to travel further than a
# weight, so its parameter is log scale / SCALE_SPEED.
SCALE_SPEED = 10.0


class VAE(nn.Module):
    """One variational autoencoder: its spec, the domain of its data, an encoder, a decoder, the likelihood's scale."""

    def __init__(self, spec: VAESpec, domain: Domain, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.spec, self.domain = spec, domain
        self.encoder, self.decoder = encoder, decoder
        start = math.log(0.25 * (domain.high - domain.low)) if domain.support != "real" else 0.0
        if not isinstance(spec.scale, str):
            start = math.log(spec.scale)
        learned = self.likelihood.has_scale and spec.scale == "global"
        self.raw_scale = nn.Parameter(torch.full((1,), start / SCALE_SPEED), requires_grad=learned)
        self.learned_prior, self.flow_posterior = _learned_beliefs(spec, domain)

    @property
    def likelihood(self) -> Likelihood:
        return LIKELIHOODS[self.spec.likelihood]

    @property
    def scale(self) -> Tensor:
        """The likelihood's scale where it is one number, (1,): learned or fixed, never below the floor."""
        return self.domain.scale_floor + (SCALE_SPEED * self.raw_scale).exp()

    @torch.no_grad()
    def start_scale(self, residual: float) -> None:
        """Begin at this scale, that of data around their mean, where the likelihood's scale is learned."""
        log_scale = math.log(max(residual - self.domain.scale_floor, self.domain.scale_floor))
        if self.raw_scale.requires_grad:
            self.raw_scale.fill_(log_scale / SCALE_SPEED)
        elif self.likelihood.has_scale and self.spec.scale == "pixel":
            biases = [p for name, p in self.decoder.named_parameters() if name.endswith("bias")]
            if biases and len(biases[-1]) % 2 == 0:
                biases[-1][len(biases[-1]) // 2 :] = log_scale

    @property
    def stacked(self) -> VAEStack:
        """This VAE as a stack of one, with the weights it has now."""
        return VAEStack([self])

    def extra_repr(self) -> str:
        return f"{self.spec.belief}, {self.spec.latent_dim} latents"


def _learned_beliefs(spec: VAESpec, domain: Domain) -> tuple[LearnedPrior | None, FlowPosterior | None]:
    """The learned prior and the flow posterior that the spec asks for, each with a stream of its own."""

    def stream(name: str) -> torch.Generator:
        return torch.Generator().manual_seed(stream_seed(spec.seed, name))

    prior = posterior = None
    if spec.learned_prior:
        kind = lookup(LEARNED_PRIORS, spec.learned_prior, "learned prior")
        prior = kind.new(spec.latent_dim, domain.features, spec.components, stream("rival"))
    if spec.posterior_flow:
        posterior = FlowPosterior(spec.latent_dim, stream("posterior flow"))
    return prior, posterior


def outputs_per_point(spec: VAESpec, domain: Domain) -> int:
    """O: one number a feature, two where the likelihood's scale is a network output."""
    per_pixel = LIKELIHOODS[spec.likelihood].has_scale and spec.scale == "pixel"
    return domain.features * (2 if per_pixel else 1)


def build(spec: VAESpec, domain: Domain, encoder: nn.Module | None = None, decoder: nn.Module | None = None) -> VAE:
    """A VAE with weights drawn from the spec's seed; the user's own encoder and decoder are taken as they are.

    Raises `ValueError` where the likelihood does not fit the data's support, or a module has the wrong shape.
    """
    check_support(spec.likelihood, domain.support)
    if spec.estimator is not None:
        check_estimator(spec.estimator, [q for q, _ in spec.pairs], spec.alpha)
    network = lookup(NETWORKS, spec.network, "network")
    outputs = outputs_per_point(spec, domain)
    generator = torch.Generator().manual_seed(stream_seed(spec.seed, "weights"))
    if encoder is None:
        encoder = network.encoder(spec, domain.shape)
        init_linear(encoder, generator)
    else:
        encoder = adapt(encoder, domain.shape, [2 * spec.latent_dim], "encoder")
    if decoder is None:
        decoder = network.decoder(spec, domain.shape, outputs)
        init_linear(decoder, generator)
    else:
        decoder = adapt(decoder, (spec.latent_dim,), [outputs], "decoder")
    return VAE(spec, domain, encoder, decoder)


@dataclass(frozen=True)
class _Run:
    """Neighbouring members that share a likelihood and where its scale comes from."""

    start: int
    stop: int
    likelihood: Likelihood
    source: str  # "none", "global", "pixel"
    by_mass: bool  # whether training follows masses of bins, whose end bins hold the tails


class VAEStack(nn.Module):
    """P VAEs of one shape. Tensors have the member axis first; samples are the second axis where there are any."""

    _scale_learned: Tensor

    def __init__(self, members: Sequence[VAE], device: torch.device | str = "cpu") -> None:
        super().__init__()
        self._members = [list(members)]  # in a list: their parameters are copied, not shared
        self.domain = members[0].domain
        self.specs = [member.spec for member in members]
        self.encoder = stack([member.encoder for member in members], device)
        self.decoder = stack([member.decoder for member in members], device)
        self.raw_scale = nn.Parameter(torch.cat([member.raw_scale.detach() for member in members]))
        self.learned_prior = (
            join([m.learned_prior for m in members if m.learned_prior]) if members[0].learned_prior else None
        )
        posteriors = [m.flow_posterior for m in members if m.flow_posterior]
        self.flow_posterior = join(posteriors) if posteriors else None
        self.pairing = Pairing([spec.pairs for spec in self.specs])
        self.operations: Operations = TorchOperations()
        learned = [float(member.raw_scale.requires_grad) for member in members]
        self.register_buffer("_scale_learned", torch.tensor(learned), persistent=False)
        self._runs: list[_Run] = []
        for index, spec in enumerate(self.specs):
            likelihood = LIKELIHOODS[spec.likelihood]
            source = "none" if not likelihood.has_scale else "pixel" if spec.scale == "pixel" else "global"
            by_mass = spec.objective_on(self.domain.support) == "mass"
            last = self._runs[-1] if self._runs else None
            if last and (last.likelihood.name, last.source, last.by_mass) == (likelihood.name, source, by_mass):
                self._runs[-1] = _Run(last.start, index + 1, likelihood, source, by_mass)
            else:
                self._runs.append(_Run(index, index + 1, likelihood, source, by_mass))
        self.to_device(torch.device(device))

    @property
    def size(self) -> int:
        return len(self.specs)

    @property
    def density_kinds(self) -> tuple[str, ...]:
        """What the members' densities are taken of: "levels", "dequantised"."""
        return tuple(dict.fromkeys(run.likelihood.trains_on for run in self._runs))

    @property
    def target_kinds(self) -> tuple[str, ...]:
        """What the members that follow densities train on: "levels", "dequantised"."""
        return tuple(dict.fromkeys(run.likelihood.trains_on for run in self._runs if not run.by_mass))

    @property
    def needs_bins(self) -> bool:
        """Whether some member follows masses of bins."""
        return any(run.by_mass for run in self._runs)

    def to_device(self, device: torch.device) -> VAEStack:
        self.pairing.to(device)
        return self.to(device)

    def use(self, operations: Operations) -> list[LinearStack]:
        """Let products and sums be those of a device; the linear stacks they will see."""
        self.operations = operations
        found = [network for network in (self.encoder, self.decoder) if isinstance(network, LinearStack)]
        for network in found:
            network.operations = operations
        return found

    def encode(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """loc and scale of q(z|x), each (P, B, D)."""
        return self.pairing.parametrise(self.encoder(inputs).to(self.raw_scale.dtype))

    def latents(self, loc: Tensor, scale: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
        """z and its standard noise eps, (P, K B, D), from standard normal xi (P, K, B, D): the reparameterisation."""
        members, samples, points, latents = xi.shape
        eps = self.pairing.noise(xi.reshape(members, samples * points, latents))
        if samples == 1:
            z = torch.addcmul(loc, scale, eps)
        else:
            z = torch.addcmul(loc.unsqueeze(1), scale.unsqueeze(1), eps.view(xi.shape)).reshape(eps.shape)
        if self.flow_posterior is not None:
            z, _ = self.flow_posterior(z, self.repeat(loc, samples), self.repeat(scale, samples))
        return z, eps

    @staticmethod
    def repeat(values: Tensor, samples: int) -> Tensor:
        """(P, B, D) for every sample, (P, K B, D)."""
        members, points, latents = values.shape
        return values.unsqueeze(1).expand(members, samples, points, latents).reshape(members, -1, latents)

    def centre(self, loc: Tensor, scale: Tensor) -> Tensor:
        """The z of eps = 0, (P, B, D): the posterior's location."""
        return loc if self.flow_posterior is None else self.flow_posterior(loc, loc, scale)[0]

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), (P, N), of z (P, N, D)."""
        return (
            self.pairing.log_prior(z)
            if self.learned_prior is None
            else self.learned_prior.log_prob(z, self.pairing, self.encode)
        )

    def log_posterior(self, eps: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        """log q(z|x), (P, N), of the z that the noise eps (P, N, D) became; loc and scale are (P, N, D)."""
        value = self.pairing.log_posterior(eps, scale)
        if self.flow_posterior is None:
            return value
        return value - self.flow_posterior(loc + scale * eps, loc, scale)[1]

    def log_posterior_at(self, z: Tensor, loc: Tensor, scale: Tensor, stopped: bool = False) -> Tensor:
        """log q(z|x), (P, N), at any z (P, N, D); `stopped` treats the posterior's own parameters as constants."""
        if stopped:
            loc, scale = loc.detach(), scale.detach()
        log_det: Tensor | float = 0.0
        if self.flow_posterior is not None:
            z, log_det = self.flow_posterior.inverse(z, loc, scale, stopped)
        return self.pairing.log_posterior((z - loc) / scale, scale) + log_det

    def sample_prior(self, xi: Tensor, uniform: Tensor) -> Tensor:
        """Draws of the prior, (P, N, D), from standard normals xi (P, N, D) and uniforms (P, N), which mixtures need."""
        if self.learned_prior is None:
            return self.pairing.sample_prior(xi)
        return self.learned_prior.sample(xi, uniform, self.pairing, self.encode)

    def divergence(self, loc: Tensor, scale: Tensor, regulariser: str = "kl", order: float = 0.5) -> Tensor:
        """D(q(z|x), p(z)) of each point in closed form, summed over latents, (P, B): for product priors."""
        return self.pairing.divergence(loc, scale, regulariser, order)

    def decode(self, z: Tensor, samples: int = 1) -> Tensor:
        """Likelihood parameters (P, K, B, O) of z (P, K B, D)."""
        outputs = self.decoder(z)
        return outputs.view(outputs.shape[0], samples, -1, outputs.shape[-1])

    def _heads(self, outputs: Tensor) -> list[tuple[_Run, Tensor, Tensor | None]]:
        """Per run of members: its parameters and its scale, floored at a quarter of a bin."""
        heads: list[tuple[_Run, Tensor, Tensor | None]] = []
        floor = self.domain.scale_floor
        # Not slices: each would give back a gradient of the whole, zeros but for its own part.
        parts = outputs.split([run.stop - run.start for run in self._runs]) if len(self._runs) > 1 else (outputs,)
        for run, params in zip(self._runs, parts, strict=True):
            scale = None
            if run.source == "pixel":
                params, log_scale = params.to(self.raw_scale.dtype).chunk(2, dim=-1)
                scale = floor + log_scale.clamp(max=10.0).exp()
            elif run.source == "global":
                raw = self.raw_scale[run.start : run.stop]
                learned = self._scale_learned[run.start : run.stop] > 0
                scale = floor + (SCALE_SPEED * torch.where(learned, raw, raw.detach())).exp()
                scale = scale.view(-1, *(1,) * (params.dim() - 1))
            heads.append((run, params, scale))
        return heads

    def log_likelihood(self, outputs: Tensor, targets: Mapping[str, Tensor], mask: Tensor | None = None) -> Tensor:
        """log p(x|z) summed over features, (P, K, B); `targets` holds x (B, X) as each kind of head trains on it.

        Where `mask` (B, X) is 0 the feature was not observed and drops out.
        """
        parts = [self._log_density(*head, targets, mask) for head in self._heads(outputs)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def log_mass(self, outputs: Tensor, lower: Tensor, upper: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log probability of the bins [lower, upper] (B, X), summed over features, (P, K, B)."""
        parts = [self._log_mass(*head, lower, upper, mask) for head in self._heads(outputs)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def log_followed(self, outputs: Tensor, batch: Minibatch) -> Tensor:
        """What training follows, (P, K, B): of each member the mass of x's bin or the density of x."""
        parts = []
        for run, params, scale in self._heads(outputs):
            if run.by_mass and batch.lower is not None and batch.upper is not None:
                parts.append(self._log_mass(run, params, scale, batch.lower, batch.upper, batch.mask))
            else:
                parts.append(self._log_density(run, params, scale, batch.targets, batch.mask))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _log_density(
        self, run: _Run, params: Tensor, scale: Tensor | None, targets: Mapping[str, Tensor], mask: Tensor | None
    ) -> Tensor:
        head, x = run.likelihood, targets[run.likelihood.trains_on]
        if mask is not None:
            return (head.log_prob(x, self._wide(params), scale) * mask).sum(-1)
        if head.linear_in_x:
            return self.operations.linear_in_x(head, x, params)
        return head.log_prob_sum(x, self._wide(params), scale)

    def _log_mass(
        self, run: _Run, params: Tensor, scale: Tensor | None, lower: Tensor, upper: Tensor, mask: Tensor | None
    ) -> Tensor:
        head, params = run.likelihood, self._wide(params)
        if mask is not None:
            return (head.log_mass(lower, upper, params, scale) * mask).sum(-1)
        return head.log_mass_sum(lower, upper, params, scale)

    def _wide(self, params: Tensor) -> Tensor:
        """A device's operations may leave their results in a narrower type."""
        return params.to(self.raw_scale.dtype)

    def mean(self, outputs: Tensor, fold: bool = True) -> Tensor:
        """E[x|z], (P, K, B, X); of members that follow masses with the ends folded, inside the data's range, if `fold`."""
        low, high = self.domain.low, self.domain.high
        return torch.cat(
            [
                run.likelihood.folded_mean(params, scale, low, high)
                if fold and run.by_mass
                else run.likelihood.mean(params, scale)
                for run, params, scale in self._heads(self._wide(outputs))
            ]
        )

    def sample(self, outputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws of x given z, (P, K, B, X), folded like the mean."""
        draws = []
        for run, params, scale in self._heads(self._wide(outputs)):
            x = run.likelihood.sample(params, scale, generator)
            draws.append(x.clamp(self.domain.low, self.domain.high) if run.by_mass else x)
        return torch.cat(draws)

    def log_latent_ratio(self, z: Tensor, eps: Tensor, loc: Tensor, scale: Tensor, samples: int) -> Tensor:
        """log p(z) - log q(z|x), (P, K, B), of z and eps (P, K B, D); loc and scale are (P, B, D)."""
        log_q = self.log_posterior(eps, self.repeat(loc, samples), self.repeat(scale, samples))
        return (self.log_prior(z) - log_q).reshape(scale.shape[0], samples, scale.shape[1])

    def unstack(self) -> list[VAE]:
        """The members' own modules, with the stack's weights copied back into them."""
        members = self._members[0]
        self.encoder.unstack([member.encoder for member in members])  # type: ignore[misc]
        self.decoder.unstack([member.decoder for member in members])  # type: ignore[misc]
        with torch.no_grad():
            for index, member in enumerate(members):
                member.raw_scale.copy_(self.raw_scale[index : index + 1])
        for whole, own in ((self.learned_prior, "learned_prior"), (self.flow_posterior, "flow_posterior")):
            if whole is not None:
                part(whole, [getattr(member, own) for member in members])
        return members
