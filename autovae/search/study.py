r"""A study: one TOML file with the search space, the data, the budget and the rules of judgement.

    purpose = "Which pair of families and which likelihood suit handwritten digits?"
    data = "digits"
    space = "quickstart"
    trials = 64                    # finished trials that the study shall have in all
    batch = 16                     # trials trained together as one population

    [training]                     # settings of VAESpec for every trial; the space's choices win over them
    epochs = 60

    [score]                        # bits per dimension: K samples in search, final_samples for winners
    samples = 16
    points = 1000

    baselines = ["normal"]         # also "mixture", "vampprior", "flow": learned priors, trained in the finals

    [finals]                       # the best beliefs and the baselines over several seeds
    top = 3
    seeds = 8

A study is never edited once it has results: its resolved form is written beside them and compared on every run.
Not here: running it (`run`), the possible choices (`space`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from optuna.samplers import BaseSampler
from pydantic import BaseModel, ConfigDict, Field

from autovae.registry import LEARNED_PRIORS, lookup, unknown
from autovae.search.extras import EXTRAS
from autovae.search.files import find_file, read_toml, validated
from autovae.search.parameters import Choices
from autovae.search.pruners import PRUNERS
from autovae.search.samplers import EXHAUSTIVE, SAMPLERS, Question
from autovae.search.space import Space, load_space
from autovae.seeds import stream_seed
from autovae.spec import VAESpec, field_names

__all__ = ["Study", "load_study"]

LATER = ("baselines", "repeats", "stop", "score.also", "pruning.rule")
INCOMPARABLE = {"elbo", "loss", "log_likelihood", "iwae", "vr", "nll", "reconstruction"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScoreSettings(_Strict):
    """How trials are judged."""

    metric: str = "bits_per_dimension"
    samples: int = Field(16, ge=1)
    points: int = Field(1000, ge=2)
    final_samples: int = Field(1000, ge=1)
    also: list[str] = []


class Finals(_Strict):
    """How many of the best beliefs are trained again, over how many seeds."""

    top: int = Field(3, ge=1)
    seeds: int = Field(20, ge=2)


class Pruning(_Strict):
    """At each rung (in epochs) the rule decides which members of a batch continue; see `pruners`."""

    rule: str = "halving"
    rungs: list[int] = []
    keep: float = Field(0.5, gt=0, lt=1)


class Stop(_Strict):
    """End before `trials` when the expected gain is below the noise of `runs` matched normals; see `stopping`."""

    after: int = Field(32, ge=4)
    runs: int = Field(4, ge=2)


class StudyFile(_Strict):
    """A file under studies/ of kind "search"."""

    kind: Literal["search"] = "search"
    version: int = Field(1, ge=1)
    purpose: str
    data: str
    space: str
    trials: int = Field(ge=1)
    batch: int = Field(16, ge=1)
    seed: int = Field(0, ge=0)
    repeats: int = Field(1, ge=1)
    sampler: str = "tpe"
    random_share: float = Field(1 / 3, ge=0, le=1)
    baselines: list[str] = ["normal"]
    training: dict[str, Any] = {}
    score: ScoreSettings = ScoreSettings()
    pruning: Pruning = Pruning()
    finals: Finals = Finals()
    stop: Stop | None = None


@dataclass(frozen=True)
class Study:
    """A checked study with its space."""

    name: str
    file: StudyFile
    space: Space

    def spec(self, settings: Mapping[str, Any], seed: int) -> VAESpec:
        """The spec of a trial: the study's training, the space's fixed settings, the trial's choices, a seed."""
        values = {**self.file.training, **self.space.fixed, **settings}
        return VAESpec(**values, seed=seed, data_seed=self.file.seed)

    @property
    def epochs(self) -> int:
        """Epochs of a trial, where the space does not choose them."""
        return int(self.file.training.get("epochs", self.space.fixed.get("epochs", 100)))

    def trial_seed(self, number: int) -> int:
        """The training seed of a trial: a stream of (study seed, trial number)."""
        return stream_seed(self.file.seed, "trial", number) % 2**31

    def final_seeds(self, trials: int | None = None) -> list[int]:
        """The seeds over which finalists and baseline are compared in pairs.

        A study run for fewer trials than its file asks for has as many fewer seeds (at least 3): a look, not a result.
        """
        share = min(1.0, (trials or self.file.trials) / self.file.trials)
        count = max(min(3, self.file.finals.seeds), math.ceil(share * self.file.finals.seeds))
        return [stream_seed(self.file.seed, "final", index) % 2**31 for index in range(count)]

    def baselines(self) -> list[dict[str, Any]]:
        """Settings of the matched normal with every likelihood that the space offers: always in the study, first."""
        base: dict[str, Any] = {"posterior": "normal", "prior": "normal"}
        likelihood = self.space.parameters.get("likelihood")
        if not isinstance(likelihood, Choices):
            return [base]
        return [{**base, "likelihood": name} for name in likelihood.choices]

    @property
    def learned_priors(self) -> tuple[str, ...]:
        """The learned priors among the baselines: the best matched normal again, with its prior learned."""
        return tuple(name for name in self.file.baselines if name != "normal")

    def learned_priors_for(self, trials: int | None) -> tuple[str, ...]:
        """The learned priors of a run of this many trials: none in one shorter than the study's file, which is a look."""
        return self.learned_priors if (trials or self.file.trials) >= self.file.trials else ()

    def to_dict(self) -> dict[str, Any]:
        """The resolved study as plain values."""
        written = self.file.model_dump(exclude={"space"})
        plain = StudyFile(purpose="", data="", space="", trials=1).model_dump()
        for key in LATER:  # unused settings of later versions are left out, so that older results still match
            *path, last = key.split(".")
            table, default = written, plain
            for part in path:
                table, default = table[part], default[part]
            if table[last] == default[last]:
                table.pop(last)
        if "objective" not in self.space.parameters:
            written["training"] = {"objective": "auto", **written["training"]}
        return {"name": self.name, **written, "space": self.space.to_dict()}

    def sampler_for(self, number: int, startup: int) -> BaseSampler:
        """A sampler for one question, seeded by (study seed, trial number). A share of the questions is random."""
        file = self.file
        share = 0.0 if file.sampler in EXHAUSTIVE else file.random_share
        is_random = math.floor((number + 1) * share) > math.floor(number * share)
        seed = stream_seed(file.seed, "sampler", number) % 2**32
        question = Question(seed, file.seed, self.space, startup, file.batch)
        return SAMPLERS["random" if is_random else file.sampler](question)

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that may not change once there are results: all but the number of trials."""
        values = self.to_dict()
        values.pop("trials")
        return values


def load_study(name: str | Path) -> Study:
    """The study of a name (studies/NAME.toml) or a path. Raises `ValueError` naming file, place and remedy."""
    path = find_file("studies", name)
    where = str(path)
    file = validated(StudyFile, read_toml(path), where)
    lookup(SAMPLERS, file.sampler, f"sampler in {where}:")
    lookup(PRUNERS, file.pruning.rule, f"pruning.rule in {where}:")
    for name in file.score.also:
        lookup(EXTRAS, name, f"score.also in {where}:")
    space = load_space(_space_path(path, file.space))
    for key in file.training:
        if key not in field_names():
            raise ValueError(f"{where}: training: {unknown(key, field_names(), 'setting of VAESpec')}")
    if file.score.metric in INCOMPARABLE:
        raise ValueError(
            f"{where}: score.metric = {file.score.metric!r} does not compare beliefs: densities of different "
            "likelihoods and bounds of different alpha or K have different units; use metric = 'bits_per_dimension', "
            "the mass of each level under a bound of fixed K"
        )
    if file.score.metric != "bits_per_dimension":
        raise ValueError(f"{where}: {unknown(file.score.metric, ['bits_per_dimension'], 'score.metric')}")
    known = ("normal", *LEARNED_PRIORS)
    for name in file.baselines:
        if name not in known:
            raise ValueError(f"{where}: baselines: {unknown(name, known, 'baseline')}")
    if "normal" not in file.baselines or len(set(file.baselines)) < len(file.baselines):
        raise ValueError(f"{where}: baselines must name 'normal' and each learned prior once, got {file.baselines}")
    study = Study(path.stem, file, space)
    for key in file.training:
        if key in space.decides:
            raise ValueError(f"{where}: training.{key} is searched by the space {space.name}; remove one of the two")
    try:
        study.spec(space.example(), seed=0)
        study.sampler_for(0, 1)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from None
    return study


def _space_path(path: Path, space: str) -> str | Path:
    """A space given as a path may be relative to the study file."""
    if space.endswith(".toml") and not Path(space).is_file() and (path.parent / space).is_file():
        return path.parent / space
    return space
