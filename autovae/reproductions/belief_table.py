"""`autovae fidelity RESULTS --beliefs`: pairs x likelihoods x ELBO, NLL, IS, FID and KID, of every belief of a search.

Every complete trial is trained again from its spec and seed, and measured on one scale:

| column of beliefs.csv | what |
|---|---|
| elbo, nll | nats a validation point, of the masses that the levels' bins have: K = 1, and minus the bound with the finals' K |
| fid, kid, kid_error, inception_score, precision, recall | as many draws of the prior as test points, beside training points |
| change | the trial's score as measured again less the published one: 0, or rounding, where it is the same model |

so that ELBO and NLL compare between likelihoods, as the score does. The last row is real test data: the floor. Single fits,
one seed each: neighbours may change places. The next report shows the table beside the leaderboard, and learning curves from
losses.csv. Not here: scores of the saved models over all their sets (`fidelity`), finals over seeds (`search.finals`).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from autovae.data.datasets import Data
from autovae.export.card import to_prior
from autovae.export.fidelity import RealPoints, draws_of, real_points
from autovae.metrics.bits import log_mass_bounds, score
from autovae.metrics.fidelity import Fidelity, compare, extractor
from autovae.report.record import Record, read_record
from autovae.search.result import ResultsError, ResultsFolder
from autovae.spec import VAESpec
from autovae.training.loop import Event, fit_population
from autovae.training.trained import Trained

__all__ = ["belief_lines", "measure_beliefs", "specs_of"]

POINTS = 1000  # validation points of ELBO and NLL
SCORES = ("inception_score", "fid", "kid", "kid_error", "precision", "recall", "points")


def measure_beliefs(
    folder: str | Path,
    features: str = "domain",
    weights: str | Path | None = None,
    points: int | None = None,
    data_dir: str | Path | None = None,
    device: str | None = None,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Train, measure, and write beliefs.csv into the results folder; its rows."""
    record = read_record(folder)
    specs = specs_of(record)
    if not specs:
        raise ResultsError(f"{record.folder} has no complete trial, so there is no belief to measure")
    data = ResultsFolder(record.folder).data(data_dir)
    network = extractor(features, data, weights, say=say)
    real = real_points(data, network, points)
    fits = fit_population(list(specs.values()), data, on_event=_told(say), device=device)
    _keep_losses(record, list(specs), fits)
    rows = _likelihood_rows(record, specs, fits, data)
    for row, fit in zip(rows, fits, strict=True):
        row |= _scores(_of_prior(fit, data, real, seed), network.label)
        if say:
            say(f"trial {row['number']}: FID {row['fid']:.3f}, KID {row['kid']:.5f}")
    floor = {"number": "", "belief": "real data", **_scores(compare(real.test, real.reference, seed), network.label)}
    rows.append(floor)
    ResultsFolder(record.folder).write_table("beliefs.csv", rows)
    return rows


def belief_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The table for people, by NLL; real data first."""
    heads = {"elbo": 10, "nll": 10, "inception_score": 8, "fid": 10, "kid": 10}
    titles = ("ELBO", "NLL", "IS", "FID", "KID")
    yield f"{'belief':<58}" + "".join(f"{name:>{width}}" for name, width in zip(titles, heads.values(), strict=True))
    for row in sorted(rows, key=lambda row: row.get("nll", -math.inf)):
        cells = "".join(f"{row[name]:>{width}.4f}" if name in row else " " * width for name, width in heads.items())
        yield f"{row['belief']:<58}{cells}"


def specs_of(record: Record) -> dict[int, VAESpec]:
    """The spec of every complete trial by its number: from the study's log, else from trials.csv and study.toml."""
    logged = _logged(record.folder / "trials.journal")
    return {row["number"]: logged.get(row["number"]) or _from_row(record, row) for row in record.complete}


def _logged(path: Path) -> dict[int, VAESpec]:
    if not path.is_file():
        return {}
    from autovae.search.workers.journal import open_journal

    storage = open_journal(path)
    trials = [t for study in storage.get_all_studies() for t in storage.get_all_trials(study._study_id, deepcopy=False)]
    return {t.number: VAESpec.from_dict(t.user_attrs["spec"]) for t in trials if "spec" in t.user_attrs}


def _from_row(record: Record, row: Mapping[str, Any]) -> VAESpec:
    study = record.study
    settings = {**study.get("training", {}), **(study.get("space", {}).get("fixed") or {})}
    known = {field.name: field for field in fields(VAESpec)}
    for name in known.keys() & row.keys():
        value = row[name]
        if isinstance(value, str) and value.startswith(("[", "(")):
            value = ast.literal_eval(value)
        settings[name] = int(value) if name in ("latent_dim", "epochs", "seed", "samples") else value
    return VAESpec.from_dict(settings)


def _likelihood_rows(
    record: Record, specs: Mapping[int, VAESpec], fits: list[Trained], data: Data
) -> list[dict[str, Any]]:
    rule = record.study["score"]
    models, split = [fit.model for fit in fits], data.validation
    searched = log_mass_bounds(models, data, split, rule["samples"], rule["points"])
    single = log_mass_bounds(models, data, split, 1, POINTS, seed=1).double().mean(1).tolist()
    many = log_mass_bounds(models, data, split, rule["final_samples"], POINTS, seed=1).double().mean(1).tolist()
    before = {row["number"]: row["score"] for row in record.complete}
    return [
        {
            "number": number,
            "belief": spec.belief,
            "elbo": elbo,
            "nll": -bound,
            "change": score(search, data, split, rule["samples"]).bits - before[number],
        }
        for (number, spec), search, elbo, bound in zip(specs.items(), searched, single, many, strict=True)
    ]


def _keep_losses(record: Record, numbers: Sequence[int], fits: Sequence[Trained]) -> None:
    """losses.csv, for learning curves where the study's log is not there."""
    rows = [
        {"number": number, "epoch": row["epoch"], "loss": round(row["loss"], 5)}
        for number, fit in zip(numbers, fits, strict=True)
        for row in fit.history
    ]
    ResultsFolder(record.folder).write_table("losses.csv", rows)


@torch.no_grad()
def _of_prior(fit: Trained, data: Data, real: RealPoints, seed: int) -> Fidelity | None:
    """Fidelity of draws of the prior; None where they are not finite everywhere."""
    prior = to_prior(fit)
    z = prior.sample(real.count, torch.Generator().manual_seed(seed))
    x = draws_of(prior, z, data.support == "binary", seed)
    return compare(real.extractor(x), real.reference, seed) if bool(x.isfinite().all()) else None


def _scores(found: Fidelity | None, label: str) -> dict[str, Any]:
    values = found.to_dict() if found is not None else dict.fromkeys(SCORES, math.nan)
    return {**{name: values[name] for name in SCORES}, "features": label}


def _told(say: Callable[[str], None] | None) -> Callable[[Event], None] | None:
    if say is None:
        return None
    return lambda event: say(f"epoch {event.epoch} of {len(event.members)} beliefs") if event.kind == "epoch" else None
