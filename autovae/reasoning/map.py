r"""MAP: the most probable source, from many restarts.

    xi* = argmax log p(xi | evidence)

All restarts descend together in one tensor (Adam); L-BFGS polishes the best. A mode says nothing about the mass around it,
and in many dimensions it lies far from every typical draw. Use it as a picture of the answer or as a starting point.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from autovae.reasoning.draws import Draws
from autovae.reasoning.gradient import Gradient, likelihood_gradient
from autovae.reasoning.method import Method, at_least, generator_for, starting_points, threads_by_work, track
from autovae.reasoning.posterior import LatentPosterior

__all__ = ["MAP"]


@dataclass(frozen=True)
class MAP(Method):
    """The best of `restarts` local maxima; `run` returns `draws` of them, best first."""

    name: ClassVar[str] = "map"

    restarts: int = 16
    iterations: int = 300
    rate: float = 0.05
    polish: int = 200

    def __post_init__(self) -> None:
        at_least(self.restarts, 1, "restarts")
        at_least(self.iterations, 0, "iterations")
        at_least(self.polish, 0, "polish")

    def batch_size(self, posterior: LatentPosterior) -> int:
        return self.restarts

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
        """The `draws` (1) best maxima, (1, draws, dim)."""
        count = 1 if draws is None else draws
        if not 1 <= count <= self.restarts:
            raise ValueError(f"got draws={count} for {self.restarts} restarts; expected 1 to {self.restarts}")
        began = time.perf_counter()
        xi = starting_points(posterior, self.restarts, generator_for(posterior, seed), start)
        gradient = likelihood_gradient(posterior)
        optimizer = torch.optim.Adam([xi], lr=self.rate)
        for _ in track(range(self.iterations), self.iterations, "descent", progress):
            value, slope = gradient(xi, False)
            # A restart that reaches impossible evidence stays there and loses.
            xi.grad = (xi - slope).nan_to_num(0, 0, 0)
            optimizer.step()
        order = _log_prob(gradient, xi)[0].nan_to_num(-torch.inf).argsort(descending=True)
        best = torch.stack([_polish(gradient, xi[i], self.polish) for i in order[:count]])
        value, slope = _log_prob(gradient, best)
        order = value.argsort(descending=True)
        best, slope = best[order], slope[order]
        residual = float(slope[0].norm())
        flags: tuple[str, ...] = ()
        if not residual <= 1e-2 * (1 + float(best[0].norm())):
            flags = (f"the best maximum is not reached, gradient {residual:.2g}; raise iterations or polish",)
        with torch.no_grad():
            log_prob = posterior.log_prob(best)
        return Draws(
            xi=best[None],
            log_prob=log_prob[None],
            posterior=posterior,
            method=self.name,
            seed=seed,
            seconds=time.perf_counter() - began,
            info={"restarts": self.restarts, "gradient_norm": residual},
            flags=flags,
        )


def _log_prob(gradient: Gradient, xi: Tensor) -> tuple[Tensor, Tensor]:
    """log posterior up to the prior's constant, and its gradient."""
    value, slope = gradient(xi, True)
    assert value is not None
    return value - 0.5 * xi.square().sum(-1), slope - xi


def _polish(gradient: Gradient, xi: Tensor, iterations: int) -> Tensor:
    point = xi.detach().clone()
    if not iterations:
        return point
    optimizer = torch.optim.LBFGS(
        [point],
        max_iter=iterations,
        history_size=20,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
    )

    def closure() -> Tensor:
        value, slope = _log_prob(gradient, point[None])
        point.grad = -slope[0]
        return -value[0]

    optimizer.step(closure)  # type: ignore[arg-type]
    # A line search may end at infinity; then keep the starting point.
    return point if bool(point.isfinite().all()) else xi.detach().clone()
