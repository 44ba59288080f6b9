r"""Draws: the result of every method, with its diagnostics.

xi (chains, draws, dim) are points of the source; methods without chains give (1, draws, dim). Chains have diagnostics of
three quantities, each by rank-normalised split R-hat and by bulk and tail effective sample size:

| quantity | why |
|---|---|
| xi | the positions |
| xi^2 | a trajectory of half a period mirrors xi -> -xi: ESS(xi) then looks superb, ESS(xi^2) is 25 times lower |
| energy = -log posterior | mixes slowly if the chain creeps between levels of density |

arviz-stats computes them on first use. Draws of a variational method are independent draws of an approximation: R-hat and
ESS say nothing about its error and are not reported.
References: Rank-normalization, folding, and localization: an improved R-hat (Vehtari et al., 2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from autovae.export.prior import PriorModule
from autovae.export.transports import Transport

if TYPE_CHECKING:
    from autovae.reasoning.posterior import LatentPosterior

__all__ = ["Diagnostics", "Draws"]

R_HAT_LIMIT = 1.01
ESS_LIMIT_PER_CHAIN = 50
MIRROR_LIMIT = 5.0
K_HAT_LIMIT = 0.7


@dataclass(frozen=True)
class Diagnostics:
    """R-hat and effective sample sizes of one quantity, one entry per coordinate."""

    rhat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray


@dataclass(frozen=True)
class Draws:
    """Points of the source with their log densities, diagnostics and cost."""

    xi: Tensor
    log_prob: Tensor
    posterior: LatentPosterior
    method: str
    seed: int
    seconds: float
    mcmc: bool = False
    """Draws of Markov chains, for which R-hat and ESS mean something."""
    acceptance: Tensor | None = None
    """Mean acceptance probability of each chain."""
    divergences: Tensor | None = None
    """Divergent trajectories of each chain after warm-up."""
    hamiltonian: Tensor | None = None
    """Total energy of each trajectory."""
    warmup: Tensor | None = None
    """Positions during warm-up, (chains, warmup, dim), if kept."""
    log_weights: Tensor | None = None
    """log of posterior over proposal at each draw, (1, draws), up to a constant."""
    transport: Transport | None = None
    """The map of the source that turns a variational answer into a prior."""
    info: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    """What went wrong during the run."""

    @property
    def chains(self) -> int:
        return self.xi.shape[0]

    @property
    def flat(self) -> Tensor:
        """All draws, (chains * draws, dim)."""
        return self.xi.flatten(0, 1)

    @property
    def energy(self) -> Tensor:
        return -self.log_prob

    def z(self) -> Tensor:
        """The latents, (chains, draws, dim)."""
        with torch.no_grad():
            return self.posterior.prior.from_normal(self.xi)

    def decode(self, batch: int = 1000) -> Any:
        """x of every draw, (chains, draws, *shape)."""
        return self.posterior.decode(self.xi, batch)

    # -- diagnostics --------------------------------------------------------------------------------------------

    @cached_property
    def of_xi(self) -> Diagnostics:
        return diagnose(self.xi)

    @cached_property
    def of_xi_square(self) -> Diagnostics:
        return diagnose(self.xi.square())

    @cached_property
    def of_energy(self) -> Diagnostics:
        return diagnose(self.energy[..., None])

    @property
    def rhat(self) -> np.ndarray:
        """R-hat of xi, one per latent."""
        return self.of_xi.rhat

    @property
    def ess(self) -> np.ndarray:
        """Bulk ESS of xi, one per latent; always report it together with that of xi^2."""
        return self.of_xi.ess_bulk

    def e_bfmi(self) -> Tensor:
        """Energy Bayesian fraction of missing information of each chain; below .3, energies mix too slowly."""
        if self.hamiltonian is None:
            raise ValueError(f"E-BFMI needs the momenta of HMC, got draws of {self.method}")
        centred = self.hamiltonian - self.hamiltonian.mean(1, keepdim=True)
        return self.hamiltonian.diff(dim=1).square().sum(1) / centred.square().sum(1)

    @cached_property
    def khat(self) -> float:
        """Pareto k-hat of the importance weights: above .7 the approximation misses parts of the posterior.

        In many dimensions it is above .7 for all but the best approximations; nan for fewer than 100 draws.
        """
        if self.log_weights is None or self.log_weights.numel() < 100:
            return math.nan
        log_weights = self.log_weights.detach().double().cpu().numpy().ravel()
        with np.errstate(all="ignore"):
            # psislw takes leave-one-out log likelihoods; its weights are their reciprocals.
            return float(_array_stats().psislw(-log_weights)[1])

    @cached_property
    def problems(self) -> tuple[str, ...]:
        """Reasons to distrust these draws, in words; empty without any."""
        found = list(self.flags)
        if self.log_weights is not None and self.khat > K_HAT_LIMIT:
            found.append(
                f"Pareto k-hat is {self.khat:.2f} (limit {K_HAT_LIMIT}): check against HMC before trusting spreads"
            )
        if not self.mcmc or self.xi.shape[1] < 4:
            return tuple(found)
        for name, diagnostics in (("xi", self.of_xi), ("xi^2", self.of_xi_square), ("energy", self.of_energy)):
            worst = float(np.max(diagnostics.rhat))
            if not worst <= R_HAT_LIMIT:
                found.append(f"R-hat of {name} reaches {worst:.3f} (limit {R_HAT_LIMIT}): run longer, or more warm-up")
            least = float(min(np.min(diagnostics.ess_bulk), np.min(diagnostics.ess_tail)))
            if not least >= ESS_LIMIT_PER_CHAIN * self.chains:
                found.append(
                    f"ESS of {name} is only {least:.0f} (limit {ESS_LIMIT_PER_CHAIN * self.chains}): run longer"
                )
        ratio = float(np.median(self.of_xi.ess_bulk) / np.median(self.of_xi_square.ess_bulk))
        if ratio > MIRROR_LIMIT:
            found.append(
                f"chains mirror: ESS of xi is {ratio:.0f} times that of xi^2; "
                "shorten the trajectories or adapt them (ChEES)"
            )
        return tuple(found)

    def summary(self) -> dict[str, Any]:
        """Cost and diagnostics as plain values; `print(draws)` shows the same."""
        result: dict[str, Any] = {
            "method": self.method,
            "chains": self.chains,
            "draws": self.xi.shape[1],
            "latent_dim": self.xi.shape[2],
            "seconds": self.seconds,
            "seed": self.seed,
            "mean_log_prob": float(self.log_prob.mean()),
            **self.info,
        }
        if self.acceptance is not None:
            result["acceptance"] = float(self.acceptance.mean())
        if self.divergences is not None:
            result["divergences"] = int(self.divergences.sum())
        if self.mcmc and self.xi.shape[1] >= 4:
            for name, diagnostics in (("xi", self.of_xi), ("xi2", self.of_xi_square), ("energy", self.of_energy)):
                result[f"rhat_{name}"] = float(np.max(diagnostics.rhat))
                result[f"ess_bulk_{name}"] = float(np.min(diagnostics.ess_bulk))
                result[f"ess_tail_{name}"] = float(np.min(diagnostics.ess_tail))
            slowest = min(result["ess_bulk_xi2"], result["ess_bulk_energy"])
            result["ess_per_second"] = slowest / self.seconds if self.seconds > 0 else math.nan
        if self.log_weights is not None:
            result["khat"] = self.khat
        result["problems"] = list(self.problems)
        return result

    def __str__(self) -> str:
        lines = []
        for name, value in self.summary().items():
            if isinstance(value, float):
                value = f"{value:.4g}"
            lines.append(f"{name:23s} {value}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Draws({self.method}, xi={tuple(self.xi.shape)}, {self.seconds:.2f} s, {len(self.flags)} flags)"

    # -- other forms --------------------------------------------------------------------------------------------

    def as_prior(self) -> PriorModule:
        """The answer as a prior module, to start the next question from.

        Variational methods only: chains have no source for new draws.
        """
        if self.transport is None:
            raise ValueError(
                f"the draws of {self.method} are samples without a source, so they cannot become a prior; "
                "use MeanField or MGVI instead"
            )
        return self.posterior.prior.transported(self.transport, answer={"method": self.method, "seed": self.seed})

    def to_arviz(self) -> Any:
        """A DataTree with groups posterior and sample_stats."""
        try:
            from arviz_base import from_dict  # part of arviz since 1.0
        except ImportError:
            raise ImportError("to_arviz needs arviz-base: pip install arviz-base") from None
        stats = {"lp": self.log_prob.cpu().numpy(), "energy": self.energy.cpu().numpy()}
        return from_dict({"posterior": {"xi": self.xi.cpu().numpy()}, "sample_stats": stats})


def _array_stats() -> Any:
    try:
        from arviz_stats.base import array_stats
    except ImportError:
        raise ImportError("R-hat, ESS and k-hat need arviz-stats: pip install 'autovae[reasoning]'") from None
    return array_stats


def diagnose(values: Tensor) -> Diagnostics:
    """Diagnostics of values (chains, draws, coordinates)."""
    array_stats = _array_stats()
    array = values.detach().double().cpu().numpy().transpose(2, 0, 1)
    if array.shape[2] < 4:
        raise ValueError(f"got {array.shape[2]} draws a chain; expected at least 4 for R-hat and ESS")
    with np.errstate(all="ignore"):
        return Diagnostics(
            rhat=np.atleast_1d(array_stats.rhat(array, chain_axis=-2, draw_axis=-1)),
            ess_bulk=np.atleast_1d(array_stats.ess(array, chain_axis=-2, draw_axis=-1, method="bulk")),
            ess_tail=np.atleast_1d(array_stats.ess(array, chain_axis=-2, draw_axis=-1, method="tail", prob=0.95)),
        )
