"""The plan of a study: its settings in words, and an estimate of its time."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from autovae.search.study import Study

if TYPE_CHECKING:
    from autovae.data.datasets import Data

__all__ = ["estimate_seconds", "in_words", "member_epochs", "plan_rows", "time_row"]

PROBE_POINTS, PROBE_MEMBERS = 4000, 4  # a short training that times this machine
SPREAD = 2  # the estimate's factor of error: beliefs differ, and machines have other work


def plan_rows(study: Study, trials: int | None = None) -> list[tuple[str, str]]:
    """(what, value) lines: purpose, data, space, trials, training, score, finals."""
    file = study.file
    size = study.space.size
    training = {**file.training, **study.space.fixed}
    rungs = f", {file.pruning.rule} at epochs {', '.join(map(str, file.pruning.rungs))}" if file.pruning.rungs else ""
    return [
        ("study", f"{study.name} (version {file.version})"),
        ("purpose", file.purpose),
        ("data", file.data),
        ("space", f"{study.space.name}: {'continuous' if size is None else f'{size} different choices'}"),
        *((f"  {name}", value) for name, value in study.space.describe()),
        ("trials", f"{trials or file.trials}, {file.batch} trained together, sampler {file.sampler}{rungs}"),
        (
            "baselines",
            "; ".join([*map(_words, study.baselines()), *(f"{name} prior (finals)" for name in study.learned_priors)]),
        ),
        ("training", ", ".join(f"{name} = {value}" for name, value in training.items()) or "defaults of VAESpec"),
        (
            "score",
            f"{', '.join([file.score.metric, *file.score.also])}, K = {file.score.samples} on {file.score.points} "
            "validation points",
        ),
        (
            "finals",
            f"top {file.finals.top} and the baselines over {file.finals.seeds} seeds, K = {file.score.final_samples}",
        ),
    ]


def _words(settings: dict[str, object]) -> str:
    rest = [str(value) for name, value in settings.items() if name not in ("posterior", "prior")]
    return ", ".join([f"{settings['posterior']}|{settings['prior']}", *rest])


def member_epochs(study: Study, trials: int | None = None) -> tuple[float, float]:
    """Epochs of one member in the search and in the finals, if halving at the rungs keeps its share."""
    file, epochs = study.file, study.epochs
    rule, share, spent, before = file.pruning, 1.0, 0.0, 0
    for rung in sorted(rung for rung in rule.rungs if rung < epochs):
        spent, before = spent + share * (rung - before), rung
        share *= rule.keep if rule.rule != "none" else 1.0
    search = (trials or file.trials) * (spent + share * (epochs - before))
    entries = file.finals.top + 1 + len(study.learned_priors_for(trials))
    return search, float(entries * len(study.final_seeds(trials)) * epochs)


def estimate_seconds(study: Study, data: Data, trials: int | None = None, device: str | None = None) -> float:
    """Seconds that the study would take here, from the second short epoch of a few members (the first includes set-up)."""
    from autovae.training.loop import Event, fit_population

    spec = study.spec(study.space.example(), seed=0)
    points = min(len(data.train), max(PROBE_POINTS, spec.batch_size))
    probe = replace(data, train=data.train.take(slice(0, points)))
    marks: list[float] = []

    def on_event(event: Event) -> None:
        if event.kind == "epoch":
            marks.append(time.perf_counter())

    specs = [spec.replace(epochs=2, seed=seed) for seed in range(PROBE_MEMBERS)]
    fit_population(specs, probe, on_event=on_event, device=device)
    per_member = (marks[-1] - marks[-2]) / PROBE_MEMBERS * len(data.train) / points
    return per_member * sum(member_epochs(study, trials))


def time_row(
    study: Study,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
    trials: int | None = None,
    device: str | None = None,
) -> tuple[str, str]:
    """("time", an estimate for this machine, or why there is none)."""
    from autovae.data.catalogue import catalogue
    from autovae.data.datasets import load

    name = dataset or study.file.data
    if any(row["name"] == name and not row["present"] for row in catalogue(data_dir)):
        return "time", f"not known: {name} is not on this machine yet, and a plan downloads nothing"
    try:
        data = load(dataset or study.file.data, data_dir=data_dir, seed=study.file.seed)
        return "time", in_words(estimate_seconds(study, data, trials, device))
    except (ValueError, OSError) as error:
        return "time", f"not known: {' '.join(str(error).split())}"


def in_words(seconds: float) -> str:
    """A time with sensible precision."""
    cores = os.cpu_count() or 1
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"about {_two(seconds / size)} {unit} of training on this machine ({cores} cores), within a factor of {SPREAD}"
    return (
        f"about {math.ceil(seconds)} seconds of training on this machine ({cores} cores), within a factor of {SPREAD}"
    )


def _two(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
