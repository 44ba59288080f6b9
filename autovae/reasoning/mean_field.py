r"""Mean field: the independent normals closest to the posterior.

    q(xi) = prod_i N(m_i, sigma_i^2),     ELBO = E_q log p(evidence | xi) - KL(q || N(0, I)),  the KL in closed form

The expectation is taken over antithetic pairs xi = m +- sigma eps. Two optimisers:

| optimizer | noise | step |
|---|---|---|
| lbfgs | frozen: the ELBO is then a deterministic function of (m, log sigma) | L-BFGS with a strong Wolfe line search |
| advi | fresh in every iteration | s = .1 g^2 + .9 s; rho = eta k^(-1/2 + 1e-16) / (1 + sqrt s), `ADVIStep` |

Frozen noise is whitened as far as the number of pairs allows: each latent has second moment one, and with as many pairs as
latents they are orthogonal. A Gaussian posterior is then solved exactly (m exact, sigma_i^-2 the diagonal of its
precision). `anneal` raises the power of the evidence in stages, (.05, .1, .3, 1), since riddles have many modes.

q has one mode and no correlations, so it underestimates spreads; the k-hat of its draws measures the error.
References: Automatic Differentiation Variational Inference (Kucukelbir et al., 2017).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from autovae.export.transports import Affine
from autovae.reasoning.draws import Draws
from autovae.reasoning.gradient import Gradient, likelihood_gradient
from autovae.reasoning.method import Method, at_least, generator_for, starting_points, threads_by_work, track
from autovae.reasoning.posterior import LatentPosterior
from autovae.registry import lookup

__all__ = ["ADVIStep", "MeanField"]

Watch = Callable[[int, float, Tensor, Tensor], None]


class ADVIStep(torch.optim.Optimizer):
    """The adaptive step of ADVI: scaled by an average of square gradients, and falling as 1 / sqrt k."""

    def __init__(self, params: Iterable[Any], eta: float = 1.0, forget: float = 0.1, tau: float = 1.0) -> None:
        at_least(eta, 0, "eta")
        super().__init__(params, {"eta": eta, "forget": forget, "tau": tau})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                square, state = parameter.grad.square(), self.state[parameter]
                state["k"] = state.get("k", 0) + 1
                # The first average is the first square, as in the paper.
                state["s"] = torch.lerp(state["s"], square, group["forget"]) if "s" in state else square
                rate = group["eta"] * state["k"] ** (-0.5 + 1e-16)
                parameter -= rate * parameter.grad / (group["tau"] + state["s"].sqrt())
        return loss


@dataclass(frozen=True)
class MeanField(Method):
    """Independent normals by maximising the ELBO, the best of `restarts` fits.

    `watch(evaluation, power, mean, std)` is called after every evaluation.
    """

    name: ClassVar[str] = "mean_field"

    pairs: int = 5
    optimizer: str = "lbfgs"
    iterations: int = 500
    eta: float = 1.0
    anneal: tuple[float, ...] = (1.0,)
    restarts: int = 1
    watch: Watch | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        at_least(self.pairs, 1, "pairs")
        at_least(self.iterations, 1, "iterations")
        at_least(self.restarts, 1, "restarts")
        lookup(_FITS, self.optimizer, "optimizer")
        if not self.anneal or self.anneal[-1] != 1.0 or any(not power >= 0 for power in self.anneal):
            raise ValueError(
                f"got anneal={self.anneal}; expected shares of the full power that end at 1, such as (0.05, 0.3, 1.0)"
            )

    def batch_size(self, posterior: LatentPosterior) -> int:
        return 2 * self.pairs

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
        """`draws` (1,000) independent draws of q, (1, draws, dim); `start` (dim,) or (restarts, dim) is the first mean."""
        count = 1000 if draws is None else draws
        at_least(count, 1, "draws")
        began = time.perf_counter()
        generator = generator_for(posterior, seed)
        if start is None:
            posterior.start(1, generator)  # refuses impossible evidence, with the name of the constraint
            means = 0.1 * posterior.prior.sample_normal(self.restarts, generator=generator)
        else:
            means = starting_points(posterior, self.restarts, generator, start)
        fits = [_Fit(self, mean, generator) for mean in means]
        stages = [(fit, power) for fit in fits for power in self.anneal]
        for fit, power in track(stages, len(stages), "mean field", progress):
            fit.objective = likelihood_gradient(posterior.with_power(power))
            fit.power = power * posterior.power
            _FITS[self.optimizer](fit)
        fit = min(fits, key=lambda fit: fit.value if math.isfinite(fit.value) else math.inf)
        mean, std = fit.mean.detach(), fit.log_std.detach().exp()
        noise = posterior.prior.sample_normal(count, generator=generator)
        xi = mean + std * noise
        log_prob = log_prob_in_batches(posterior, xi)
        log_q = (-0.5 * noise.square() - std.log()).sum(-1) - 0.5 * posterior.latent_dim * math.log(2 * math.pi)
        elbo = -fit.value
        failed = "the ELBO is not finite: the fit failed; anneal the power, or start elsewhere"
        flags = () if math.isfinite(elbo) else (failed,)
        return Draws(
            xi=xi[None],
            log_prob=log_prob[None],
            posterior=posterior,
            method=self.name,
            seed=seed,
            seconds=time.perf_counter() - began,
            log_weights=(log_prob - log_q)[None],
            transport=Affine(mean, std),
            info={
                "elbo": elbo,
                "worst_elbo": -max(fit.value for fit in fits),
                "evaluations": sum(fit.evaluations for fit in fits),
                "optimizer": self.optimizer,
            },
            flags=flags,
        )


def log_prob_in_batches(posterior: LatentPosterior, xi: Tensor, batch: int = 1000) -> Tensor:
    """log posterior of xi (n, dim) without gradients."""
    with torch.no_grad():
        return torch.cat([posterior.log_prob(part) for part in xi.split(batch)])


class _Fit:
    """The parameters of q, and minus the ELBO with its gradient."""

    objective: Gradient
    power: float

    def __init__(self, settings: MeanField, mean: Tensor, generator: torch.Generator) -> None:
        self.settings, self.generator = settings, generator
        self.mean, self.log_std = mean.clone(), torch.zeros_like(mean)
        self.evaluations, self.value = 0, math.nan

    def evaluate(self, eps: Tensor) -> Tensor:
        """Minus the ELBO over the pairs +-eps (pairs, dim), leaving gradients in mean.grad and log_std.grad."""
        both = torch.cat([eps, -eps])
        std = self.log_std.exp()
        value, slope = self.objective(self.mean + std * both, True)
        assert value is not None
        divergence = 0.5 * (self.mean.square() + std.square() - 1 - 2 * self.log_std).sum()
        self.mean.grad = self.mean - slope.mean(0)
        self.log_std.grad = std.square() - 1 - std * (slope * both).mean(0)
        loss = divergence - value.mean()
        self.value = float(loss)
        if not math.isfinite(self.value) or not bool((self.mean.grad + self.log_std.grad).isfinite().all()):
            # At impossible evidence the line search needs an infinite loss, not NaN, to retreat.
            loss, self.value = torch.full_like(loss, math.inf), math.inf
            self.mean.grad, self.log_std.grad = torch.zeros_like(self.mean), torch.zeros_like(self.mean)
        if self.settings.watch is not None:
            self.settings.watch(self.evaluations, self.power, self.mean.clone(), std)
        self.evaluations += 1
        return loss


def whitened(pairs: int, dim: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Noise (pairs, dim) with second moment exactly one per latent, orthogonal if pairs >= dim."""
    eps = torch.randn(pairs, dim, generator=generator, dtype=torch.float64, device=like.device)
    if pairs >= dim:
        eps = torch.linalg.qr(eps).Q * math.sqrt(pairs)
    else:
        eps = eps / eps.square().mean(0).sqrt()
    return eps.to(like.dtype)


def _narrow_until_possible(fit: _Fit, eps: Tensor) -> None:
    """q starts as wide as the prior, or narrower if that reaches impossible evidence."""
    for _ in range(10):
        fit.evaluate(eps)
        if math.isfinite(fit.value):
            return
        fit.log_std -= 1.0


def _fit_lbfgs(fit: _Fit) -> None:
    eps = whitened(fit.settings.pairs, len(fit.mean), fit.generator, fit.mean)
    _narrow_until_possible(fit, eps)
    optimizer = torch.optim.LBFGS(
        [fit.mean, fit.log_std],
        max_iter=fit.settings.iterations,
        max_eval=2 * fit.settings.iterations,
        history_size=20,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-7,
        tolerance_change=1e-10,
    )
    optimizer.step(lambda: fit.evaluate(eps))  # type: ignore[arg-type]
    fit.evaluate(eps)


def _fit_advi(fit: _Fit) -> None:
    optimizer = ADVIStep([fit.mean, fit.log_std], eta=fit.settings.eta)
    shape = (fit.settings.pairs, len(fit.mean))
    _narrow_until_possible(fit, whitened(*shape, fit.generator, fit.mean))
    for _ in range(fit.settings.iterations):
        eps = torch.randn(shape, generator=fit.generator, dtype=fit.mean.dtype, device=fit.mean.device)
        fit.evaluate(eps)
        optimizer.step()
    fit.evaluate(whitened(max(50, shape[0]), shape[1], fit.generator, fit.mean))


_FITS: dict[str, Callable[[_Fit], None]] = {"lbfgs": _fit_lbfgs, "advi": _fit_advi}
