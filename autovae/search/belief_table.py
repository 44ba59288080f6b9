"""`autovae fidelity RESULTS --beliefs`: pairs x likelihoods x ELBO, NLL, IS, FID and KID, of every belief of a search.

Every complete trial is trained again from its spec and seed and measured on one scale:

| column of beliefs.csv | what |
|---|---|
| elbo, nll | nats a validation point, of the mass of each level's bin: K = 1, and minus the bound with the finals' K |
| fid, kid, kid_error, inception_score, precision, recall | as many prior draws as test points, against training points |
| change | the new score minus the published one: 0 up to rounding if the model is the same |

ELBO and NLL therefore compare across likelihoods, as the score does. The last row is real test data, the floor. Each belief
has one seed, so neighbours may change places. The next report shows the table with the leaderboard, and learning curves from
losses.csv. Not here: scores of the saved models (`fidelity`), finals over seeds (`finals`).
"""

from __future__ import annotations

import ast
import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from autovae.data.datasets import Data
from autovae.export.card import to_prior
from autovae.export.fidelity import RealPoints, draws_of, real_points
from autovae.metrics.bits import log_mass_bounds, score
from autovae.metrics.fidelity import Fidelity, compare, extractor
from autovae.renames import renamed
from autovae.search.result import ResultsError, ResultsFolder
from autovae.spec import VAESpec, field_names
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
    results = ResultsFolder(Path(folder))
    trials = complete_trials(results)
    if not trials:
        raise ResultsError(f"{folder} has no complete trial, so there is no belief to measure")
    specs, data = specs_of(results), results.data(data_dir)
    network = extractor(features, data, weights, say=say)
    real = real_points(data, network, points)
    fits = fit_population(list(specs.values()), data, on_event=_told(say), device=device)
    _keep_losses(results, list(specs), fits)
    rows = _likelihood_rows(results, specs, fits, data)
    for row, fit in zip(rows, fits, strict=True):
        row |= _scores(_of_prior(fit, data, real, seed), network.label)
        if say:
            say(f"trial {row['number']}: FID {row['fid']:.3f}, KID {row['kid']:.5f}")
    floor = {"number": "", "belief": "real data", **_scores(compare(real.test, real.reference, seed), network.label)}
    rows.append(floor)
    results.write_table("beliefs.csv", rows)
    return rows


def belief_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The printed table, by NLL; real data first."""
    heads = {"elbo": 10, "nll": 10, "inception_score": 8, "fid": 10, "kid": 10}
    titles = ("ELBO", "NLL", "IS", "FID", "KID")
    yield f"{'belief':<58}" + "".join(f"{name:>{width}}" for name, width in zip(titles, heads.values(), strict=True))
    for row in sorted(rows, key=lambda row: row.get("nll", -math.inf)):
        cells = "".join(f"{row[name]:>{width}.4f}" if name in row else " " * width for name, width in heads.items())
        yield f"{row['belief']:<58}{cells}"


def complete_trials(results: ResultsFolder) -> dict[int, dict[str, Any]]:
    """The rows of trials.csv that were trained to the end, by number, as Python values."""
    path = results.path / "trials.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{name: _value(cell) for name, cell in renamed(row).items()} for row in csv.DictReader(file)]
    scored = (row for row in rows if row["state"] == "COMPLETE" and row.get("duplicate_of") in (None, ""))
    return {row["number"]: row for row in scored if math.isfinite(row["score"])}


def _value(cell: str) -> Any:
    """The number, list or truth value that a cell holds, else its text."""
    try:
        return ast.literal_eval(cell)
    except (ValueError, SyntaxError):
        return cell


def specs_of(results: ResultsFolder) -> dict[int, VAESpec]:
    """The spec of every complete trial by its number: from the study's log, else from trials.csv and study.toml."""
    logged = _logged(results.journal)
    return {number: logged.get(number) or _from_row(results, row) for number, row in complete_trials(results).items()}


def _logged(path: Path) -> dict[int, VAESpec]:
    if not path.is_file():
        return {}
    from autovae.search.workers.journal import open_journal

    storage = open_journal(path)
    trials = [t for study in storage.get_all_studies() for t in storage.get_all_trials(study._study_id, deepcopy=False)]
    return {t.number: VAESpec.from_dict(t.user_attrs["spec"]) for t in trials if "spec" in t.user_attrs}


def _from_row(results: ResultsFolder, row: Mapping[str, Any]) -> VAESpec:
    study = results.study
    settings = {**study.get("training", {}), **(study.get("space", {}).get("fixed") or {})}
    return VAESpec.from_dict(settings | {name: row[name] for name in field_names() if row.get(name, "") != ""})


def _likelihood_rows(
    results: ResultsFolder, specs: Mapping[int, VAESpec], fits: list[Trained], data: Data
) -> list[dict[str, Any]]:
    rule = results.study["score"]
    models, split = [fit.model for fit in fits], data.validation
    searched = log_mass_bounds(models, data, split, rule["samples"], rule["points"])
    single = log_mass_bounds(models, data, split, 1, POINTS, seed=1).double().mean(1).tolist()
    many = log_mass_bounds(models, data, split, rule["final_samples"], POINTS, seed=1).double().mean(1).tolist()
    before = complete_trials(results)
    return [
        {
            "number": number,
            "belief": spec.belief,
            "elbo": elbo,
            "nll": -bound,
            "change": score(search, data, split, rule["samples"]).bits - before[number]["score"],
        }
        for (number, spec), search, elbo, bound in zip(specs.items(), searched, single, many, strict=True)
    ]


def _keep_losses(results: ResultsFolder, numbers: Sequence[int], fits: Sequence[Trained]) -> None:
    """losses.csv: learning curves for results without the study's log."""
    rows = [
        {"number": number, "epoch": row["epoch"], "loss": round(row["loss"], 5)}
        for number, fit in zip(numbers, fits, strict=True)
        for row in fit.history
    ]
    results.write_table("losses.csv", rows)


@torch.no_grad()
def _of_prior(fit: Trained, data: Data, real: RealPoints, seed: int) -> Fidelity | None:
    """Fidelity of prior draws; None unless all are finite."""
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
