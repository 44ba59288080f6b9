r"""log p(x) of a trained VAE between two bounds, by annealed importance sampling in both directions.

Data have only a lower bound. Points simulated from the model also have an upper bound, since their latents are exact draws
of the posterior. The gap between the two, on simulated points, shows how tight the annealing is for this decoder; the
lower bound on data is as tight if data and simulated points are alike:

    E lower(data) <= log p(data)              E lower(simulated) <= log p(simulated) <= E upper(simulated)

A product prior is annealed in its source xi ~ N(0, I), z = z(xi), where all families look alike; a learned prior in z, with
its own density. The encoder is not used: if importance sampling lies far below these bounds, the encoder is a poor
proposal; if it lies above the lower bound, annealing is the looser of the two.

Simulated values are drawn from the same p(x|z) that is evaluated: for masses, the level of the bin that contains a draw.
Suits models of up to some 50 latents; the time grows with points x chains x temperatures x leapfrogs.
Not here: the annealing itself, see `ais`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from autovae.beliefs.likelihoods import LIKELIHOODS
from autovae.data.batches import bin_edges
from autovae.data.datasets import Data, Split
from autovae.data.minibatches import Minibatch, Minibatches
from autovae.metrics.ais import LogDensity, ais, standard_normal, step_sizes
from autovae.model.vae import VAE, VAEStack
from autovae.seeds import stream_seed

__all__ = ["Enclosure", "Side", "enclose"]

CHUNK = 1_000_000  # numbers of one intermediate tensor
PILOTS = 8  # chains that find the step sizes


@dataclass(frozen=True)
class Side:
    """Bounds of N points in nats, (N,), float64."""

    per_point: Tensor

    @property
    def mean(self) -> float:
        return float(self.per_point.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean over points."""
        count = len(self.per_point)
        return float(self.per_point.std()) / math.sqrt(count) if count > 1 else math.nan

    def __str__(self) -> str:
        return f"{self.mean:.3f} +- {self.error:.3f}"


@dataclass(frozen=True)
class Enclosure:
    """Lower bounds on data, and both bounds on simulated points."""

    data: Side
    simulated_lower: Side
    simulated_upper: Side
    gap: Side  # upper - lower of the same simulated points
    simulated: Tensor  # the points, (N, X): levels for masses, values for densities
    chains: int
    temperatures: int

    def __str__(self) -> str:
        return (
            f"annealed: log p(x) >= {self.data} nats on {len(self.data.per_point)} points; on {len(self.simulated)} simulated "
            f"points between {self.simulated_lower} and {self.simulated_upper}, gap {self.gap} "
            f"({self.chains} chains, {self.temperatures} temperatures)"
        )

    def to_dict(self) -> dict[str, float]:
        """The numbers of the summary, as plain values."""
        return {
            "ais_lower": self.data.mean,
            "ais_error_over_points": self.data.error,
            "ais_points": len(self.data.per_point),
            "ais_simulated_lower": self.simulated_lower.mean,
            "ais_simulated_upper": self.simulated_upper.mean,
            "ais_simulated_gap": self.gap.mean,
            "ais_simulated_gap_error": self.gap.error,
            "ais_chains": self.chains,
            "ais_temperatures": self.temperatures,
        }


def enclose(
    vae: VAE,
    data: Data,
    split: Split | None = None,
    points: int = 50,
    chains: int = 16,
    temperatures: int = 500,
    leapfrogs: int = 10,
    density: str = "mass",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Enclosure:
    """The bounds of the first `points` points of a split (of test by default) and of as many simulated ones.

    `density` is "mass" (of the level's bin) or "density" (of the head, where it trains), as in `log_likelihood`.
    """
    if density not in ("mass", "density"):
        raise ValueError(f"got density = {density!r}, expected 'mass' (of the level's bin) or 'density'")
    for value, name in (
        (points, "points"),
        (chains, "chains"),
        (temperatures, "temperatures"),
        (leapfrogs, "leapfrogs"),
    ):
        if value < 1:
            raise ValueError(f"got {name} = {value}, expected at least 1")
    head = LIKELIHOODS[vae.spec.likelihood]
    if density == "density" and head.name == "bernoulli" and data.levels > 2:
        raise ValueError("a bernoulli head has no density of grey levels to simulate from; use density = 'mass'")
    dtype = next(vae.parameters()).dtype
    stack = vae.stacked.to_device(torch.device(device)).eval().requires_grad_(False)
    feed = Minibatches(data, data.test if split is None else split, device, dtype)
    count = min(points, feed.points)
    generator = feed.dequantiser().manual_seed(stream_seed(seed, "dequantise", "score"))
    mass = density == "mass"
    batch = feed.batch(slice(0, count), () if mass else stack.density_kinds, edges=mass, generator=generator)
    annealing = _Annealing(stack, count, chains, temperatures, leapfrogs, seed)
    lower = annealing.bounds(batch)
    source = annealing.draw(1, "simulated")
    made, simulated = _simulate(stack, data, annealing.latents(source), mass, seed)
    simulated_lower = annealing.bounds(made, "simulated")
    upper = annealing.bounds(made, "simulated", source)
    return Enclosure(
        Side(lower), Side(simulated_lower), Side(upper), Side(upper - simulated_lower), simulated, chains, temperatures
    )


@torch.no_grad()
def _simulate(stack: VAEStack, data: Data, z: Tensor, mass: bool, seed: int) -> tuple[Minibatch, Tensor]:
    """Points drawn from p(x|z) of z (1, N, D), as a minibatch to evaluate, and as numbers (N, X)."""
    generator = torch.Generator(z.device).manual_seed(stream_seed(seed, "enclosure", "x"))
    outputs = stack.decode(z)
    if mass and data.levels > 2 and stack.specs[0].likelihood == "bernoulli":
        x = LIKELIHOODS["continuous_bernoulli"].sample(outputs, None, generator)  # the head that gives its masses
    else:
        x = stack.sample(outputs, generator)
    x = x[0, 0]
    if not mass:
        return Minibatch(x, dict.fromkeys(stack.density_kinds, x)), x
    if data.support != "real":
        x = (x * data.levels).floor().clamp(0, data.levels - 1)
    lower, upper = bin_edges(x, data)
    return Minibatch(x, {}, lower, upper), x


@dataclass(frozen=True)
class _Annealing:
    """Runs the chains of one VAE, in the coordinates in which its prior is annealed."""

    stack: VAEStack
    points: int
    chains: int
    temperatures: int
    leapfrogs: int
    seed: int

    @property
    def learned(self) -> bool:
        return self.stack.learned_prior is not None

    def draw(self, chains: int, what: str) -> Tensor:
        """Draws of the prior for every point, (chains, points, D)."""
        generator = torch.Generator().manual_seed(stream_seed(self.seed, "enclosure", what))
        parameter = next(self.stack.parameters())
        shape = (chains, self.points, self.stack.specs[0].latent_dim)
        xi = torch.randn(shape, generator=generator).to(parameter)
        if not self.learned:
            return xi
        uniform = torch.rand(shape[:2], generator=generator).to(parameter)
        with torch.no_grad():
            return self.stack.sample_prior(xi.flatten(0, 1)[None], uniform.flatten()[None]).view(shape)

    def latents(self, source: Tensor) -> Tensor:
        """z (1, K B, D) of the coordinates (K, B, D)."""
        flat = source.flatten(0, 1)[None]
        return flat if self.learned else self.stack.sample_prior(flat, flat[..., 0])

    def log_prior(self, source: Tensor) -> Tensor:
        return self.stack.log_prior(source.flatten(0, 1)[None]).view(source.shape[:-1])

    def log_likelihood(self, batch: Minibatch, index: slice) -> LogDensity:
        """log p(x|z), (K, B), of the points at `index`."""
        mask = None if batch.mask is None else batch.mask[index]
        judged: Callable[[Tensor], Tensor]
        if batch.lower is not None and batch.upper is not None:
            lower, upper = batch.lower[index], batch.upper[index]

            def judged(outputs: Tensor) -> Tensor:
                return self.stack.log_mass(outputs, lower, upper, mask)
        else:
            targets = {kind: x[index] for kind, x in batch.targets.items()}

            def judged(outputs: Tensor) -> Tensor:
                return self.stack.log_likelihood(outputs, targets, mask)

        return lambda source: judged(self.stack.decode(self.latents(source), source.shape[0]))[0]

    def bounds(self, batch: Minibatch, what: str = "data", posterior: Tensor | None = None) -> Tensor:
        """Lower bounds of log p(x), (points,), or upper ones from exact draws of the posterior (1, points, D)."""
        widest = max(self.stack.domain.features, *self.stack.specs[0].hidden, self.stack.specs[0].latent_dim)
        together = max(1, CHUNK // (widest * self.chains))
        prior = self.log_prior if self.learned else standard_normal
        pilots, starts = self.draw(PILOTS, f"{what} pilots"), self.draw(self.chains, f"{what} chains")
        if posterior is not None:
            starts = posterior.expand_as(starts)
        found = []
        for first in range(0, self.points, together):
            index = slice(first, min(first + together, self.points))
            log_x = self.log_likelihood(batch, index)
            seed = stream_seed(self.seed, "enclosure", what, first)
            steps = step_sizes(log_x, pilots[:, index], self.temperatures, self.leapfrogs, seed, log_prior=prior)
            seed = stream_seed(self.seed, "enclosure", what, first, "forward" if posterior is None else "backward")
            start, backward = starts[:, index], posterior is not None
            found.append(ais(log_x, start, self.temperatures, self.leapfrogs, backward, seed, steps, prior).cpu())
        return torch.cat(found)
