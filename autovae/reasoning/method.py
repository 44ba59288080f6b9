"""The contract of all inference methods: a method has settings; `run` takes a posterior and a seed and returns Draws.

    Method(settings).run(posterior, draws=..., seed=0, start=None, progress=False) -> Draws

- settings are frozen and validated on construction; a method has no state and can run again;
- `draws` is per chain; `start` (chains, dim) or (dim,) replaces the prior's draws as starting points;
- the same seed gives the same draws; the global random state is neither read nor changed;
- `progress=True` shows a bar on standard error;
- small questions run on one thread (`autovae.threads`), and torch's setting is restored.

To add one: a frozen dataclass derived from `Method` with `name`, `batch_size` and a `run` decorated by `threads_by_work`,
and one row in METHODS (`tables`). The tests in test_methods.py check the contract for every row.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor

from autovae.reasoning.draws import Draws
from autovae.reasoning.posterior import LatentPosterior
from autovae.threads import threads_for

__all__ = ["Method", "generator_for", "starting_points", "threads_by_work", "track"]

T = TypeVar("T")
Run = TypeVar("Run", bound=Callable[..., Draws])


def threads_by_work(run: Run) -> Run:
    """Decorator of `run`: chooses the threads by the cost of evaluating `batch_size` points."""

    @functools.wraps(run)
    def threaded(method: Method, posterior: LatentPosterior, *args: Any, **settings: Any) -> Draws:
        with threads_for(posterior.flops(method.batch_size(posterior))):
            return run(method, posterior, *args, **settings)

    return cast("Run", threaded)


class Method(ABC):
    """An inference method: settings made once, `run` for every posterior."""

    name: ClassVar[str]

    @abstractmethod
    def batch_size(self, posterior: LatentPosterior) -> int:
        """The number of points xi that are evaluated together."""

    @abstractmethod
    def run(
        self,
        posterior: LatentPosterior,
        draws: int | None = None,
        *,
        seed: int = 0,
        start: Tensor | None = None,
        progress: bool = False,
    ) -> Draws:
        """Draws of xi given the evidence."""


def generator_for(posterior: LatentPosterior, seed: int) -> torch.Generator:
    """The random generator of a run, on the posterior's device."""
    return torch.Generator(posterior.prior.device).manual_seed(int(seed))


def starting_points(
    posterior: LatentPosterior, count: int, generator: torch.Generator, start: Tensor | None = None
) -> Tensor:
    """`count` starting points (count, dim): as given, or draws of the prior at which the evidence is possible."""
    if start is None:
        return posterior.start(count, generator)
    points = torch.as_tensor(start, dtype=posterior.prior.dtype, device=posterior.prior.device).detach()
    if points.ndim == 1:
        points = points.expand(count, -1)
    if tuple(points.shape) != (count, posterior.latent_dim):
        raise ValueError(
            f"got start of shape {tuple(points.shape)}; expected ({posterior.latent_dim},) or "
            f"({count}, {posterior.latent_dim})"
        )
    if not bool(posterior.likelihood_and_gradient(points)[0].isfinite().any()):
        raise ValueError("the evidence is impossible at every point of start; choose others, or leave start out")
    return points.clone()


def at_least(value: float, least: float, name: str) -> None:
    """Refuse a setting below its least value."""
    if not value >= least:
        raise ValueError(f"got {name}={value}; expected at least {least}")


def track(steps: Iterable[T], total: int, what: str, progress: bool) -> Iterator[T]:
    """The steps, with an optional progress bar on standard error."""
    if not progress:
        yield from steps
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(steps, description=what, total=total, console=Console(stderr=True), transient=True)
