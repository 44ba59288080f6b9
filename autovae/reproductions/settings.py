"""The settings of every reproduction: what [short] and [full] of its study file may say. Imports no torch.

| class | experiment |
|---|---|
| `BinarizedSettings` | `binarized_mnist` |
| `IWAESettings`, `Group` | `iwae_mnist` |
| `RenyiSettings`, `Experiment`, `Curves` | `vr_alpha` |
| `CoinSettings` | `continuous_bernoulli` |
| `ConditionalSettings`, `GANPlan`, `HMCPlan`, `VAEPlan` | `conditional_digits` |
| `RiddleSettings`, `RiddlePlan` | `riddle` |
| `RegretSettings` | `sampler_regret` |
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from autovae.registry import lookup
from autovae.spec import VAESpec

__all__ = [
    "BinarizedSettings",
    "CoinSettings",
    "ConditionalSettings",
    "Curves",
    "Experiment",
    "GANPlan",
    "Group",
    "HMCPlan",
    "IWAESettings",
    "RegretSettings",
    "RenyiSettings",
    "RiddlePlan",
    "RiddleSettings",
    "VAEPlan",
]

COINS = ("continuous_bernoulli", "bernoulli")  # with and without the normaliser
DIGIT_PRIORS = ("wgan", "vae", "winner")
DIGIT_METHODS = ("cwgan", "hmc", "mean_field", "mgvi")
RULES = ("I", "II", "III", "IV", "V")  # constraints of the riddle
Whole = Field(ge=1)


class Strict(BaseModel):
    """Frozen settings; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def replace(self, **changes: Any) -> Any:
        return self.model_copy(update=changes)


class Staged(Strict):
    """Training in stages of (epochs, learning rate)."""

    stages: list[tuple[int, float]] = Field(min_length=1)

    @property
    def epochs(self) -> int:
        return sum(epochs for epochs, _ in self.stages)

    @property
    def training(self) -> dict[str, Any]:
        """The settings of a VAESpec that all stages share."""
        names = ("latent_dim", "hidden", "activation", "batch_size")
        known = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return {**known, "epochs": self.epochs, "learning_rate": self.stages[0][1]}

    @property
    def schedule(self) -> str:
        """The stages in words."""
        return "; ".join(f"{epochs} at {rate:g}" for epochs, rate in self.stages)


class BinarizedSettings(Staged):
    batch_size: int = Field(100, ge=1)
    latent_dim: int = Field(20, ge=1)
    hidden: tuple[int, ...] = (400, 400)
    points: int = Field(1000, ge=2)
    samples: int = Field(5000, ge=10)
    data: str = "binarized_mnist"


class Group(Strict):
    """One row of the table: a bound, its K, and the number of seeds."""

    bound: Literal["vae", "iwae"]
    samples: int = Whole
    seeds: int = Whole

    @property
    def name(self) -> str:
        return f"{self.bound}_{self.samples}"

    @property
    def title(self) -> str:
        return f"{self.bound.upper()}, K = {self.samples}"


class IWAESettings(Staged):
    groups: list[Group] = Field(min_length=1)
    batch_size: int = Field(20, ge=1)
    latent_dim: int = Field(50, ge=1)
    hidden: tuple[int, ...] = (200, 200)
    points: int = Field(1000, ge=2)  # random test points
    samples: int = Field(5000, ge=10)  # importance samples a point
    data: str = "mnist_dynamic"


class Experiment(Staged):
    """One data set: network, training, and the orders compared on it."""

    data: str
    split: Literal["published", "shuffled"] = "published"
    likelihood: str = "bernoulli"
    scale: str = "global"
    hidden: list[int]
    latent_dim: int = Whole
    activation: str = "tanh"
    K: int = Field(5, ge=1)
    alphas: list[float] = Field(min_length=1)
    seeds: int = Whole
    batch_size: int = Field(100, ge=1)
    points: int = Field(ge=2)  # random test points
    samples: int = Field(5000, ge=10)  # importance samples a point


class Curves(Strict):
    """Points, samples and orders of the pictures, which show the models of the first experiment."""

    points: int = Field(100, ge=2)
    samples: int = Field(5000, ge=100)
    K: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    alphas: tuple[float, ...] = (-2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)


class RenyiSettings(Strict):
    experiments: list[Experiment] = Field(min_length=1)
    curves: Curves = Curves()


class CoinSettings(Staged):
    data: str = "mnist"
    likelihoods: tuple[str, ...] = (*COINS, "normal", "beta")
    seeds: int = Field(2, ge=1)
    batch_size: int = Field(50, ge=1)
    latent_dim: int = Field(20, ge=1)
    hidden: tuple[int, ...] = (500, 500)
    points: int = Field(1000, ge=2)  # test points of the bounds
    samples: int = Field(100, ge=1)  # k of the importance-weighted bound
    bits_points: int = Field(200, ge=2)
    bits_samples: int = Field(16, ge=1)
    neighbours: int = Field(15, ge=1)
    neighbour_points: int = Field(10_000, ge=100)  # training points among which neighbours are searched
    drawn: int = Field(5000, ge=10)  # samples for the inception score
    classifier_epochs: int = Field(3, ge=1)


class GANPlan(Strict):
    """Training of a generator: critic steps, latents, channels, seed."""

    steps: int = Field(12_000, ge=1)
    latent_dim: int = Field(128, ge=1)
    width: int = Field(16, ge=1)
    seed: int = Field(0, ge=0)


class VAEPlan(Strict):
    """The VAE that answers the same questions as the WGAN."""

    posterior: str = "normal"
    prior: str = "normal"
    latent_dim: int = Field(20, ge=1)
    hidden: tuple[int, ...] = (400, 400)
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(250, ge=1)
    learning_rate: float = Field(1e-3, gt=0)

    def spec(self) -> VAESpec:
        return VAESpec(likelihood="continuous_bernoulli", objective="density", **self.model_dump())


class HMCPlan(Strict):
    """The paper: 8 chains, 10,000 draws each, 10 leapfrogs, acceptance .6.

    Chains start at prior draws and first run `burn_in` iterations at each power of `ladder`: at the full power, a start that
    looks like another digit is a mode that a chain never leaves.
    """

    ladder: tuple[float, ...] = (1.0, 10.0)
    burn_in: int = Field(40, ge=1)
    chains: int = Field(8, ge=2)
    warmup: int = Field(500, ge=1)
    draws: int = Field(1000, ge=4)
    steps: int = Field(10, ge=1)
    target: float = Field(0.6, gt=0, lt=1)


class ConditionalSettings(Strict):
    data: str = "mnist"
    gan: GANPlan = GANPlan()
    conditional: GANPlan = GANPlan()
    vae: VAEPlan = VAEPlan()
    priors: tuple[str, ...] = ("wgan", "vae")
    study: str = "digit_generator_v1"  # whose exported winner is the prior "winner"
    methods: tuple[str, ...] = DIGIT_METHODS
    digits: tuple[int, ...] = tuple(range(10))
    power: float = Field(100.0, gt=0)
    samples: int = Field(8000, ge=2)
    hmc: HMCPlan = HMCPlan()
    mean_field_iterations: int = Field(1000, ge=1)
    pairs: int = Field(5, ge=1)
    mgvi_rounds: int = Field(5, ge=1)
    inception: str = ""  # a file with Inception-v3's weights adds the FID

    @field_validator("digits")
    @classmethod
    def _digits(cls, digits: tuple[int, ...]) -> tuple[int, ...]:
        for digit in digits:
            if not 0 <= digit <= 9:
                raise ValueError(f"got the digit {digit}, expected 0 to 9")
        if not digits or len(set(digits)) < len(digits):
            raise ValueError(f"got digits {digits}, expected one or more different ones")
        return digits

    @field_validator("priors")
    @classmethod
    def _priors(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            lookup(dict.fromkeys(DIGIT_PRIORS), name, "prior")
        return names

    @field_validator("methods")
    @classmethod
    def _methods(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            lookup(dict.fromkeys(DIGIT_METHODS), name, "method")
        if "hmc" not in names:
            raise ValueError(f"got methods {names}, expected hmc among them: the others are compared with it")
        return names


class RiddlePlan(Strict):
    """One way to solve the riddle: constraints, ladder of powers, method; 0 stands for the study's number."""

    name: str
    method: Literal["mean_field", "chains"] = "mean_field"
    without: tuple[str, ...] = ()
    powers: tuple[float, ...] = Field((0.5, 1.0, 3.0, 10.0), min_length=1)
    iterations: int | tuple[int, ...] = 50  # a power, or of each: optimiser steps, or trajectories of 10 leapfrogs
    optimizer: Literal["adam", "lbfgs"] = "adam"
    digit_networks: Literal[1, 2] = 1
    seeds: int = Field(0, ge=0)
    pairs: int = Field(0, ge=0)
    draws: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> RiddlePlan:
        for name in self.without:
            lookup(dict.fromkeys(RULES), name, "constraint")
        if any(not 0 < power < math.inf for power in self.powers):
            raise ValueError(f"got powers {self.powers}, expected one or more finite numbers > 0")
        if len(self.steps) != len(self.powers):
            raise ValueError(
                f"got {len(self.steps)} numbers of iterations for {len(self.powers)} powers; expected as many"
            )
        if min(self.steps) < 1:
            raise ValueError(f"got iterations {self.iterations}, expected 1 or more at each power")
        return self

    @property
    def steps(self) -> tuple[int, ...]:
        """Iterations of every power."""
        return (self.iterations,) * len(self.powers) if isinstance(self.iterations, int) else self.iterations


class RiddleSettings(Strict):
    data: str = "mnist"
    gan: GANPlan = GANPlan()
    seeds: int = Field(100, ge=2)
    pairs: int = Field(5, ge=1)
    draws: int = Field(40, ge=2)
    experiments: list[RiddlePlan] = Field(min_length=1)

    @field_validator("experiments")
    @classmethod
    def _names(cls, plans: list[RiddlePlan]) -> list[RiddlePlan]:
        names = [plan.name for plan in plans]
        if len(set(names)) < len(names):
            raise ValueError(f"got experiments {names}; expected different names")
        return plans

    @property
    def plans(self) -> list[RiddlePlan]:
        """The experiments, with the study's numbers where they give none."""
        own = {name: getattr(self, name) for name in ("seeds", "pairs", "draws")}
        return [
            plan.replace(**{name: getattr(plan, name) or value for name, value in own.items()})
            for plan in self.experiments
        ]


class RegretSettings(Strict):
    table: str = "belief_bench_digits_v1"
    space: str = "bench"
    encodings: list[str] = []  # of a space of shares, each replayed; empty: the space's own
    samplers: list[str] = Field(["random", "tpe", "tpe, a third random", "gp", "nsga2"], min_length=1)
    trials: int = Field(64, ge=2)
    replays: int = Field(20, ge=2)
    startup: int = Field(10, ge=1)
    seed: int = Field(0, ge=0)
