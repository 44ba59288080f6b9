r"""Finals: the best beliefs of a search trained again over several seeds, beside the matched normal, and an honest winner.

One run per belief proves nothing: single fits of one belief differ between seeds as much as good beliefs differ. So
the finalists and the baseline are trained over the same seeds, the winner is the finalist with the best mean on
validation, and its gain over the baseline is the mean of differences paired by seed, with the interval

    mean(d) +- t_{n-1}(1 - 0.05 / (2 m)) sd(d) / sqrt(n)        n seeds, m finalists (Bonferroni: the best of m was picked)

on validation, where it was picked, and on test, measured once for winner and baseline alone. The bound's own looseness
is the change from K to 10 K; a lead smaller than that names no winner.

A search of beliefs alone gives every matched normal the same network. Where it chooses the network or the learning rate
too, the best matched normal it happened to find may owe its place to a worse network; so each finalist's *twin*, the
matched normal with that finalist's network, learning rate, likelihood and alpha, is trained beside it, and the baseline
is the best of them on validation. What a gain is worth is then the pairing's.

A study may ask for learned priors as further baselines (VampPrior, flow, mixture): the matched normal with its prior
learned, on each of these networks, trained over the same seeds for the same epochs; the best of a kind on validation
stands. They are measured on test too, and the verdict says how the winner stands against each.

Beside every validation score stands the one under a common logistic head (`metrics.common_head`), with the samples and
points of the search: it shows how much of a difference is the shape of a likelihood. It picks nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import stats

from autovae.data.datasets import Data
from autovae.metrics.bits import log_mass_bounds, score
from autovae.metrics.common_head import common_head_scores
from autovae.search.space import canonical
from autovae.search.study import Study
from autovae.spec import VAESpec
from autovae.training.loop import Event, Trained, choose_device, fit_population

__all__ = ["Final", "Gain", "Verdict", "candidates", "network_words", "paired_gain", "run_finals", "twins"]

# What a spec says of its network and how it is trained, not of beliefs.
NETWORK = ("network", "hidden", "activation", "latent_dim", "learning_rate", "batch_size", "epochs")
MATCHED_NORMAL: dict[str, Any] = {
    "posterior": "normal",
    "prior": "normal",
    "rival": "",
    "posterior_flow": False,
    "regulariser": "kl",
    "saturate": None,
    "estimator": None,
}
GAP_POINTS = 100  # points on which the change from K to 10 K is measured


@dataclass(frozen=True)
class Gain:
    """How many bits per dimension the winner is below the baseline, paired by seed, with its interval."""

    mean: float
    low: float
    high: float
    seeds: int
    level: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} bits/dim [{self.low:.4f}, {self.high:.4f}]"


@dataclass
class Final:
    """A finalist or a baseline: its fits over the seeds, their validation bits, their test bits if measured."""

    role: str  # "finalist", "baseline", "twin N", or the name of a learned prior
    spec: VAESpec
    trial: int
    fits: list[Trained]
    validation: np.ndarray
    test: np.ndarray | None = None
    common_head: np.ndarray | None = None  # validation bits of the means under one logistic head; not for two levels

    @property
    def mean(self) -> float:
        return float(self.validation.mean())

    @property
    def order(self) -> float:
        """What finals are sorted by: the mean, and last where a seed failed."""
        return self.mean if math.isfinite(self.mean) else math.inf

    @property
    def best(self) -> int:
        """The seed whose fit is exported: the best on validation."""
        return int(np.nanargmin(self.validation))


@dataclass
class Verdict:
    """The finals, ranked, and what may be said of them."""

    finalists: list[Final]  # by mean validation bits, best first
    baseline: Final
    gain_validation: Gain
    gain_test: Gain
    bound_gap: float  # bits per dimension by which the bound still moves from K to 10 K, winner, on a few points
    samples: int
    rivals: list[Final] = field(default_factory=list)
    rival_gains: dict[str, Gain] = field(default_factory=dict)  # of the winner over each learned prior, on test
    twins: list[Final] = field(default_factory=list)  # the matched normals that the baseline was better than

    @property
    def winner(self) -> Final:
        return self.finalists[0]

    @property
    def wins(self) -> bool:
        """Whether the winner is another belief than the baseline, with an interval above 0 and a lead above the gap."""
        if self.winner.spec.belief == self.baseline.spec.belief:
            return False
        return self.gain_test.low > 0 and self.gain_validation.low > 0 and self.gain_test.mean > self.bound_gap

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        return " ".join([self._against_normal(), *(self._against(name) for name in self.rival_gains)])

    def _against(self, rival: str) -> str:
        """How the winner stands against a learned prior."""
        gain, name = self.rival_gains[rival], f"the learned {rival} prior at the same budget"
        span = f"{abs(gain.mean):.4f} bits per dimension on test"
        if gain.low > 0:
            return f"It beats {name} by {span} ({gain.low:.4f} to {gain.high:.4f})."
        if gain.high < 0:
            return f"But {name} beats it by {span} ({-gain.high:.4f} to {-gain.low:.4f})."
        return f"It does not differ from {name} beyond doubt ({gain.mean:.4f}, {gain.low:.4f} to {gain.high:.4f})."

    def _against_normal(self) -> str:
        winner, baseline, gain = self.winner.spec, self.baseline.spec, self.gain_test
        level = f"{100 * gain.level:.3g} % interval {gain.low:.4f} to {gain.high:.4f}, {gain.seeds} seeds"
        if winner.belief == baseline.belief:
            return f"Nothing beats the matched normal: {baseline.belief} is itself the best of the finalists."
        if self.wins:
            return (
                f"{winner.belief} beats the matched normal ({baseline.belief}) by {gain.mean:.4f} bits per dimension on "
                f"test ({level})."
            )
        why = (
            f"the lead is smaller than the looseness of the bound, {self.bound_gap:.4f}"
            if gain.low > 0 and gain.mean <= self.bound_gap
            else "the interval holds 0 on test or validation"
        )
        return (
            f"No finalist beats the matched normal ({baseline.belief}) beyond doubt: the best, {winner.belief}, differs by "
            f"{gain.mean:.4f} bits per dimension on test ({level}); {why}."
        )


def paired_gain(baseline: np.ndarray, candidate: np.ndarray, picked_from: int) -> Gain:
    """The mean of baseline - candidate over common seeds, with the interval of the module's formula."""
    differences = (baseline - candidate)[np.isfinite(baseline - candidate)]
    count = len(differences)
    level = 1 - 0.05 / max(1, picked_from)
    if count < 2:
        return Gain(math.nan, -math.inf, math.inf, count, level)
    mean, error = float(differences.mean()), float(differences.std(ddof=1) / math.sqrt(count))
    width = float(stats.t.ppf(0.5 + level / 2, count - 1)) * error
    return Gain(mean, mean - width, mean + width, count, level)


def candidates(study: Study, rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The best distinct beliefs among complete trials, and the best matched normal, as rows with spec, number, bits.

    A belief that was tried several times counts with the mean of its scores.
    """
    groups: dict[VAESpec, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(canonical(row["spec"]), []).append(row)
    means = {spec: float(np.mean([row["bits"] for row in group])) for spec, group in groups.items()}
    ranked = sorted(groups, key=lambda spec: (means[spec], groups[spec][0]["number"]))
    normal = [spec for spec in ranked if spec.matched_normal]
    if not normal:
        raise ValueError(
            "no matched normal trial is complete, so there is no baseline to compare with; see `reason` in trials.csv"
        )
    finalists = ranked[: study.file.finals.top]
    return [groups[spec][0] for spec in finalists], groups[normal[0]][0]


def run_finals(
    study: Study,
    data: Data,
    finalists: Sequence[dict[str, Any]],
    baseline: dict[str, Any],
    on_event: Callable[[Event], Any] | None = None,
    device: str | None = None,
    trials: int | None = None,
    on_scored: Callable[[int, int], Any] = lambda done, total: None,
) -> Verdict:
    """Train finalists and baselines over the same seeds, rank on validation, measure winner and baselines on test.

    `on_scored(done, total)` is called before every belief that is scored on a split, and at the end.
    """
    seeds = study.final_seeds(trials)
    samples, where = study.file.score.final_samples, choose_device(device)
    normals = [("baseline", baseline), *(("twin", row) for row in twins(finalists, baseline["spec"]))]
    names = study.rivals_for(trials)
    networks = len({_network(row["spec"]) for _, row in normals})
    measured = len(finalists) + len(normals) + len(names) * networks + 2 + len(names)  # on validation, then on test
    done = 0

    def scored() -> None:
        nonlocal done
        on_scored(done, measured)
        done += 1

    def train(entries: Sequence[tuple[str, dict[str, Any]]]) -> list[Final]:
        specs = [row["spec"].replace(seed=seed) for _, row in entries for seed in seeds]
        fits = fit_population(specs, data, on_event=on_event, device=device)
        finals = []
        for place, (role, row) in enumerate(entries):
            scored()
            own = fits[place * len(seeds) : (place + 1) * len(seeds)]
            bits, common = _bits(own, data, "validation", samples, where), _common_bits(own, data, study, where)
            finals.append(Final(role, row["spec"], row["number"], own, bits, common_head=common))
        return finals

    finals = train([*(("finalist", row) for row in finalists), *normals])
    ranked = sorted(finals[: len(finalists)], key=lambda final: final.order)
    base, *others = sorted(finals[len(finalists) :], key=lambda final: final.order)
    base.role = "baseline"
    for place, other in enumerate(others, 1):
        other.role = f"twin {place}"
    tried = [(name, row) for name in names for row in _with_prior(name, [base, *others])]
    priors = train(tried) if tried else []
    learned = [min((p for p in priors if p.role == name), key=lambda final: final.order) for name in names]
    winner = ranked[0]
    for final in (winner, base, *learned):
        scored()
        final.test = _bits(final.fits, data, "test", samples, where)
    scored()
    assert winner.test is not None  # both were just measured
    assert base.test is not None
    gains = {
        final.role: paired_gain(final.test, winner.test, len(ranked)) for final in learned if final.test is not None
    }
    return Verdict(
        finalists=ranked,
        baseline=base,
        gain_validation=paired_gain(base.validation, winner.validation, len(ranked)),
        gain_test=paired_gain(base.test, winner.test, len(ranked)),
        bound_gap=_gap(winner, data, samples, where),
        samples=samples,
        twins=others,
        rivals=learned,
        rival_gains=gains,
    )


def twins(finalists: Sequence[dict[str, Any]], baseline: VAESpec) -> list[dict[str, Any]]:
    """The matched normal of each finalist whose network or training is not the baseline's, once each."""
    found: dict[VAESpec, dict[str, Any]] = {}
    for row in finalists:
        spec: VAESpec = row["spec"]
        if _network(spec) != _network(baseline) and not spec.matched_normal:
            twin = canonical(spec.replace(**MATCHED_NORMAL))
            found.setdefault(twin, {**row, "spec": twin})
    return list(found.values())


def _with_prior(name: str, normals: Sequence[Final]) -> list[dict[str, Any]]:
    """The best matched normal of each network, with a learned prior; the normals are given best first."""
    hosts: dict[tuple[Any, ...], Final] = {}
    for final in normals:
        hosts.setdefault(_network(final.spec), final)
    return [{"spec": host.spec.replace(rival=name), "number": host.trial} for host in hosts.values()]


def _network(spec: VAESpec) -> tuple[Any, ...]:
    return tuple(getattr(spec, name) for name in NETWORK)


def network_words(spec: VAESpec) -> str:
    """The network and its training in a few words: what beliefs are compared at."""
    hidden = "-".join(map(str, spec.hidden)) or "no hidden layer"
    kind = "" if spec.network == "mlp" else f"{spec.network} "
    return f"{kind}{hidden} {spec.activation}, {spec.latent_dim} latents, rate {spec.learning_rate:.2g}"


def _bits(fits: Sequence[Trained], data: Data, part: str, samples: int, device: torch.device) -> np.ndarray:
    split = getattr(data, part)
    bounds = log_mass_bounds([fit.model for fit in fits], data, split, samples, seed=1, device=device)
    return np.array([score(per_point, data, split, samples).bits for per_point in bounds])


def _common_bits(fits: Sequence[Trained], data: Data, study: Study, device: torch.device) -> np.ndarray | None:
    """Validation bits under the common head; None for two levels, where each head's own masses are all there is."""
    if data.levels == 2:
        return None
    settings = study.file.score
    models = [fit.model for fit in fits]
    split = data.validation
    scores = common_head_scores(models, data, split, settings.samples, settings.points, seed=1, device=device)
    return np.array([found.bits for found in scores])


def _gap(final: Final, data: Data, samples: int, device: torch.device) -> float:
    """How far the bound still moves from K to 10 K, in bits per dimension: its looseness is at least of this size."""
    model = [final.fits[final.best].model]
    split = data.validation
    count = min(GAP_POINTS, len(split))
    few, many = (log_mass_bounds(model, data, split, k, count, 2, device) for k in (samples, 10 * samples))
    return float(torch.clamp((many - few).double().mean() / (data.domain.features * math.log(2)), min=0.0))
