r"""Finals: the best beliefs of a search trained again over several seeds, with the matched normal and learned priors.

Single fits of one belief differ between seeds as much as good beliefs differ, so one run per belief proves nothing. The
finalists and the baseline are trained over the same seeds; the finalist with the best mean on validation wins, and its gain
is measured on test, once, for winner and baselines only. The bound's looseness is its change from K to 10 K.

The best matched normal that a search happened to find may have another order alpha, likelihood, kind of scale, network or
rate than the winner, and a gain over it would not be the pair's. So each finalist's *twin*, the matched normal that shares
all else with it, is trained as well. The baseline is the best of all these on validation, so that no gain measured there is
larger than the one over the finalist's own twin; it may differ from the winner in more than the pair.

A study may ask for learned priors as further baselines (VampPrior, flow, mixture): the matched normal of each of these
networks with its prior learned, over the same seeds and epochs; the best of a kind on validation is measured on test.

Each validation score is accompanied by one under a common logistic head (`metrics.common_head`), with the samples and
points of the search: it shows how much of a difference is due to the shape of a likelihood. It selects nothing.
Not here: intervals and conclusions (`verdict`), files (`result`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from autovae.data.datasets import Data
from autovae.metrics.bits import log_mass_bounds, score
from autovae.metrics.common_head import common_head_scores
from autovae.search.space import canonical
from autovae.search.study import Study
from autovae.search.verdict import Final, Gain, Verdict, paired_gain
from autovae.spec import VAESpec
from autovae.training.loop import Event, Trained, choose_device, fit_population

__all__ = ["candidates", "run_finals", "twins"]

# the settings of a spec that describe its network and training, not its belief
NETWORK = ("network", "hidden", "activation", "latent_dim", "learning_rate", "batch_size", "epochs")
MATCHED_NORMAL: dict[str, Any] = {
    "posterior": "normal",
    "prior": "normal",
    "learned_prior": "",
    "posterior_flow": False,
    "regulariser": "kl",
    "saturate": None,
    "estimator": None,
}
GAP_POINTS = 100  # points on which the change from K to 10 K is measured


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
    names = study.learned_priors_for(trials)
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
    test: dict[str, np.ndarray] = {}
    for final in (winner, base, *learned):
        scored()
        final.test = test[final.role] = _bits(final.fits, data, "test", samples, where)
    scored()

    def gain(role: str) -> Gain:
        return paired_gain(test[role], test["finalist"], len(ranked))

    return Verdict(
        finalists=ranked,
        baseline=base,
        gain_validation=paired_gain(base.validation, winner.validation, len(ranked)),
        gain_test=gain("baseline"),
        bound_gap=_gap(winner, data, samples, where),
        samples=samples,
        twins=others,
        learned_priors=learned,
        learned_prior_gains={final.role: gain(final.role) for final in learned},
    )


def twins(finalists: Sequence[dict[str, Any]], baseline: VAESpec) -> list[dict[str, Any]]:
    """The matched normal that shares all else with a finalist, of each finalist, once each; not the baseline itself."""
    found: dict[VAESpec, dict[str, Any]] = {}
    for row in finalists:
        twin = canonical(row["spec"].replace(**MATCHED_NORMAL))
        if twin != canonical(baseline) and not row["spec"].matched_normal:
            found.setdefault(twin, {**row, "spec": twin})
    return list(found.values())


def _with_prior(name: str, normals: Sequence[Final]) -> list[dict[str, Any]]:
    """The best matched normal of each network, with a learned prior; the normals are given best first."""
    hosts: dict[tuple[Any, ...], Final] = {}
    for final in normals:
        hosts.setdefault(_network(final.spec), final)
    return [{"spec": host.spec.replace(learned_prior=name), "number": host.trial} for host in hosts.values()]


def _network(spec: VAESpec) -> tuple[Any, ...]:
    return tuple(getattr(spec, name) for name in NETWORK)


def _bits(fits: Sequence[Trained], data: Data, part: str, samples: int, device: torch.device) -> np.ndarray:
    split = getattr(data, part)
    bounds = log_mass_bounds([fit.model for fit in fits], data, split, samples, seed=1, device=device)
    return np.array([score(per_point, data, split, samples).bits for per_point in bounds])


def _common_bits(fits: Sequence[Trained], data: Data, study: Study, device: torch.device) -> np.ndarray | None:
    """Validation bits under the common head; None for two levels, where a head has nothing but its masses."""
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
