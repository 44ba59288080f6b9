r"""Mean fields of many seeds in one tensor: antithetic pairs and two optimisers.

Every seed s has its own q_s = N(m_s, diag sigma_s^2) and its own ELBO, as in `reasoning.mean_field`,

    ELBO_s = alpha mean over pairs of log p(evidence | m_s +- sigma_s eps) - KL(q_s || N(0, I))

and all seeds go through the networks together.

| optimizer | noise | step |
|---|---|---|
| adam | fresh in every iteration | Adam on (m, log sigma), its rate falling along a cosine within a stage |
| lbfgs | frozen within a stage: the ELBO is then a function of (m, log sigma) | L-BFGS with an Armijo search |

A q of hundreds of dimensions overfits five frozen pairs: its ELBO rises on them and falls on fresh ones. The line
search re-evaluates only seeds whose step was rejected; pairs of steps without positive curvature are skipped. A seed depends
only on its own noise, so a population's result equals single fits up to rounding.
References: Bayesian Reasoning with Trained Neural Networks (Knollmueller, Ensslin, 2021), section 5.2; Numerical
Optimization (Nocedal, Wright, 2006), algorithms 7.4 and 3.1;
Adam (Kingma, Ba, 2015).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from autovae.reasoning.posterior import LatentPosterior
from autovae.registry import lookup
from autovae.seeds import stream_seed

__all__ = ["OPTIMIZERS", "Evaluated", "ManyFits", "evaluate"]

CHUNK = 300  # points through the networks at once: their layers stay in the processor's cache
HISTORY = 10
ARMIJO, SHRINK, TRIES = 1e-4, 0.3, 8
RATE, LEAST_SHARE, BETAS = 0.1, 0.1, (0.9, 0.98)  # of Adam


@dataclass(frozen=True)
class Evaluated:
    """At points xi (N, dim): log likelihood of every constraint, the watched value, and the gradient."""

    terms: Tensor
    """(N, constraints), powers of the constraints included."""
    watched: Tensor
    """(N, k) of the `watch` function."""
    gradient: Tensor
    """Of the sum of the terms, (N, dim)."""


Watch = Callable[..., Tensor]
Record = Callable[[Evaluated, Tensor], None]


def evaluate(posterior: LatentPosterior, xi: Tensor, watch: Watch) -> Evaluated:
    """Terms, watched values and gradient at xi (N, dim), in chunks; `watch(scene)` gives (n, k)."""
    terms, watched, gradients = [], [], []
    for part in xi.split(CHUNK):
        with torch.enable_grad():
            source = part.detach().requires_grad_()
            scene = posterior.scene(source)
            values = torch.stack([c.power * c.log_likelihood(scene) for c in posterior.constraints], 1)
            (gradient,) = torch.autograd.grad(values.sum(), source)
        with torch.no_grad():
            watched.append(watch(scene).detach())
        terms.append(values.detach())
        gradients.append(gradient)
    return Evaluated(torch.cat(terms), torch.cat(watched), torch.cat(gradients))


class ManyFits:
    """q of every seed: `mean` and `log_std` (seeds, dim), moved by `stage`."""

    def __init__(
        self, posterior: LatentPosterior, seeds: list[int], pairs: int, watch: Watch, start: float = 0.1
    ) -> None:
        if not seeds or pairs < 1:
            raise ValueError(f"got {len(seeds)} seeds and {pairs} pairs; expected at least one of each")
        self.posterior, self.seeds, self.pairs, self.watch = posterior, seeds, pairs, watch
        self.dim, prior = posterior.latent_dim, posterior.prior
        self.like = torch.empty(0, dtype=prior.dtype, device=prior.device)
        self.mean = start * self._noise("start", 1)[:, 0]
        self.log_std = torch.zeros_like(self.mean)
        self.evaluations = 0
        """Points of xi that went through the networks."""
        self._round = 0
        self._moments: tuple[Tensor, Tensor, int] | None = None

    def _noise(self, name: str, count: int) -> Tensor:
        """(seeds, count, dim): one stream per seed."""
        draws = [
            torch.randn(count, self.dim, generator=torch.Generator().manual_seed(stream_seed("many fits", name, seed)))
            for seed in self.seeds
        ]
        return torch.stack(draws).to(self.like)

    def draws(self, count: int) -> Tensor:
        """xi of q, (seeds, count, dim), always the same ones."""
        return self.mean[:, None] + self.log_std.exp()[:, None] * self._noise("draws", count)

    def loss(self, parameters: Tensor, eps: Tensor, alpha: float) -> tuple[Tensor, Tensor, Evaluated]:
        """Minus the ELBO (n,) and its gradient (n, 2 dim) for parameters (n, 2 dim), eps (n, pairs, dim)."""
        mean, log_std = parameters.chunk(2, 1)
        both, std = torch.cat([eps, -eps], 1), log_std.exp()
        xi = mean[:, None] + std[:, None] * both
        found = evaluate(self.posterior, xi.flatten(0, 1), self.watch)
        self.evaluations += len(xi) * both.shape[1]
        value = found.terms.sum(1).reshape(len(xi), -1).mean(1)
        slope = found.gradient.reshape(xi.shape)
        loss = kl(mean, log_std) - alpha * value
        gradient = torch.cat([mean - alpha * slope.mean(1), std.square() - 1 - alpha * std * (slope * both).mean(1)], 1)
        return loss, gradient, found

    def stage(self, alpha: float, iterations: int, record: Record, optimizer: str = "adam") -> None:
        """`iterations` steps of every seed at this power; `record(evaluated, kl)` is called at each."""
        lookup(OPTIMIZERS, optimizer, "optimizer")(self, alpha, iterations, record)

    def _fresh(self) -> Tensor:
        self._round += 1
        return self._noise(f"round {self._round}", self.pairs)

    def _adam(self, alpha: float, iterations: int, record: Record) -> None:
        x = torch.cat([self.mean, self.log_std], 1)
        if self._moments is None:
            self._moments = (torch.zeros_like(x), torch.zeros_like(x), 0)
        first, second, count = self._moments
        for iteration in range(iterations):
            _, gradient, found = self.loss(x, self._fresh(), alpha)
            record(found, kl(*x.chunk(2, 1)))
            count += 1
            first, second = torch.lerp(gradient, first, BETAS[0]), torch.lerp(gradient.square(), second, BETAS[1])
            share = LEAST_SHARE + (1 - LEAST_SHARE) * math.cos(0.5 * math.pi * iteration / iterations) ** 2
            rms = (second / (1 - BETAS[1] ** count)).sqrt()
            x = x - RATE * share * first / (1 - BETAS[0] ** count) / (rms + 1e-8)
            self.mean, self.log_std = (part.contiguous() for part in x.chunk(2, 1))
        self._moments = (first, second, count)

    def _lbfgs(self, alpha: float, iterations: int, record: Record) -> None:
        x = torch.cat([self.mean, self.log_std], 1)
        steps: list[tuple[Tensor, Tensor, Tensor]] = []
        eps = self._fresh()
        loss, gradient, found = self.loss(x, eps, alpha)
        for _ in range(iterations):
            direction = -_two_loops(gradient, steps)
            slope = (direction * gradient).sum(1)
            uphill = slope >= 0
            direction[uphill], slope[uphill] = -gradient[uphill], -gradient[uphill].square().sum(1)
            # The first step knows no scale: it moves at most by one prior width in all.
            size = torch.ones_like(loss) if steps else (1 / direction.norm(dim=1)).clamp(max=1)
            before = x, gradient
            x, gradient, loss, found = self._search(x, eps, alpha, loss, gradient, direction, slope, size, found)
            _remember(steps, x - before[0], gradient - before[1])
            self.mean, self.log_std = (part.contiguous() for part in x.chunk(2, 1))
            record(found, kl(self.mean, self.log_std))

    def _search(
        self, x: Tensor, eps: Tensor, alpha: float, loss: Tensor, gradient: Tensor, direction: Tensor, slope: Tensor,
        size: Tensor, found: Evaluated,
    ) -> tuple[Tensor, Tensor, Tensor, Evaluated]:  # fmt: skip
        """Backtrack every seed until its loss has fallen enough; a seed without a lower point stays."""
        x, gradient, loss = x.clone(), gradient.clone(), loss.clone()
        per_seed = 2 * self.pairs
        kept = [t.reshape(len(x), per_seed, -1).clone() for t in (found.terms, found.watched, found.gradient)]
        left = torch.arange(len(x), device=x.device)
        origin, before = x.clone(), loss.clone()
        for _ in range(TRIES):
            trial = origin[left] + size[left, None] * direction[left]
            value, new_gradient, new = self.loss(trial, eps[left], alpha)
            good = value <= before[left] + ARMIJO * size[left] * slope[left]  # False for NaN
            accepted = left[good]
            x[accepted], gradient[accepted], loss[accepted] = trial[good], new_gradient[good], value[good]
            for target, fresh in zip(kept, (new.terms, new.watched, new.gradient), strict=True):
                target[accepted] = fresh.reshape(len(left), per_seed, -1)[good]
            left = left[~good]
            if not len(left):
                break
            size[left] *= SHRINK
        terms, watched, slopes = (t.flatten(0, 1) for t in kept)
        return x, gradient, loss, Evaluated(terms, watched, slopes)


OPTIMIZERS: dict[str, Callable[[ManyFits, float, int, Record], None]] = {
    "adam": ManyFits._adam,
    "lbfgs": ManyFits._lbfgs,
}


def kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, I)) of every row, in nats."""
    return 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(1)


def _remember(steps: list[tuple[Tensor, Tensor, Tensor]], s: Tensor, y: Tensor) -> None:
    """Keep a pair of steps and gradients, of weight 0 for seeds where it shows no positive curvature."""
    product = (s * y).sum(1)
    curved = product > 1e-8 * s.norm(dim=1) * y.norm(dim=1)
    inverse = torch.where(curved, 1 / product.where(curved, torch.ones_like(product)), torch.zeros_like(product))
    steps.append((s, y, inverse))
    del steps[:-HISTORY]


def _two_loops(gradient: Tensor, steps: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The inverse Hessian of L-BFGS times the gradient, for every seed."""
    q, kept = gradient.clone(), []
    scale = torch.ones_like(gradient[:, 0])
    for s, y, inverse in reversed(steps):
        a = inverse * (s * q).sum(1)
        q -= a[:, None] * y
        kept.append(a)
    for _, y, inverse in steps:  # of the latest pair that counts
        known = inverse > 0
        square = y.square().sum(1)
        scale = torch.where(known, 1 / (inverse * square).where(known, scale), scale)
    q *= scale[:, None]
    for (s, y, inverse), a in zip(steps, reversed(kept), strict=True):
        b = inverse * (y * q).sum(1)
        q += (a - b)[:, None] * s
    return q
