r"""Resampling the prior: baselines without gradients.

| method | a draw of the prior is kept | exact | cost of one draw |
|---|---|---|---|
| rejection | with probability L(xi) / bound | where the bound holds | bound / evidence |
| sampling-importance-resampling (SIR) | in proportion to L(xi), among `candidates` | as candidates grow | candidates / ESS |

with L the likelihood of the evidence. Both fail for sharp evidence; for weak evidence they are the reference, since they
miss no modes. SIR reports the effective number of candidates, rejection the acceptance rate.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from autovae.reasoning.draws import Draws
from autovae.reasoning.method import Method, at_least, generator_for, starting_points, threads_by_work, track
from autovae.reasoning.posterior import LatentPosterior

__all__ = ["Rejection", "SIR"]


@dataclass(frozen=True)
class SIR(Method):
    """Draws of the prior, resampled by their likelihood (systematic resampling)."""

    name: ClassVar[str] = "sir"

    candidates: int = 10_000
    batch: int = 1000

    def __post_init__(self) -> None:
        at_least(self.candidates, 1, "candidates")
        at_least(self.batch, 1, "batch")

    def batch_size(self, posterior: LatentPosterior) -> int:
        return self.batch

    @threads_by_work
    def run(
        self,
        posterior: LatentPosterior,
        draws: int | None = None,
        *,
        seed: int = 0,
        start: Tensor | None = None,
        progress: bool = False,
    ) -> Draws:
        """`draws` (1,000) of `candidates`, (1, draws, dim); `start` is validated but not used."""
        count = 1000 if draws is None else draws
        at_least(count, 1, "draws")
        began = time.perf_counter()
        generator = generator_for(posterior, seed)
        starting_points(posterior, 1, generator, start)
        xi = posterior.prior.sample_normal(self.candidates, generator=generator)
        parts = xi.split(self.batch)
        with torch.no_grad():
            log_weights = torch.cat(
                [posterior.log_likelihood(part) for part in track(parts, len(parts), "candidates", progress)]
            ).double()
            if not bool(log_weights.isfinite().any()):
                raise ValueError(
                    f"the evidence is impossible at all {self.candidates} candidates; draw more, or use HMC"
                )
            log_weights = log_weights.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
            weights = log_weights.softmax(0)
            effective = float(1 / weights.square().sum())
            chosen = _systematic(weights, count, generator)
            kept = xi[chosen]
            log_prob = (log_weights[chosen] + posterior.log_prior(kept).double()).to(xi.dtype)
        flags: tuple[str, ...] = ()
        if effective < 100:
            flags = (f"only {effective:.1f} of {self.candidates} candidates count; draw more, or use HMC",)
        return Draws(
            xi=kept[None],
            log_prob=log_prob[None],
            posterior=posterior,
            method=self.name,
            seed=seed,
            seconds=time.perf_counter() - began,
            log_weights=log_weights[None],
            info={
                "candidates": self.candidates,
                "effective": effective,
                "log_evidence": float(log_weights.logsumexp(0)) - math.log(self.candidates),
            },
            flags=flags,
        )


def _systematic(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices with expected counts `count * weights`, by one uniform and an even comb, in random order."""
    device = weights.device
    comb = torch.arange(count, device=device, dtype=weights.dtype)
    comb = (comb + torch.rand((), generator=generator, device=device, dtype=weights.dtype)) / count
    cumulative = weights.cumsum(0)
    chosen = torch.searchsorted(cumulative / cumulative[-1], comb, right=True).clamp(max=len(weights) - 1)
    return chosen[torch.randperm(count, generator=generator, device=device)]


@dataclass(frozen=True)
class Rejection(Method):
    """Exact draws by accepting draws of the prior with probability L / bound.

    `log_bound` defaults to the bound of the constraints (0 for classes and statements, the peak of a Gaussian); evidence
    without one, such as a criterion, needs it. A likelihood above it is flagged.
    """

    name: ClassVar[str] = "rejection"

    log_bound: float | None = None
    max_tries: int = 1_000_000
    batch: int = 1000

    def __post_init__(self) -> None:
        at_least(self.max_tries, 1, "max_tries")
        at_least(self.batch, 1, "batch")

    def batch_size(self, posterior: LatentPosterior) -> int:
        return self.batch

    @threads_by_work
    def run(
        self,
        posterior: LatentPosterior,
        draws: int | None = None,
        *,
        seed: int = 0,
        start: Tensor | None = None,
        progress: bool = False,
    ) -> Draws:
        """`draws` (100) accepted draws; fewer, with a flag, after `max_tries`; none is an error."""
        count = 100 if draws is None else draws
        at_least(count, 1, "draws")
        bound = posterior.log_bound if self.log_bound is None else self.log_bound
        if not math.isfinite(bound):
            raise ValueError(
                "no upper bound of the likelihood is known for this evidence (a criterion has none); "
                "pass Rejection(log_bound=...) with the largest possible log likelihood, or use SIR or HMC"
            )
        began = time.perf_counter()
        generator = generator_for(posterior, seed)
        starting_points(posterior, 1, generator, start)
        rounds = math.ceil(self.max_tries / self.batch)
        accepted: list[Tensor] = []
        values: list[Tensor] = []
        tried, found, above = 0, 0, False
        with torch.no_grad():
            for _ in track(range(rounds), rounds, "tries", progress):
                xi = posterior.prior.sample_normal(self.batch, generator=generator)
                log_likelihood = posterior.log_likelihood(xi)
                uniform = torch.rand(self.batch, generator=generator, dtype=xi.dtype, device=xi.device)
                keep = uniform.log() < log_likelihood - bound
                above = above or bool((log_likelihood > bound + 1e-6 * max(1.0, abs(bound))).any())
                accepted.append(xi[keep])
                values.append(log_likelihood[keep])
                tried, found = tried + self.batch, found + int(keep.sum())
                if found >= count:
                    break
        if not found:
            raise ValueError(
                f"none of {tried} draws of the prior was accepted: the evidence is too sharp for rejection; use HMC or MGVI"
            )
        xi, log_likelihood = torch.cat(accepted)[:count], torch.cat(values)[:count]
        flags = []
        if found < count:
            flags.append(f"only {found} of {count} draws after {tried} tries; raise max_tries, or use HMC")
        if above:
            flags.append(f"the likelihood exceeds log_bound={bound:.4g}: the draws are not exact; raise it")
        return Draws(
            xi=xi[None],
            log_prob=(log_likelihood + posterior.log_prior(xi))[None],
            posterior=posterior,
            method=self.name,
            seed=seed,
            seconds=time.perf_counter() - began,
            info={"tries": tried, "acceptance_rate": found / tried},
            flags=tuple(flags),
        )
